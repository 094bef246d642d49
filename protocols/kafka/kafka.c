/* Frames in, answers out. Each request is an object with memory of its own; requests of a
 * connection are worked on side by side and answered in the order they came, for that is what
 * clients count on. How many may be under way is bounded, in number and in produced bytes, per
 * connection and per loop: over it the socket is not read.
 *
 * A request outlives its connection while completions for it are to come; the connection's memory
 * then is held by it. */
#include "protocols/kafka/kafka_priv.h"
#include <stdio.h>
#include <stdlib.h>
#include "server/base/log.h"

enum {
	LENGTH_BYTES = 4,
	FRAME_BYTES_MIN = 8,
	REQUESTS_MAX = 256,
	FETCHES_MAX = 8, /* of a connection at a time: each is given a batch at least */
	SPARE_MAX = 64,
	HELD_BYTES_MIN = 64 << 10, /* requests whose memory is less are not counted */
	ARENA_BYTES = 64 << 20,
	LOGIN_BYTES_MAX = 16 << 10, /* of a frame before the login */
	MUTE_MS_MAX = 10000,        /* members of groups must be heard in their session's time */
	OUT_BYTES_MAX = 1 << 30
};

#define AT(field) offsetof(struct kafka_conf, field)
#define SIZE_ROW(name, field, preset, least, most, text)                                           \
	{                                                                                          \
		.key = name, .kind = CONF_BYTES, .at = AT(field), .initial = preset, .min = least, \
		.max = most, .effect = CONF_AT_RELOAD, .help = text                                \
	}
#define TIME_ROW(name, field, preset, least, most, text)                                           \
	{                                                                                          \
		.key = name, .kind = CONF_MSEC, .at = AT(field), .initial = preset, .min = least,  \
		.max = most, .effect = CONF_AT_RELOAD, .help = text                                \
	}
#define COUNT_ROW(name, field, preset, least, most, text)                                          \
	{                                                                                          \
		.key = name, .kind = CONF_INT, .at = AT(field), .initial = preset, .min = least,   \
		.max = most, .effect = CONF_AT_RELOAD, .help = text                                \
	}

const struct conf_row kafka_rows[] = {
	SIZE_ROW("kafka.request_bytes_max", request_bytes_max, "32MiB", 4096, 100 << 20,
		"The longest Kafka request."),
	SIZE_ROW("kafka.first_request_bytes_max", request_bytes_first, "2MiB", 4096, 100 << 20,
		"The longest request while a connection has sent none that made sense."),
	TIME_ROW("kafka.request_ms", request_ms, "60s", 1000, 3600000,
		"How long a request may take to arrive once it has begun."),
	SIZE_ROW("kafka.fetch_bytes_max", fetch_bytes_max, "50MiB", 1024, 200 << 20,
		"Most bytes of records in one fetch response, whatever the client allows."),
	SIZE_ROW("kafka.inflight_bytes_max", inflight_bytes_max, "16MiB", 65536, 1 << 30,
		"Produced and not yet answered bytes over which a connection is not read."),
	SIZE_ROW("kafka.loop_inflight_bytes_max", loop_inflight_bytes, "64MiB", 65536, 1 << 30,
		"The same over all connections of a loop."),
	SIZE_ROW("kafka.loop_held_bytes_max", loop_held_bytes, "128MiB", 1 << 20, (int64_t)1 << 40,
		"Memory of large requests other than produces, over all connections of a loop; "
		"who asks for more is disconnected."),
	SIZE_ROW("kafka.loop_fetch_bytes_max", loop_fetch_bytes, "128MiB", 1 << 20,
		(int64_t)1 << 40,
		"Bytes of records fetched on a loop and not yet taken by sockets, beyond which "
		"fetches get little at a time."),
	TIME_ROW("producer.retention", producer_keep_ms, "1d", 1000, INT64_MAX / 16,
		"How long an idempotent producer that is silent is remembered."),
	TIME_ROW("group.session_timeout_min", group.session_ms_min, "6s", 1, 1800000,
		"The shortest session timeout a member of a consumer group may ask for."),
	TIME_ROW("group.session_timeout_max", group.session_ms_max, "30m", 1000, 86400000,
		"The longest one."),
	TIME_ROW("group.initial_rebalance_delay", group.initial_delay_ms, "3s", 0, 600000,
		"How long an empty consumer group waits for more members before it starts."),
	COUNT_ROW("group.members_max", group.members_max, "1000", 1, 100000,
		"Most members of a consumer group."),
	SIZE_ROW("group.bytes_max", group.bytes_max, "16MiB", 65536, 1 << 30,
		"Most bytes of what the members of one group say of themselves and are assigned."),
	SIZE_ROW("group.loop_bytes_max", group.loop_bytes_max, "128MiB", 1 << 20, (int64_t)1 << 40,
		"The same over all groups at home on one loop."),
	TIME_ROW("group.offsets_retention", group.offsets_keep_ms, "7d", 1000, INT64_MAX / 16,
		"How long the committed offsets of a consumer group are kept when neither they nor "
		"the group are in use."),
	COUNT_ROW("group.groups_max", group.groups_max, "10000", 1, 10000000,
		"Most consumer groups with members per table."),
	SIZE_ROW("group.offset_metadata_max", group.offset_metadata_max, "4KiB", 0, 65536,
		"Most bytes a client may attach to a committed offset."),
	{0},
};

static const struct metric_row metric_rows[M_KAFKA_COUNT] = {
	[M_REQUESTS] = {"sluice_kafka_requests_total", NULL, METRIC_COUNTER, "Requests read."},
	[M_MALFORMED] = {"sluice_kafka_malformed_total", NULL, METRIC_COUNTER,
		"Requests that closed their connection."},
	[M_PRODUCE_BYTES] = {"sluice_kafka_produced_bytes_total", NULL, METRIC_COUNTER,
		"Bytes of record batches taken."},
	[M_FETCH_BYTES] = {"sluice_kafka_fetched_bytes_total", NULL, METRIC_COUNTER,
		"Bytes of record batches given."},
	[M_FETCH_WAITS] = {"sluice_kafka_fetch_waits_total", NULL, METRIC_COUNTER,
		"Fetches that waited for records."},
	[M_REFUSED_BATCHES] = {"sluice_kafka_refused_batches_total", NULL, METRIC_COUNTER,
		"Batches that were answered with an error."},
	[M_THROTTLED] = {"sluice_kafka_throttled_total", NULL, METRIC_COUNTER,
		"Answers after which a connection was not read for a while, by its quota."},
	[M_MOVED] = {"sluice_kafka_moved_total", NULL, METRIC_COUNTER,
		"Connections that went to the loop of the group they heartbeat for."},
};
struct metric_table kafka_metrics = {metric_rows, M_KAFKA_COUNT, 0};

void kafka_count(struct kafka_loop *h, enum kafka_metric row, int64_t n)
{
	metric_add(loop_cells(h->loop), &kafka_metrics, (int)row, n);
}

const struct kafka_handler kafka_handlers[] = {
	{KAFKA_PRODUCE, 0, 10, false, kafka_on_produce},
	{KAFKA_FETCH, 0, 12, true, kafka_on_fetch},
	{KAFKA_LIST_OFFSETS, 1, 8, true, kafka_on_list_offsets},
	{KAFKA_METADATA, 0, 12, true, kafka_on_metadata},
	{KAFKA_OFFSET_COMMIT, 1, 9, true, kafka_on_offset_commit},
	{KAFKA_OFFSET_FETCH, 1, 9, true, kafka_on_offset_fetch},
	{KAFKA_FIND_COORDINATOR, 0, 4, true, kafka_on_find_coordinator},
	{KAFKA_JOIN_GROUP, 0, 9, true, kafka_on_join_group},
	{KAFKA_HEARTBEAT, 0, 4, true, kafka_on_heartbeat},
	{KAFKA_LEAVE_GROUP, 0, 5, true, kafka_on_leave_group},
	{KAFKA_SYNC_GROUP, 0, 5, true, kafka_on_sync_group},
	{KAFKA_DESCRIBE_GROUPS, 0, 5, true, kafka_on_describe_groups},
	{KAFKA_LIST_GROUPS, 0, 4, true, kafka_on_list_groups},
	{KAFKA_SASL_HANDSHAKE, 0, 1, false, kafka_on_sasl_handshake},
	{KAFKA_API_VERSIONS, 0, 4, false, kafka_on_api_versions},
	{KAFKA_CREATE_TOPICS, 0, 7, true, kafka_on_create_topics},
	{KAFKA_DELETE_TOPICS, 1, 6, true, kafka_on_delete_topics},
	{KAFKA_DELETE_RECORDS, 0, 2, true, kafka_on_delete_records},
	{KAFKA_INIT_PRODUCER_ID, 0, 5, true, kafka_on_init_producer_id},
	{KAFKA_OFFSET_FOR_LEADER_EPOCH, 2, 4, true, kafka_on_offset_for_leader_epoch},
	{KAFKA_DESCRIBE_ACLS, 1, 3, true, kafka_on_describe_acls},
	{KAFKA_CREATE_ACLS, 1, 3, true, kafka_on_create_acls},
	{KAFKA_DELETE_ACLS, 1, 3, true, kafka_on_delete_acls},
	{KAFKA_DESCRIBE_CONFIGS, 1, 4, true, kafka_on_describe_configs},
	{KAFKA_ALTER_CONFIGS, 0, 2, true, kafka_on_alter_configs},
	{KAFKA_DESCRIBE_LOG_DIRS, 1, 4, true, kafka_on_describe_log_dirs},
	{KAFKA_SASL_AUTHENTICATE, 0, 2, false, kafka_on_sasl_authenticate},
	{KAFKA_CREATE_PARTITIONS, 0, 3, true, kafka_on_create_partitions},
	{KAFKA_DELETE_GROUPS, 0, 2, true, kafka_on_delete_groups},
	{KAFKA_ELECT_LEADERS, 0, 2, true, kafka_on_elect_leaders},
	{KAFKA_INCREMENTAL_ALTER_CONFIGS, 0, 1, true, kafka_on_incremental_alter_configs},
	{KAFKA_LIST_PARTITION_REASSIGNMENTS, 0, 0, true, kafka_on_list_reassignments},
	{KAFKA_OFFSET_DELETE, 0, 0, true, kafka_on_offset_delete},
	{KAFKA_DESCRIBE_CLIENT_QUOTAS, 0, 1, true, kafka_on_describe_client_quotas},
	{KAFKA_ALTER_CLIENT_QUOTAS, 0, 1, true, kafka_on_alter_client_quotas},
	{KAFKA_DESCRIBE_SCRAM_USERS, 0, 0, true, kafka_on_describe_scram_users},
	{KAFKA_ALTER_SCRAM_USERS, 0, 0, true, kafka_on_alter_scram_users},
	{KAFKA_DESCRIBE_QUORUM, 0, 1, true, kafka_on_describe_quorum},
	{KAFKA_DESCRIBE_CLUSTER, 0, 1, true, kafka_on_describe_cluster},
	{KAFKA_DESCRIBE_PRODUCERS, 0, 0, true, kafka_on_describe_producers},
};
const int kafka_handlers_count = sizeof kafka_handlers / sizeof *kafka_handlers;

static const struct kafka_handler *handler_find(int key, int version)
{
	for (int i = 0; i < kafka_handlers_count; i++)
		if (kafka_handlers[i].key == key)
			return version >= kafka_handlers[i].first &&
					version <= kafka_handlers[i].last
				? &kafka_handlers[i]
				: NULL;
	return NULL;
}

/* Back-pressure. One pause for all reasons. */

static bool too_much(const struct kafka_conn *kc)
{
	const struct kafka_conf *conf = kc->home->kafka->conf;
	return kc->login_busy || kc->muted || kc->count >= REQUESTS_MAX ||
		kc->fetches >= FETCHES_MAX || kc->inflight > conf->inflight_bytes_max ||
		kc->home->inflight > conf->loop_inflight_bytes || conn_over_high(kc->conn);
}

void kafka_pace(struct kafka_conn *kc)
{
	if (kc->closed)
		return;
	bool stop = too_much(kc);
	if (stop && kc->home->inflight > kc->home->kafka->conf->loop_inflight_bytes &&
		list_empty(&kc->hungry))
		list_push_back(&kc->home->hungry, &kc->hungry);
	if (stop == kc->paused)
		return;
	kc->paused = stop;
	if (stop)
		conn_pause(kc->conn);
	else
		conn_resume(kc->conn);
}

static void on_unmute(struct loop_timer *t)
{
	struct kafka_conn *kc = list_entry(t, struct kafka_conn, mute);
	kc->muted = false;
	kafka_pace(kc);
}

void kafka_enter(struct kafka_conn *kc, struct conn *c, struct kafka_loop *h)
{
	if (h->shard == NULL) {
		h->shard = broker_shard(h->kafka->broker, h->loop);
		producer_ids_init(&h->ids, h->shard);
	}
	kc->conn = c;
	kc->home = h;
	loop_timer_init(&kc->mute, h->loop, on_unmute);
}

/* The answer goes out at once (KIP-219): clients are told, and those who do not care are not read
 * all the same. */
int32_t kafka_throttle(struct kafka_request *r, int64_t ms)
{
	struct kafka_conn *kc = r->kc;
	if (ms <= 0 || kc->closed)
		return 0;
	if (ms > MUTE_MS_MAX)
		ms = MUTE_MS_MAX;
	kafka_count(kc->home, M_THROTTLED, 1);
	int64_t until = loop_now_ms(kc->home->loop) + ms;
	if (!kc->muted || until > kc->muted_until_ms) { /* another quota's time may end later */
		kc->muted = true;
		kc->muted_until_ms = until;
		loop_timer_set(&kc->mute, ms);
	}
	kafka_pace(kc);
	return (int32_t)ms;
}

static void feed_hungry(struct kafka_loop *h)
{
	struct list *l;
	while (h->inflight <= h->kafka->conf->loop_inflight_bytes &&
		(l = list_pop(&h->hungry)) != NULL)
		kafka_pace(list_entry(l, struct kafka_conn, hungry));
}

/* Memory of requests other than produces: what waits long (a join, a fetch) must not make others
 * wait, so there is no pause for it, but an end. */
static enum err count_held(struct kafka_request *r)
{
	struct kafka_loop *h = r->kc->home;
	int64_t now = r->arena.held >= HELD_BYTES_MIN ? (int64_t)r->arena.held : 0;
	int64_t more = now - r->held;
	if (more == 0)
		return OK;
	r->held = now;
	r->kc->inflight += more;
	h->held += more;
	return more > 0 && h->held > h->kafka->conf->loop_held_bytes ? ERR_BUSY : OK;
}

void kafka_producing(struct kafka_request *r, int64_t more)
{
	r->bytes += more;
	r->kc->inflight += more;
	r->kc->home->inflight += more;
}

void kafka_fetching(struct kafka_request *r, int64_t more)
{
	r->fetching += more;
	r->kc->home->fetched += more;
}

/* What was sent has left, or never will. */
static void fetched_gone(struct kafka_conn *kc)
{
	kc->home->fetched -= kc->fetched;
	kc->fetched = 0;
}

/* Requests */

static void flush(struct kafka_conn *kc);

static void on_timer(struct loop_timer *t)
{
	struct kafka_request *r = list_entry(t, struct kafka_request, timer);
	if (r->ready)
		flush(r->kc); /* it has failed */
	else if (r->hurry != NULL)
		r->hurry(r);
}

static struct kafka_request *request_new(struct kafka_conn *kc, size_t frame)
{
	struct kafka_loop *h = kc->home;
	struct list *l = list_pop(&h->spare);
	struct kafka_request *r;
	if (l != NULL) {
		r = list_entry(l, struct kafka_request, node);
		h->spare_count--;
		struct arena arena = r->arena;
		*r = (struct kafka_request){.arena = arena};
	} else {
		r = mem_new(sizeof *r);
		arena_init(&r->arena, 0);
	}
	r->arena.max = ARENA_BYTES + frame * 4;
	r->kc = kc;
	r->access = kc->who.access != NULL ? access_ref(kc->who.access) : NULL;
	loop_timer_init(&r->timer, h->loop, on_timer);
	list_init(&r->awaiting);
	list_push_back(&kc->requests, &r->node);
	kc->count++;
	conn_ref(kc->conn);
	return r;
}

static void request_free(struct kafka_request *r)
{
	struct kafka_conn *kc = r->kc;
	struct kafka_loop *h = kc->home;
	struct conn *c = kc->conn;
	loop_timer_cancel(&r->timer);
	if (r->fini != NULL)
		r->fini(r);
	access_unref(r->access);
	kc->inflight -= r->bytes + r->held;
	h->inflight -= r->bytes;
	h->held -= r->held;
	h->fetched -= r->fetching;
	arena_reset(&r->arena);
	if (h->spare_count < SPARE_MAX) {
		h->spare_count++;
		list_push_back(&h->spare, &r->node);
	} else {
		arena_fini(&r->arena);
		mem_free(r);
	}
	kafka_pace(kc);
	conn_unref(c);
	feed_hungry(h);
}

/* Takes r out of the queue; it lives on for what is outstanding. */
static void request_leave(struct kafka_request *r)
{
	list_remove(&r->node);
	r->kc->count--;
	r->kc->fetches -= r->h.key == KAFKA_FETCH;
	r->sent = true;
	if (r->outstanding == 0)
		request_free(r);
}

bool kafka_landed(struct kafka_request *r)
{
	must(r->outstanding > 0);
	r->outstanding--;
	if (!r->sent)
		return true;
	if (r->outstanding == 0)
		request_free(r);
	return false;
}

void kafka_land(struct kafka_request *r)
{
	if (kafka_landed(r) && r->outstanding == 0)
		kafka_answer(r);
}

static void send_slice(void *arg, struct slice s)
{
	conn_send_slice(arg, s);
}

static enum err send(struct kafka_request *r)
{
	struct kafka_out *out = &r->kc->home->out;
	struct conn *c = r->kc->conn;
	if (r->silent)
		return OK;
	enum err e = kafka_response_encode(&r->h, r->res, out);
	if (e == OK && out->slice_bytes == 0) {
		buf_add(conn_out(c), buf_bytes(&out->buf));
		conn_wrote(c);
	} else if (e == OK) {
		kafka_out_each(out, send_slice, c);
		if (conn_over_high(c)) { /* until it has drained */
			r->kc->fetched += r->fetching;
			r->fetching = 0;
		}
	}
	kafka_out_clear(out);
	return e;
}

/* Sends what is ready, as far as the order allows. */
static void flush(struct kafka_conn *kc)
{
	struct conn *c = kc->conn;
	conn_ref(c);
	while (!list_empty(&kc->requests)) {
		struct kafka_request *r = list_entry(kc->requests.next, struct kafka_request, node);
		if (!r->ready)
			break;
		enum err e = kc->closed || conn_is_closing(c) ? OK : send(r);
		if (e != OK) {
			LOG(LOG_WARN, AREA_KAFKA, "response_failed", "peer=%s api=%s err=\"%s\"",
				conn_peer(c), r->h.api->name, err_text(e));
			conn_close(c, e);
		}
		request_leave(r);
	}
	kafka_pace(kc);
	conn_unref(c);
}

void kafka_answer(struct kafka_request *r)
{
	if (r->ready)
		return;
	r->ready = true;
	r->hurry = NULL;
	loop_timer_cancel(&r->timer);
	flush(r->kc);
}

/* Does not free r: who fails in the midst of filling it still has it in hand. */
void kafka_fail(struct kafka_request *r, enum err e)
{
	if (r->ready)
		return;
	r->silent = r->ready = true;
	r->hurry = NULL;
	if (!r->kc->closed)
		conn_close(r->kc->conn, e);
	loop_timer_set(&r->timer, 0);
}

void *kafka_take(struct kafka_request *r, size_t len)
{
	void *p = arena_take(&r->arena, len);
	enum err e = p == NULL ? r->arena.err : count_held(r);
	if (e != OK) {
		kafka_fail(r, e);
		return NULL;
	}
	return memset(p, 0, len);
}

void *kafka_list(struct kafka_request *r, const struct kafka_struct *type, uint32_t count)
{
	void *p = kafka_array(&r->arena, type, count);
	enum err e = p == NULL ? r->arena.err : count_held(r);
	if (e == OK)
		return p;
	kafka_fail(r, e);
	return NULL;
}

struct bytes kafka_copy(struct kafka_request *r, struct bytes b)
{
	if (b.at == NULL || b.len == 0)
		return b.at == NULL ? b : bytes_of(kafka_empty, 0);
	uint8_t *p = arena_take(&r->arena, b.len);
	if (p == NULL)
		return bytes_of(kafka_empty, 0);
	memcpy(p, b.at, b.len);
	return bytes_of(p, b.len);
}

char *kafka_text(struct kafka_request *r, struct bytes b)
{
	char *t = kafka_take(r, b.len + 1);
	if (t != NULL && b.len > 0)
		memcpy(t, b.at, b.len);
	return t;
}

/* Frames */

static enum err bad_frame(
	struct kafka_conn *kc, const char *what, const struct kafka_header *h, enum err e)
{
	kafka_count(kc->home, M_MALFORMED, 1);
	LOG(LOG_WARN, AREA_KAFKA, "request_refused", "peer=%s why=%s api=%d version=%d err=\"%s\"",
		conn_peer(kc->conn), what, h ? h->key : -1, h ? h->version : -1, err_text(e));
	return e;
}

/* A version of ApiVersions we do not know is answered in the oldest form, with an error and all we
 * serve: the client then asks again. */
static void refuse_version(struct kafka_conn *kc, const struct kafka_header *h)
{
	struct kafka_request *r = request_new(kc, 0);
	r->h = *h;
	r->h.api = kafka_api_find(KAFKA_API_VERSIONS);
	r->h.version = 0;
	r->req = NULL;
	kafka_on_api_versions(r);
}

static enum err decode(
	struct kafka_request *r, const struct kafka_header *h, struct bytes frame, bool keep)
{
	const struct kafka_api *api = h->api;
	enum err e = OK;
	r->h = *h;
	if (keep) {
		frame = kafka_copy(r, frame);
		e = frame.len == 0 ? r->arena.err : kafka_header_read(frame, &r->h);
	}
	void *req = e == OK ? arena_take(&r->arena, api->request->size) : NULL;
	void *res = e == OK ? arena_take(&r->arena, api->response->size) : NULL;
	if (e == OK && (req == NULL || res == NULL))
		e = r->arena.err;
	if (e == OK) {
		memcpy(res, api->response->initial, api->response->size);
		e = kafka_decode(api, r->h.version, true, r->h.body, &r->arena, req);
	}
	if (e == OK)
		e = count_held(r);
	r->req = req;
	r->res = res;
	return e;
}

/* Fetches that only wait must not hold up what came after them. */
static void hurry_fetches(struct kafka_conn *kc)
{
	struct list *l = kc->requests.next;
	while (l != &kc->requests) {
		struct kafka_request *r = list_entry(l, struct kafka_request, node);
		void (*hurry)(struct kafka_request *) = r->hurry;
		l = l->next;
		if (r->h.key != KAFKA_FETCH || hurry == NULL)
			continue;
		r->hurry = NULL; /* once hurried it does not wait any more */
		hurry(r);        /* may free it and others */
		l = kc->requests.next;
	}
}

static bool needs_no_login(int16_t key)
{
	return key == KAFKA_API_VERSIONS || key == KAFKA_SASL_HANDSHAKE ||
		key == KAFKA_SASL_AUTHENTICATE;
}

/* When the connection came it may not have been known yet whether there are users. */
static bool is_in(struct kafka_conn *kc)
{
	if (kc->who.access == NULL && kc->login == NULL && kafka_login_open(kc) != OK)
		return false;
	return kc->who.access != NULL;
}

static enum err on_frame(struct kafka_conn *kc, struct bytes frame)
{
	struct kafka_header h;
	enum err e = kafka_header_read(frame, &h);
	kafka_count(kc->home, M_REQUESTS, 1);
	if (e != OK && e != ERR_UNSUPPORTED)
		return bad_frame(kc, "header", NULL, e);
	if (!needs_no_login(h.key) && !is_in(kc))
		return bad_frame(kc, "login", &h, ERR_UNAUTHENTICATED);
	const struct kafka_handler *handler = handler_find(h.key, h.version);
	if (handler == NULL || e == ERR_UNSUPPORTED) {
		if (h.key != KAFKA_API_VERSIONS)
			return bad_frame(kc, "version", &h, ERR_UNSUPPORTED);
		refuse_version(kc, &h);
		kc->greeted = true;
		return OK;
	}
	if (h.key != KAFKA_HEARTBEAT)
		kafka_no_beat(kc);
	struct kafka_request *r = request_new(kc, frame.len);
	e = decode(r, &h, frame, handler->keep);
	if (e != OK) {
		r->ready = r->silent = true;
		return bad_frame(kc, "body", &h, e);
	}
	kc->greeted = true;
	if (h.key == KAFKA_PRODUCE)
		kafka_producing(r, (int64_t)frame.len);
	if (h.key != KAFKA_FETCH || ++kc->fetches >= FETCHES_MAX)
		hurry_fetches(kc);
	handler->run(r);
	kafka_pace(kc);
	return OK;
}

/* Whether a frame of that length may come now. */
static bool length_fits(const struct kafka_conn *kc, uint32_t len)
{
	const struct kafka_conf *conf = kc->home->kafka->conf;
	int64_t max = kc->greeted ? conf->request_bytes_max : conf->request_bytes_first;
	if (kc->who.access == NULL && max > LOGIN_BYTES_MAX)
		max = LOGIN_BYTES_MAX;
	uint32_t least = kafka_login_raw(kc) ? 0 : FRAME_BYTES_MIN;
	return len >= least && len <= (uint64_t)max;
}

static enum err on_input(struct conn *c)
{
	struct kafka_conn *kc = conn_state(c);
	bool partial = false;
	if (kafka_moves(kc))
		return OK;
	kafka_pace(kc); /* others may have filled the loop since this one was looked at */
	while (!kc->paused && !conn_is_closing(c)) {
		struct bytes in = conn_input(c);
		partial = in.len > 0;
		if (in.len < LENGTH_BYTES)
			break;
		uint32_t len = get_u32be(in.at);
		if (!length_fits(kc, len))
			return bad_frame(kc, "length", NULL, ERR_TOOBIG);
		if (in.len - LENGTH_BYTES < len) {
			conn_need(c, (size_t)len + LENGTH_BYTES);
			break;
		}
		struct bytes frame = bytes_of(in.at + LENGTH_BYTES, len);
		enum err e = kafka_login_raw(kc) ? kafka_login_token(kc, frame)
						 : on_frame(kc, frame);
		if (e != OK)
			return e;
		conn_consume(c, (size_t)len + LENGTH_BYTES);
		partial = false;
	}
	/* The deadline of a login is for all of it. While we do not read, nobody is late; what is
	 * left is looked at again after it. */
	if (!conn_is_closing(c) && kc->who.access != NULL)
		conn_deadline(c, partial && !kc->paused ? kc->home->kafka->conf->request_ms : 0);
	return OK;
}

/* Connections */

static enum err on_opened(struct conn *c)
{
	struct kafka *k = conn_door_arg(c);
	struct kafka_conn *kc = conn_state(c);
	list_init(&kc->requests);
	list_init(&kc->hungry);
	kafka_enter(kc, c, &k->loops[loop_index(conn_loop(c))]);
	return kafka_login_open(kc);
}

static void on_drained(struct conn *c)
{
	fetched_gone(conn_state(c));
	kafka_pace(conn_state(c));
}

static void on_closed(struct conn *c, enum err why)
{
	struct kafka_conn *kc = conn_state(c);
	(void)why;
	conn_ref(c);
	kc->closed = true;
	fetched_gone(kc);
	list_remove(&kc->hungry);
	loop_timer_cancel(&kc->mute);
	kafka_fetch_closed(kc);
	kafka_login_closed(kc);
	kafka_move_end(kc);
	struct list gone, *l;
	list_init(&gone);
	while ((l = list_pop(&kc->requests)) != NULL)
		list_push_back(&gone, l);
	while ((l = list_pop(&gone)) != NULL) {
		struct kafka_request *r = list_entry(l, struct kafka_request, node);
		list_push_back(&kc->requests, l);
		if (r->ready)
			request_leave(r);
		else if (r->hurry != NULL)
			r->hurry(r);
	}
	flush(kc);
	conn_unref(c);
}

const struct conn_kind kafka_kind = {
	.name = "kafka",
	.state_bytes = sizeof(struct kafka_conn),
	.opened = on_opened,
	.input = on_input,
	.drained = on_drained,
	.closed = on_closed,
};

/* The door */

static struct node *kafka_node(const struct kafka *k)
{
	return shard_node(broker_shard(k->broker, loops_at(k->all, 0)));
}

struct kafka *kafka_new(const struct kafka_conf *conf, struct broker *b, struct loops *loops)
{
	struct kafka *k = mem_new(sizeof *k);
	int count = loops_count(loops);
	k->conf = conf;
	k->broker = b;
	k->all = loops;
	k->groups = groups_new(&conf->group, loops);
	k->loops = mem_new((size_t)count * sizeof *k->loops);
	for (int i = 0; i < count; i++) {
		struct kafka_loop *h = &k->loops[i];
		h->kafka = k;
		h->loop = loops_at(loops, i);
		kafka_out_init(&h->out, OUT_BYTES_MAX);
		list_init(&h->spare);
		list_init(&h->hungry);
		producer_expire_start(
			&h->producers, &conf->producer_keep_ms, kafka_node(k), h->loop);
		group_expire_start(&h->groups, k->groups, &conf->group, kafka_node(k), h->loop);
	}
	return k;
}

static void set_address(struct kafka_address *a, const char *list)
{
	struct bytes host;
	mem_free(a->host);
	*a = (struct kafka_address){NULL, 0};
	if (kafka_address_read(list, &host, &a->port))
		a->host = mem_text((const char *)host.at, host.len);
}

void kafka_advertise(struct kafka *k, const char *plain, const char *tls)
{
	set_address(&k->plain, plain);
	set_address(&k->tls, tls);
}

int32_t kafka_node_id(const struct kafka *k)
{
	return (int32_t)node_conf(shard_node(broker_shard(k->broker, loop_here())))->id;
}

struct groups *kafka_groups(struct kafka *k)
{
	return k->groups;
}

void kafka_stop(struct kafka *k)
{
	for (int i = 0; i < loops_count(k->all); i++) {
		sweep_stop(&k->loops[i].producers);
		group_expire_stop(&k->loops[i].groups);
	}
	groups_stop(k->groups);
}

void kafka_free(struct kafka *k)
{
	struct list *l;
	if (k == NULL)
		return;
	for (int i = 0; i < loops_count(k->all); i++) {
		struct kafka_loop *h = &k->loops[i];
		while ((l = list_pop(&h->spare)) != NULL) {
			struct kafka_request *r = list_entry(l, struct kafka_request, node);
			arena_fini(&r->arena);
			mem_free(r);
		}
		kafka_out_fini(&h->out);
		sweep_free(&h->producers);
		group_expire_free(&h->groups);
	}
	groups_free(k->groups);
	mem_free(k->plain.host);
	mem_free(k->tls.host);
	mem_free(k->loops);
	mem_free(k);
}
