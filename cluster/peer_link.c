/* Frames out of and into one connection. Small parts are copied behind the head into the
 * connection's output, large ones are shared; all of a turn leaves with one write, when connections
 * flush. The bulk lane goes to the socket's queue only while less than 1 MiB waits there
 * (conn_over_high), so a consensus message waits for at most that much; what does not fit waits
 * here, up to the bound.
 *
 * Bodies on their way in: handlers may keep a share, but small frames are many and few are kept.
 * They are copied one after the other to a chunk that all of them share, and which starts anew
 * whenever nobody has kept a share: a frame that nobody keeps costs no allocation. Longer ones get
 * memory of their own, so that what is kept pins little more than itself. */
#include "cluster/peer_priv.h"
#include "server/base/log.h"

struct bulk_frame {
	struct list node;
	size_t len, head_len;
	int count;
	uint8_t head[PEER_HEAD_BYTES + PEER_CALL_BYTES];
	struct slice parts[];
};

void peer_drop_parts(struct slice *parts, int count)
{
	for (int i = 0; i < count; i++)
		slice_unref(&parts[i]);
}

void peer_link_open(struct peer_link *k, struct peer_home *h, struct conn *c)
{
	*k = (struct peer_link){.conn = c, .heard_ms = loop_now_ms(h->loop)};
	list_init(&k->bulk);
}

void peer_link_close(struct peer_link *k)
{
	struct list *n;
	if (k->conn == NULL)
		return;
	k->conn = NULL;
	while ((n = list_pop(&k->bulk)) != NULL) {
		struct bulk_frame *b = list_entry(n, struct bulk_frame, node);
		peer_drop_parts(b->parts, b->count);
		mem_free(b);
	}
	k->bulk_bytes = 0;
}

static void put_parts(struct conn *c, struct bytes head, struct slice *parts, int count)
{
	struct buf *out = conn_out(c);
	buf_add(out, head);
	for (int i = 0; i < count; i++) {
		if (parts[i].bytes.len <= PEER_COPY_BYTES_MAX) {
			buf_add(out, parts[i].bytes);
			slice_unref(&parts[i]);
		} else {
			conn_send_slice(c, parts[i]);
		}
	}
	conn_wrote(c);
}

/* To the end of the bulk queue. */
static bool put_off(struct peer_link *k, struct bytes head, struct slice *parts, int count)
{
	struct bulk_frame *b = mem_try(sizeof *b + (size_t)count * sizeof b->parts[0]);
	if (b == NULL) {
		peer_drop_parts(parts, count);
		return false;
	}
	must(head.len <= sizeof b->head);
	b->len = b->head_len = head.len;
	b->count = count;
	memcpy(b->head, head.at, head.len);
	for (int i = 0; i < count; i++) {
		b->parts[i] = parts[i];
		b->len += parts[i].bytes.len;
	}
	list_push_back(&k->bulk, &b->node);
	k->bulk_bytes += b->len;
	return true;
}

void peer_link_pump(struct peer_link *k)
{
	struct list *n;
	while (k->conn != NULL && !conn_over_high(k->conn) && (n = list_pop(&k->bulk)) != NULL) {
		struct bulk_frame *b = list_entry(n, struct bulk_frame, node);
		k->bulk_bytes -= b->len;
		k->bulk_given += b->len;
		put_parts(k->conn, bytes_of(b->head, b->head_len), b->parts, b->count);
		mem_free(b);
	}
}

bool peer_link_room(const struct peer_link *k)
{
	return k->bulk_bytes == 0 && (k->conn == NULL || !conn_over_high(k->conn));
}

static bool send_now(struct peer_home *h, struct peer_link *k, enum peer_lane lane, size_t len,
	const struct peer_message *m)
{
	size_t max = (size_t)h->peers->conf.queue_bytes_max, queued = conn_queued(k->conn);
	if (k->bulk_given > queued)
		k->bulk_given = queued;
	/* A large frame of bulk is no reason to drop what consensus says. */
	size_t waits = lane == LANE_HIGH ? queued - k->bulk_given : k->bulk_bytes;
	uint8_t head[PEER_HEAD_BYTES + PEER_CALL_BYTES];
	if (waits > 0 && waits + len > max) {
		peer_drop_parts(m->parts, m->count);
		return false;
	}
	must(m->head.len <= PEER_CALL_BYTES);
	peer_head_write(head, len - PEER_HEAD_BYTES, m->kind, m->group);
	if (m->head.len > 0)
		memcpy(head + PEER_HEAD_BYTES, m->head.at, m->head.len);
	struct bytes all = bytes_of(head, PEER_HEAD_BYTES + m->head.len);
	if (lane == LANE_BULK && !peer_link_room(k))
		return put_off(k, all, m->parts, m->count);
	if (lane == LANE_BULK)
		k->bulk_given += len;
	put_parts(k->conn, all, m->parts, m->count);
	return true;
}

bool peer_link_send(
	struct peer_home *h, struct peer_link *k, enum peer_lane lane, const struct peer_message *m)
{
	size_t len = PEER_HEAD_BYTES + m->head.len;
	for (int i = 0; i < m->count; i++)
		len += m->parts[i].bytes.len;
	bool sent = false;
	if (k->conn == NULL || conn_is_closing(k->conn)) {
		peer_drop_parts(m->parts, m->count);
	} else if (len > PEER_FRAME_BYTES_MAX) {
		LOG(LOG_ERROR, AREA_CLUSTER, "peer_frame_too_big", "kind=%d bytes=%zu", m->kind,
			len);
		peer_drop_parts(m->parts, m->count);
	} else {
		sent = send_now(h, k, lane, len, m);
	}
	if (sent) {
		peer_count(h, M_SENT_FRAMES, 1);
		peer_count(h, M_SENT_BYTES, (int64_t)len);
	} else {
		peer_count(h, lane == LANE_HIGH ? M_DROPPED_HIGH : M_DROPPED_BULK, 1);
	}
	return sent;
}

/* A frame of many megabytes says nothing until it is through, and holds up what stands behind it,
 * pings too: bytes that come or go are signs of life as well. */
bool peer_link_silent(struct peer_link *k, int64_t now_ms, bool granted)
{
	size_t input = conn_input(k->conn).len, queued = conn_queued(k->conn);
	if (granted || input != k->seen_input || (queued != k->seen_queued && queued > 0))
		k->heard_ms = now_ms;
	k->seen_input = input;
	k->seen_queued = queued;
	return now_ms - k->heard_ms > PEER_SILENT_MS;
}

/* Room for len bytes in the shared chunk; NULL: no memory. */
static uint8_t *batch_room(struct peer_home *h, size_t len)
{
	if (h->batch != NULL && atomic_load_explicit(&h->batch->refs, memory_order_acquire) == 1)
		h->batch_used = 0;
	if (h->batch == NULL || h->batch_used + len > h->batch->size) {
		chunk_unref(h->batch);
		h->batch = chunk_try(PEER_BATCH_BYTES);
		h->batch_used = 0;
	}
	if (h->batch == NULL)
		return NULL;
	uint8_t *at = h->batch->data + h->batch_used;
	h->batch_used += len;
	return at;
}

enum err peer_body(struct peer_home *h, struct conn *c, const struct peer_frame *f,
	struct slice *out, bool *owned)
{
	peer_count(h, M_RECEIVED_FRAMES, 1);
	peer_count(h, M_RECEIVED_BYTES, (int64_t)f->length);
	*owned = f->body.len >= PEER_OWN_BYTES_MIN;
	if (*owned) {
		enum err e = conn_input_slice(c, f->length, out);
		if (e == OK)
			out->bytes = bytes_of(out->bytes.at + PEER_HEAD_BYTES, f->body.len);
		return e;
	}
	uint8_t *at = batch_room(h, f->body.len);
	if (at == NULL)
		return ERR_NOMEM;
	if (f->body.len > 0)
		memcpy(at, f->body.at, f->body.len);
	*out = (struct slice){h->batch, bytes_of(at, f->body.len)};
	return OK;
}
