/* Input. A socket is read into the loop's scratch memory, where the adapter looks at it; what it
 * leaves is, as a rule, the beginning of a frame. A short one is kept in a chunk of just its size
 * and put in front of the next bytes in the scratch memory; for a long one a chunk of the frame's
 * size is set aside and the socket read straight into it. Nothing else holds input, so a
 * connection between frames owns no memory, and a trickling peer costs no repeated copying.
 *
 * One event reads at most the scratch memory once: others get their turn. */
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include "server/base/log.h"
#include "server/net/conn_priv.h"
#include "server/net/proxy.h"

enum { SHORT_BYTES = 16 * 1024, OWN_BYTES_MIN = 32 * 1024, DISCARD_READS = 16 };

static bool in_scratch(const struct conn *c)
{
	return c->at != NULL &&
		(c->in == NULL || c->at < c->in->data || c->at > c->in->data + c->in->size);
}

/* The bytes there must be before the adapter is called again. */
static size_t wanted(const struct conn *c)
{
	return c->need > c->len ? c->need : (size_t)c->len + 1;
}

void conn_input_drop(struct conn *c)
{
	chunk_unref(c->in);
	c->in = NULL;
	c->at = NULL;
	c->len = 0;
}

/* Moves the unread input to a chunk of size bytes. */
static bool move_to_chunk(struct conn *c, size_t size)
{
	struct chunk *own = chunk_try(size);
	if (own == NULL) {
		conn_abort(c, ERR_NOMEM);
		return false;
	}
	if (c->len > 0)
		memcpy(own->data, c->at, c->len);
	chunk_unref(c->in);
	c->in = own;
	c->at = own->data;
	return true;
}

/* How large an own chunk should be: the frame if its size is known, else room to grow. */
static size_t own_size(const struct conn *c)
{
	size_t want = wanted(c);
	if (want <= SHORT_BYTES)
		return c->len;
	if (c->need > c->len)
		return c->need;
	return (size_t)c->len * 2 > OWN_BYTES_MIN ? (size_t)c->len * 2 : OWN_BYTES_MIN;
}

void conn_settle(struct conn *c)
{
	if (c->phase > PHASE_OPEN || c->len == 0) {
		conn_input_drop(c);
		return;
	}
	size_t size = own_size(c);
	if (in_scratch(c) || c->in->size > size * 4 + 4096)
		move_to_chunk(c, size);
}

/* Where the next bytes go: behind the unread input in the own chunk, or in the scratch memory
 * with room for the unread input before them. */
static bool input_room(struct conn *c, uint8_t **at, size_t *size)
{
	if (wanted(c) > net_input_max(c->home, c->door) + SCRATCH_BYTES) {
		conn_abort(c, ERR_TOOBIG);
		return false;
	}
	if (wanted(c) <= SHORT_BYTES) {
		*at = c->home->scratch + c->len;
		*size = SCRATCH_BYTES - c->len;
		return true;
	}
	if ((c->in == NULL || (size_t)(c->in->data + c->in->size - c->at) < wanted(c)) &&
		!move_to_chunk(c, own_size(c)))
		return false;
	*at = c->at + c->len;
	*size = (size_t)(c->in->data + c->in->size - *at);
	return true;
}

/* Claims n bytes that were read to where input_room said. */
static void input_claim(struct conn *c, const uint8_t *at, size_t n)
{
	if (at == c->home->scratch + c->len) {
		if (c->len > 0)
			memcpy(c->home->scratch, c->at, c->len);
		chunk_unref(c->in);
		c->in = NULL;
		c->at = c->home->scratch;
	}
	c->len += (uint32_t)n;
	net_count(c->home, c->door, M_BYTES_IN, (int64_t)n);
}

/* Lets the adapter look at the input, and again if it made way for another. */
static void present(struct conn *c)
{
	const struct conn_kind *kind = NULL;
	while (c->phase == PHASE_OPEN && c->pauses == 0 && c->len > 0 && c->len >= c->need &&
		kind != c->kind) {
		kind = c->kind;
		c->need = 0;
		c->home->current = c;
		enum err e = kind->input(c);
		c->home->current = NULL;
		if (e != OK)
			conn_close(c, e);
	}
	if (c->ended && c->pauses == 0)
		conn_close(c, ERR_CLOSED);
	conn_settle(c);
}

/* recv that knows ends: 0 means nothing now, or that c is closing. */
static size_t receive(struct conn *c, void *at, size_t size)
{
	ssize_t n;
	do {
		n = recv(c->fd, at, size, 0);
	} while (n < 0 && errno == EINTR);
	if (n > 0)
		return (size_t)n;
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	c->eof = true;
	if (n == 0)
		conn_close(c, ERR_CLOSED);
	else
		conn_abort(c, ERR_IO);
	return 0;
}

static void read_plain(struct conn *c)
{
	size_t budget = SCRATCH_BYTES, size, n;
	uint8_t *at;
	while (c->phase == PHASE_OPEN && c->pauses == 0 && input_room(c, &at, &size)) {
		n = receive(c, at, size);
		if (n == 0) {
			conn_settle(c);
			return;
		}
		input_claim(c, at, n);
		present(c);
		if (n < size || n >= budget)
			return;
		budget -= n;
	}
}

/* Reads all that TLS has been fed, even when the adapter pauses meanwhile: encrypted bytes have
 * no place to wait in, and these are at most CIPHER_BYTES. */
static void read_decrypted(struct conn *c)
{
	uint8_t *at;
	size_t size, n;
	while (c->phase == PHASE_OPEN && input_room(c, &at, &size)) {
		enum err e = tls_read(c->tls, at, size, &n);
		if (e == OK) {
			input_claim(c, at, n);
			present(c);
			continue;
		}
		if (e == ERR_CLOSED && c->pauses > 0 && c->len > 0) {
			c->ended = true;
		} else if (e == ERR_CLOSED) {
			conn_close(c, ERR_CLOSED);
		} else if (e != ERR_MORE) {
			LOG(LOG_INFO, AREA_NET, "tls_broken", "door=%s peer=%s err=\"%s\"",
				c->door->name, c->peer, tls_failure(c->tls));
			conn_abort(c, ERR_PROTOCOL);
		}
		break;
	}
	if (c->phase == PHASE_OPEN && tls_is_blocked(c->tls))
		conn_await_writable(c, true);
}

void conn_handshake_step(struct conn *c)
{
	enum err e = tls_handshake(c->tls);
	if (e == ERR_MORE) {
		conn_await_writable(c, tls_is_blocked(c->tls));
		return;
	}
	net_count(c->home, c->door, e == OK ? M_HANDSHAKES : M_HANDSHAKES_FAILED, 1);
	if (e != OK) {
		LOG(LOG_INFO, AREA_NET, "tls_failed", "door=%s peer=%s err=\"%s\"", c->door->name,
			c->peer, tls_failure(c->tls));
		conn_fail_dial(c, ERR_UNAUTHENTICATED, tls_failure(c->tls));
		conn_abort(c, ERR_PROTOCOL);
		return;
	}
	conn_await_writable(c, false);
	conn_open_now(c);
	read_decrypted(c);
}

static void read_tls(struct conn *c)
{
	size_t n = receive(c, c->home->cipher, CIPHER_BYTES);
	if (n == 0)
		return;
	tls_feed(c->tls, bytes_of(c->home->cipher, n));
	if (c->phase == PHASE_HANDSHAKE)
		conn_handshake_step(c);
	else
		read_decrypted(c);
	if (c->tls != NULL)
		tls_feed(c->tls, bytes_of(NULL, 0));
}

static void take_proxy_header(struct conn *c, const struct proxy_header *p)
{
	char text[ADDRESS_TEXT_BYTES];
	struct address a = {0};
	if (p->family == PROXY_IPV4) {
		struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(p->source_port)};
		memcpy(&v4.sin_addr, p->source, 4);
		memcpy(&a.sa, &v4, sizeof v4);
	} else if (p->family == PROXY_IPV6) {
		struct sockaddr_in6 v6 = {
			.sin6_family = AF_INET6, .sin6_port = htons(p->source_port)};
		memcpy(&v6.sin6_addr, p->source, 16);
		memcpy(&a.sa, &v6, sizeof v6);
	}
	if (p->family != PROXY_LOCAL) {
		address_text(&a.sa.any, text, sizeof text);
		mem_free(c->peer);
		c->peer = mem_text(text, strlen(text));
	}
	conn_input_drop(c);
	if (c->tls != NULL)
		conn_enter(c, PHASE_HANDSHAKE);
	else
		conn_open_now(c);
}

/* Reads the header's bytes and not one more, since TLS may follow. */
static void read_proxy(struct conn *c)
{
	struct proxy_header header;
	size_t used;
	while (c->phase == PHASE_PROXY) {
		enum err e = proxy_read(bytes_of(c->at, c->len), &header, &used);
		if (e == OK) {
			take_proxy_header(c, &header);
			return;
		}
		if (e != ERR_MORE) {
			LOG(LOG_INFO, AREA_NET, "proxy_header_bad", "door=%s peer=%s err=\"%s\"",
				c->door->name, c->peer, err_text(e));
			conn_abort(c, e);
			return;
		}
		if ((c->in == NULL || c->in->size < used) && !move_to_chunk(c, used))
			return;
		size_t n = receive(c, c->at + c->len, used - c->len);
		if (n == 0)
			return;
		c->len += (uint32_t)n;
	}
}

bool conn_discard(struct conn *c)
{
	for (int i = 0; i < DISCARD_READS; i++) {
		ssize_t n = recv(c->fd, c->home->scratch, SCRATCH_BYTES, 0);
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
			return true;
		if (n <= 0)
			return false;
	}
	return false;
}

static void read_lingering(struct conn *c)
{
	if (conn_discard(c))
		return;
	event_del(&c->readable);
	loop_timer_set(&c->timer, 0);
}

void conn_on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	(void)fd;
	if (c->phase == PHASE_PROXY)
		read_proxy(c);
	else if (c->phase == PHASE_LINGER)
		read_lingering(c);
	else if (c->phase == PHASE_HANDSHAKE)
		read_tls(c);
	else if (c->phase == PHASE_OPEN) {
		present(c); /* what a pause has left */
		if (c->phase != PHASE_OPEN || c->pauses > 0 || !(what & EV_READ))
			return;
		if (c->tls != NULL)
			read_tls(c);
		else
			read_plain(c);
	}
}

struct bytes conn_input(struct conn *c)
{
	return bytes_of(c->at, c->len);
}

/* A share of the chunk keeps all of it: not for a small part. Nothing is ever written over bytes of
 * an own chunk, only behind them. */
enum err conn_input_slice(struct conn *c, size_t len, struct slice *out)
{
	must(len <= c->len);
	struct bytes b = bytes_of(c->at, len);
	if (in_scratch(c) || len < c->in->size / 2)
		return slice_copy(b, out);
	*out = slice_of(c->in, b);
	return OK;
}

void conn_consume(struct conn *c, size_t len)
{
	must(len <= c->len);
	c->at += len;
	c->len -= (uint32_t)len;
	c->need = 0;
	if (c->home->current != c)
		conn_pend(c); /* its memory goes at the end of the turn */
}

void conn_need(struct conn *c, size_t len)
{
	if (len > net_input_max(c->home, c->door)) {
		conn_close(c, ERR_TOOBIG);
		return;
	}
	c->need = (uint32_t)len;
}

void conn_pause(struct conn *c)
{
	loop_must_own(c->home->loop);
	must(c->pauses < UINT16_MAX);
	if (c->pauses++ == 0 && c->phase == PHASE_OPEN)
		event_del(&c->readable);
}

void conn_resume(struct conn *c)
{
	loop_must_own(c->home->loop);
	must(c->pauses > 0);
	if (--c->pauses > 0 || c->phase != PHASE_OPEN)
		return;
	conn_read_on(c);
	if (c->phase == PHASE_OPEN && (c->len > 0 || c->ended))
		event_active(&c->readable, EV_TIMEOUT, 0);
}
