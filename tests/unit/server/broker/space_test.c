/* Tenants with equal names for everything, on a node with three loops: nobody sees what is the
 * other's, whatever way it takes. */
#include "server/broker/admin.h"
#include "server/broker/tenant.h"
#include "tests/unit/server/broker/world.h"

enum { LOOPS = 3, TENANTS = 3 };
static const char *const tenants[TENANTS] = {"", "acme", "beta"};
static const char *const words[TENANTS] = {"home", "acme", "beta"}; /* what is said in each */
static struct world w;

/* ---- who listens */

struct ear {
	struct subscriber s;
	const char *tenant;
	int loop;
	bool deaf;
	struct subscribe op;
	struct loop_timer timer;
	char topic[24], value[24]; /* of the newest */
	bool retained, wrong;
	_Atomic int count;
};

static void text_keep(char *out, size_t size, struct bytes b)
{
	size_t n = b.len < size ? b.len : size - 1;
	memcpy(out, b.at, n);
	out[n] = 0;
}

static bool hear(struct subscriber *s, const struct delivery *d)
{
	struct ear *e = list_entry(s, struct ear, s);
	struct bytes tenant, name;
	if (e->deaf)
		return false;
	if (d->stream != NULL) {
		tenant_stream_split(bytes_text(d->stream->name), &tenant, &name);
		e->wrong = e->wrong || !bytes_equal(tenant, bytes_text(e->tenant));
	}
	e->retained = d->retained;
	text_keep(e->topic, sizeof e->topic, d->message->topic);
	text_keep(e->value, sizeof e->value, d->message->value);
	atomic_fetch_add(&e->count, 1);
	return true;
}
static void passed_over(struct subscriber *s, struct partition *p, int64_t from, int64_t to)
{
	(void)p;
	(void)from;
	(void)to;
	list_entry(s, struct ear, s)->wrong = true;
}
static const struct subscriber_ops ops = {hear, passed_over};

static void run_new(void *arg)
{
	struct ear *e = arg;
	subscriber_init(&e->s, world_shard(&w, e->loop), bytes_text(e->tenant), &ops);
	sem_post(&w.done);
}
static struct ear *ear_new(const char *tenant, int loop)
{
	struct ear *e = mem_new(sizeof *e);
	e->tenant = tenant;
	e->loop = loop;
	world_call(&w, loop, run_new, e);
	return e;
}
static void run_free(void *arg)
{
	subscriber_fini(&((struct ear *)arg)->s);
	sem_post(&w.done);
}
static void ear_free(struct ear *e)
{
	world_call(&w, e->loop, run_free, e);
	ck_assert(!e->wrong);
	mem_free(e);
}

static void subscribed(struct subscribe *op)
{
	must(op->err == OK);
	sem_post(&w.done);
}
static void run_subscribe(void *arg)
{
	struct ear *e = arg;
	e->op.who = &e->s;
	e->op.done = subscribed;
	subscriber_subscribe(&e->op);
}
static void subscribe(struct ear *e, const char *filter)
{
	e->op.filter = bytes_text(filter);
	e->op.qos = 1;
	world_call(&w, e->loop, run_subscribe, e);
}

static void run_nothing(void *arg)
{
	(void)arg;
	sem_post(&w.done);
}
static void heard(struct ear *e, int count, const char *value)
{
	for (int i = 0; i < 10000 && atomic_load(&e->count) < count; i++)
		usleep(2000);
	usleep(10000); /* for what would be too much */
	world_call(&w, e->loop, run_nothing, NULL);
	int was = atomic_load(&e->count);
	ck_assert_msg(was == count, "%d of %d in \"%s\" on loop %d, of %s", was, count, e->tenant,
		e->loop, value);
	if (count > 0)
		ck_assert_str_eq(e->value, value);
	ck_assert(!e->wrong);
}

/* ---- who publishes: waits when told to */

struct voice {
	struct message m;
	int loop, waited;
	struct publish p;
	struct room_wait room;
	enum err err;
};
static void said(struct publish *p)
{
	list_entry(p, struct voice, p)->err = p->err;
	sem_post(&w.done);
}
static void run_say(void *arg)
{
	struct voice *v = arg;
	v->err = shard_publish(world_shard(&w, v->loop), &v->m, &v->p);
	if (v->err == ERR_BUSY) {
		v->waited++;
		shard_when_room(world_shard(&w, v->loop), &v->room);
	} else if (v->err != OK) {
		sem_post(&w.done);
	}
}
static void on_room(struct room_wait *room)
{
	run_say(list_entry(room, struct voice, room));
}
static struct voice say(
	const char *tenant, int loop, const char *topic, const char *value, bool retain)
{
	struct voice v = {.loop = loop, .p.done = said, .room.room = on_room};
	v.m = (struct message){.tenant = bytes_text(tenant),
		.topic = bytes_text(topic),
		.value = bytes_text(value),
		.retain = retain,
		.qos = 1};
	list_init(&v.room.node);
	world_call(&w, loop, run_say, &v);
	return v;
}

static void set(const char *key, const char *value)
{
	struct meta_setting one = {key, value};
	struct world_change c = {.op = {.kind = META_SET, .settings = &one, .setting_count = 1}};
	ck_assert_int_eq(world_change(&w, &c), OK);
}

struct there {
	const char *name;
	bool is;
};
static void run_there(void *arg)
{
	struct there *x = arg;
	x->is = catalog_stream(shard_catalog(world_shard(&w, 0)), bytes_text(x->name)) != NULL;
	sem_post(&w.done);
}
static bool exists(const char *stream)
{
	struct there x = {stream, false};
	world_call(&w, 0, run_there, &x);
	return x.is;
}

static void up(void)
{
	world_init(&w);
	world_start(&w, LOOPS);
	set("route.acme/default", "# -> mqtt");
	set("route.beta/default", "# -> mqtt");
}
static void down(void)
{
	world_stop(&w);
}

/* ---- */

START_TEST(nobody_hears_the_others)
{
	struct ear *ears[TENANTS][LOOPS];
	for (int t = 0; t < TENANTS; t++)
		for (int i = 0; i < LOOPS; i++) {
			ears[t][i] = ear_new(tenants[t], i);
			subscribe(ears[t][i], i == 0 ? "a/#" : "a/b");
		}
	for (int t = 0; t < TENANTS; t++)
		ck_assert_int_eq(say(tenants[t], t, "a/b", words[t], false).err, OK);
	for (int t = 0; t < TENANTS; t++)
		for (int i = 0; i < LOOPS; i++)
			heard(ears[t][i], 1, words[t]);
	ck_assert_int_eq(say("acme", 2, "a/b", "again", false).err, OK);
	heard(ears[1][1], 2, "again");
	heard(ears[0][1], 1, "home");
	heard(ears[2][0], 1, "beta");
	for (int t = 0; t < TENANTS; t++)
		for (int i = 0; i < LOOPS; i++)
			ear_free(ears[t][i]);
}
END_TEST

/* The stream is made because of the subscription, or of the publish, which waits for it. */
START_TEST(streams_come_with_the_first_use)
{
	struct ear *e = ear_new("acme", 1);
	subscribe(e, "#");
	struct voice v = say("acme", 2, "x", "first", false);
	ck_assert_int_eq(v.err, OK);
	heard(e, 1, "first");
	v = say("beta", 0, "x", "only", true);
	ck_assert_int_eq(v.err, OK);
	ck_assert_int_gt(v.waited, 0);
	ck_assert_int_lt(v.waited, 100); /* it is woken now and then, not round and round */
	heard(e, 1, "first");
	ck_assert(exists("acme/mqtt"));
	ck_assert(exists("beta/mqtt"));
	set("route.acme/more", "m/# -> more");
	ck_assert_int_eq(say("acme", 0, "m/x", "more", false).err, OK);
	heard(e, 2, "more");
	ck_assert(!exists("more"));
	set("route.own", "o/# -> own");
	ck_assert_int_eq(say("", 0, "o/x", "own", false).err, OK);
	ear_free(e);
}
END_TEST

START_TEST(there_is_no_tenant_of_any_name)
{
	static const char *const bad[] = {"nobody", "acm", "acmee", "default", "A", "acme/x", "/"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_assert_int_eq(say(bad[i], 0, "x", "y", false).err, ERR_DENIED);
	/* One that clients of are here has its streams made only if there is such a tenant. */
	struct ear *e = ear_new("nobody", 1);
	subscribe(e, "#");
	usleep(100000);
	ck_assert(!exists("nobody/mqtt"));
	ear_free(e);
}
END_TEST

/* As users are added (rights_doc.h): the index of users by tenant. */
START_TEST(a_user_makes_a_tenant)
{
	struct meta_doc d = {.key = bytes_of("t\0carl/u", 8), .value = bytes_of("", 0)};
	struct world_change c = {.op = {.kind = META_DOCS, .docs = &d, .doc_count = 1}};
	ck_assert_int_eq(say("carl", 1, "x", "y", false).err, ERR_DENIED);
	struct ear *e = ear_new("carl", 1);
	subscribe(e, "#");
	ck_assert_int_eq(world_change(&w, &c), OK);
	ck_assert_int_eq(say("carl", 2, "x", "y", false).err, OK);
	heard(e, 1, "y");
	ck_assert(exists("carl/mqtt"));
	ear_free(e);
}
END_TEST

START_TEST(retained_values_are_the_tenants)
{
	for (int t = 0; t < TENANTS - 1; t++)
		ck_assert_int_eq(say(tenants[t], 0, "r/1", words[t], true).err, OK);
	for (int t = 0; t < TENANTS; t++) {
		struct ear *literal = ear_new(tenants[t], t), *wild = ear_new(tenants[t], 0);
		subscribe(literal, "r/1");
		subscribe(wild, "r/+");
		heard(literal, t < TENANTS - 1 ? 1 : 0, words[t]);
		heard(wild, t < TENANTS - 1 ? 1 : 0, words[t]);
		ck_assert(t == TENANTS - 1 || (literal->retained && wild->retained));
		ear_free(literal);
		ear_free(wild);
	}
	/* Deleting one leaves the other. */
	ck_assert_int_eq(say("acme", 1, "r/1", "", true).err, OK);
	struct ear *a = ear_new("", 0), *b = ear_new("acme", 0);
	subscribe(a, "#");
	subscribe(b, "#");
	heard(a, 1, "home");
	heard(b, 0, "");
	ear_free(a);
	ear_free(b);
}
END_TEST

struct look {
	struct admin_retained r;
	char value[24];
};
static void looked(struct admin_retained *r)
{
	struct look *l = list_entry(r, struct look, r);
	if (r->err == OK)
		text_keep(l->value, sizeof l->value, r->message.value);
	admin_retained_fini(r);
	sem_post(&w.done);
}
static void run_look(void *arg)
{
	struct look *l = arg;
	l->r.done = looked;
	l->r.err = admin_retained(&l->r, world_shard(&w, 0));
	if (l->r.err != OK)
		sem_post(&w.done);
}
static const char *retained(struct look *l, const char *tenant, const char *topic)
{
	*l = (struct look){.r = {.topic = bytes_text(topic), .tenant = bytes_text(tenant)}};
	world_call(&w, 0, run_look, l);
	return l->r.err == OK ? l->value : err_text(l->r.err);
}

static void run_routes(void *arg)
{
	const char **list = arg; /* tenant, then name and text of each; NULL */
	struct admin_route r;
	int i = 0, n = 1;
	while (admin_route_next(world_shard(&w, 0), bytes_text(list[0]), &i, &r)) {
		ck_assert_str_eq(r.name, list[n++]);
		ck_assert_str_eq(r.text, list[n++]);
		ck_assert_int_eq(
			r.source, strcmp(list[0], "gone") ? ROUTE_OF_CLUSTER : ROUTE_BUILT_IN);
	}
	ck_assert_ptr_null(list[n]);
	sem_post(&w.done);
}

START_TEST(administrators_see_one_tenant)
{
	struct look l;
	ck_assert_int_eq(say("acme", 0, "r/1", "one", true).err, OK);
	ck_assert_str_eq(retained(&l, "acme", "r/1"), "one");
	ck_assert_str_eq(retained(&l, "", "r/1"), err_text(ERR_NOTFOUND));
	ck_assert_str_eq(
		retained(&l, "beta", "r/1"), err_text(ERR_UNAVAILABLE)); /* no stream yet */
	set("route.acme/b", "b/# -> b");
	set("route.beta/a", "a/# -> a");
	set("route.default", "# -> mqtt key=level(1)");
	const char *acme[] = {"acme", "b", "b/# -> b", "default", "# -> mqtt", NULL};
	const char *beta[] = {"beta", "a", "a/# -> a", "default", "# -> mqtt", NULL};
	const char *home[] = {"", "default", "# -> mqtt key=level(1)", NULL};
	const char *gone[] = {"gone", "default", "# -> mqtt", NULL};
	world_call(&w, 0, run_routes, acme);
	world_call(&w, 0, run_routes, beta);
	world_call(&w, 0, run_routes, home);
	world_call(&w, 0, run_routes, gone);
}
END_TEST

START_TEST(memory_routes_are_the_tenants)
{
	struct ear *ears[TENANTS];
	set("route.m", "m/# -> mem durability=memory");
	set("route.acme/m", "m/# -> mem durability=memory");
	set("route.beta/m", "m/# -> mem durability=memory");
	for (int t = 0; t < TENANTS; t++) {
		ears[t] = ear_new(tenants[t], 1);
		subscribe(ears[t], "m/#");
	}
	for (int t = 0; t < TENANTS; t++)
		ck_assert_int_eq(say(tenants[t], t, "m/1", words[t], true).err, OK);
	for (int t = 0; t < TENANTS; t++)
		heard(ears[t], 1, words[t]);
	for (int t = 0; t < TENANTS; t++) {
		struct look l; /* after the row, which nobody has waited for */
		ck_assert_str_eq(retained(&l, tenants[t], "m/1"), words[t]);
		struct ear *late = ear_new(tenants[t], 0);
		subscribe(late, "m/1");
		heard(late, 1, words[t]);
		ck_assert(late->retained);
		ear_free(late);
		ear_free(ears[t]);
	}
}
END_TEST

/* ---- frames of memory routes, as other nodes send them */

struct frame {
	struct slice body;
};
static void run_frame(void *arg)
{
	struct frame *f = arg;
	memory_arrived(w.broker, 2, 0, f->body);
	slice_unref(&f->body);
	sem_post(&w.done);
}
/* What comes first: a length and a tenant, or nothing. cut: so many bytes are left out at the end.
 */
static void frame(const char *first, size_t first_len, size_t cut)
{
	struct batch_builder b;
	struct message m = {.topic = bytes_text("m/1"), .value = bytes_text("far")};
	batch_builder_init(&b, 4096);
	ck_assert_int_eq(message_encode(&m, &b), OK);
	struct slice batch = batch_builder_seal(&b);
	struct frame f;
	struct buf body;
	buf_init(&body, 8192);
	buf_add(&body, bytes_of(first, first_len));
	buf_add(&body, batch.bytes);
	size_t len = buf_len(&body) > cut ? buf_len(&body) - cut : 0;
	ck_assert_int_eq(slice_copy(bytes_of(buf_bytes(&body).at, len), &f.body), OK);
	world_call(&w, 1, run_frame, &f);
	slice_unref(&batch);
	batch_builder_fini(&b);
	buf_fini(&body);
}

START_TEST(frames_tell_the_tenant)
{
	struct ear *ears[TENANTS];
	for (int t = 0; t < TENANTS; t++) {
		ears[t] = ear_new(tenants[t], t);
		subscribe(ears[t], "#");
	}
	frame("\4acme", 5, 0);
	heard(ears[1], 1, "far");
	frame("", 0, 0);
	heard(ears[0], 1, "far");
	frame("\4gone", 5, 0); /* a tenant that nobody here is of */
	frame("\4ACME", 5, 0);
	frame("\3acme", 5, 0);
	frame("\5acme", 5, 0);
	frame("\377acme", 5, 0);
	for (size_t cut = 1; cut < 90; cut++)
		frame("\4acme", 5, cut);
	heard(ears[0], 1, "far");
	heard(ears[1], 1, "far");
	heard(ears[2], 0, "");
	for (int t = 0; t < TENANTS; t++)
		ear_free(ears[t]);
}
END_TEST

/* ---- records without a topic */

static struct admin_produce produce;
static void produced(struct admin_produce *p)
{
	must(p->err == OK);
	sem_post(&w.done);
}
static void run_produce(void *arg)
{
	const struct bytes value = bytes_text("bare");
	const struct stream *s = catalog_stream(
		shard_catalog(world_shard(&w, 0)), bytes_text((const char *)arg));
	struct admin_record r = {.value = &value, .partition = 0};
	produce = (struct admin_produce){.done = produced};
	must(admin_produce(&produce, world_shard(&w, 0), s, &r) == OK);
}

START_TEST(a_record_without_a_topic_has_the_bare_name)
{
	char stream[] = "acme/mqtt";
	struct ear *e = ear_new("acme", 0), *other = ear_new("", 0);
	ck_assert_int_eq(say("acme", 0, "x", "y", false).err, OK);
	subscribe(e, "mqtt");
	subscribe(other, "#");
	world_call(&w, 0, run_produce, stream);
	heard(e, 1, "bare");
	heard(other, 0, "");
	ck_assert_str_eq(e->topic, "mqtt");
	ear_free(e);
	ear_free(other);
}
END_TEST

/* ---- one who is behind, and one whose stream is deleted */

static void run_hear_again(void *arg)
{
	struct ear *e = arg;
	e->deaf = false;
	subscriber_ready(&e->s);
	sem_post(&w.done);
}

START_TEST(those_behind_catch_up_in_their_tenant)
{
	struct ear *ears[TENANTS];
	for (int t = 0; t < TENANTS; t++) {
		ears[t] = ear_new(tenants[t], 1);
		subscribe(ears[t], "#");
		for (int i = 0; i < 8; i++) { /* many filters take the way through the trie */
			char filter[16];
			snprintf(filter, sizeof filter, "b/%d/+", i);
			subscribe(ears[t], filter);
		}
		ears[t]->deaf = true;
	}
	for (int i = 0; i < 50; i++)
		for (int t = 0; t < TENANTS; t++)
			ck_assert_int_eq(
				say(tenants[t], i % LOOPS, "b/1/c", words[t], false).err, OK);
	for (int t = 0; t < TENANTS; t++) {
		world_call(&w, 1, run_hear_again, ears[t]);
		heard(ears[t], 50, words[t]);
	}
	for (int t = 0; t < TENANTS; t++)
		ear_free(ears[t]);
}
END_TEST

START_TEST(a_deleted_stream_is_made_again)
{
	struct ear *e = ear_new("acme", 0), *other = ear_new("beta", 0);
	subscribe(e, "#");
	subscribe(other, "#");
	ck_assert_int_eq(say("acme", 0, "x", "1", false).err, OK);
	ck_assert_int_eq(say("beta", 0, "x", "1", false).err, OK);
	heard(e, 1, "1");
	struct world_change c = {.op = {.kind = META_DELETE_STREAM, .name = "acme/mqtt"}};
	ck_assert_int_eq(world_change(&w, &c), OK);
	ck_assert_int_eq(say("acme", 1, "x", "2", false).err, OK);
	heard(e, 2, "2");
	heard(other, 1, "1");
	ear_free(e);
	ear_free(other);
}
END_TEST

/* ---- unused ones go */

static void run_age(void *arg)
{
	int *count = arg;
	struct shard *s = world_shard(&w, 1);
	for (struct list *n = s->tenants.next; n != &s->tenants; n = n->next)
		list_entry(n, struct space, node)->used_ms -= 60000;
	feeds_retry(s);
	spaces_sweep(s);
	*count = (int)s->spaces.count;
	sem_post(&w.done);
}
static int spaces_left(void)
{
	int count = -1;
	world_call(&w, 1, run_age, &count);
	return count;
}

START_TEST(unused_ones_go)
{
	struct ear *e = ear_new("acme", 1), *home = ear_new("", 1);
	subscribe(e, "#");
	subscribe(home, "#");
	ck_assert_int_eq(say("beta", 1, "x", "1", false).err, OK);
	ck_assert_int_eq(spaces_left(), 1); /* acme has a subscriber */
	ck_assert_int_eq(say("acme", 0, "x", "1", false).err, OK);
	heard(e, 1, "1");
	ck_assert_int_eq(say("beta", 1, "x", "2", false).err, OK); /* it is there again */
	ear_free(e);
	ck_assert_int_eq(spaces_left(), 0);
	ck_assert_int_eq(say("", 0, "x", "still", false).err, OK);
	heard(home, 1, "still"); /* others' feeds stay */
	e = ear_new("acme", 1);
	subscribe(e, "#");
	ck_assert_int_eq(say("acme", 0, "x", "2", false).err, OK);
	heard(e, 1, "2");
	heard(home, 1, "still");
	ear_free(e);
	ear_free(home);
}
END_TEST

/* ---- a catalogue that comes late */

static void run_stand(void *arg)
{
	(void)arg;
	usleep(400000);
}

/* A loop that stands still does not know of the stream before there is a record in it. Neither the
 * catalogue nor the new stream's partition is at home there. */
START_TEST(a_late_loop_misses_nothing_of_a_new_stream)
{
	world_init(&w);
	world_set(&w, "stream.partitions", "1");
	world_start(&w, LOOPS);
	set("route.acme/default", "# -> mqtt");
	struct ear *e = ear_new("acme", 2);
	subscribe(e, "#");
	ck_assert_int_eq(say("acme", 0, "x", "there", false).err, OK);
	heard(e, 1, "there");
	set("route.acme/late", "l/# -> late");
	loop_call(loops_at(w.loops, 2), run_stand, NULL);
	ck_assert_int_eq(say("acme", 0, "l/x", "first", false).err, OK);
	heard(e, 2, "first");
	ear_free(e);
	world_stop(&w);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("space"), *late = tcase_create("late");
	tcase_set_timeout(late, 60);
	tcase_add_test(late, a_late_loop_misses_nothing_of_a_new_stream);
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, up, down);
	tcase_add_test(tc, nobody_hears_the_others);
	tcase_add_test(tc, streams_come_with_the_first_use);
	tcase_add_test(tc, there_is_no_tenant_of_any_name);
	tcase_add_test(tc, a_user_makes_a_tenant);
	tcase_add_test(tc, retained_values_are_the_tenants);
	tcase_add_test(tc, administrators_see_one_tenant);
	tcase_add_test(tc, memory_routes_are_the_tenants);
	tcase_add_test(tc, frames_tell_the_tenant);
	tcase_add_test(tc, a_record_without_a_topic_has_the_bare_name);
	tcase_add_test(tc, those_behind_catch_up_in_their_tenant);
	tcase_add_test(tc, a_deleted_stream_is_made_again);
	tcase_add_test(tc, unused_ones_go);
	Suite *s = suite_create("space");
	suite_add_tcase(s, tc);
	suite_add_tcase(s, late);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
