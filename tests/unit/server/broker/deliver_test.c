/* Publishing and delivery over a real node with three loops. */
#include "tests/unit/server/broker/world_reader.h"

static void setup(void)
{
	world_init(&w);
}

/* ---- the simple way */

START_TEST(reaches_those_who_subscribed)
{
	world_start(&w, LOOPS);
	struct reader *a = reader_new(0), *b = reader_new(1), *c = reader_new(2);
	ck_assert_int_eq(subscribe(a, "plant/+/temp"), OK);
	ck_assert_int_eq(subscribe(b, "plant/7/temp"), OK);
	ck_assert_int_eq(subscribe(b, "plant/#"), OK);
	ck_assert_int_eq(subscribe(c, "other"), OK);
	ck_assert_int_eq(subscribe(c, "bad/#/filter"), ERR_INVALID);
	world_say(&w, 2, "plant/7/temp", "21", false);
	reader_wait(a, 1);
	reader_wait(b, 1);
	ck_assert_str_eq(a->got[0].value, "21");
	ck_assert_int_eq(a->got[0].match_count, 1);
	ck_assert_int_eq(b->got[0].match_count, 2);
	ck_assert_int_eq(b->got[0].offset, 0);
	ck_assert(subscribe(b, "plant/#") == OK && b->op.existed);
	world_say(&w, 0, "other", "x", false);
	reader_wait(c, 1);
	reader_wait(a, 1);
	reader_free(a);
	reader_free(b);
	reader_free(c);
	world_stop(&w);
}
END_TEST

START_TEST(refuses_what_is_not_a_message)
{
	char big[3000];
	memset(big, 'x', sizeof big);
	world_set(&w, "message.bytes_max", "2KiB");
	world_start(&w, 1);
	struct world_publish a = {.m = {.topic = bytes_text("a/+")}};
	ck_assert_int_eq(world_publish(&w, 0, &a), ERR_INVALID);
	a.m.topic = bytes_text("");
	ck_assert_int_eq(world_publish(&w, 0, &a), ERR_INVALID);
	a.m.topic = bytes_text("$SYS/x");
	ck_assert_int_eq(world_publish(&w, 0, &a), ERR_DENIED);
	a.m.topic = bytes_text("a");
	a.m.value = bytes_of(big, sizeof big);
	ck_assert_int_eq(world_publish(&w, 0, &a), ERR_TOOBIG);
	world_stop(&w);
}
END_TEST

/* ---- many, with readers that refuse at random */

static const char *const topics[] = {"a", "a/b", "a/c", "b/b", "b/c/d", "c", "d/e/f/g", "e"};
enum { TOPICS = 8 };

struct pump {
	struct loop_hook hook;
	struct room_wait room;
	int loop, left, awaited, busy;
	size_t value_bytes;
	int64_t said[TOPICS];
	struct said {
		struct publish p;
		struct pump *pump;
	} * said_at;
};

static void pump_check(struct pump *p)
{
	if (p->left == 0 && p->awaited == 0) {
		p->awaited = -1;
		sem_post(&w.done);
	}
}
static void said(struct publish *p)
{
	struct said *s = list_entry(p, struct said, p);
	must(p->err == OK);
	s->pump->awaited--;
	struct pump *pump = s->pump;
	mem_free(s);
	pump_check(pump);
}

static void pump_run(struct loop_hook *h)
{
	struct pump *p = list_entry(h, struct pump, hook);
	struct shard *s = world_shard(&w, p->loop);
	static uint8_t value[8192];
	for (int i = 0; i < 50 && p->left > 0; i++) {
		int t = (int)(random_u64() % TOPICS);
		struct said *one = mem_new(sizeof *one);
		one->pump = p;
		one->p.done = said;
		struct message m = {.topic = bytes_text(topics[t]),
			.value = bytes_of(value, p->value_bytes),
			.qos = (uint8_t)(random_u64() % 3)};
		enum err e = shard_publish(s, &m, &one->p);
		if (e == ERR_BUSY) {
			mem_free(one);
			p->busy++;
			shard_when_room(s, &p->room);
			return;
		}
		must(e == OK);
		p->said[t]++;
		p->awaited++;
		p->left--;
	}
	if (p->left > 0)
		loop_hook_want(shard_loop(s), STAGE_PUBLISH, &p->hook);
}
static void pump_room(struct room_wait *room)
{
	pump_run(&list_entry(room, struct pump, room)->hook);
}
static void pump_start(void *arg)
{
	struct pump *p = arg;
	list_init(&p->room.node);
	p->room.room = pump_room;
	loop_hook_init(&p->hook, pump_run);
	pump_run(&p->hook);
}

static int64_t owed(const struct pump *pumps, int count, const char *const *filters)
{
	int64_t sum = 0;
	for (int t = 0; t < TOPICS; t++) {
		bool reached = false;
		for (int f = 0; filters[f] != NULL; f++)
			reached = reached ||
				topic_matches(bytes_text(filters[f]), bytes_text(topics[t]));
		for (int i = 0; reached && i < count; i++)
			sum += pumps[i].said[t];
	}
	return sum;
}

static void pumps_run(struct pump *pumps, int each, size_t value_bytes)
{
	for (int i = 0; i < LOOPS; i++) {
		pumps[i] = (struct pump){.loop = i, .left = each, .value_bytes = value_bytes};
		loop_call(loops_at(w.loops, i), pump_start, &pumps[i]);
	}
	for (int i = 0; i < LOOPS; i++)
		while (sem_wait(&w.done) != 0)
			;
}

START_TEST(every_record_once_and_in_order)
{
	enum { READERS = 9, EACH = 4000 };
	static const char *const filters[READERS][6] = {{"#"}, {"a/+", "a"}, {"a/b"},
		{"+/b", "b/#"}, {"#", "a/#", "+/+"}, {"c", "e"}, {"d/#"},
		{"a", "a/b", "a/c", "b/b", "c"}, {"+"}};
	struct reader *readers[READERS];
	struct pump pumps[LOOPS];
	if (_i == 1) { /* little is kept: gaps, and reads of the log */
		world_set(&w, "feed.bytes", "64KiB");
		world_set(&w, "storage.tail_cache", "1MiB");
	}
	world_set(&w, "publish.inflight_bytes", "128KiB");
	world_start(&w, LOOPS);
	for (int i = 0; i < READERS; i++) {
		readers[i] = reader_new(i % LOOPS);
		readers[i]->refuse_percent = i % 3 == 0 ? 0 : i * 4;
		for (int f = 0; filters[i][f] != NULL; f++)
			ck_assert_int_eq(subscribe(readers[i], filters[i][f]), OK);
	}
	pumps_run(pumps, EACH, _i == 1 ? 700 : 30);
	for (int i = 0; i < READERS; i++) {
		reader_wait(readers[i], owed(pumps, LOOPS, filters[i]));
		ck_assert_int_eq(readers[i]->skipped, 0);
	}
	int64_t busy = 0;
	for (int i = 0; i < LOOPS; i++)
		busy += pumps[i].busy;
	ck_assert_int_gt(metric_sum(&broker_metrics, M_FELL_BEHIND), 0);
	if (_i == 1) { /* many times what may be in flight, or is kept */
		ck_assert_int_gt(busy, 0);
		ck_assert_int_gt(metric_sum(&broker_metrics, M_FEED_GAPS), 0);
		ck_assert_int_gt(metric_sum(&broker_metrics, M_CATCHUP_READS), 0);
	}
	for (int i = 0; i < READERS; i++)
		reader_free(readers[i]);
	for (int i = 0; i < LOOPS; i++) { /* nobody is behind: nothing is kept */
		ck_assert_uint_eq(world_shard(&w, i)->tail_bytes, 0);
		ck_assert_uint_eq(world_shard(&w, i)->run_bytes, 0);
		ck_assert_int_eq(world_shard(&w, i)->behind_count, 0);
	}
	world_stop(&w);
}
END_TEST

struct budgets {
	bool over;
	size_t most;
};
static void budget_run(void *arg)
{
	struct budgets *b = arg;
	const struct shard *s = world_shard(&w, 1);
	size_t kept = s->tail_bytes + s->run_bytes;
	b->most = kept > b->most ? kept : b->most;
	sem_post(&w.done);
}

START_TEST(one_that_stood_still_reads_the_log)
{
	struct pump pumps[LOOPS];
	struct budgets b = {.over = false};
	static const char *const all[] = {"#", NULL};
	world_set(&w, "feed.bytes", "1MiB");
	world_start(&w, LOOPS);
	struct reader *still = reader_new(1), *live = reader_new(1);
	ck_assert_int_eq(subscribe(still, "#"), OK);
	ck_assert_int_eq(subscribe(live, "#"), OK);
	still->stopped = true; /* before anything is published: no race */
	pumps_run(pumps, 1500, 1000);
	reader_wait(live, owed(pumps, LOOPS, all));
	world_call(&w, 1, budget_run, &b);
	ck_assert_uint_gt(b.most, 0);
	ck_assert_int_eq(atomic_load(&still->total), 0);
	reader_go(still);
	reader_wait(still, owed(pumps, LOOPS, all));
	world_call(&w, 1, budget_run, &b);
	ck_assert_uint_le(b.most, 1 << 20);
	ck_assert_int_gt(metric_sum(&broker_metrics, M_CATCHUP_READS), 0);
	reader_free(still);
	reader_free(live);
	world_stop(&w);
}
END_TEST

START_TEST(a_filter_added_behind_counts_from_then)
{
	world_start(&w, LOOPS);
	struct reader *r = reader_new(1);
	ck_assert_int_eq(subscribe(r, "x/1"), OK);
	r->stopped = true;
	world_say(&w, 0, "x/1", "first", false);
	struct reader *other = reader_new(1);
	ck_assert_int_eq(subscribe(other, "x/#"), OK);
	for (int i = 0; i < 20; i++)
		world_say(&w, 0, "x/2", "before", false);
	world_say(&w, 0, "x/1", "second", false);
	reader_wait(other, 21);
	ck_assert_int_eq(subscribe(r, "x/2"), OK);
	world_say(&w, 0, "x/2", "after", false);
	reader_wait(other, 22);
	reader_go(r);
	reader_wait(r, 3);
	int after = 0;
	for (size_t i = 0; i < r->count; i++) {
		ck_assert_str_ne(r->got[i].value, "before");
		after += strcmp(r->got[i].value, "after") == 0;
	}
	ck_assert_int_eq(after, 1);
	reader_free(r);
	reader_free(other);
	world_stop(&w);
}
END_TEST

/* ---- positions of one's own */

static void start_all_run(void *arg)
{
	struct reader *r = arg;
	const struct stream *s = subscriber_stream_at(&r->s, 0);
	must(subscriber_stream_count(&r->s) == 1);
	for (int i = 0; i < s->partition_count; i++) {
		subscriber_start(&r->s, s->partitions[i], 0);
		must(subscriber_position(&r->s, s->partitions[i]) == 0);
	}
	sem_post(&w.done);
}

START_TEST(resumes_at_its_positions)
{
	struct pump pumps[LOOPS];
	static const char *const filter[] = {"a/+", NULL};
	world_start(&w, LOOPS);
	pumps_run(pumps, 1000, 100);
	struct reader *r = reader_new(2);
	r->refuse_percent = 10;
	r->op.resumed = true;
	ck_assert_int_eq(subscribe(r, "a/+"), OK);
	world_call(&w, 2, start_all_run, r);
	reader_wait(r, owed(pumps, LOOPS, filter));
	world_say(&w, 0, "a/b", "live", false);
	reader_wait(r, owed(pumps, LOOPS, filter) + 1);
	reader_free(r);
	world_stop(&w);
}
END_TEST

struct trim {
	struct proposal p;
	int64_t offset;
	struct partition *at;
};
static void trimmed(struct proposal *p)
{
	(void)p;
	sem_post(&w.done);
}
static void trim_run(void *arg)
{
	struct trim *t = arg;
	const struct catalog *c = shard_catalog(world_shard(&w, 0));
	const struct stream *s = catalog_stream(c, bytes_text("mqtt"));
	t->p = (struct proposal){.to = s->partitions[0], .done = trimmed};
	partition_trim(&t->p, t->offset);
}

START_TEST(is_told_what_was_trimmed)
{
	world_set(&w, "stream.partitions", "1");
	world_start(&w, LOOPS);
	for (int i = 0; i < 30; i++)
		world_say(&w, i % LOOPS, "a", "x", false);
	struct trim t = {.offset = 10};
	world_call(&w, 0, trim_run, &t);
	ck_assert_int_eq(t.p.err, OK);
	struct reader *r = reader_new(2);
	r->op.resumed = true;
	ck_assert_int_eq(subscribe(r, "a"), OK);
	world_call(&w, 2, start_all_run, r);
	reader_wait(r, 20);
	ck_assert_int_eq(r->skipped, 10);
	ck_assert_int_eq(r->got[0].offset, 10);
	reader_free(r);
	world_stop(&w);
}
END_TEST

struct again {
	struct redeliver r;
	struct reader *reader;
	int given;
};
static void again_give(struct redeliver *r, const struct delivery *d)
{
	struct again *a = list_entry(r, struct again, r);
	must(d->offset == r->offset && d->match_count == 1);
	must(bytes_equal(d->message->value, bytes_text("7")));
	a->given++;
}
static void again_done(struct redeliver *r)
{
	(void)r;
	sem_post(&w.done);
}
static void again_run(void *arg)
{
	struct again *a = arg;
	a->r.partition = subscriber_stream_at(&a->reader->s, 0)->partitions[0];
	a->r.who = &a->reader->s;
	a->r.give = again_give;
	a->r.done = again_done;
	subscriber_redeliver(&a->r);
}

START_TEST(gives_one_record_again)
{
	world_set(&w, "stream.partitions", "1");
	world_start(&w, LOOPS);
	struct reader *r = reader_new(1);
	ck_assert_int_eq(subscribe(r, "#"), OK);
	for (int i = 0; i < 10; i++) {
		char text[2] = {(char)('0' + i), 0};
		world_say(&w, 0, "a", text, false);
	}
	reader_wait(r, 10);
	struct again a = {.r = {.offset = 7}, .reader = r};
	world_call(&w, 1, again_run, &a);
	ck_assert_int_eq(a.given, 1);
	ck_assert_int_eq(a.r.err, OK);
	a.r.offset = 99;
	world_call(&w, 1, again_run, &a);
	ck_assert_int_eq(a.r.err, ERR_RANGE);
	reader_free(r);
	world_stop(&w);
}
END_TEST

START_TEST(a_subscriber_may_end_itself_in_deliver)
{
	world_start(&w, LOOPS);
	struct reader *leaving[6], *stays = reader_new(1);
	for (int i = 0; i < 6; i++) {
		leaving[i] = reader_new(1);
		leaving[i]->leave = true;
		ck_assert_int_eq(subscribe(leaving[i], i % 2 ? "a" : "#"), OK);
	}
	ck_assert_int_eq(subscribe(stays, "a"), OK);
	for (int i = 0; i < 10; i++)
		world_say(&w, 0, "a", "x", false);
	reader_wait(stays, 10);
	for (int i = 0; i < 6; i++) {
		ck_assert_int_eq(atomic_load(&leaving[i]->total), 1);
		reader_free(leaving[i]);
	}
	reader_free(stays);
	world_stop(&w);
}
END_TEST

/* ---- no local */

/* Asked for each publish, so it is no walk. */
START_TEST(knows_how_many_have_no_local)
{
	world_start(&w, LOOPS);
	struct reader *r = reader_new(1);
	r->op.no_local = true;
	ck_assert_int_eq(subscribe(r, "a"), OK);
	ck_assert_int_eq(subscribe(r, "b"), OK);
	ck_assert_uint_eq(r->s.no_local_count, 2);
	ck_assert_int_eq(subscribe(r, "b"), OK); /* replaced by the same */
	ck_assert_uint_eq(r->s.no_local_count, 2);
	r->op.no_local = false;
	ck_assert_int_eq(subscribe(r, "b"), OK);
	ck_assert_int_eq(subscribe(r, "c"), OK);
	ck_assert_uint_eq(r->s.no_local_count, 1);
	ck_assert_int_eq(unsubscribe(r, "a"), OK);
	ck_assert_uint_eq(r->s.no_local_count, 0);
	reader_free(r);
	world_stop(&w);
}
END_TEST

/* ---- memory routes */

START_TEST(memory_routes_have_no_log)
{
	world_set(&w, "route.fast", "fast/# -> quick durability=memory");
	world_start(&w, LOOPS);
	struct reader *a = reader_new(0), *b = reader_new(1), *full = reader_new(1);
	ck_assert_int_eq(subscribe(a, "fast/+"), OK);
	ck_assert_int_eq(subscribe(b, "#"), OK);
	ck_assert_int_eq(subscribe(full, "#"), OK);
	full->stopped = true;
	for (int i = 0; i < 50; i++) {
		struct world_publish p = {.m = {.topic = bytes_text("fast/x"),
						  .retain = i == 49,
						  .value = bytes_text("v")}};
		ck_assert_int_eq(world_publish(&w, 2, &p), OK);
		ck_assert_int_eq(p.p.offset, -1);
		ck_assert_ptr_null(p.p.partition);
	}
	reader_wait(a, 50);
	reader_wait(b, 50);
	ck_assert_int_eq(a->got[0].offset, -1);
	reader_go(full);
	reader_wait(full, 0);
	ck_assert_int_eq(metric_sum(&broker_metrics, M_MEMORY_DROPPED), 50);
	struct reader *late = reader_new(2);
	ck_assert_int_eq(subscribe(late, "fast/#"), OK);
	reader_wait(late, 1);
	ck_assert(late->got[0].retained);
	reader_free(a);
	reader_free(b);
	reader_free(full);
	reader_free(late);
	world_stop(&w);
}
END_TEST

/* Nothing keeps a message for one that refuses it for a moment, so all wait, and none is lost. */
START_TEST(memory_routes_wait_for_who_takes_again)
{
	world_set(&w, "route.fast", "fast/# -> quick durability=memory");
	world_start(&w, LOOPS);
	struct reader *a = reader_new(0), *b = reader_new(1), *c = reader_new(1);
	a->refuse_percent = 30;
	b->refuse_percent = 30;
	ck_assert_int_eq(subscribe(a, "fast/+"), OK);
	ck_assert_int_eq(subscribe(b, "fast/#"), OK);
	ck_assert_int_eq(subscribe(c, "#"), OK);
	for (int i = 0; i < 300; i++) {
		struct world_publish p = {
			.m = {.topic = bytes_text("fast/x"), .value = bytes_text("v")}};
		ck_assert_int_eq(world_publish(&w, i % LOOPS, &p), OK);
	}
	reader_wait(a, 300);
	reader_wait(b, 300);
	reader_wait(c, 300);
	ck_assert_int_eq(metric_sum(&broker_metrics, M_MEMORY_DROPPED), 0);
	/* One that ends while it is waited for holds up nobody. */
	b->refuse_percent = 0;
	b->stopped = true;
	world_say(&w, 0, "fast/x", "v", false);
	reader_free(b);
	reader_wait(a, 301);
	reader_wait(c, 301);
	reader_free(a);
	reader_free(c);
	world_stop(&w);
}
END_TEST

static void apply_anew(void *arg)
{
	(void)arg;
	conf_apply(w.rows, false);
}

static void say_much(void *arg)
{
	int *said = arg;
	static const uint8_t bytes[1000];
	struct message m = {.topic = bytes_text("fast/x"), .value = bytes_of(bytes, sizeof bytes)};
	while (*said < 400 && shard_publish(world_shard(&w, 0), &m, NULL) == OK)
		++*said;
	sem_post(&w.done);
}

/* A turn takes as much as the bound of a reload says, on routes without a log as well. */
START_TEST(memory_routes_see_a_reload)
{
	int said = 0;
	world_set(&w, "route.fast", "fast/# -> quick durability=memory");
	world_set(&w, "message.bytes_max", "1KiB");
	world_set(&w, "publish.inflight_bytes", "64KiB");
	world_start(&w, LOOPS);
	world_call(&w, 0, say_much, &said);
	ck_assert_int_gt(said, 0);
	ck_assert_int_lt(said, 100);
	world_set(&w, "publish.inflight_bytes", "8MiB");
	loops_stand_still(w.loops, apply_anew, NULL);
	said = 0;
	world_call(&w, 0, say_much, &said);
	ck_assert_int_eq(said, 400);
	world_stop(&w);
}
END_TEST

/* ---- routes that are set while it runs */

START_TEST(a_route_set_later_makes_its_stream)
{
	world_start(&w, LOOPS);
	struct reader *r = reader_new(1);
	ck_assert_int_eq(subscribe(r, "#"), OK);
	world_say(&w, 0, "orders/1", "to mqtt", false);
	struct meta_setting set = {"route.orders", "orders/# -> orders key=level(2)"};
	struct world_change c = {.op = {.kind = META_SET, .settings = &set, .setting_count = 1}};
	ck_assert_int_eq(world_change(&w, &c), OK);
	struct world_publish a = {.m = {.topic = bytes_text("orders/1"), .value = bytes_text("y")}};
	for (int i = 0; i < 4000; i++) {
		if (world_publish(&w, 0, &a) == OK)
			break;
		ck_assert_int_eq(a.err, ERR_BUSY); /* the stream is being made */
		usleep(5000);
	}
	ck_assert_int_eq(a.err, OK);
	ck_assert_int_eq(a.p.offset, 0);
	reader_wait(r, 2);
	struct meta_setting back = {"route.orders", NULL};
	c.op.settings = &back;
	ck_assert_int_eq(world_change(&w, &c), OK);
	world_say(&w, 0, "orders/1", "to mqtt", false);
	reader_wait(r, 3);
	ck_assert_uint_eq(r->got[0].group, r->got[2].group);
	ck_assert_uint_ne(r->got[0].group, r->got[1].group);
	reader_free(r);
	world_stop(&w);
}
END_TEST

START_TEST(follows_streams_that_grow_and_come_again)
{
	enum { SAID = 40 };
	char topic[24];
	world_start(&w, LOOPS);
	struct reader *r = reader_new(1), *behind = reader_new(2);
	ck_assert_int_eq(subscribe(r, "#"), OK);
	ck_assert_int_eq(subscribe(behind, "#"), OK);
	struct world_change c = {
		.op = {.kind = META_ADD_PARTITIONS, .name = "mqtt", .partitions = 9}};
	ck_assert_int_eq(world_change(&w, &c), OK);
	for (int i = 0; i < SAID; i++) {
		snprintf(topic, sizeof topic, "t/%d", i);
		world_say(&w, i % LOOPS, topic, "x", false);
	}
	reader_wait(r, SAID);
	ck_assert_int_gt(r->group_count, 4);
	reader_wait(behind, SAID);
	/* Deleted under one who is behind: what he had not read is gone, the route's stream is
	 * back. */
	behind->stopped = true;
	world_say(&w, 0, "t", "lost to one", false);
	reader_wait(r, SAID + 1);
	c.op = (struct meta_op){.kind = META_DELETE_STREAM, .name = "mqtt"};
	ck_assert_int_eq(world_change(&w, &c), OK);
	struct world_publish a = {.m = {.topic = bytes_text("t"), .value = bytes_text("y")}};
	for (int i = 0; i < 4000 && world_publish(&w, 0, &a) != OK; i++)
		usleep(5000);
	ck_assert_int_eq(a.err, OK);
	world_say(&w, 1, "t", "z", false);
	struct peek p = {.r = r};
	for (int k = 0; k < 6000 && strcmp(p.last, "z") != 0; k++) {
		usleep(2000);
		world_call(&w, r->loop, peek_run, &p);
	}
	ck_assert_str_eq(p.last, "z");
	ck_assert(!r->disorder);
	reader_go(behind);
	usleep(50000);
	ck_assert_int_ge(atomic_load(&behind->total), SAID);
	reader_free(behind);
	reader_free(r);
	world_stop(&w);
}
END_TEST

/* ---- QoS 2 of durable sessions */

START_TEST(a_claimed_message_is_stored_once)
{
	world_start(&w, LOOPS);
	struct reader *r = reader_new(1);
	ck_assert_int_eq(subscribe(r, "#"), OK);
	struct qos2_claim claim = {bytes_text("client"), 5, 5, 7, false},
			  next = {bytes_text("client"), 5, 5, 8, false};
	struct qos2_claim older = {bytes_text("client"), 4, 4, 9, false},
			  newer = {bytes_text("client"), 6, 5, 7, false},
			  other = {bytes_text("client"), 7, 7, 7, false};
	struct world_publish a = {
		.m = {.topic = bytes_text("a"), .value = bytes_text("v"), .qos = 2, .retain = true},
		.claim = &claim};
	world_say(&w, 0, "a", "before", false);
	ck_assert_int_eq(world_publish(&w, 0, &a), OK);
	int64_t first = a.p.offset;
	ck_assert_int_eq(first, 1);
	a.claim = &next;
	ck_assert_int_eq(world_publish(&w, 0, &a), OK);
	ck_assert_int_eq(a.p.offset, first + 1);
	a.claim = &newer; /* the client is back: a repeat of packet 7 */
	ck_assert_int_eq(world_publish(&w, 2, &a), OK);
	ck_assert_int_eq(a.p.offset, first);
	a.claim = &older;
	ck_assert_int_eq(world_publish(&w, 1, &a), ERR_FENCED);
	reader_wait(r, 3);
	a.claim = &other; /* a session begun anew: its packet 7 is another message */
	ck_assert_int_eq(world_publish(&w, 1, &a), OK);
	ck_assert_int_eq(a.p.offset, first + 2);
	ck_assert_int_eq(world_publish(&w, 1, &a), OK);
	ck_assert_int_eq(a.p.offset, first + 2);
	reader_wait(r, 4);
	uint8_t key[16];
	uint16_t id;
	uint64_t epoch;
	int64_t offset;
	size_t n = qos2_key(bytes_text("client"), 7, key);
	uint8_t row[16] = {0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1};
	ck_assert_int_eq(
		qos2_row_decode(bytes_of(key, n), bytes_of(row, 16), &id, &epoch, &offset), OK);
	ck_assert(id == 7 && epoch == 5 && offset == 1);
	ck_assert_int_eq(
		qos2_row_decode(bytes_of(key, n - 2), bytes_of(row, 8), &id, &epoch, &offset),
		ERR_NOTFOUND);
	ck_assert_int_eq(qos2_row_decode(bytes_of(key, n), bytes_of(row, 15), &id, &epoch, &offset),
		ERR_CORRUPT);
	reader_free(r);
	world_stop(&w);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("deliver");
	TCase *tc = tcase_create("deliver");
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, reaches_those_who_subscribed);
	tcase_add_test(tc, refuses_what_is_not_a_message);
	tcase_add_loop_test(tc, every_record_once_and_in_order, 0, 2);
	tcase_add_test(tc, one_that_stood_still_reads_the_log);
	tcase_add_test(tc, a_filter_added_behind_counts_from_then);
	tcase_add_test(tc, resumes_at_its_positions);
	tcase_add_test(tc, is_told_what_was_trimmed);
	tcase_add_test(tc, gives_one_record_again);
	tcase_add_test(tc, a_subscriber_may_end_itself_in_deliver);
	tcase_add_test(tc, knows_how_many_have_no_local);
	tcase_add_test(tc, memory_routes_have_no_log);
	tcase_add_test(tc, memory_routes_wait_for_who_takes_again);
	tcase_add_test(tc, memory_routes_see_a_reload);
	tcase_add_test(tc, a_route_set_later_makes_its_stream);
	tcase_add_test(tc, follows_streams_that_grow_and_come_again);
	tcase_add_test(tc, a_claimed_message_is_stored_once);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
