/* Asking who is at an address: a connection that says hello for no other purpose, and ends with the
 * other's hello, whatever cluster that is of. */
#include <stdio.h>
#include "cluster/peer_priv.h"
#include "server/base/log.h"

struct probing {
	struct list node; /* in home->probes */
	struct peer_home *home;
	struct peer_probe *q;
	struct dial dial;
	bool dialling;
	struct conn *conn; /* whose state points here */
};

struct probe_state {
	struct probing *of; /* NULL: it has its answer */
};

static void end_probe(struct probing *x, enum err e, const char *why)
{
	struct peer_probe *q = x->q;
	if (x->dialling)
		dial_cancel(&x->dial);
	if (x->conn != NULL) {
		((struct probe_state *)conn_state(x->conn))->of = NULL;
		conn_close(x->conn, ERR_CLOSED);
	}
	list_remove(&x->node);
	mem_free(x);
	q->err = e;
	q->priv = NULL;
	snprintf(q->why, sizeof q->why, "%s", why);
	q->done(q);
}

static enum err probe_opened(struct conn *c)
{
	struct probe_state *s = conn_state(c);
	struct probing *x = s->of = conn_door_arg(c);
	struct peer_hello hello;
	x->conn = c;
	peer_hello_of(x->home, PEER_FOR_PROBE, &hello);
	enum err e = peer_hello_write(conn_out(c), &hello);
	conn_wrote(c);
	conn_deadline(c, PEER_HELLO_MS);
	return e;
}

static void take_hello(struct probing *x, struct conn *c, const struct peer_frame *f)
{
	struct peer_probe *q = x->q;
	struct peer_hello ours;
	char why[96] = "";
	enum err e = conn_input_slice(c, f->length, &q->held);
	if (e == OK)
		e = peer_hello_read(
			bytes_of(q->held.bytes.at + PEER_HEAD_BYTES, f->body.len), &q->hello);
	peer_hello_of(x->home, PEER_FOR_PROBE, &ours);
	if (e != OK) {
		slice_unref(&q->held);
		snprintf(why, sizeof why, "%s", peer_not_a_node(x->home));
	} else if (peer_version_common(&ours, &q->hello) == 0) {
		e = ERR_UNSUPPORTED;
		snprintf(why, sizeof why, "it speaks versions %u to %u, this node %u to %u",
			q->hello.version_min, q->hello.version_max, ours.version_min,
			ours.version_max);
	}
	end_probe(x, e, why);
}

static void take_refusal(struct probing *x, struct bytes body)
{
	enum peer_refusal code;
	struct bytes text;
	char why[96];
	snprintf(why, sizeof why, "%s", peer_not_a_node(x->home));
	enum err e = peer_refusal_read(body, &code, &text);
	if (e == OK) {
		e = code == REFUSED_VERSION ? ERR_UNSUPPORTED : ERR_DENIED;
		snprintf(why, sizeof why, "refused: %.80s", peer_words(text).text);
	}
	end_probe(x, e, why);
}

static enum err probe_input(struct conn *c)
{
	struct probe_state *s = conn_state(c);
	struct peer_frame f;
	if (s->of == NULL)
		return OK;
	enum err e = peer_frame_read(conn_input(c), PEER_HELLO_BYTES_MAX, &f);
	if (e == ERR_MORE) {
		conn_need(c, f.length);
		return OK;
	}
	if (e == OK && f.kind == PEER_HELLO)
		take_hello(s->of, c, &f);
	else if (e == OK && f.kind == PEER_REFUSAL)
		take_refusal(s->of, f.body);
	else
		end_probe(s->of, ERR_PROTOCOL, peer_not_a_node(s->of->home));
	return OK;
}

static void probe_timeout(struct conn *c)
{
	struct probe_state *s = conn_state(c);
	if (s->of != NULL)
		end_probe(s->of, ERR_TIMEOUT, "it does not say who it is");
}

static void probe_closed(struct conn *c, enum err why)
{
	struct probe_state *s = conn_state(c);
	if (s->of != NULL) {
		s->of->conn = NULL;
		end_probe(s->of, ERR_UNAVAILABLE, peer_closed_early(c, why));
	}
}

static const struct conn_kind probe_kind = {
	.name = "peer",
	.state_bytes = sizeof(struct probe_state),
	.opened = probe_opened,
	.input = probe_input,
	.timeout = probe_timeout,
	.closed = probe_closed,
};

static void on_dialled(struct dial *d)
{
	struct probing *x = list_entry(d, struct probing, dial);
	char why[96];
	x->dialling = false;
	if (d->err == OK || x->conn != NULL)
		return;
	memcpy(why, d->why, sizeof why);
	end_probe(x, d->err, why);
}

void peer_probe(struct peers *p, struct peer_probe *q)
{
	struct peer_home *h = peer_home_here(p);
	struct probing *x = mem_new(sizeof *x);
	q->priv = x;
	q->held = (struct slice){0};
	q->hello = (struct peer_hello){0};
	x->q = q;
	x->home = h;
	x->dialling = true;
	list_push_back(&h->probes, &x->node);
	x->dial = (struct dial){.net = p->net,
		.address = q->address,
		.kind = &probe_kind,
		.arg = x,
		.tls = p->conf.tls,
		.timeout_ms = PEER_DIAL_MS,
		.done = on_dialled};
	dial_start(&x->dial);
}

void peer_probes_stop(struct peer_home *h)
{
	while (!list_empty(&h->probes))
		end_probe(list_entry(h->probes.next, struct probing, node), ERR_CLOSED, "stopping");
}
