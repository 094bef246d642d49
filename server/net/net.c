/* The doors: configuration, opening, reloading and draining. A key of listen.* exists for every
 * door from the first day; the caller says which of them have an adapter. Homes are made and
 * sockets bound here, on the main thread; from net_listen on each home is its loop's, and what
 * the main thread wants of it is posted. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/net/net_priv.h"

/* Configuration */

static enum err check_listen(const char *text, char *why, size_t why_size)
{
	return address_list_check(text, why, why_size);
}

static const char *const client_words[] = {"none", "optional", "required", NULL};
static const char *const version_words[] = {"1.2", "1.3", NULL};

#define AT(field) offsetof(struct net_conf, field)
#define LISTEN_HELP                                                                                \
	"Comma list of host:port (IPv6 in brackets, * for all addresses, port 0 for any free "     \
	"one), or off."
#define LISTEN(name, preset)                                                                       \
	{                                                                                          \
		.key = "listen." #name, .kind = CONF_TEXT, .at = AT(listen[DOOR_##name]),          \
		.initial = preset, .effect = CONF_AT_START, .check = check_listen,                 \
		.help = LISTEN_HELP                                                                \
	}
#define ADVERTISE(name)                                                                            \
	{                                                                                          \
		.key = "advertise." #name, .kind = CONF_TEXT, .at = AT(advertise[DOOR_##name]),    \
		.initial = "", .effect = CONF_AT_START, .check = check_listen,                     \
		.help = "What clients and nodes are told to connect to; empty: listen." #name "."  \
	}
#define PROXY(name)                                                                                \
	{                                                                                          \
		.key = "proxy_protocol." #name, .kind = CONF_BOOL, .at = AT(proxy[DOOR_##name]),   \
		.initial = "off", .effect = CONF_AT_START,                                         \
		.help = "A load balancer stands before listen." #name                              \
			" and begins each connection with a PROXY protocol v2 header."             \
	}
#define FILE_ROW(name, text)                                                                       \
	{                                                                                          \
		.key = "tls." #name, .kind = CONF_TEXT, .at = AT(tls_##name), .initial = "",       \
		.effect = CONF_AT_RELOAD, .help = text                                             \
	}
#define BYTES(name, field, preset, least, text)                                                    \
	{                                                                                          \
		.key = name, .kind = CONF_BYTES, .at = AT(field), .initial = preset, .min = least, \
		.max = 1 << 30, .effect = CONF_AT_RELOAD, .help = text                             \
	}
#define MSEC(name, field, preset, text)                                                            \
	{                                                                                          \
		.key = name, .kind = CONF_MSEC, .at = AT(field), .initial = preset, .min = 1,      \
		.max = 3600000, .effect = CONF_AT_RELOAD, .help = text                             \
	}
#define INT(name, field, preset, when, text)                                                       \
	{                                                                                          \
		.key = name, .kind = CONF_INT, .at = AT(field), .initial = preset, .min = 0,       \
		.max = INT32_MAX, .effect = when, .help = text                                     \
	}

const struct conf_row net_rows[] = {
	LISTEN(mqtt, "127.0.0.1:1883"),
	LISTEN(mqtts, "off"),
	LISTEN(amqp, "127.0.0.1:5672"),
	LISTEN(amqps, "off"),
	LISTEN(http, "127.0.0.1:8080"),
	LISTEN(https, "off"),
	LISTEN(kafka, "127.0.0.1:9092"),
	LISTEN(kafkas, "off"),
	LISTEN(peer, "127.0.0.1:7400"),
	LISTEN(geo, "off"),
#define X(name, protocol, tls) ADVERTISE(name),
	NET_DOORS(X)
#undef X
#define X(name, protocol, tls) PROXY(name),
		NET_DOORS(X)
#undef X
			FILE_ROW(cert, "PEM file of the server's certificate and its chain."),
	FILE_ROW(key, "PEM file of the certificate's private key."),
	FILE_ROW(ca, "PEM file of the authorities which sign client certificates."),
	FILE_ROW(crl, "PEM file of a list of revoked client certificates."),
	{.key = "tls.client",
		.kind = CONF_WORD,
		.at = AT(tls_client),
		.initial = "none",
		.words = client_words,
		.effect = CONF_AT_RELOAD,
		.help = "Whether clients are asked for a certificate."},
	{.key = "tls.min_version",
		.kind = CONF_WORD,
		.at = AT(tls_version_min),
		.initial = "1.2",
		.words = version_words,
		.effect = CONF_AT_RELOAD,
		.help = "The oldest version of TLS that is spoken."},
	INT("conn.max", conn_max, "0", CONF_AT_START,
		"Most connections at a time; 0 for what the limit of open files allows."),
	INT("conn.accept_rate", accept_rate, "0", CONF_AT_START,
		"Most connections accepted per second and loop; others wait. 0: no limit."),
	INT("conn.handshakes_max", handshakes_max, "1000", CONF_AT_START,
		"Most connections per loop at a time that have not finished their TLS or PROXY "
		"beginning, of clients and of nodes each; others of such doors wait. 0: no "
		"limit."),
	BYTES("conn.out_high", out_high, "1MiB", 1024,
		"Queued output of a connection above which nothing more is produced for it."),
	BYTES("conn.out_low", out_low, "256KiB", 0,
		"Queued output under which a connection that was over conn.out_high goes on."),
	BYTES("conn.out_max", out_max, "256MiB", 65536,
		"Queued output above which a connection is closed."),
	BYTES("conn.input_max", input_max, "128MiB", 65536,
		"The longest frame of any protocol; their own limits are lower."),
	{.key = "conn.receive_buffer",
		.kind = CONF_BYTES,
		.at = AT(receive_buffer),
		.initial = "256KiB",
		.max = 1 << 30,
		.effect = CONF_AT_START,
		.help = "What the kernel may hold of a client's bytes that were not read yet; 0: "
			"as it likes. A client is at most this per round trip fast."},
	MSEC("conn.linger_ms", linger_ms, "2s",
		"How long a connection being closed may take to accept its last output."),
	MSEC("conn.handshake_ms", handshake_ms, "10s",
		"How long a connection may take for TLS and the PROXY header."),
	{.key = "peer.congestion",
		.kind = CONF_TEXT,
		.at = AT(peer_congestion),
		.initial = "cubic",
		.effect = CONF_AT_START,
		.help = "TCP congestion control between nodes, if the host has it (cubic, reno, "
			"bbr); empty: what the host uses for everything. BBR paces, which costs "
			"processor time and gains only over long lines."},
	{0},
};

size_t net_conf_bytes(void)
{
	return sizeof(struct net_conf);
}

/* Metrics: rows of one name stand together, as the text format wants it. */

#define ROW(metric_name, metric_kind, text, protocol, door)                                        \
	{metric_name, "protocol=\"" protocol "\",door=\"" door "\"", metric_kind, text},

static const struct metric_row metric_rows[M_COUNT * DOOR_COUNT] = {
#define X(name, protocol, tls)                                                                     \
	ROW("sluice_connections_open", METRIC_GAUGE, "Connections open now.", protocol, #name)
	NET_DOORS(X)
#undef X
#define X(name, protocol, tls)                                                                     \
	ROW("sluice_connections_accepted_total", METRIC_COUNTER, "Connections accepted.",          \
		protocol, #name)
		NET_DOORS(X)
#undef X
#define X(name, protocol, tls)                                                                     \
	ROW("sluice_connections_refused_total", METRIC_COUNTER,                                    \
		"Connections closed at once, over a limit.", protocol, #name)
			NET_DOORS(X)
#undef X
#define X(name, protocol, tls)                                                                     \
	ROW("sluice_net_received_bytes_total", METRIC_COUNTER, "Bytes received (TLS: inside).",    \
		protocol, #name)
				NET_DOORS(X)
#undef X
#define X(name, protocol, tls)                                                                     \
	ROW("sluice_net_sent_bytes_total", METRIC_COUNTER, "Bytes sent (TLS: inside).", protocol,  \
		#name)
					NET_DOORS(X)
#undef X
#define X(name, protocol, tls)                                                                     \
	ROW("sluice_tls_handshakes_total", METRIC_COUNTER, "TLS handshakes done.", protocol, #name)
						NET_DOORS(X)
#undef X
#define X(name, protocol, tls)                                                                     \
	ROW("sluice_tls_handshakes_failed_total", METRIC_COUNTER, "TLS handshakes failed.",        \
		protocol, #name)
							NET_DOORS(X)
#undef X
};

struct metric_table net_metrics = {metric_rows, M_COUNT *DOOR_COUNT, 0};

/* Opening */

static const struct {
	const char *name, *protocol;
	bool tls;
} door_names[DOOR_COUNT] = {
#define X(name, protocol, tls) {#name, protocol, tls},
	NET_DOORS(X)
#undef X
};

void net_choose_congestion(const struct net_conf *conf, int fd)
{
	const char *name = conf->peer_congestion;
	if (*name != 0)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name));
}

static const struct net_door *find_spec(const struct net_door *doors, int count, const char *name)
{
	for (int i = 0; i < count; i++)
		if (strcmp(doors[i].name, name) == 0)
			return &doors[i];
	return NULL;
}

/* A wildcard is of no use to those who are told: they get the machine's name instead. */
static void add_advertised(struct buf *out, const struct address *a)
{
	char text[ADDRESS_TEXT_BYTES], host[256] = "";
	if (buf_len(out) > 0)
		buf_add_u8(out, ',');
	if (address_is_any(&a->sa.any) && gethostname(host, sizeof host - 1) == 0 && *host != 0) {
		buf_addf(out, "%s:%d", host, address_port(&a->sa.any));
		return;
	}
	address_text(&a->sa.any, text, sizeof text);
	buf_add_text(out, text);
}

static char *take_text(struct buf *b)
{
	char *text = mem_text(buf_bytes(b).at, buf_len(b));
	buf_fini(b);
	return text;
}

static void write_addresses(struct door *d, const char *advertise)
{
	struct buf own, told;
	buf_init(&own, 1 << 16);
	buf_init(&told, 1 << 16);
	for (int i = 0; i < d->bound.count; i++) {
		char text[ADDRESS_TEXT_BYTES];
		address_text(&d->bound.items[i].sa.any, text, sizeof text);
		buf_addf(&own, "%s%s", i > 0 ? "," : "", text);
		if (*advertise == 0)
			add_advertised(&told, &d->bound.items[i]);
	}
	if (*advertise != 0 && d->bound.count > 0 && strcmp(advertise, "off") != 0)
		buf_add_text(&told, advertise);
	d->addresses = take_text(&own);
	d->advertised = take_text(&told);
}

static bool is_preset(const struct door *d, const char *text)
{
	char key[32];
	snprintf(key, sizeof key, "listen.%s", d->name);
	for (const struct conf_row *row = net_rows; row->key != NULL; row++)
		if (strcmp(row->key, key) == 0)
			return strcmp(row->initial, text) == 0;
	return false;
}

static enum err open_door(struct net *n, struct door *d, char *why, size_t why_size)
{
	struct address_list wanted;
	const char *text = n->conf->listen[d->index];
	char what[200];
	enum err e = address_list_read(text, &wanted, what, sizeof what);
	if (e != OK) {
		snprintf(why, why_size, "listen.%s: %s", d->name, what);
		return e;
	}
	if (wanted.count > 0 && (d->spec == NULL || d->spec->kind == NULL)) {
		/* Nobody asked for a door that is open by default: that line is for those who
		 * look for it. */
		LOG(is_preset(d, text) ? LOG_DEBUG : LOG_INFO, AREA_NET, "door_not_built",
			"key=listen.%s value=%s", d->name, log_text(bytes_text(text)).text);
	} else {
		e = listen_bind(n, d, &wanted, why, why_size);
		n->has_tls = n->has_tls || (d->tls && d->bound.count > 0);
	}
	address_list_fini(&wanted);
	if (e == OK)
		write_addresses(d, n->conf->advertise[d->index]);
	return e;
}

static enum err open_doors(
	struct net *n, const struct net_door *doors, int count, char *why, size_t why_size)
{
	for (int i = 0; i < DOOR_COUNT; i++) {
		struct door *d = &n->doors[i];
		d->name = door_names[i].name;
		d->protocol = door_names[i].protocol;
		d->tls = door_names[i].tls;
		d->index = (enum net_door_index)i;
		d->proxy = n->conf->proxy[i];
		d->internal = i == DOOR_peer;
		d->spec = find_spec(doors, count, d->protocol);
		d->mutual = d->spec != NULL && d->spec->mutual && !d->tls;
		n->has_mutual = n->has_mutual || d->mutual;
		enum err e = open_door(n, d, why, why_size);
		if (e != OK)
			return e;
	}
	return OK;
}

static void drop_contexts(struct tls_contexts *t)
{
	tls_context_unref(t->doors);
	tls_context_unref(t->mutual);
	tls_context_unref(t->dial);
	*t = (struct tls_contexts){0};
}

static struct tls_contexts share_contexts(const struct tls_contexts *t)
{
	return (struct tls_contexts){t->doors ? tls_context_ref(t->doors) : NULL,
		t->mutual ? tls_context_ref(t->mutual) : NULL,
		t->dial ? tls_context_ref(t->dial) : NULL};
}

static enum err new_contexts(struct net *n, struct tls_contexts *out, char *why, size_t why_size)
{
	const struct net_conf *c = n->conf;
	struct tls_files f = {c->tls_cert, c->tls_key, c->tls_ca, c->tls_crl,
		(enum tls_client)c->tls_client, (enum tls_version)c->tls_version_min, false};
	enum err e = OK;
	*out = (struct tls_contexts){0};
	if (n->has_tls)
		e = tls_context_new(&f, &out->doors, why, why_size);
	f.client = TLS_CLIENT_REQUIRED;
	if (e == OK && n->has_mutual)
		e = tls_context_new(&f, &out->mutual, why, why_size);
	f.dials = true;
	if (e == OK && n->has_mutual)
		e = tls_context_new(&f, &out->dial, why, why_size);
	if (e != OK)
		drop_contexts(out);
	return e;
}

static enum err open_tls(struct net *n, char *why, size_t why_size)
{
	struct tls_contexts t;
	enum err e = new_contexts(n, &t, why, why_size);
	if (e != OK)
		return e;
	for (int i = 0; i < n->home_count; i++)
		n->homes[i].tls = share_contexts(&t);
	drop_contexts(&t);
	return OK;
}

enum err net_open(struct loops *loops, const void *conf, const struct net_door *doors, int count,
	struct net **out, char *why, size_t why_size)
{
	enum { NAME_THREADS = 2 };
	struct net *n = mem_new(sizeof *n);
	n->loops = loops;
	n->names = workers_new(NAME_THREADS);
	n->conf = conf;
	n->files = limit_raise_files();
	limit_total_init(&n->limit, n->conf->conn_max, n->files);
	n->home_count = loops_count(loops);
	n->homes = mem_new((size_t)n->home_count * sizeof *n->homes);
	for (int i = 0; i < n->home_count; i++) {
		struct net_home *h = &n->homes[i];
		h->net = n;
		h->loop = loops_at(loops, i);
		h->conf = n->conf;
		limit_gate_init(
			&h->gate, n->conf->accept_rate, n->conf->handshakes_max, clock_us());
		limit_gate_init(&h->inner_gate, 0, n->conf->handshakes_max, clock_us());
		conn_home_init(h);
		listen_home_init(h);
	}
	enum err e = open_doors(n, doors, count, why, why_size);
	if (e == OK)
		e = open_tls(n, why, why_size);
	if (e != OK) {
		net_free(n);
		return e;
	}
	*out = n;
	return OK;
}

enum err net_open_local(
	struct net *n, const char *door, const char *path, char *why, size_t why_size)
{
	for (int i = 0; i < DOOR_COUNT; i++) {
		const struct door *d = &n->doors[i];
		if (strcmp(d->name, door) != 0 || d->spec == NULL || d->spec->kind == NULL)
			continue;
		n->local = (struct door){.name = d->name,
			.protocol = d->protocol,
			.index = d->index,
			.spec = d->spec,
			.local = true};
		return listen_bind_local(n, path, why, why_size);
	}
	snprintf(why, why_size, "%s: there is no such door", path);
	return ERR_INVALID;
}

static void start_home(void *arg)
{
	listen_start(arg, false);
}

static void start_home_internal(void *arg)
{
	listen_start(arg, true);
}

static void open_doors_to_all(struct net *n, bool internal)
{
	if (listen_all(n, internal) != OK)
		LOG(LOG_ERROR, AREA_NET, "listen_failed", "err=\"%s\"", strerror(errno));
	for (int i = 0; i < DOOR_COUNT; i++)
		if (*n->doors[i].addresses != 0 && n->doors[i].internal == internal)
			LOG(LOG_INFO, AREA_NET, "listening", "door=%s at=%s", n->doors[i].name,
				n->doors[i].addresses);
	if (n->local_path != NULL && !internal)
		LOG(LOG_INFO, AREA_NET, "listening", "door=%s at=unix:%s", n->local.name,
			n->local_path);
	for (int i = 0; i < n->home_count; i++)
		loop_call(n->homes[i].loop, internal ? start_home_internal : start_home,
			&n->homes[i]);
}

void net_listen_internal(struct net *n)
{
	if (!n->internal_listens)
		open_doors_to_all(n, true);
	n->internal_listens = true;
}

void net_listen(struct net *n)
{
	net_listen_internal(n);
	open_doors_to_all(n, false);
}

const char *net_addresses(const struct net *n, const char *door, bool tls, bool advertised)
{
	for (int i = 0; i < DOOR_COUNT; i++) {
		const struct door *d = &n->doors[i];
		if (d->tls == tls && strcmp(d->protocol, door) == 0)
			return advertised ? d->advertised : d->addresses;
	}
	return "";
}

/* Reloading */

struct renewal { /* contexts on their way to one home */
	struct loop_msg msg;
	struct net_home *home;
	struct tls_contexts contexts;
};

static void on_renewal(struct loop_msg *m)
{
	struct renewal *r = list_entry(m, struct renewal, msg);
	drop_contexts(&r->home->tls);
	r->home->tls = r->contexts;
	mem_free(r);
}

enum err net_reload_tls(struct net *n, char *why, size_t why_size)
{
	struct tls_contexts t;
	if (!n->has_tls && !n->has_mutual)
		return OK;
	enum err e = new_contexts(n, &t, why, why_size);
	if (e != OK)
		return e;
	for (int i = 0; i < n->home_count; i++) {
		struct renewal *r = mem_new(sizeof *r);
		*r = (struct renewal){.msg.run = on_renewal,
			.home = &n->homes[i],
			.contexts = share_contexts(&t)};
		loop_post(n->homes[i].loop, &r->msg);
	}
	drop_contexts(&t);
	LOG(LOG_INFO, AREA_NET, "tls_reloaded", "cert=%s",
		log_text(bytes_text(n->conf->tls_cert)).text);
	return OK;
}

/* The end */

static void drain_home(void *arg)
{
	struct net_home *h = arg;
	h->draining = true;
	listen_stop(h);
	conn_close_all(h, false);
}

static void cut_home(void *arg)
{
	conn_close_all(arg, true);
}

static bool wait_until_empty(const struct net *n, int64_t timeout_ms)
{
	int64_t end = clock_ms() + timeout_ms;
	while (net_conn_count(n) > 0 && clock_ms() < end)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	return net_conn_count(n) == 0;
}

void net_drain(struct net *n, int64_t timeout_ms)
{
	enum { CUT_MS = 1000 };
	must(loop_here() == NULL);
	for (int i = 0; i < n->home_count; i++)
		loop_call(n->homes[i].loop, drain_home, &n->homes[i]);
	listen_remove_local(n);
	if (wait_until_empty(n, timeout_ms))
		return;
	LOG(LOG_WARN, AREA_NET, "drain_cut", "connections=%lld", (long long)net_conn_count(n));
	for (int i = 0; i < n->home_count; i++)
		loop_call(n->homes[i].loop, cut_home, &n->homes[i]);
	(void)wait_until_empty(n, CUT_MS);
}

int64_t net_conn_count(const struct net *n)
{
	return limit_total_open(&n->limit);
}

void net_free(struct net *n)
{
	if (n == NULL)
		return;
	for (int i = 0; i < n->home_count; i++) {
		listen_home_fini(&n->homes[i]);
		conn_home_fini(&n->homes[i]);
		drop_contexts(&n->homes[i].tls);
	}
	for (int i = 0; i < DOOR_COUNT; i++) {
		address_list_fini(&n->doors[i].bound);
		mem_free(n->doors[i].addresses);
		mem_free(n->doors[i].advertised);
	}
	listen_remove_local(n);
	workers_leave(n->names);
	mem_free(n->homes);
	mem_free(n);
}
