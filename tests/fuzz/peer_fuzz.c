/* Whole connections of a node, both ends of the protocol: what another node may send, in pieces of
 * any size, through the adapters of accepted and of dialled connections. Loops, sockets and
 * dialling are replaced here; everything above them is the server's. */
#include <stdlib.h>
#include "cluster/peer_priv.h"
#include "server/base/log.h"

/* --- two loops, without threads --- */

struct loop {
	int index;
};
struct loops {
	struct loop all[2];
};
static struct loops fake_loops = {{{0}, {1}}};
static struct loop *here;
static struct list hooks;
static struct metric_cells *cells;

int loops_count(const struct loops *all)
{
	(void)all;
	return 2;
}
struct loop *loops_at(struct loops *all, int index)
{
	return &all->all[index];
}
int loop_index(const struct loop *l)
{
	return l->index;
}
struct loop *loop_here(void)
{
	return here;
}
void loop_must_own(const struct loop *l)
{
	(void)l;
}
int64_t loop_now_ms(const struct loop *l)
{
	(void)l;
	return 1000;
}
int64_t loop_now_wall_ms(const struct loop *l)
{
	(void)l;
	return 1000;
}
struct metric_cells *loop_cells(struct loop *l)
{
	(void)l;
	return cells;
}
struct parcel { /* what loop_post takes, with where it goes */
	struct loop_msg *m;
	struct loop *to;
	struct list node;
};
static struct list parcels;
void loop_post(struct loop *l, struct loop_msg *m)
{
	struct parcel *p = mem_new(sizeof *p);
	*p = (struct parcel){.m = m, .to = l};
	list_push_back(&parcels, &p->node);
}
void loop_call(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct loop *before = here;
	here = l;
	fn(arg);
	here = before;
}
void loop_hook_init(struct loop_hook *h, void (*run)(struct loop_hook *h))
{
	list_init(&h->node);
	h->run = run;
}
void loop_hook_want(struct loop *l, enum loop_stage stage, struct loop_hook *h)
{
	(void)l, (void)stage;
	if (list_empty(&h->node))
		list_push_back(&hooks, &h->node);
}
void loop_hook_cancel(struct loop_hook *h)
{
	list_remove(&h->node);
}
void loop_timer_init(struct loop_timer *t, struct loop *l, void (*fire)(struct loop_timer *t))
{
	*t = (struct loop_timer){.loop = l, .fire = fire};
}
void loop_timer_set(struct loop_timer *t, int64_t after_ms)
{
	(void)after_ms;
	t->slot = 1;
}
void loop_timer_cancel(struct loop_timer *t)
{
	t->slot = 0;
}

/* --- a connection --- */

struct conn {
	const struct conn_kind *kind;
	void *state, *arg;
	struct loop *loop;
	struct buf out;
	uint8_t *in; /* exactly what there is, to be seen by the sanitizer */
	size_t at, len;
	int pauses;
	bool closing, told;
};
static struct conn *dialled;

void *conn_state(struct conn *c)
{
	return c->state;
}
void *conn_door_arg(const struct conn *c)
{
	return c->arg;
}
struct loop *conn_loop(const struct conn *c)
{
	return c->loop;
}
const char *conn_peer(const struct conn *c)
{
	(void)c;
	return "10.0.0.9:1";
}
bool conn_is_tls(const struct conn *c)
{
	(void)c;
	return false;
}
struct bytes conn_input(struct conn *c)
{
	return bytes_of(c->in + c->at, c->len - c->at);
}
void conn_consume(struct conn *c, size_t len)
{
	must(len <= c->len - c->at);
	c->at += len;
}
void conn_need(struct conn *c, size_t len)
{
	must(len > c->len - c->at);
	must(len <= PEER_FRAME_BYTES_MAX);
}
enum err conn_input_slice(struct conn *c, size_t len, struct slice *out)
{
	must(len <= c->len - c->at);
	return slice_copy(bytes_of(c->in + c->at, len), out);
}
void conn_pause(struct conn *c)
{
	c->pauses++;
}
void conn_resume(struct conn *c)
{
	must(c->pauses > 0);
	c->pauses--;
}
struct buf *conn_out(struct conn *c)
{
	return &c->out;
}
void conn_wrote(struct conn *c)
{
	buf_clear(&c->out);
}
void conn_send_slice(struct conn *c, struct slice s)
{
	(void)c;
	slice_unref(&s);
}
size_t conn_queued(const struct conn *c)
{
	(void)c;
	return 0;
}
bool conn_over_high(const struct conn *c)
{
	(void)c;
	return false;
}
void conn_close(struct conn *c, enum err why)
{
	(void)why;
	c->closing = true;
}
bool conn_is_closing(const struct conn *c)
{
	return c->closing;
}
void conn_deadline(struct conn *c, int64_t ms)
{
	(void)c, (void)ms;
}
void conn_move(struct conn *c, struct loop *to, void (*moved)(struct conn *c))
{
	must(to != c->loop);
	c->loop = to;
	here = to;
	moved(c);
}

static struct conn *conn_make(const struct conn_kind *kind, void *arg)
{
	struct conn *c = mem_new(sizeof *c);
	*c = (struct conn){.kind = kind, .arg = arg, .loop = &fake_loops.all[0]};
	c->state = mem_new(kind->state_bytes);
	buf_init(&c->out, 1 << 20);
	if (kind->opened(c) != OK)
		c->closing = true;
	return c;
}

static void run_posted(void)
{
	struct list *n;
	for (;;) {
		struct loop *before = here;
		if ((n = list_pop(&parcels)) != NULL) {
			struct parcel *p = list_entry(n, struct parcel, node);
			struct loop_msg *m = p->m;
			here = p->to;
			mem_free(p);
			m->run(m);
		} else if ((n = list_pop(&hooks)) != NULL) {
			struct loop_hook *h = list_entry(n, struct loop_hook, node);
			h->run(h);
		} else {
			return;
		}
		here = before;
	}
}

static void conn_feed(struct conn *c, const uint8_t *at, size_t len)
{
	size_t left = c->len - c->at;
	uint8_t *joined = malloc(left + len ? left + len : 1);
	if (joined == NULL)
		abort();
	memcpy(joined, c->in == NULL ? joined : c->in + c->at, left);
	memcpy(joined + left, at, len);
	free(c->in);
	c->in = joined;
	c->at = 0;
	c->len = left + len;
	here = c->loop;
	if (!c->closing && c->pauses == 0 && c->len > 0 && c->kind->input(c) != OK)
		c->closing = true;
	run_posted();
}

static void conn_end(struct conn *c)
{
	here = c->loop;
	c->kind->closed(c, ERR_CLOSED);
	run_posted();
	buf_fini(&c->out);
	free(c->in);
	mem_free(c->state);
	mem_free(c);
}

/* --- dialling: it is open at once --- */

void dial_start(struct dial *d)
{
	if (dialled != NULL)
		return;
	dialled = conn_make(d->kind, d->arg);
	d->err = OK;
	d->conn = dialled;
	d->done(d);
}
void dial_cancel(struct dial *d)
{
	(void)d;
}

/* --- the node --- */

static void on_frame(void *arg, uint32_t from, uint64_t group, struct slice body)
{
	static struct slice kept[4];
	static unsigned at;
	(void)arg, (void)from, (void)group;
	slice_unref(&kept[at & 3]); /* some are kept for a while */
	kept[at++ & 3] = slice_ref(body);
	if (at % 8 == 0)
		for (int i = 0; i < 4; i++)
			slice_unref(&kept[i]);
}

static void on_call(void *arg, struct peer_request *r)
{
	struct slice part = slice_ref(r->body);
	(void)arg;
	peer_answer(r, r->group & 2 ? LANE_BULK : LANE_HIGH, OK, &part, 1);
}

static struct peers *node_make(void)
{
	static const struct peers_conf conf = {.node = 1,
		.cluster_name = "fuzz",
		.name = "n",
		.rack = "",
		.address = "a:1",
		.queue_bytes_max = 1 << 20};
	struct peers *p = peers_new(&conf, &fake_loops);
	peers_handle(p, PEER_RAFT, on_frame, NULL);
	peers_handle(p, PEER_FEED, on_frame, NULL);
	peers_serve(p, PEER_OP_ROWS, on_call, NULL);
	peers_serve(p, PEER_OP_JOIN, on_call, NULL);
	peers_start(p, NULL);
	peers_set_cluster(p, (const uint8_t *)"cccccccccccccccc");
	run_posted();
	return p;
}

/* A hello that pleases, for inputs that want to get beyond it. */
static void say_hello(struct conn *c, uint32_t node, uint8_t loop)
{
	struct peer_hello h = {.version_min = 1,
		.version_max = 1,
		.node = node,
		.loop = loop,
		.cluster_name = bytes_text("fuzz"),
		.name = bytes_text("x"),
		.rack = bytes_text(""),
		.address = bytes_text("b:1")};
	struct buf out;
	memset(h.cluster, 'c', sizeof h.cluster);
	buf_init(&out, 4096);
	if (peer_hello_write(&out, &h) != OK)
		abort();
	conn_feed(c, buf_bytes(&out).at, buf_len(&out));
	buf_fini(&out);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	metric_register(&peer_metrics);
	cells = metric_cells_new();
	list_init(&hooks);
	list_init(&parcels);
	log_setup(LOG_ERROR, false);
	return 0;
}

/* Byte 0: which end, whether a good hello comes first, its loop; byte 1: size of the pieces. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	here = &fake_loops.all[0];
	dialled = NULL;
	struct peers *p = node_make();
	struct conn *c = NULL;
	if (data[0] & 1) {
		peers_set_nodes(p, &(struct peer_node){.id = 2, .address = "b:1"}, 1);
		run_posted();
		c = dialled;
		if (c == NULL)
			abort();
	} else {
		c = conn_make(&peer_kind_in, p);
	}
	if (data[0] & 2)
		say_hello(c, 2, data[0] >> 2 & 1);
	size_t piece = data[1] ? data[1] : size;
	for (size_t at = 2; at < size; at += piece)
		conn_feed(c, data + at, size - at < piece ? size - at : piece);
	conn_end(c);
	if (dialled != NULL && dialled != c)
		conn_end(dialled);
	here = NULL;
	peers_stop(p);
	run_posted();
	peers_free(p);
	return 0;
}
