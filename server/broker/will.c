/* The message is kept as the record it will become, which the broker can read already; so a will
 * costs one block of memory and no structure. Publishing walks its headers into an array once. */
#include "server/broker/will.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "server/broker/access_priv.h"
#include "server/broker/tenant.h"

enum { VERSION = 2, VERSION_OLD = 1, WHO_MAX = UINT8_MAX };

enum err will_encode(const struct will *w, size_t bytes_max, struct buf *out)
{
	struct batch_builder b;
	batch_builder_init(&b, bytes_max);
	enum err e = message_encode(&w->message, &b);
	if (e == OK) {
		struct slice batch = batch_builder_seal(&b);
		buf_add_u8(out, VERSION);
		buf_add_u32be(out, w->delay_s);
		buf_add_u8(out, w->has_expiry);
		buf_add_u32be(out, w->expiry_s);
		buf_add_u64be(out, (uint64_t)w->due_ms);
		buf_add_u32be(out, (uint32_t)batch.bytes.len);
		buf_add(out, batch.bytes);
		e = batch.bytes.len == 0 ? ERR_NOMEM : out->err;
		slice_unref(&batch);
	}
	batch_builder_fini(&b);
	return e;
}

enum err will_read(struct bytes in, struct will *out)
{
	struct rd r = rd_over(in);
	*out = (struct will){0};
	uint8_t version = rd_u8(&r);
	out->delay_s = rd_u32be(&r);
	uint8_t has = rd_u8(&r);
	out->has_expiry = has == 1;
	out->expiry_s = rd_u32be(&r);
	out->due_ms = (int64_t)rd_u64be(&r);
	out->batch = rd_take(&r, version == VERSION_OLD ? rd_left(&r) : rd_u32be(&r));
	if (rd_left(&r) > 0) {
		out->user = rd_take(&r, rd_u8(&r));
		out->peer = rd_take(&r, rd_u8(&r));
	}
	bool known = version == VERSION || version == VERSION_OLD;
	return rd_done(&r) == OK && known && has <= 1 ? OK : ERR_CORRUPT;
}

void will_set_due(uint8_t *at, int64_t due_ms)
{
	put_u64be(at + WILL_DUE_AT, (uint64_t)due_ms);
}

static void say(struct buf *will, struct bytes what)
{
	size_t len = what.len <= WHO_MAX ? what.len : 0;
	buf_add_u8(will, (uint8_t)len);
	buf_add(will, bytes_of(what.at, len));
}

void will_say_who(struct buf *will, struct bytes user, const char *peer)
{
	must(user.len <= WHO_MAX);
	say(will, user);
	say(will, bytes_text(peer == NULL ? "" : peer));
}

struct leaving { /* a will on its way */
	struct publish publish;
	struct room_wait room;
	struct shard *shard;
	void (*done)(void *arg, enum err e);
	void *arg;
	bool claimed;
	uint64_t epoch;
	size_t id_len, len;
	uint8_t bytes[]; /* the will, then the client id */
};

static void finish(struct publish *p)
{
	struct leaving *l = list_entry(p, struct leaving, publish);
	if (p->err != OK)
		LOG(LOG_WARN, AREA_BROKER, "will_not_published", "err=\"%s\"", err_text(p->err));
	if (l->done != NULL)
		l->done(l->arg, p->err);
	mem_free(l);
}

static void finish_later(void *arg)
{
	struct leaving *l = arg;
	finish(&l->publish);
}

/* Whether who left it may still, or by now. */
static enum err may_leave(
	struct shard *s, const struct will *w, const struct message *m, struct bytes client_id)
{
	char peer[WHO_MAX + 1];
	if (w->user.len == 0)
		return OK;
	if (!rights_known(rights_of(s)))
		return ERR_UNAVAILABLE;
	if (w->peer.len > 0)
		memcpy(peer, w->peer.at, w->peer.len);
	peer[w->peer.len] = 0;
	struct access *a = access_later(s, w->user, peer);
	bool may = a != NULL && bytes_equal(access_tenant(a), m->tenant) &&
		access_topic(a, ACTION_WRITE, m->topic, client_id);
	access_unref(a);
	return may ? OK : ERR_DENIED;
}

static enum err publish_record(struct leaving *l, const struct will *w, const struct record *r)
{
	struct message m;
	struct bytes client_id = bytes_of(l->bytes + l->len, l->id_len), bare;
	struct record_header *headers = NULL;
	message_decode(r, bytes_of(NULL, 0), &m);
	tenant_id_split(client_id, &m.tenant, &bare);
	enum err e = may_leave(l->shard, w, &m, bare);
	if (e != OK)
		return e;
	if (m.encoded_count > 0) {
		headers = mem_try((size_t)m.encoded_count * sizeof *headers);
		if (headers == NULL)
			return ERR_NOMEM;
	}
	struct bytes rest = m.encoded_headers;
	int left = m.encoded_count, count = 0;
	while (headers != NULL && message_header_next(&rest, &left, &headers[count]) == OK)
		count++;
	m.headers = headers;
	m.header_count = count;
	m.has_key = m.has_key && !bytes_equal(m.key, m.topic);
	m.timestamp_ms = loop_now_wall_ms(shard_loop(l->shard));
	m.expires_at_ms = w->has_expiry ? m.timestamp_ms + (int64_t)w->expiry_s * 1000 : 0;
	struct qos2_claim claim = {
		.client_id = client_id, .epoch = l->epoch, .born = l->epoch, .will = true};
	e = l->claimed ? shard_publish_claimed(l->shard, &m, &claim, &l->publish)
		       : shard_publish(l->shard, &m, &l->publish);
	mem_free(headers);
	return e;
}

static enum err publish_will(struct leaving *l)
{
	struct will w;
	struct batch b;
	struct batch_walk walk;
	struct record r;
	enum err e = will_read(bytes_of(l->bytes, l->len), &w);
	if (e != OK || batch_read(w.batch, &b) != OK || batch_walk_init(&walk, &b, 0) != OK)
		return ERR_CORRUPT;
	e = batch_walk_next(&walk, &r) == OK ? publish_record(l, &w, &r) : ERR_CORRUPT;
	batch_walk_fini(&walk);
	return e;
}

static void go(struct leaving *l)
{
	enum err e = publish_will(l);
	if (e == OK)
		return;
	if (e == ERR_BUSY) {
		shard_when_room(l->shard, &l->room);
		return;
	}
	l->publish.err = e;
	loop_call(shard_loop(l->shard), finish_later, l);
}

static void on_room(struct room_wait *w)
{
	go(list_entry(w, struct leaving, room));
}

enum err will_publish(struct shard *s, struct bytes in, const struct will_of *whose,
	void (*done)(void *arg, enum err e), void *arg)
{
	size_t id_len = whose != NULL ? whose->client_id.len : 0;
	struct leaving *l = mem_try(sizeof *l + in.len + id_len);
	if (l == NULL)
		return ERR_NOMEM;
	*l = (struct leaving){
		.shard = s, .done = done, .arg = arg, .len = in.len, .id_len = id_len};
	if (whose != NULL) {
		l->claimed = !whose->no_row;
		l->epoch = whose->epoch;
		memcpy(l->bytes + in.len, whose->client_id.at, id_len);
	}
	list_init(&l->room.node);
	list_init(&l->publish.node);
	l->room.room = on_room;
	l->publish.done = finish;
	memcpy(l->bytes, in.at, in.len);
	go(l);
	return OK;
}

bool will_is_over(enum err e)
{
	return e == OK || e == ERR_TOOBIG || e == ERR_INVALID || e == ERR_DENIED ||
		e == ERR_CORRUPT;
}
