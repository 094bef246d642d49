/* Output. Bytes written go to one growing buffer; shared slices are kept in a ring that says
 * after how many of those bytes each one comes, so the order of writing is the order of sending
 * and neither is copied. All leave with one sendmsg at the end of the turn; only while the
 * socket is full is there a write event. A drained buffer's chunk goes back to the loop. */
#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "server/net/conn_priv.h"

enum { PIECES_FIRST = 8, IOV_MAX_USED = 128 };

size_t conn_queued(const struct conn *c)
{
	return buf_len(&c->out) + c->slice_bytes;
}

uint32_t conn_taken(const struct conn *c)
{
	int waits = 0; /* in the socket, which takes more only when a good part of it is free */
	if (ioctl(c->fd, SIOCOUTQ, &waits) != 0)
		waits = 0;
	return c->sent_bytes - (uint32_t)waits;
}

bool conn_over_high(const struct conn *c)
{
	return conn_queued(c) > net_out_high(c->home, c->door);
}

struct buf *conn_out(struct conn *c)
{
	struct net_home *h = c->home;
	loop_must_own(h->loop);
	if (c->out.chunk == NULL) {
		c->out.start = c->out.end = 0;
		c->out.chunk = h->spare_count > 0 ? h->spares[--h->spare_count]
						  : chunk_try(OUT_CHUNK_BYTES);
	}
	conn_pend(c);
	return &c->out;
}

static void note_high(struct conn *c)
{
	if (conn_over_high(c))
		c->high = true;
	if (conn_queued(c) > net_out_max(c->home, c->door))
		c->out.err = ERR_TOOBIG;
	conn_pend(c);
}

void conn_wrote(struct conn *c)
{
	note_high(c);
}

/* Makes room for one more piece. */
static bool queue_room(struct conn *c)
{
	struct out_queue *q = c->queue;
	uint32_t size = q == NULL ? PIECES_FIRST : q->size * 2;
	if (q != NULL && q->count < q->size)
		return true;
	struct out_queue *larger = mem_try(sizeof *larger + size * sizeof larger->pieces[0]);
	if (larger == NULL)
		return false;
	*larger = (struct out_queue){.size = size};
	for (uint32_t i = 0; q != NULL && i < q->count; i++)
		larger->pieces[larger->count++] = q->pieces[(q->first + i) & (q->size - 1)];
	mem_free(q);
	c->queue = larger;
	return true;
}

void conn_send_slice(struct conn *c, struct slice s)
{
	loop_must_own(c->home->loop);
	if (s.bytes.len == 0 || c->phase > PHASE_CLOSING || c->out.err != OK) {
		slice_unref(&s);
		return;
	}
	if (!queue_room(c)) {
		c->out.err = ERR_NOMEM;
		slice_unref(&s);
		conn_pend(c);
		return;
	}
	struct out_queue *q = c->queue;
	size_t before = buf_len(&c->out) - c->before_pieces;
	q->pieces[(q->first + q->count++) & (q->size - 1)] = (struct out_piece){before, s};
	c->before_pieces += before;
	c->slice_bytes += s.bytes.len;
	note_high(c);
}

void conn_output_drop(struct conn *c)
{
	struct out_queue *q = c->queue;
	for (uint32_t i = 0; q != NULL && i < q->count; i++)
		slice_unref(&q->pieces[(q->first + i) & (q->size - 1)].slice);
	mem_free(q);
	c->queue = NULL;
	c->before_pieces = c->slice_bytes = 0;
	buf_clear(&c->out);
}

/* Keeps the empty buffer's chunk for the next connection that writes. */
void conn_recycle(struct conn *c)
{
	struct net_home *h = c->home;
	struct chunk *k = c->out.chunk;
	if (k == NULL || buf_len(&c->out) > 0)
		return;
	c->out.chunk = NULL;
	c->out.start = c->out.end = 0;
	if (k->size == OUT_CHUNK_BYTES && k->refs == 1 && h->spare_count < SPARES_MAX)
		h->spares[h->spare_count++] = k;
	else
		chunk_unref(k);
}

/* Lists what leaves next, at most max parts and limit bytes. */
static int gather(const struct conn *c, struct iovec *iov, int max, size_t limit, size_t *total)
{
	struct bytes out = buf_bytes(&c->out);
	const struct out_queue *q = c->queue;
	uint32_t piece = 0;
	int count = 0;
	*total = 0;
	while (count + 2 <= max && *total < limit) {
		bool last = q == NULL || piece == q->count;
		const struct out_piece *p = last ? NULL
						 : &q->pieces[(q->first + piece++) & (q->size - 1)];
		size_t plain = last ? out.len : p->before;
		struct bytes parts[2] = {
			bytes_of(out.at, plain), last ? bytes_of(NULL, 0) : p->slice.bytes};
		for (int i = 0; i < 2; i++) {
			size_t n = parts[i].len < limit - *total ? parts[i].len : limit - *total;
			if (n == 0)
				continue;
			iov[count].iov_base = (void *)(uintptr_t)parts[i].at;
			iov[count++].iov_len = n;
			*total += n;
		}
		out = bytes_of(out.at + plain, out.len - plain);
		if (last)
			break;
	}
	return count;
}

static void sent_of_out(struct conn *c, size_t n)
{
	if (n == buf_len(&c->out)) { /* the chunk stays, for conn_recycle or more output */
		c->out.start = c->out.end = 0;
		if (c->out.chunk != NULL && c->out.chunk->size > OUT_CHUNK_BYTES)
			conn_recycle(c);
	} else {
		buf_consume(&c->out, n);
	}
}

static void sent(struct conn *c, size_t n)
{
	struct out_queue *q = c->queue;
	net_count(c->home, c->door, M_BYTES_OUT, (int64_t)n);
	c->sent_bytes += (uint32_t)n;
	while (q != NULL && q->count > 0 && n > 0) {
		struct out_piece *p = &q->pieces[q->first];
		size_t plain = n < p->before ? n : p->before;
		sent_of_out(c, plain);
		p->before -= plain;
		c->before_pieces -= plain;
		n -= plain;
		size_t of_slice = n < p->slice.bytes.len ? n : p->slice.bytes.len;
		p->slice.bytes = bytes_of(
			p->slice.bytes.at + of_slice, p->slice.bytes.len - of_slice);
		c->slice_bytes -= of_slice;
		n -= of_slice;
		if (p->slice.bytes.len > 0)
			return;
		slice_unref(&p->slice);
		q->first = (q->first + 1) & (q->size - 1);
		q->count--;
	}
	if (q != NULL && q->count == 0) {
		mem_free(q);
		c->queue = NULL;
	}
	if (n > 0)
		sent_of_out(c, n);
}

void conn_await_writable(struct conn *c, bool on)
{
	if (on == (c->writable != NULL))
		return;
	if (!on) {
		event_free(c->writable);
		c->writable = NULL;
		return;
	}
	c->writable = event_new(
		loop_event_base(c->home->loop), c->fd, EV_WRITE | EV_PERSIST, conn_on_writable, c);
	if (c->writable == NULL || event_add(c->writable, NULL) != 0)
		conn_abort(c, ERR_NOMEM);
}

static bool flush_plain(struct conn *c)
{
	struct iovec iov[IOV_MAX_USED];
	struct msghdr m = {.msg_iov = iov};
	size_t total;
	while (conn_queued(c) > 0) {
		m.msg_iovlen = (size_t)gather(c, iov, IOV_MAX_USED, SIZE_MAX, &total);
		ssize_t n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
			return false;
		if (n > 0)
			sent(c, (size_t)n);
		if (n < 0 || (size_t)n < total) {
			conn_await_writable(c, true);
			return true;
		}
	}
	conn_await_writable(c, false);
	return true;
}

/* TLS gets its plain bytes gathered into one run per record: a record for each small part would
 * cost more than the copy. */
static bool flush_tls(struct conn *c)
{
	struct iovec iov[IOV_MAX_USED];
	uint8_t *run = c->home->cipher;
	size_t total;
	while (conn_queued(c) > 0) {
		int count = gather(c, iov, IOV_MAX_USED, TLS_PIECE_BYTES, &total);
		size_t at = 0;
		for (int i = 0; i < count; at += iov[i++].iov_len)
			memcpy(run + at, iov[i].iov_base, iov[i].iov_len);
		enum err e = tls_write(c->tls, bytes_of(run, total));
		if (e == ERR_MORE) {
			conn_await_writable(c, true);
			return true;
		}
		if (e != OK)
			return false;
		sent(c, total);
	}
	conn_await_writable(c, tls_is_blocked(c->tls));
	return true;
}

bool conn_flush(struct conn *c)
{
	if (c->out.err != OK) { /* it may end in half a frame: none of it may follow */
		conn_abort(c, c->out.err);
		return true;
	}
	if (conn_queued(c) == 0 && c->writable == NULL)
		return true;
	return c->tls != NULL ? flush_tls(c) : flush_plain(c);
}

void conn_on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	(void)fd;
	(void)what;
	if (c->phase == PHASE_HANDSHAKE)
		conn_handshake_step(c);
	else if (c->phase < PHASE_LINGER && !conn_flush(c))
		conn_abort(c, ERR_IO);
	conn_pend(c); /* for drained, and for the end of what is closing */
}
