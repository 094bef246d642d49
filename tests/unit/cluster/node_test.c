/* A node over real storage in a folder of its own: founding, changes of the catalogue with readers
 * on other loops, restarts. */
#include <check.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "cluster/node_priv.h"
#include "cluster/partition_priv.h"
#include "storage/storage.h"

enum { LOOPS = 3 };

static char dir[64];
static struct loops *loops;
static struct workers *workers;
static struct storage *storage;
static struct node *node;
static sem_t done;
static int64_t tables;
static struct catalog_watcher watchers[LOOPS];
static _Atomic int seen_streams[LOOPS], changes[LOOPS];

static void on_catalog(struct catalog_watcher *w, const struct catalog *c)
{
	int i = loop_index(w->loop);

	ck_assert_ptr_eq(loop_here(), w->loop);
	ck_assert_ptr_eq(node_catalog(node, w->loop), c);
	seen_streams[i] = catalog_stream_count(c);
	changes[i]++;
}

/* Groups of a loop whose replica here knows who its members are to be. */
static int told_at_boot;
static int told_of(int loop)
{
	struct partition *p;
	int told = 0;

	for (uint32_t at = 0; (p = map_next(&node->each[loop].partitions, &at)) != NULL;)
		told += p->wanted_ids != NULL;
	return told;
}

static enum err start(char *why, size_t size)
{
	struct storage_conf sc = {
		dir, 0, 60000, 8 << 20, 32 << 20, 8 << 20, 32 << 20, 256, true, 0, 1 << 20};
	struct node_conf nc = {.id = 7,
		.name = "n",
		.rack = "",
		.cluster_name = "test",
		.seeds = "",
		.stream_partitions = 3,
		.stream_replicas = 3,
		.retention_ms = 604800000,
		.retention_bytes = -1,
		.tables = tables,
		.inflight_bytes_max = 16 << 20,
		.rows_bytes_max = 8 << 20};
	enum err e;

	loops = loops_new(LOOPS);
	workers = workers_new(2);
	ck_assert_int_eq(storage_open(&sc, loops, workers, &storage, why, size), OK);
	e = node_open(&nc, loops, workers, storage, &node, why, size);
	if (e != OK)
		return e;
	for (int i = 0; i < LOOPS; i++) {
		watchers[i] = (struct catalog_watcher){
			.loop = loops_at(loops, i), .changed = on_catalog};
		node_watch_catalog(node, &watchers[i]);
	}
	told_at_boot = told_of(0) + told_of(1) + told_of(2);
	loops_run(loops);
	for (int i = 0; i < 2000 && !node_ready(node); i++)
		usleep(5000);
	ck_assert(node_ready(node));
	return OK;
}

/* Changes asked for one after the other on each loop, for as long as there is a catalogue. */
static struct asker {
	struct meta_op op;
	_Atomic int begun, done;
} askers[LOOPS];

static void ask(struct asker *a);

static void ask_again(struct meta_op *op)
{
	struct asker *a = list_entry(op, struct asker, op);

	a->done++;
	ask(a);
}

static void ask(struct asker *a)
{
	if (catalog_version(node_catalog(node, loop_here())) == 0)
		return;
	a->op = (struct meta_op){.kind = META_SET, .done = ask_again};
	a->begun++;
	node_change(node, &a->op);
}

static void ask_first(void *arg)
{
	ask(arg);
}

/* --- who is not done yet when the node has closed --- */

struct late {
	struct proposal proposal;
	struct partition *known;
	sem_t over;
};

static void know(void *arg)
{
	struct late *l = arg;

	l->known = catalog_table_at(node_catalog(node, loop_here()), 0);
	sem_post(&l->over);
}

static void late_refused(struct proposal *p)
{
	struct late *l = list_entry(p, struct late, proposal);

	ck_assert_int_eq(p->err, ERR_CLOSED);
	sem_post(&l->over);
}

/* It looks up nothing, not nowhere, and what it still knows refuses. */
static void come_late(void *arg)
{
	struct late *l = arg;

	ck_assert_int_eq(catalog_stream_count(node_catalog(node, loop_here())), 0);
	ck_assert_int_eq(catalog_table_count(node_catalog(node, loop_here())), 0);
	l->proposal = (struct proposal){
		.to = l->known, .batch_max_ms = -1, .kind = &trim_kind, .done = late_refused};
	partition_propose(&l->proposal);
}

static void stop(void)
{
	struct late late;

	sem_init(&late.over, 0, 0);
	loop_call(loops_at(loops, 0), know, &late);
	sem_wait(&late.over);
	node_close(node);
	for (int i = 0; i < LOOPS; i++) /* nothing is under way any more */
		ck_assert_int_eq(askers[i].begun, askers[i].done);
	for (int i = 0; i < loops_count(loops); i++) {
		loop_call(loops_at(loops, i), come_late, &late);
		sem_wait(&late.over);
	}
	sem_destroy(&late.over);
	loops_stop(loops);
	node_free(node);
	storage_stop(storage);
	workers_free(workers);
	loops_free(loops);
	storage_free(storage);
}

static void restart(void)
{
	char why[200];

	stop();
	ck_assert_int_eq(start(why, sizeof why), OK);
}

static void setup(void)
{
	static bool registered;
	char why[200];

	if (!registered) {
		metric_register(&node_metrics);
		metric_register(&storage_metrics);
	}
	registered = true;
	tables = 4;
	snprintf(dir, sizeof dir, "/tmp/sluice-node-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	sem_init(&done, 0, 0);
	ck_assert_int_eq(start(why, sizeof why), OK);
}

static void teardown(void)
{
	char command[100];

	stop();
	snprintf(command, sizeof command, "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

/* --- asking from the test's thread --- */

static void call(int loop, void (*fn)(void *arg), void *arg)
{
	loop_call(loops_at(loops, loop), fn, arg);
	while (sem_wait(&done) != 0)
		;
}

static void op_done(struct meta_op *op)
{
	ck_assert_ptr_eq(loop_here(), op->from);
	sem_post(&done);
}

static void op_run(void *arg)
{
	struct meta_op *op = arg;

	op->done = op_done;
	node_change(node, op);
}

static enum err change(int loop, struct meta_op *op)
{
	call(loop, op_run, op);
	return op->err;
}

static enum err create(int loop, const char *name, int64_t partitions)
{
	struct meta_op op = {
		.kind = META_CREATE_STREAM, .name = name, .partitions = partitions, .replicas = -1};

	return change(loop, &op);
}

static enum err delete (int loop, const char *name) {
	struct meta_op op = {.kind = META_DELETE_STREAM, .name = name};

	return change(loop, &op);
}

static enum err alter(int loop, const char *name, const char *key, const char *value, char *why)
{
	struct meta_setting set = {key, value};
	struct meta_op op = {
		.kind = META_ALTER_STREAM, .name = name, .settings = &set, .setting_count = 1};
	enum err e = change(loop, &op);

	if (why != NULL)
		snprintf(why, 160, "%s", op.why);
	return e;
}

struct look {
	const char *name;
	const struct catalog *held;
	const struct stream *stream;
};

static void look_run(void *arg)
{
	struct look *l = arg;

	l->held = catalog_hold(node_catalog(node, loop_here()));
	l->stream = catalog_stream(l->held, bytes_text(l->name));
	sem_post(&done);
}

static struct look look(int loop, const char *name)
{
	struct look l = {.name = name};

	call(loop, look_run, &l);
	return l;
}

static void asked(struct proposal *q)
{
	(void)q;
	sem_post(&done);
}

static void ask_run(void *arg)
{
	struct proposal *q = arg;

	q->done = asked;
	partition_propose(q);
}

static enum err publish(int loop, struct partition *p, int64_t *offset)
{
	struct proposal q = {.to = p, .batch_count = 1, .batch_max_ms = 5};
	struct bytes value = bytes_text("hello");
	struct batch_builder b;

	batch_builder_init(&b, 1 << 20);
	ck_assert_int_eq(batch_builder_add(&b, 5, NULL, &value, NULL, 0), OK);
	q.batch = batch_builder_seal(&b);
	batch_builder_fini(&b);
	call(loop, ask_run, &q);
	*offset = q.base_offset;
	return q.err;
}

/* --- tests --- */

START_TEST(founds_a_cluster_that_stays)
{
	struct look l = look(0, "none");
	char id[23];

	ck_assert_ptr_null(l.stream);
	ck_assert_int_eq(catalog_table_count(l.held), 4);
	ck_assert_ptr_eq(catalog_table(l.held, bytes_text("client")),
		catalog_table(l.held, bytes_text("client")));
	catalog_release(l.held);
	ck_assert_uint_eq(strlen(node_cluster_id(node)), 22);
	snprintf(id, sizeof id, "%s", node_cluster_id(node));
	tables = 9; /* fixed at the founding */
	restart();
	ck_assert_str_eq(node_cluster_id(node), id);
	l = look(2, "none");
	ck_assert_int_eq(catalog_table_count(l.held), 4);
	catalog_release(l.held);
}
END_TEST

START_TEST(created_streams_are_in_force_everywhere_and_survive)
{
	int64_t offset;
	struct look l;

	ck_assert_int_eq(create(0, "orders", -1), OK);
	for (int i = 0; i < LOOPS; i++) {
		l = look(i, "orders");
		ck_assert_ptr_nonnull(l.stream);
		ck_assert_int_eq(l.stream->partition_count, 3);
		ck_assert_ptr_eq(catalog_stream_by_uuid(l.held, l.stream->uuid), l.stream);
		ck_assert_int_eq(publish(i, l.stream->partitions[i], &offset), OK);
		ck_assert_int_eq(offset, 0);
		ck_assert_int_eq(publish((i + 1) % LOOPS, l.stream->partitions[i], &offset), OK);
		ck_assert_int_eq(offset, 1);
		catalog_release(l.held);
		ck_assert_int_eq(seen_streams[i], 1);
	}
	ck_assert_int_eq(create(1, "orders", 2), ERR_EXISTS);
	restart();
	l = look(1, "orders");
	ck_assert_int_eq(l.stream->partition_count, 3);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(partition_high_watermark(l.stream->partitions[i]), 2);
	ck_assert_int_eq(publish(0, l.stream->partitions[2], &offset), OK);
	ck_assert_int_eq(offset, 2);
	catalog_release(l.held);
}
END_TEST

static void count_told(void *arg)
{
	*(int *)arg += told_of(loop_index(loop_here()));
	sem_post(&done);
}

/* What a restart finds of the catalogue may be old: who leads by then must not take in again whom
 * others have let go since. */
START_TEST(members_are_told_when_the_catalogue_is_current)
{
	int told = 0;

	ck_assert_int_eq(create(0, "orders", 3), OK);
	restart();
	ck_assert_int_eq(told_at_boot, 0);
	for (int i = 0; i < 2000 && told != 1 + 4 + 3; i++) {
		told = 0;
		for (int loop = 0; loop < LOOPS; loop++)
			call(loop, count_told, &told);
		usleep(5000);
	}
	ck_assert_int_eq(told, 1 + 4 + 3);
}
END_TEST

START_TEST(refuses_what_is_not_valid)
{
	char why[160];
	struct meta_setting bad = {"no.such.setting", "1"};
	struct meta_op op = {.kind = META_CREATE_STREAM,
		.name = "x",
		.partitions = 1,
		.replicas = 1,
		.settings = &bad,
		.setting_count = 1};
	struct meta_setting set;

	ck_assert_int_eq(create(0, "A/b", 1), ERR_INVALID);
	ck_assert_int_eq(create(0, "..", 1), ERR_INVALID);
	ck_assert_int_eq(create(0, "", 1), ERR_INVALID);
	ck_assert_int_eq(create(0, "x", 0), ERR_INVALID);
	ck_assert_int_eq(create(0, "x", 5000), ERR_INVALID);
	ck_assert_int_eq(change(1, &op), ERR_INVALID);
	ck_assert_ptr_nonnull(strstr(op.why, "no.such.setting"));
	ck_assert_int_eq(delete (0, "nothing"), ERR_NOTFOUND);
	ck_assert_int_eq(alter(0, "nothing", "retention.ms", "5", NULL), ERR_NOTFOUND);
	ck_assert_int_eq(create(0, "x", 1), OK);
	ck_assert_int_eq(alter(0, "x", "retention.ms", "abc", why), ERR_INVALID);
	ck_assert_ptr_nonnull(strstr(why, "retention.ms"));
	ck_assert_int_eq(alter(0, "x", "cleanup.policy", "compact", NULL), OK);
	ck_assert_int_eq(alter(0, "x", "cleanup.policy", "compress", NULL), ERR_INVALID);
	ck_assert_int_eq(alter(0, "x", "cleanup.policy", "delete", NULL), OK);
	/* What is acknowledged is on a majority of the replicas, not on more. */
	set = (struct meta_setting){"min.insync.replicas", "2"};
	op = (struct meta_op){.kind = META_CREATE_STREAM,
		.name = "y",
		.partitions = 1,
		.replicas = 1,
		.settings = &set,
		.setting_count = 1,
		.check_only = true};
	ck_assert_int_eq(change(1, &op), ERR_INVALID);
	ck_assert_ptr_nonnull(strstr(op.why, "min.insync.replicas: 2 is more than the 1 of 1"));
	op.replicas = 2;
	ck_assert_int_eq(change(1, &op), OK);
	op.replicas = 3;
	ck_assert_int_eq(change(1, &op), OK);
	set.value = "3";
	ck_assert_int_eq(change(1, &op), ERR_INVALID);
	op = (struct meta_op){.kind = META_CREATE_STREAM,
		.name = "y",
		.partitions = 2,
		.replicas = 1,
		.check_only = true};
	ck_assert_int_eq(change(2, &op), OK);
	struct look l = look(0, "y");
	ck_assert_ptr_null(l.stream);
	catalog_release(l.held);
}
END_TEST

START_TEST(alter_and_more_partitions)
{
	struct meta_op op = {.kind = META_ADD_PARTITIONS, .name = "s", .partitions = 5};
	struct partition *first;
	int64_t offset;
	struct look l;

	ck_assert_int_eq(create(0, "s", 2), OK);
	ck_assert_int_eq(alter(0, "s", "retention.bytes", "1000", NULL), OK);
	l = look(1, "s");
	first = l.stream->partitions[0];
	ck_assert_int_eq(l.stream->retention_bytes, 1000);
	ck_assert_int_eq(publish(0, first, &offset), OK);
	catalog_release(l.held);
	ck_assert_int_eq(change(1, &op), OK);
	l = look(2, "s");
	ck_assert_int_eq(l.stream->partition_count, 5);
	ck_assert_ptr_eq(l.stream->partitions[0], first);
	ck_assert_int_eq(publish(0, l.stream->partitions[4], &offset), OK);
	ck_assert_int_eq(l.stream->retention_bytes, 1000);
	ck_assert_int_eq(l.stream->partitions[0]->retention_bytes, 1000);
	catalog_release(l.held);
	op.partitions = 5;
	ck_assert_int_eq(change(1, &op), ERR_INVALID);
	ck_assert_int_eq(alter(0, "s", "retention.bytes", NULL, NULL), OK);
	restart();
	l = look(2, "s");
	ck_assert_int_eq(l.stream->retention_bytes, -1);
	ck_assert_int_eq(l.stream->partition_count, 5);
	catalog_release(l.held);
}
END_TEST

START_TEST(deleted_stream_is_gone_but_safe_for_who_holds_it)
{
	int64_t offset;
	struct look l, again;
	uint32_t groups;

	ck_assert_int_eq(create(0, "s", 4), OK);
	l = look(1, "s");
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(publish(2, l.stream->partitions[i], &offset), OK);
	ck_assert_int_eq(delete (1, "s"), OK);
	again = look(0, "s");
	ck_assert_ptr_null(again.stream);
	catalog_release(again.held);
	ck_assert_int_eq(create(2, "s", 4), OK); /* the round that deletes is over by now */
	ck_assert_int_eq(publish(2, l.stream->partitions[0], &offset), ERR_CLOSED);
	again = look(0, "s");
	ck_assert_int_ne(memcmp(again.stream->uuid, l.stream->uuid, 16), 0);
	ck_assert_int_eq(publish(0, again.stream->partitions[0], &offset), OK);
	ck_assert_int_eq(offset, 0);
	catalog_release(again.held);
	catalog_release(l.held);
	groups = node->groups.count;
	ck_assert_uint_eq(groups, 1 + 4 + 4);
	restart();
	ck_assert_uint_eq(node->groups.count, groups);
}
END_TEST

START_TEST(settings_reach_every_loop)
{
	struct meta_setting set[2] = {{"route.a", "x -> y"}, {"config.b", "2"}};
	struct meta_op op = {.kind = META_SET, .settings = set, .setting_count = 2};
	const char *key, *value;
	struct look l;
	int at = 0;

	ck_assert_int_eq(change(0, &op), OK);
	l = look(2, "");
	ck_assert_str_eq(catalog_setting(l.held, "route.a"), "x -> y");
	ck_assert(catalog_setting_next(l.held, &at, &key, &value));
	ck_assert_str_eq(key, "config.b");
	ck_assert(catalog_setting_next(l.held, &at, &key, &value));
	ck_assert(!catalog_setting_next(l.held, &at, &key, &value));
	catalog_release(l.held);
	set[0].value = NULL;
	op.setting_count = 1;
	ck_assert_int_eq(change(1, &op), OK);
	op.setting_count = 0;
	ck_assert_int_eq(change(1, &op), OK);
	restart();
	l = look(1, "");
	ck_assert_ptr_null(catalog_setting(l.held, "route.a"));
	ck_assert_str_eq(catalog_setting(l.held, "config.b"), "2");
	catalog_release(l.held);
}
END_TEST

static enum err change_doc(int loop, const char *key, const char *value, const char *none)
{
	struct meta_doc d = {.key = bytes_text(key),
		.value = value != NULL ? bytes_text(value) : bytes_of(NULL, 0)};
	struct meta_op op = {
		.kind = META_DOCS, .docs = &d, .doc_count = 1, .docs_none = bytes_text(none)};

	return change(loop, &op);
}

START_TEST(documents_reach_every_loop_and_stay)
{
	static struct meta_doc many[CATALOG_CHANGE_DOCS_MAX + 1];
	static char keys[CATALOG_CHANGE_DOCS_MAX + 1][16];
	struct meta_op op = {
		.kind = META_DOCS, .docs = many, .doc_count = CATALOG_CHANGE_DOCS_MAX + 1};
	struct look l;
	uint64_t version;

	ck_assert_int_eq(change_doc(0, "first", "1", "fi"), OK);
	ck_assert_int_eq(change_doc(1, "firsts", "1", "fi"), ERR_CONFLICT);
	for (int i = 0; i < 3; i++) {
		l = look(i, "");
		ck_assert_int_eq(catalog_doc_count(l.held), 1);
		version = catalog_docs_version(l.held);
		catalog_release(l.held);
	}
	ck_assert_int_eq(create(0, "s", 1), OK); /* leaves them as they are */
	l = look(2, "s");
	ck_assert_uint_eq(catalog_docs_version(l.held), version);
	catalog_release(l.held);
	for (int i = 0; i <= CATALOG_CHANGE_DOCS_MAX; i++) {
		snprintf(keys[i], sizeof keys[i], "m%05d", i);
		many[i] = (struct meta_doc){
			.key = bytes_text(keys[i]), .value = bytes_text("v"), .only = DOC_NEW};
	}
	ck_assert_int_eq(change(0, &op), ERR_TOOBIG);
	op.doc_count = CATALOG_CHANGE_DOCS_MAX;
	ck_assert_int_eq(change(0, &op), OK);
	ck_assert_int_eq(change_doc(2, "first", NULL, ""), OK);
	ck_assert_int_eq(change_doc(2, "m00000", "w", ""), OK);
	restart();
	l = look(1, "");
	ck_assert_int_eq(catalog_doc_count(l.held), CATALOG_CHANGE_DOCS_MAX);
	ck_assert_ptr_null(catalog_doc(l.held, bytes_text("first")));
	ck_assert(bytes_equal(catalog_doc(l.held, bytes_text("m00000"))->value, bytes_text("w")));
	catalog_release(l.held);
	ck_assert_int_eq(change_doc(1, "n", "1", "m"), ERR_CONFLICT);
	ck_assert_int_eq(change_doc(1, "n", "1", "n"), OK);
}
END_TEST

/* More of them than rows are kept in memory: conditions hold all the same, and so does the count.
 */
START_TEST(documents_beyond_memory_are_judged_right)
{
	enum { MANY = 500, EACH = 12000 };
	static uint8_t big[EACH + 1];
	struct meta_doc d = {.value = bytes_of(big, EACH)};
	struct meta_op op = {.kind = META_DOCS, .docs = &d, .doc_count = 1};
	char key[16];
	struct look l;

	for (int i = 0; i < MANY; i++) {
		snprintf(key, sizeof key, "b%05d", i);
		d.key = bytes_text(key);
		d.only = DOC_NEW;
		ck_assert_int_eq(change(0, &op), OK);
	}
	restart(); /* the rows are too many to be read at the start */
	for (int i = 0; i < MANY; i += 7) {
		snprintf(key, sizeof key, "b%05d", i);
		d.key = bytes_text(key);
		d.only = DOC_NEW;
		ck_assert_int_eq(change(0, &op), ERR_EXISTS);
		d.only = DOC_SAME;
		d.before = bytes_of(big, EACH - 1);
		ck_assert_int_eq(change(0, &op), ERR_CONFLICT);
		d.before = bytes_of(big, EACH);
		d.value = i % 2 == 0 ? bytes_of(big, EACH + 1) : bytes_of(NULL, 0);
		ck_assert_int_eq(change(0, &op), OK);
		d.value = bytes_of(big, EACH);
	}
	ck_assert_int_gt(metric_sum(&node_metrics, M_ROW_FETCHES), 0); /* some had left */
	for (int pass = 0; pass < 2; pass++) {
		uint64_t bytes = 0;

		l = look(1, "");
		for (int i = 0; i < catalog_doc_count(l.held); i++) {
			const struct catalog_doc *doc = catalog_doc_at(l.held, i);

			bytes += doc->key.len + doc->value.len;
		}
		ck_assert_uint_eq(node->docs_row.bytes, bytes);
		ck_assert_uint_eq(node->docs_row.count, (unsigned)catalog_doc_count(l.held));
		ck_assert_int_eq(catalog_doc_count(l.held), MANY - 36);
		catalog_release(l.held);
		if (pass == 0)
			restart();
	}
}
END_TEST

/* Every loop publishes to whatever streams its catalogue has while others come and go. */
static _Atomic int churn_left;
struct churner {
	struct proposal q;
	const struct catalog *held;
	uint32_t turn;
};

static void churn(struct churner *c)
{
	const struct catalog *now = node_catalog(node, loop_here());
	int count = catalog_stream_count(now);
	const struct stream *s;

	c->turn++;
	if (count == 0) {
		c->q.to = catalog_table_at(now, (int)(c->turn % 4));
	} else {
		s = catalog_stream_at(now, (int)(c->turn % (uint32_t)count));
		c->q.to = s->partitions[c->turn % (uint32_t)s->partition_count];
	}
	c->held = catalog_hold(now);
	partition_propose(&c->q);
}

static void churned(struct proposal *q)
{
	struct churner *c = list_entry(q, struct churner, q);

	ck_assert(q->err == OK || q->err == ERR_CLOSED || q->err == ERR_UNAVAILABLE);
	catalog_release(c->held);
	if (churn_left > 0)
		churn(c);
	else
		sem_post(&done);
}

static enum err churn_row(struct eval *v, struct bytes args)
{
	(void)args;
	eval_put(v, 30, bytes_text("k"), bytes_text("v"));
	return OK;
}
static const struct proposal_kind churn_kind = {PROPOSAL_NUMBER_MAX - 1, churn_row};

static void churn_run(void *arg)
{
	struct churner *c = arg;

	c->q = (struct proposal){.batch_max_ms = -1, .kind = &churn_kind, .done = churned};
	churn(c);
}

START_TEST(streams_come_and_go_under_load)
{
	struct churner c[LOOPS];
	char name[20];

	memset(c, 0, sizeof c);
	churn_left = 1;
	for (int i = 0; i < 12; i++) {
		snprintf(name, sizeof name, "s%d", i % 4);
		if (i >= 4)
			ck_assert_int_eq(delete (i % LOOPS, name), OK);
		ck_assert_int_eq(create((i + 1) % LOOPS, name, 2), OK);
		if (i == 0) {
			for (int k = 0; k < LOOPS; k++)
				loop_call(loops_at(loops, k), churn_run, &c[k]);
		}
	}
	churn_left = 0;
	for (int k = 0; k < LOOPS; k++)
		sem_wait(&done);
	for (int k = 0; k < LOOPS; k++)
		ck_assert_uint_gt(c[k].turn, 5);
}
END_TEST

/* A change that is asked for on one loop and meets another one that has ended. */
START_TEST(what_is_asked_for_until_the_end_is_answered)
{
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < LOOPS; i++)
			loop_call(loops_at(loops, i), ask_first, &askers[i]);
		for (int i = 0; i < LOOPS; i++)
			while (askers[i].done < round + 1)
				usleep(100);
		restart();
	}
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("node");
	Suite *s = suite_create("node");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, founds_a_cluster_that_stays);
	tcase_add_test(tc, created_streams_are_in_force_everywhere_and_survive);
	tcase_add_test(tc, members_are_told_when_the_catalogue_is_current);
	tcase_add_test(tc, refuses_what_is_not_valid);
	tcase_add_test(tc, alter_and_more_partitions);
	tcase_add_test(tc, deleted_stream_is_gone_but_safe_for_who_holds_it);
	tcase_add_test(tc, settings_reach_every_loop);
	tcase_add_test(tc, documents_reach_every_loop_and_stay);
	tcase_add_test(tc, documents_beyond_memory_are_judged_right);
	tcase_add_test(tc, streams_come_and_go_under_load);
	tcase_add_test(tc, what_is_asked_for_until_the_end_is_answered);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
