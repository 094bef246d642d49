/* What tools ask of those who lead: to hand over to the preferred one, who follows the catalogue,
 * which producers a partition knows.
 *
 * Leadership goes to the preferred replica by itself when that has been in sync for a while; asked
 * for, it goes at once. Some partitions at a time: each asks its leader to hand over and looks
 * until the other one leads. There are no unclean elections. */
#include "protocols/kafka/kafka_priv.h"
#include "server/broker/keyspace.h"
#include "server/broker/produce.h"

enum { ELECTION_PREFERRED, ELECTION_UNCLEAN };
enum {
	AT_ONCE = 16,
	LOOK_MS = 10,
	AGAIN_MS = 1000, /* a transfer may come to nothing */
	WAIT_MS_MAX = 60000,
	PRODUCERS_MAX = 10000, /* told of a partition */
	PRODUCERS_BYTES = 1 << 20
};

/* --- ElectLeaders */

struct election {
	const struct partition *of;
	uint32_t preferred;
	struct kafka_elect_leaders_res_partition *res;
};
struct elections { /* of a request */
	struct kafka_request *r;
	const struct catalog *held; /* partitions may go meanwhile */
	struct election *list;
	uint32_t count, next;
	int64_t until_ms;
	struct elector { /* takes one after the other */
		struct elections *all;
		struct election *at;
		struct partition_info ask;
		struct loop_timer timer;
		int64_t asked_ms;
	} by[AT_ONCE];
};

static void elections_fini(struct kafka_request *r)
{
	struct elections *all = r->op;
	catalog_release(all->held);
}

static void hurry_elections(struct kafka_request *r)
{
	struct elections *all = r->op;
	all->until_ms = 0;
}

static void elect_next(struct elector *e);

static void decided(struct elector *e, int16_t code)
{
	e->at->res->error = code;
	if (code == KAFKA_PREFERRED_NOT_AVAILABLE)
		e->at->res->message = bytes_text("the preferred replica is not in sync");
	elect_next(e);
}

static bool in_sync(const struct partition_info *i, uint32_t node)
{
	for (int n = 0; n < i->member_count; n++)
		if (i->members[n].replica >> 32 == node)
			return i->members[n].role == MEMBER_VOTER && i->members[n].in_sync;
	return false;
}

static void elect_ask(struct elector *e);

static void elect_look(struct loop_timer *t)
{
	struct elector *e = list_entry(t, struct elector, timer);
	struct shard *s = kafka_shard(e->all->r);
	int64_t now = loop_now_ms(shard_loop(s));
	if (place_leader(s, e->at->of) == e->at->preferred)
		decided(e, KAFKA_NONE);
	else if (now >= e->all->until_ms)
		decided(e, KAFKA_REQUEST_TIMED_OUT);
	else if (now - e->asked_ms >= AGAIN_MS)
		elect_ask(e);
	else
		loop_timer_set(t, LOOK_MS);
}

static void on_elect_asked(struct partition_info *i)
{
	struct elector *e = list_entry(i, struct elector, ask);
	if (i->err != OK)
		decided(e, kafka_code(i->err));
	else if (!in_sync(i, e->at->preferred))
		decided(e, KAFKA_PREFERRED_NOT_AVAILABLE);
	else
		loop_timer_set(&e->timer, LOOK_MS);
}

static void elect_ask(struct elector *e)
{
	e->asked_ms = loop_now_ms(shard_loop(kafka_shard(e->all->r)));
	e->ask = (struct partition_info){.at = (struct partition *)(uintptr_t)e->at->of,
		.prefer = true,
		.wait_ms = AGAIN_MS,
		.done = on_elect_asked};
	partition_ask_info(&e->ask);
}

static void elect_next(struct elector *e)
{
	struct elections *all = e->all;
	if (all->next == all->count) {
		kafka_land(all->r);
		return;
	}
	e->at = &all->list[all->next++];
	elect_ask(e);
}

/* 0: leadership is to go to *preferred. */
static int16_t election_check(
	struct kafka_request *r, const struct partition *p, uint32_t *preferred)
{
	const struct kafka_elect_leaders_req *req = r->req;
	struct place at;
	if (p == NULL)
		return KAFKA_UNKNOWN_TOPIC;
	place_of(kafka_shard(r), p, &at);
	*preferred = at.count > 0 ? at.replicas[0] : 0;
	if (req->election == ELECTION_UNCLEAN)
		return at.leader != 0 ? KAFKA_ELECTION_NOT_NEEDED : KAFKA_ELIGIBLE_NOT_AVAILABLE;
	if (at.leader != 0 && at.leader == *preferred)
		return KAFKA_ELECTION_NOT_NEEDED;
	return at.leader == 0 || !place_reachable(kafka_shard(r), *preferred)
		? KAFKA_PREFERRED_NOT_AVAILABLE
		: KAFKA_NONE;
}

/* Room for all that may be asked for. False: memory is out. */
static bool elections_new(struct kafka_request *r, uint32_t room)
{
	const struct kafka_elect_leaders_req *req = r->req;
	struct loop *l = shard_loop(kafka_shard(r));
	struct elections *all = kafka_take(r, sizeof *all);
	if (all == NULL)
		return false;
	all->list = kafka_take(r, (room + 1) * sizeof *all->list);
	if (all->list == NULL)
		return false;
	int64_t wait = req->timeout_ms < 0      ? 0
		: req->timeout_ms > WAIT_MS_MAX ? WAIT_MS_MAX
						: req->timeout_ms;
	all->r = r;
	all->until_ms = loop_now_ms(l) + wait;
	all->held = catalog_hold(kafka_catalog(r));
	for (int i = 0; i < AT_ONCE; i++) {
		all->by[i].all = all;
		loop_timer_init(&all->by[i].timer, l, elect_look);
	}
	r->op = all;
	r->fini = elections_fini;
	r->hurry = hurry_elections;
	return true;
}

/* One partition of a topic into the answer and, if it takes an election, into the list. */
static void elect_one(struct kafka_request *r, struct kafka_elect_leaders_res_topic *t,
	const struct stream *s, int32_t index)
{
	struct elections *all = r->op;
	struct kafka_elect_leaders_res_partition *one = &t->partitions[t->partitions_count++];
	struct election *e = &all->list[all->count];
	e->of = s != NULL ? stream_partition(s, index) : NULL;
	e->res = one;
	one->index = index;
	one->error = election_check(r, e->of, &e->preferred);
	all->count += one->error == KAFKA_NONE;
}

static bool elect_topic(struct kafka_request *r, struct kafka_elect_leaders_res_topic *t,
	struct bytes name, uint32_t count)
{
	t->name = kafka_copy(r, name);
	t->partitions = kafka_list(r, &kafka_elect_leaders_res_partition_type, count);
	return t->partitions != NULL;
}

static bool elect_asked(struct kafka_request *r)
{
	const struct kafka_elect_leaders_req *req = r->req;
	struct kafka_elect_leaders_res *res = r->res;
	uint32_t count = 0;
	for (uint32_t i = 0; i < req->topics_count; i++)
		count += req->topics[i].partitions_count;
	res->topics = kafka_list(r, &kafka_elect_leaders_res_topic_type, req->topics_count);
	if (res->topics == NULL || !elections_new(r, count))
		return false;
	for (uint32_t i = 0; i < req->topics_count; i++) {
		const struct kafka_elect_leaders_req_topic *t = &req->topics[i];
		const struct stream *s = kafka_stream(r, t->name);
		if (!elect_topic(
			    r, &res->topics[res->topics_count++], t->name, t->partitions_count))
			return false;
		for (uint32_t n = 0; n < t->partitions_count; n++)
			elect_one(r, &res->topics[i], s, t->partitions[n]);
	}
	return true;
}

/* All there are; those that need none are left out. */
static bool elect_all(struct kafka_request *r)
{
	const struct catalog *c = kafka_catalog(r);
	struct kafka_elect_leaders_res *res = r->res;
	uint32_t count = 0, streams = (uint32_t)catalog_stream_count(c);
	struct bytes name;
	for (uint32_t i = 0; i < streams; i++)
		count += (uint32_t)catalog_stream_at(c, (int)i)->partition_count;
	res->topics = kafka_list(r, &kafka_elect_leaders_res_topic_type, streams);
	if (res->topics == NULL || !elections_new(r, count))
		return false;
	for (uint32_t i = 0; i < streams; i++) {
		const struct stream *s = catalog_stream_at(c, (int)i);
		struct kafka_elect_leaders_res_topic *t = &res->topics[res->topics_count];
		if (!kafka_sees(r, s, &name))
			continue;
		if (!elect_topic(r, t, name, (uint32_t)s->partition_count))
			return false;
		for (int32_t n = 0; n < s->partition_count; n++) {
			elect_one(r, t, s, n);
			t->partitions_count -= t->partitions[t->partitions_count - 1].error ==
				KAFKA_ELECTION_NOT_NEEDED;
		}
		res->topics_count += t->partitions_count > 0;
	}
	return true;
}

void kafka_on_elect_leaders(struct kafka_request *r)
{
	const struct kafka_elect_leaders_req *req = r->req;
	struct kafka_elect_leaders_res *res = r->res;
	if (!kafka_may_cluster(r, ACTION_ALTER))
		res->error = KAFKA_CLUSTER_DENIED;
	else if (req->election < ELECTION_PREFERRED || req->election > ELECTION_UNCLEAN)
		res->error = KAFKA_INVALID_REQUEST;
	if (res->error != KAFKA_NONE) {
		kafka_answer(r);
		return;
	}
	if (!(req->topics != NULL ? elect_asked(r) : elect_all(r)))
		return;
	struct elections *all = r->op;
	r->outstanding = 1 + AT_ONCE;
	for (int i = 0; i < AT_ONCE; i++)
		elect_next(&all->by[i]);
	kafka_land(r);
}

/* --- DescribeQuorum: the catalogue as what Kafka keeps in __cluster_metadata */

struct quorum {
	struct partition_info info;
	struct kafka_request *r;
};

static bool is_metadata(const struct kafka_describe_quorum_req *req)
{
	return req->topics_count == 1 && req->topics[0].partitions_count == 1 &&
		req->topics[0].partitions[0].index == 0 &&
		bytes_equal(req->topics[0].name, bytes_text("__cluster_metadata"));
}

static bool fill_replicas(struct kafka_request *r, const struct partition_info *i, bool voters,
	struct kafka_describe_quorum_res_replica **out, uint32_t *count)
{
	struct kafka_describe_quorum_res_replica *list = kafka_list(
		r, &kafka_describe_quorum_res_replica_type, (uint32_t)i->member_count);
	*out = list;
	for (int n = 0; list != NULL && n < i->member_count; n++) {
		const struct partition_member *m = &i->members[n];
		if ((m->role == MEMBER_VOTER) != voters)
			continue;
		bool leads = m->replica >> 32 == i->leader;
		list->replica_id = (int32_t)(m->replica >> 32);
		list->log_end_offset = (int64_t)(leads ? i->last_index : m->match_index) + 1;
		list++;
		++*count;
	}
	return list != NULL;
}

static void on_quorum(struct partition_info *i)
{
	struct quorum *q = list_entry(i, struct quorum, info);
	struct kafka_request *r = q->r;
	struct kafka_describe_quorum_res *res = r->res;
	if (!kafka_landed(r))
		return;
	if (i->err != OK) {
		res->error = kafka_code(i->err);
		kafka_answer(r);
		return;
	}
	res->topics = kafka_list(r, &kafka_describe_quorum_res_topic_type, 1);
	struct kafka_describe_quorum_res_partition *p = res->topics == NULL
		? NULL
		: kafka_list(r, &kafka_describe_quorum_res_partition_type, 1);
	if (p == NULL)
		return;
	res->topics_count = 1;
	res->topics[0].name = bytes_text("__cluster_metadata");
	res->topics[0].partitions = p;
	res->topics[0].partitions_count = 1;
	p->leader_id = (int32_t)i->leader;
	p->leader_epoch = (int32_t)i->term;
	p->high_watermark = (int64_t)i->commit_index + 1;
	if (fill_replicas(r, i, true, &p->voters, &p->voters_count) &&
		fill_replicas(r, i, false, &p->observers, &p->observers_count))
		kafka_answer(r);
}

void kafka_on_describe_quorum(struct kafka_request *r)
{
	const struct kafka_describe_quorum_req *req = r->req;
	struct kafka_describe_quorum_res *res = r->res;
	struct partition *meta = catalog_meta(kafka_catalog(r));
	if (!kafka_may_cluster(r, ACTION_DESCRIBE))
		res->error = KAFKA_CLUSTER_DENIED;
	else if (!is_metadata(req))
		res->error = KAFKA_UNKNOWN_TOPIC;
	else if (meta == NULL)
		res->error = KAFKA_LEADER_NOT_AVAILABLE;
	if (res->error != KAFKA_NONE) {
		kafka_answer(r);
		return;
	}
	struct quorum *q = kafka_take(r, sizeof *q);
	if (q == NULL)
		return;
	q->r = r;
	q->info = (struct partition_info){.at = meta, .done = on_quorum};
	r->outstanding++;
	partition_ask_info(&q->info);
}

/* --- DescribeProducers: one partition after the other, as each takes memory until it is told */

struct producers {
	struct row_read rows;
	struct kafka_request *r;
	const struct catalog *held;
	uint32_t topic, next; /* the partition read is the one before next */
};

static void producers_fini(struct kafka_request *r)
{
	struct producers *p = r->op;
	catalog_release(p->held);
}

static bool fill_producers(struct kafka_request *r, const struct row_read *rows,
	struct kafka_describe_producers_res_partition *out)
{
	struct producer_row row;
	out->producers = kafka_list(
		r, &kafka_describe_producers_res_producer_type, (uint32_t)rows->count);
	for (int i = 0; out->producers != NULL && i < rows->count; i++) {
		struct kafka_describe_producers_res_producer *p =
			&out->producers[out->producers_count];
		if (rows->rows[i].key.len != 8 ||
			producer_row_read(rows->rows[i].value, &row) != OK || row.count == 0)
			continue;
		p->producer_id = (int64_t)get_u64be(rows->rows[i].key.at);
		p->producer_epoch = row.epoch;
		p->last_sequence = row.batches[row.count - 1].last;
		p->last_timestamp = row.time_ms;
		p->coordinator_epoch = -1;
		out->producers_count++;
	}
	return out->producers != NULL;
}

static void producers_next(struct producers *p);

static void on_producers(struct row_read *rows)
{
	struct producers *p = list_entry(rows, struct producers, rows);
	struct kafka_describe_producers_res *res = p->r->res;
	struct kafka_describe_producers_res_partition *one =
		&res->topics[p->topic].partitions[p->next - 1];
	bool wanted = !p->r->sent && !p->r->ready;
	if (rows->err != OK && rows->err != ERR_NOTFOUND)
		one->error = kafka_code(rows->err);
	else if (wanted)
		wanted = fill_producers(p->r, rows, one);
	row_read_fini(rows);
	if (wanted)
		producers_next(p);
	else
		kafka_land(p->r);
}

/* The next partition that can be read; else it is answered. */
static void producers_next(struct producers *p)
{
	const struct kafka_describe_producers_req *req = p->r->req;
	struct kafka_describe_producers_res *res = p->r->res;
	for (; p->topic < req->topics_count; p->topic++, p->next = 0) {
		const struct kafka_describe_producers_req_topic *t = &req->topics[p->topic];
		bool may = kafka_may_stream(p->r, ACTION_READ, t->name);
		while (p->next < t->partitions_count) {
			struct kafka_describe_producers_res_partition *one =
				&res->topics[p->topic].partitions[p->next];
			struct partition *of = NULL;
			one->index = t->partitions[p->next++];
			one->error = may ? kafka_find(p->r, t->name, one->index, -1, &of)
					 : KAFKA_TOPIC_DENIED;
			if (one->error != KAFKA_NONE)
				continue;
			p->rows = (struct row_read){.from = of,
				.keyspace = KEYSPACE_PRODUCER,
				.prefix = true,
				.rows_max = PRODUCERS_MAX,
				.bytes_max = PRODUCERS_BYTES,
				.done = on_producers};
			partition_read_rows(&p->rows);
			return;
		}
	}
	kafka_land(p->r);
}

void kafka_on_describe_producers(struct kafka_request *r)
{
	const struct kafka_describe_producers_req *req = r->req;
	struct kafka_describe_producers_res *res = r->res;
	struct producers *p = kafka_take(r, sizeof *p);
	if (p == NULL)
		return;
	res->topics = kafka_list(r, &kafka_describe_producers_res_topic_type, req->topics_count);
	if (res->topics == NULL)
		return;
	res->topics_count = req->topics_count;
	for (uint32_t i = 0; i < req->topics_count; i++) {
		uint32_t n = req->topics[i].partitions_count;
		res->topics[i].name = req->topics[i].name;
		res->topics[i].partitions = kafka_list(
			r, &kafka_describe_producers_res_partition_type, n);
		if (res->topics[i].partitions == NULL)
			return;
		res->topics[i].partitions_count = n;
	}
	p->r = r;
	p->held = catalog_hold(kafka_catalog(r));
	r->op = p;
	r->fini = producers_fini;
	r->outstanding++;
	producers_next(p);
}
