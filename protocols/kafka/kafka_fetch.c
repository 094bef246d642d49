/* Fetch. What is there is read from all partitions side by side and sent as it is stored. If it is
 * less than the client wants, the request waits: each partition has a wait of this connection
 * which tells when its log grows, and which stays armed for the next fetch when this one ends
 * otherwise. Every partition asked for is in the answer, with or without records. */
#include "protocols/kafka/kafka_priv.h"
#include "protocols/kafka/kafka_set.h"

enum {
	TIME_VERSION = 2,  /* messages have times */
	BATCH_VERSION = 4, /* before it they are message sets, not batches as they are stored */
	BYTES_LEAST = 64 << 10,      /* of a fetch, even when the loop is short of memory */
	READ_BYTES_LEAST = 32 << 10, /* a read counts as this much, however little is wanted */
};

struct fetch_wait { /* one partition watched for a connection; freed when it has told */
	struct partition_wait wait;
	struct kafka_conn *kc;
	uint64_t group;
};

struct part {
	struct stream_read read;
	struct kafka_request *r;
	const struct kafka_fetch_req_partition *req;
	struct kafka_fetch_res_partition *res;
	struct bytes topic;
	struct kafka_set set;        /* made of what was read, for old clients */
	struct partition *partition; /* good for this turn */
	int64_t seen;                /* no more than this was there when last looked at */
	bool reading, held;
	bool sent_away; /* to a nearer replica */
	bool beyond; /* above what is known here: the read tells whether there is such an offset */
};

struct fetch {
	struct part *parts;
	uint32_t count;
	uint32_t reading;
	size_t bytes, bytes_max;
	int64_t inflated;          /* for message sets */
	bool waits, stale, failed; /* stale: what it waits for may be there */
	bool now;                  /* whatever is there is the answer */
};

static void look(struct kafka_request *r);

/* Waiting */

static struct kafka_request *next_stale(struct kafka_conn *kc)
{
	for (struct list *l = kc->requests.next; l != &kc->requests; l = l->next) {
		struct kafka_request *r = list_entry(l, struct kafka_request, node);
		const struct fetch *f = r->op;
		if (r->h.key == KAFKA_FETCH && !r->ready && f != NULL && f->stale)
			return r;
	}
	return NULL;
}

/* All that wait look again. */
void kafka_fetch_changed(struct kafka_conn *kc)
{
	struct conn *c = kc->conn;
	conn_ref(c);
	for (struct list *l = kc->requests.next; l != &kc->requests; l = l->next) {
		struct kafka_request *r = list_entry(l, struct kafka_request, node);
		struct fetch *f = r->op;
		if (r->h.key == KAFKA_FETCH && !r->ready && f != NULL && f->waits)
			f->stale = true;
	}
	struct kafka_request *next;
	while (!kc->closed && (next = next_stale(kc)) != NULL)
		look(next); /* may free it and others */
	conn_unref(c);
}

static void on_grown(struct partition_wait *w)
{
	struct fetch_wait *fw = list_entry(w, struct fetch_wait, wait);
	struct kafka_conn *kc = fw->kc;
	struct conn *c = kc->conn;
	map_remove_u64(&kc->waits, fw->group);
	mem_free(fw);
	kafka_fetch_changed(kc);
	if (kc->closed && kc->waits.count == 0)
		map_fini(&kc->waits);
	conn_unref(c);
}

static void arm(struct kafka_conn *kc, struct part *p)
{
	uint64_t group = partition_group(p->partition);
	if (map_get_u64(&kc->waits, group) != NULL)
		return;
	struct fetch_wait *fw = mem_new(sizeof *fw);
	fw->kc = kc;
	fw->group = group;
	fw->wait = (struct partition_wait){.at = p->partition, .offset = p->seen, .done = on_grown};
	map_put_u64(&kc->waits, group, fw);
	conn_ref(kc->conn);
	partition_wait(&fw->wait);
}

void kafka_fetch_closed(struct kafka_conn *kc)
{
	uint32_t at = 0;
	struct fetch_wait *fw;
	while ((fw = map_next(&kc->waits, &at)) != NULL)
		partition_wait_cancel(&fw->wait);
	if (kc->waits.count == 0)
		map_fini(&kc->waits);
}

/* Answering */

static void drop(struct part *p)
{
	if (p->held)
		stream_read_fini(&p->read);
	slice_unref(&p->set.bytes);
	p->held = false;
}

static void fetch_fini(struct kafka_request *r)
{
	struct fetch *f = r->op;
	for (uint32_t i = 0; i < f->count; i++)
		drop(&f->parts[i]);
}

static void let_go(struct kafka_request *r, struct fetch *f)
{
	for (uint32_t i = 0; i < f->count; i++) {
		struct part *p = &f->parts[i];
		drop(p);
		p->res->records = (struct kafka_records){.bytes = bytes_of(kafka_empty, 0)};
	}
	f->bytes = 0;
	kafka_fetching(r, -r->fetching);
}

static void fail_part(struct fetch *f, struct part *p, int16_t code)
{
	f->failed = true;
	p->res->error = code;
	p->res->high_watermark = -1;
	if (p->partition != NULL && (code == KAFKA_NOT_LEADER || code == KAFKA_FENCED_LEADER_EPOCH))
		kafka_hint(p->r, p->partition, &p->res->leader.leader_id,
			&p->res->leader.leader_epoch);
}

/* What is given counts for the quotas; who has used them up is not heard for a while. */
static int32_t charge(struct kafka_request *r, const struct fetch *f)
{
	int64_t messages = 0;
	if (f->bytes == 0 || !access_limited(r->access))
		return 0;
	for (uint32_t i = 0; i < f->count; i++) {
		const struct kafka_records *records = &f->parts[i].res->records;
		messages += f->parts[i].set.bytes.chunk != NULL ? f->parts[i].set.count : 0;
		for (uint32_t n = 0; n < records->slices_count; n++) {
			struct bytes left = records->slices[n].bytes;
			struct batch b;
			while (left.len > 0 && batch_read(left, &b) == OK) {
				messages += b.count;
				left = bytes_of(left.at + b.all.len, left.len - b.all.len);
			}
		}
	}
	return kafka_throttle(r, access_charge_out(r->access, messages, (int64_t)f->bytes));
}

static void on_read(struct stream_read *sr);

static void read_from(struct part *p, int64_t offset, size_t bytes_max)
{
	p->read = (struct stream_read){
		.from = p->partition, .offset = offset, .bytes_max = bytes_max, .done = on_read};
	((struct fetch *)p->r->op)->reading++;
	p->r->outstanding++;
	p->held = false;
	stream_read(&p->read);
}

/* A message set in place of the batches, for old clients. False: compaction has left no record in
 * the batches from where the client is on; it could not get past them, so we read on, however much
 * that unpacks: at most one batch has to be unpacked to find nothing in it. */
static bool make_set(struct kafka_request *r, struct part *p)
{
	struct fetch *f = r->op;
	struct stream_read *sr = &p->read;
	size_t max = sr->bytes_max;
	int64_t next = sr->next_offset;
	bool goes_on = sr->offset > p->req->fetch_offset;
	if (r->h.version >= BATCH_VERSION || sr->err != OK || sr->count == 0)
		return true;
	if (!goes_on && f->inflated > kafka_of(r)->conf->fetch_bytes_max) {
		stream_read_fini(sr); /* enough work for one answer: it gets none now */
		return true;
	}
	sr->err = kafka_set_write(sr->slices, sr->count, p->req->fetch_offset,
		r->h.version >= TIME_VERSION, max, &p->set);
	f->inflated += (int64_t)p->set.inflated;
	stream_read_fini(sr);
	if (sr->err != OK || p->set.count > 0 || next >= sr->high_watermark)
		return true;
	read_from(p, next, max);
	return false;
}

/* The batches that were read, or what was made of them. */
static void give(struct fetch *f, struct part *p)
{
	struct stream_read *sr = &p->read;
	bool is_set = p->set.bytes.chunk != NULL;
	size_t bytes = is_set ? p->set.bytes.bytes.len : sr->bytes;
	/* A batch over its partition's limit is given, but only one over the answer's. */
	if (f->bytes > 0 && f->bytes + bytes > f->bytes_max) {
		drop(p);
		return;
	}
	if (is_set)
		p->res->records = (struct kafka_records){
			.slices = &p->set.bytes, .slices_count = 1};
	else if (sr->count > 0)
		p->res->records = (struct kafka_records){
			.slices = sr->slices, .slices_count = sr->count};
	else
		return;
	f->bytes += bytes;
}

static void on_read(struct stream_read *sr)
{
	struct part *p = list_entry(sr, struct part, read);
	struct kafka_request *r = p->r;
	struct fetch *f = r->op;
	const struct kafka_fetch_req *req = r->req;
	f->reading--;
	p->held = true;
	if (!kafka_landed(r) || !make_set(r, p))
		return;
	if (sr->err != OK) {
		bool later = p->beyond && sr->err == ERR_UNAVAILABLE;
		fail_part(f, p, later ? KAFKA_OFFSET_NOT_AVAILABLE : kafka_fetch_code(sr->err));
	} else {
		p->seen = sr->high_watermark;
		p->res->high_watermark = p->res->last_stable_offset = sr->high_watermark;
		p->res->log_start_offset = sr->first_offset;
		give(f, p);
	}
	if (f->reading > 0)
		return;
	kafka_fetching(r, (int64_t)f->bytes - r->fetching);
	if (f->bytes >= (size_t)(req->min_bytes > 0 ? req->min_bytes : 0) || f->failed || f->now ||
		r->kc->closed) {
		kafka_count(r->kc->home, M_FETCH_BYTES, (int64_t)f->bytes);
		((struct kafka_fetch_res *)r->res)->throttle_ms = charge(r, f);
		kafka_answer(r);
		return;
	}
	let_go(r, f);
	look(r);
}

/* Looking */

/* Consumers that can say where they are may read from any replica (KIP-392). */
enum { RACK_VERSION = 11 };

/* A consumer in the rack of a follower is sent there, instead of being given records: it asks that
 * one for as long as it answers. */
static bool sent_to_its_rack(struct kafka_request *r, struct fetch *f, struct part *p)
{
	const struct kafka_fetch_req *req = r->req;
	uint32_t nearest = 0;
	if (r->h.version >= RACK_VERSION && req->rack_id.len > 0 && partition_leads(p->partition))
		nearest = place_nearest(kafka_shard(r), p->partition, req->rack_id);
	if (nearest == 0)
		return false;
	p->res->preferred_replica = (int32_t)nearest;
	f->failed = true; /* the client is to hear of it now */
	p->sent_away = true;
	return true;
}

/* Finds the partition and says what is known without reading. False: it is answered already. */
static bool part_look(struct kafka_request *r, struct fetch *f, struct part *p, bool may)
{
	int16_t code = !may ? KAFKA_TOPIC_DENIED
			    : (r->h.version >= RACK_VERSION ? kafka_find_replica : kafka_find)(r,
				      p->topic, p->req->index, p->req->leader_epoch, &p->partition);
	p->sent_away = p->beyond = false;
	if (code != KAFKA_NONE) {
		fail_part(f, p, code);
		return false;
	}
	int64_t first = partition_first_offset(p->partition);
	int64_t high = partition_high_watermark(p->partition);
	p->res->error = KAFKA_NONE;
	p->res->high_watermark = p->res->last_stable_offset = high;
	p->res->log_start_offset = first;
	p->beyond = p->req->fetch_offset > high && partition_leads(p->partition);
	if (p->beyond)
		return true;
	if (p->req->fetch_offset < first || p->req->fetch_offset > high) {
		/* A follower may not have heard yet that it is committed. */
		bool later = p->req->fetch_offset > high;
		fail_part(f, p, later ? KAFKA_OFFSET_NOT_AVAILABLE : KAFKA_OFFSET_OUT_OF_RANGE);
		p->res->log_start_offset = first;
		return false;
	}
	return !sent_to_its_rack(r, f, p);
}

static void read_all(struct kafka_request *r, struct fetch *f)
{
	const struct kafka_fetch_req *req = r->req;
	const struct kafka_conf *conf = kafka_of(r)->conf;
	int64_t room = conf->loop_fetch_bytes - r->kc->home->fetched;
	int64_t left = room < BYTES_LEAST ? BYTES_LEAST : room;
	if (conf->fetch_bytes_max < left)
		left = conf->fetch_bytes_max;
	if (req->max_bytes < left)
		left = req->max_bytes;
	f->bytes_max = left > 0 ? (size_t)left : 0;
	for (uint32_t i = 0; i < f->count; i++) {
		struct part *p = &f->parts[i];
		int64_t max = p->req->max_bytes < left ? p->req->max_bytes : left;
		if (p->res->error != KAFKA_NONE || p->sent_away ||
			(p->res->high_watermark <= p->req->fetch_offset && !p->beyond))
			continue;
		if (left <= 0 && f->reading > 0) {
			f->now = true; /* to wait for more would be to read the same again */
			continue;
		}
		int64_t cost = max < READ_BYTES_LEAST ? READ_BYTES_LEAST : max;
		left -= cost;
		kafka_fetching(r, cost);
		read_from(p, p->req->fetch_offset, max > 0 ? (size_t)max : 1);
	}
}

static void look(struct kafka_request *r)
{
	struct fetch *f = r->op;
	const struct kafka_fetch_req *req = r->req;
	bool there = false;
	f->waits = f->stale = false;
	f->failed = false;
	f->inflated = 0;
	bool may = false;
	for (uint32_t i = 0; i < f->count; i++) {
		struct part *p = &f->parts[i];
		if (i == 0 || p->topic.at != f->parts[i - 1].topic.at)
			may = kafka_may_stream(r, ACTION_READ, p->topic);
		if (part_look(r, f, p, may))
			there |= p->beyond || p->res->high_watermark > p->seen;
	}
	if (there || f->failed || f->now || req->min_bytes <= 0)
		read_all(r, f);
	if (f->reading > 0)
		return;
	if (f->failed || f->now || req->min_bytes <= 0 || req->max_wait_ms <= 0) {
		kafka_answer(r);
		return;
	}
	f->waits = true;
	kafka_count(r->kc->home, M_FETCH_WAITS, 1);
	for (uint32_t i = 0; i < f->count; i++)
		arm(r->kc, &f->parts[i]);
}

/* Time is up, something waits behind it, or the client is gone. */
static void hurry(struct kafka_request *r)
{
	struct fetch *f = r->op;
	f->now = true;
	if (!f->waits)
		return; /* reads are under way: their end is the answer */
	if (r->kc->closed)
		kafka_answer(r);
	else
		look(r);
}

static bool prepare(struct kafka_request *r, struct fetch *f)
{
	const struct kafka_fetch_req *req = r->req;
	struct kafka_fetch_res *res = r->res;
	uint32_t at = 0;
	for (uint32_t i = 0; i < req->topics_count; i++)
		f->count += req->topics[i].partitions_count;
	f->parts = kafka_take(r, f->count * sizeof *f->parts);
	if (f->parts == NULL)
		return false;
	res->topics_count = req->topics_count;
	res->topics = kafka_list(r, &kafka_fetch_res_topic_type, req->topics_count);
	if (res->topics == NULL)
		return false;
	for (uint32_t i = 0; i < req->topics_count; i++) {
		const struct kafka_fetch_req_topic *t = &req->topics[i];
		res->topics[i].name = t->name;
		res->topics[i].partitions_count = t->partitions_count;
		res->topics[i].partitions = kafka_list(
			r, &kafka_fetch_res_partition_type, t->partitions_count);
		if (res->topics[i].partitions == NULL)
			return false;
		for (uint32_t n = 0; n < t->partitions_count; n++) {
			struct part *p = &f->parts[at++];
			p->r = r;
			p->req = &t->partitions[n];
			p->res = &res->topics[i].partitions[n];
			p->topic = t->name;
			p->seen = p->req->fetch_offset;
			p->res->index = p->req->index;
			p->res->records.bytes = bytes_of(kafka_empty, 0);
		}
	}
	return true;
}

void kafka_on_fetch(struct kafka_request *r)
{
	const struct kafka_fetch_req *req = r->req;
	struct kafka_fetch_res *res = r->res;
	if (req->session_id != 0 && req->session_epoch > 0) {
		res->error = KAFKA_FETCH_SESSION_NOT_FOUND; /* none was ever given out */
		kafka_answer(r);
		return;
	}
	struct fetch *f = kafka_take(r, sizeof *f);
	if (f == NULL || !prepare(r, f))
		return;
	r->op = f;
	r->fini = fetch_fini;
	r->hurry = hurry;
	if (req->max_wait_ms > 0)
		loop_timer_set(&r->timer, req->max_wait_ms);
	look(r);
}
