/* Records of what administrators do. They wait in a buffer of the shard until the stream is there,
 * and leave as a batch, one at a time. What cannot leave is tried again; what does not fit
 * meanwhile is counted, and how many were lost is told as soon as there is room. What is
 * refused is whatever others like, for as long as they like, and would fill the disk: some are told
 * one by one, one more every few seconds, and the others as a number, at most once a minute. */
#include "server/broker/audit.h"
#include <stdio.h>
#include "server/base/clock.h"
#include "server/base/json.h"
#include "server/base/log.h"
#include "server/broker/broker_priv.h"
#include "server/broker/tenant.h"

enum {
	WAITING_BYTES_MAX = 512 << 10,
	WAITING_MAX = 2000,
	BATCH_BYTES_MAX = 64 << 10,
	TEXT_MAX = 512, /* of what others said */
	REFUSED_AT_ONCE = 60,
	REFUSED_EACH_MS = 3000, /* so long, and one more is told */
	NUMBER_MS = 1000,       /* how long refused ones are counted before their number is told */
	NUMBER_EACH_MS = 60000,
	SOON_MS = 50,
	RETRY_MS = 1000
};
const char audit_stream[] = "__audit";

struct waiting {
	struct list node;
	int64_t time_ms;
	size_t key_len, len; /* key, then JSON */
	uint8_t data[];
};

struct audit_log {
	struct shard *shard;
	struct list waiting, leaving;
	size_t bytes;
	int count;
	int64_t lost;       /* not told yet */
	int64_t refused_ms; /* what was told of refusals is paid for up to then */
	int64_t number_ms;  /* when the number of the others may be told */
	int64_t untold;     /* refusals that it has by now */
	struct loop_timer number_timer;
	struct loop_timer timer; /* something waits */
	bool busy;               /* an operation is under way */
	struct meta_op create;
	struct proposal proposal;
};

static const struct meta_setting settings[] = {{"retention.ms", "7776000000"}};

/* --- records */

static struct bytes cut(struct bytes b)
{
	return bytes_of(b.at, b.len < TEXT_MAX ? b.len : TEXT_MAX);
}

static void write_event(struct shard *s, const struct audit_event *e, int64_t now, struct buf *out)
{
	char time[32], tenant[TENANT_NAME_MAX + 1] = "";
	struct json j = json_over(out);
	clock_text(now, time);
	if (e->tenant.len > 0 && e->tenant.len <= TENANT_NAME_MAX)
		memcpy(tenant, e->tenant.at, e->tenant.len);
	json_open(&j, NULL, '{');
	json_text(&j, "time", time);
	json_int(&j, "node", node_id(s->broker->node));
	json_text(&j, "what", e->what);
	json_bytes(&j, "user", cut(e->user));
	json_text(&j, "tenant", tenant_text(tenant));
	if (e->door != NULL)
		json_text(&j, "door", e->door);
	if (e->peer != NULL)
		json_text(&j, "peer", e->peer);
	if (e->object.len > 0)
		json_bytes(&j, "object", cut(e->object));
	json_text(&j, "result", e->err == OK ? "ok" : err_text(e->err));
	if (e->detail != NULL)
		json_bytes(&j, "detail", cut(bytes_text(e->detail)));
	json_close(&j, '}');
}

static struct audit_log *log_of(struct shard *s)
{
	return s->audit;
}

static void wake(struct audit_log *l, int64_t after_ms)
{
	if (!loop_timer_is_set(&l->timer) && !l->busy)
		loop_timer_set(&l->timer, after_ms);
}

static void keep(struct audit_log *l, const struct audit_event *e)
{
	int64_t now = loop_now_wall_ms(l->shard->loop);
	struct bytes key = cut(e->user);
	struct buf b;
	buf_init(&b, 16 << 10);
	write_event(l->shard, e, now, &b);
	size_t len = buf_len(&b), size = sizeof(struct waiting) + key.len + len;
	bool fits = b.err == OK && l->count < WAITING_MAX && l->bytes + size <= WAITING_BYTES_MAX;
	struct waiting *w = fits ? mem_try(size) : NULL;
	if (w == NULL) {
		l->lost++;
	} else {
		list_init(&w->node);
		w->time_ms = now;
		w->key_len = key.len;
		w->len = len;
		if (key.len > 0)
			memcpy(w->data, key.at, key.len);
		memcpy(w->data + key.len, buf_bytes(&b).at, len);
		list_push_back(&l->waiting, &w->node);
		l->bytes += size;
		l->count++;
	}
	buf_fini(&b);
	wake(l, 0);
}

static void drop(struct audit_log *l, struct list *from)
{
	while (!list_empty(from)) {
		struct waiting *w = list_entry(from->next, struct waiting, node);
		list_remove(&w->node);
		l->bytes -= sizeof *w + w->key_len + w->len;
		l->count--;
		mem_free(w);
	}
}

/* --- leaving */

static void created(struct meta_op *op)
{
	struct audit_log *l = list_entry(op, struct audit_log, create);
	l->busy = false;
	if (op->err != OK && op->err != ERR_EXISTS)
		LOG(LOG_WARN, AREA_BROKER, "audit_stream_failed", "err=\"%s\" why=\"%s\"",
			err_text(op->err), op->why);
	wake(l, op->err == OK || op->err == ERR_EXISTS ? SOON_MS : RETRY_MS);
}

static void create(struct audit_log *l)
{
	l->create = (struct meta_op){.kind = META_CREATE_STREAM,
		.name = audit_stream,
		.partitions = 1,
		.replicas = -1,
		.settings = settings,
		.setting_count = sizeof settings / sizeof settings[0],
		.done = created};
	l->busy = true;
	node_change(l->shard->broker->node, &l->create);
}

static void left(struct proposal *p)
{
	struct audit_log *l = list_entry(p, struct audit_log, proposal);
	l->busy = false;
	if (p->err == OK) {
		drop(l, &l->leaving);
	} else {                          /* in front of those that came since */
		if (p->err != ERR_CLOSED) /* the server ends */
			LOG(LOG_WARN, AREA_BROKER, "audit_not_written", "err=\"%s\" waiting=%d",
				err_text(p->err), l->count);
		while (!list_empty(&l->leaving)) {
			struct list *n = l->leaving.prev;
			list_remove(n);
			list_push_front(&l->waiting, n);
		}
	}
	if (l->count > 0 || l->lost > 0)
		wake(l, p->err == OK ? 0 : RETRY_MS);
}

/* What goes into the next batch is among those leaving. */
static void fill(struct audit_log *l, struct batch_builder *b)
{
	while (!list_empty(&l->waiting)) {
		struct waiting *w = list_entry(l->waiting.next, struct waiting, node);
		struct bytes key = bytes_of(w->data, w->key_len);
		struct bytes value = bytes_of(w->data + w->key_len, w->len);
		if (batch_builder_add(b, w->time_ms, &key, &value, NULL, 0) != OK)
			break;
		list_remove(&w->node);
		list_push_back(&l->leaving, &w->node);
	}
}

static void leave(struct audit_log *l, const struct stream *to)
{
	struct batch_builder b;
	batch_builder_init(&b, BATCH_BYTES_MAX);
	fill(l, &b);
	l->proposal = (struct proposal){.to = to->partitions[0],
		.batch_max_ms = b.max_ms,
		.batch_count = (uint32_t)b.count,
		.repeatable = true,
		.done = left};
	l->proposal.batch = batch_builder_seal(&b);
	batch_builder_fini(&b);
	if (l->proposal.batch.chunk == NULL) { /* no memory */
		while (!list_empty(&l->leaving)) {
			struct list *n = l->leaving.prev;
			list_remove(n);
			list_push_front(&l->waiting, n);
		}
		wake(l, RETRY_MS);
		return;
	}
	l->busy = true;
	partition_propose(&l->proposal);
}

/* Numbers that are due: of refusals when it is time, of lost records now. */
static void keep_numbers(struct audit_log *l)
{
	int64_t now = loop_now_ms(l->shard->loop);
	char detail[80];
	if (l->untold > 0 && now >= l->number_ms) {
		snprintf(
			detail, sizeof detail, "%lld more logins or changes", (long long)l->untold);
		l->untold = 0;
		l->number_ms = now + NUMBER_EACH_MS;
		keep(l,
			&(struct audit_event){
				.what = "refused", .err = ERR_UNAUTHENTICATED, .detail = detail});
	}
	if (l->lost > 0 && l->count < WAITING_MAX / 2 && l->bytes < WAITING_BYTES_MAX / 2) {
		snprintf(detail, sizeof detail, "%lld records lost", (long long)l->lost);
		l->lost = 0;
		keep(l, &(struct audit_event){.what = "audit-lost", .detail = detail});
	}
}

static void number_wait(struct audit_log *l)
{
	if (l->untold > 0 && !loop_timer_is_set(&l->number_timer))
		loop_timer_set(&l->number_timer, l->number_ms - loop_now_ms(l->shard->loop));
}

static void number_fire(struct loop_timer *t)
{
	struct audit_log *l = list_entry(t, struct audit_log, number_timer);
	keep_numbers(l);
	number_wait(l);
}

static void fire(struct loop_timer *t)
{
	struct audit_log *l = list_entry(t, struct audit_log, timer);
	const struct catalog *c = shard_catalog(l->shard);
	if (l->busy)
		return;
	keep_numbers(l);
	if (l->count == 0)
		return;
	loop_timer_cancel(&l->timer);
	if (c == NULL || catalog_version(c) == 0) { /* not yet, or not any more */
		wake(l, RETRY_MS);
		return;
	}
	const struct stream *to = catalog_stream(c, bytes_text(audit_stream));
	if (to == NULL || to->partition_count == 0)
		create(l);
	else
		leave(l, to);
}

/* --- what others call */

static struct audit_log *log_make(struct shard *s)
{
	struct audit_log *l = mem_new(sizeof *l);
	l->shard = s;
	list_init(&l->waiting);
	list_init(&l->leaving);
	loop_timer_init(&l->number_timer, s->loop, number_fire);
	loop_timer_init(&l->timer, s->loop, fire);
	s->audit = l;
	return l;
}

static bool refused_may_be_told(struct audit_log *l, int64_t now)
{
	int64_t from = l->refused_ms > now ? l->refused_ms : now;
	if (from - now > (int64_t)(REFUSED_AT_ONCE - 1) * REFUSED_EACH_MS)
		return false;
	l->refused_ms = from + REFUSED_EACH_MS;
	return true;
}

void audit(struct shard *s, const struct audit_event *e)
{
	loop_must_own(s->loop);
	struct audit_log *l = log_of(s) != NULL ? log_of(s) : log_make(s);
	int64_t now = loop_now_ms(s->loop);
	if (e->err != OK) {
		keep_numbers(l);
		if (!refused_may_be_told(l, now)) {
			if (l->untold++ == 0 && l->number_ms < now + NUMBER_MS)
				l->number_ms = now + NUMBER_MS;
			number_wait(l);
			return;
		}
	}
	keep(l, e);
}

void audit_fini(struct shard *s)
{
	struct audit_log *l = s->audit;
	if (l == NULL)
		return;
	drop(l, &l->waiting);
	drop(l, &l->leaving);
	mem_free(l);
	s->audit = NULL;
}
