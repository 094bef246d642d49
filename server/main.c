/* The daemon: options, boot order, signals, the way down. Everything that is opened hangs in one
 * struct, so the way down is one function, whatever the boot got to. The main thread owns no loop:
 * after the boot it waits for signals, which all other threads have blocked. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "server/base/worker.h"
#include "server/modules.h"
#include "server/net/limit.h"
#include "server/net/tls.h"
#include "protocols/http/version.h"

enum exit_code { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };
/* Doors open when the node can serve, or after this time all the same: clients and probes are
 * then told that it is not ready. */
enum {
	LISTEN_AFTER_MS = 3000,
	ASIDE_MS = 3000,
	READY_POLL_MS = 2,
	FAILED_POLL_MS = 1000, /* of a node that served and must not any more */
	WHY_BYTES = 512,
	PAGE_BYTES_MAX = 1 << 20
};

struct options {
	const char *file; /* NULL: none */
	char **sets;      /* KEY=VALUE, borrowed from argv */
	int set_count;
	enum { DO_RUN, DO_CHECK, DO_VERSION, DO_HELP, DO_SAMPLE, DO_REFERENCE } what;
};

struct daemon {
	struct options options;
	struct conf *conf;
	struct modules modules;
	struct modules_doors doors;
	struct loops *loops;
	bool loops_running;
	struct workers *workers;
	struct storage *storage;
	struct node *node;
	struct broker *broker;
	struct mqtt *mqtt;
	struct kafka *kafka;
	struct http *http;
	struct net *net;
};

/* ---- options */

static const char usage_text[] =
	"usage: sluiced [--config FILE] [--set KEY=VALUE]...\n"
	"\n"
	"  --config FILE    read settings from FILE (\"key = value\" lines)\n"
	"  --set KEY=VALUE  set one key; stronger than the environment (SLUICE_KEY) and the file\n"
	"  --check-config   check the settings and end\n"
	"  --sample-config  print a commented configuration file\n"
	"  --help-config    print the reference of all keys as Markdown\n"
	"  --version        print the version\n"
	"  --help           print this\n"
	"\n"
	"Runs in the foreground and logs to stderr. SIGTERM and SIGINT stop it in order, a second\n"
	"one at once; SIGHUP reads settings and certificates again.\n";

static enum exit_code usage_failed(const char *what, const char *word)
{
	fprintf(stderr, "sluiced: %s %s; see sluiced --help\n", what,
		log_text(bytes_text(word)).text);
	return EXIT_USAGE;
}

/* The value of an option that takes one: behind '=' or the next word. NULL: not this option. */
static char *option_value(const char *name, char **argv, int *i, bool *missing)
{
	size_t len = strlen(name);

	*missing = false;
	if (strncmp(argv[*i], name, len) != 0)
		return NULL;
	if (argv[*i][len] == '=')
		return argv[*i] + len + 1;
	if (argv[*i][len] != 0)
		return NULL;
	*missing = argv[*i + 1] == NULL;
	return *missing ? NULL : argv[++*i];
}

static bool option_word(struct options *o, const char *word)
{
	static const struct {
		const char *name;
		int what;
	} words[] = {{"--check-config", DO_CHECK}, {"--version", DO_VERSION}, {"--help", DO_HELP},
		{"-h", DO_HELP}, {"--sample-config", DO_SAMPLE}, {"--help-config", DO_REFERENCE}};

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strcmp(word, words[i].name) == 0) {
			o->what = words[i].what;
			return true;
		}
	return false;
}

static enum exit_code options_read(struct options *o, int argc, char **argv)
{
	o->sets = mem_new((size_t)argc * sizeof *o->sets);
	for (int i = 1; i < argc; i++) {
		bool missing;
		char *value;

		if (option_word(o, argv[i]))
			continue;
		value = option_value("--config", argv, &i, &missing);
		if (value != NULL) {
			o->file = value;
			continue;
		}
		if (!missing)
			value = option_value("--set", argv, &i, &missing);
		if (missing)
			return usage_failed("a value must follow", argv[i]);
		if (value == NULL)
			return usage_failed("unknown option", argv[i]);
		if (strchr(value, '=') == NULL)
			return usage_failed("expected KEY=VALUE, not", value);
		o->sets[o->set_count++] = value;
	}
	return EXIT_OK;
}

/* ---- settings */

static enum err settings_read(struct daemon *d, char *why, size_t why_size)
{
	const struct options *o = &d->options;
	enum err e = OK;

	if (o->file != NULL)
		e = conf_read_file(d->conf, o->file, why, why_size);
	if (e == OK)
		e = conf_read_env(d->conf, environ, why, why_size);
	for (int i = 0; e == OK && i < o->set_count; i++) {
		const char *equals = strchr(o->sets[i], '=');
		char *key = mem_text(o->sets[i], (size_t)(equals - o->sets[i]));
		e = conf_set(d->conf, key, equals + 1, why, why_size);
		mem_free(key);
	}
	return e;
}

static const char *setting(const struct conf *c, const char *key)
{
	struct conf_item item;

	for (int i = 0; conf_next(c, &i, &item);)
		if (strcmp(item.name, key) == 0)
			return item.value;
	return "";
}

static bool tls_wanted(const struct conf *c)
{
	static const char *const doors[] = {"listen.mqtts", "listen.https", "listen.kafkas"};

	for (size_t i = 0; i < sizeof doors / sizeof doors[0]; i++) {
		const char *at = setting(c, doors[i]);
		if (*at != 0 && strcmp(at, "off") != 0)
			return true;
	}
	return false;
}

/* What only the start would find out: certificates that do not fit. */
static enum err settings_check(const struct conf *c, char *why, size_t why_size)
{
	struct tls_files f = {setting(c, "tls.cert"), setting(c, "tls.key"), setting(c, "tls.ca"),
		setting(c, "tls.crl"), TLS_CLIENT_NONE, TLS_1_2, false};
	struct tls_context *x;
	enum err e;

	if (*f.cert == 0 && *f.key == 0 && !tls_wanted(c))
		return OK;
	e = tls_context_new(&f, &x, why, why_size);
	if (e == OK)
		tls_context_unref(x);
	return e;
}

static void write_reference(const struct conf *c, struct buf *out)
{
	buf_add_text(out,
		"# Configuration\n\n"
		"Every key of `sluiced`, made from the modules' own tables by `make docs`. A "
		"file holds lines\n`key = value`; the environment is stronger "
		"(`SLUICE_LISTEN_MQTT` for `listen.mqtt`), `--set KEY=VALUE`\nstronger "
		"still, and what `sluice config set` set for the whole cluster the "
		"strongest.\nSIGHUP reads everything again; keys that take effect at start "
		"need a restart.\n\n");
	conf_write_reference(c, out);
}

static enum exit_code print_page(
	const struct conf *c, void (*write_page)(const struct conf *c, struct buf *out))
{
	struct buf page;
	bool ok;

	buf_init(&page, PAGE_BYTES_MAX);
	write_page(c, &page);
	ok = page.err == OK &&
		fwrite(buf_bytes(&page).at, 1, buf_len(&page), stdout) == buf_len(&page) &&
		fflush(stdout) == 0;
	buf_fini(&page);
	return ok ? EXIT_OK : EXIT_FAILED;
}

/* ---- boot */

static int core_count(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : n > 256 ? 256 : (int)n;
}

static void threads_start(struct daemon *d)
{
	const struct process_conf *p = &d->modules.process;

	d->loops = loops_new(p->loops ? (int)p->loops : core_count());
	d->workers = workers_new((int)p->workers);
}

static void loops_start(struct daemon *d)
{
	if (d->loops_running)
		return;
	loops_run(d->loops);
	d->loops_running = true;
}

static void settings_in_force(struct daemon *d)
{
	const struct process_conf *p = &d->modules.process;

	log_setup((enum log_level)p->log_level, p->log_format == 1);
}

/* The main thread alone reads settings, and it listens to signals. */
static void ask_for_reload(void)
{
	(void)kill(getpid(), SIGHUP);
}

static int64_t connections(void *net)
{
	return net_conn_count(net);
}

/* What other nodes tell their clients of this one. */
static void advertise(struct daemon *d)
{
	static const char *const doors[][2] = {{"mqtt", "mqtts"}, {"kafka", "kafkas"},
		{"http", "https"}, {"amqp", "amqps"}, {"geo", NULL}};

	for (size_t i = 0; i < sizeof doors / sizeof doors[0]; i++)
		for (int tls = 0; tls < 2; tls++)
			if (doors[i][tls] != NULL)
				node_advertise(d->node, doors[i][tls],
					net_addresses(d->net, doors[i][0], tls, true));
	node_count_connections(d->node, connections, d->net);
}

/* The node's own socket: who may open it administers the cluster. A node serves without one, too.
 */
static enum err open_socket(struct daemon *d, char *why, size_t why_size)
{
	const char *dir = d->modules.storage.dir; /* or several, with commas between */
	size_t len, size;
	char *path;
	enum err e;

	dir += strspn(dir, " ");
	len = strcspn(dir, ",");
	while (len > 0 && dir[len - 1] == ' ')
		len--;
	size = len + sizeof "/sluice.sock";
	path = mem_new(size);
	(void)snprintf(path, size, "%.*s/sluice.sock", (int)len, dir);
	e = net_open_local(d->net, "http", path, why, why_size);
	mem_free(path);
	if (e == OK || e == ERR_EXISTS)
		return e;
	LOG(LOG_WARN, AREA_MAIN, "no_socket", "why=\"%s\"", why);
	*why = 0;
	return OK;
}

/* Ports first: that another server runs is found out before its data is touched. */
static enum err boot(struct daemon *d, char *why, size_t why_size)
{
	struct modules *m = &d->modules;
	enum err e;

	modules_doors(&d->doors, &(struct modules_args){.peer_tls = m->peer.tls});
	e = net_open(d->loops, m->net, d->doors.doors, d->doors.count, &d->net, why, why_size);
	if (e != OK)
		return e;
	e = storage_open(&m->storage, d->loops, d->workers, &d->storage, why, why_size);
	if (e == OK)
		e = open_socket(d, why, why_size);
	m->node.version = SLUICE_VERSION;
	m->node.peers = &m->peer;
	m->node.catchup = &m->catchup;
	m->node.peer_address = net_addresses(d->net, "peer", false, true);
	if (e == OK)
		e = node_open(&m->node, d->loops, d->workers, d->storage, &d->node, why, why_size);
	if (e == OK)
		advertise(d);
	if (e == OK)
		e = broker_new(&m->broker, d->node, d->loops, &d->broker, why, why_size);
	if (e != OK)
		return e == ERR_INVALID ? ERR_IO : e; /* data that does not fit is no usage error */
	d->mqtt = mqtt_new(&m->mqtt, d->broker, d->loops);
	d->kafka = kafka_new(&m->kafka, d->broker, d->loops);
	d->http = http_new(&m->http,
		&(struct http_env){.broker = d->broker,
			.groups = kafka_groups(d->kafka),
			.loops = d->loops,
			.net = d->net,
			.conf = d->conf,
			.reload = ask_for_reload});
	settings_in_force(d);
	modules_doors(&d->doors,
		&(struct modules_args){
			d->mqtt, d->kafka, d->http, node_peers(d->node), m->peer.tls});
	kafka_advertise(d->kafka, net_addresses(d->net, "kafka", false, true),
		net_addresses(d->net, "kafka", true, true));
	loops_start(d);
	net_listen_internal(d->net);
	node_start(d->node, d->net);
	broker_start(d->broker);
	return OK;
}

/* The next of our signals, 0 when none came in time; ms < 0 waits for one. */
static int signal_next(const sigset_t *ours, int64_t ms)
{
	struct timespec wait = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	int number = ms < 0 ? sigwaitinfo(ours, NULL) : sigtimedwait(ours, NULL, &wait);

	return number > 0 ? number : 0;
}

static bool is_end(int number)
{
	return number == SIGTERM || number == SIGINT;
}

static void log_ready(const struct daemon *d, int64_t began_ms)
{
	LOG(LOG_INFO, AREA_MAIN, "ready", "version=%s mqtt=%s kafka=%s http=%s boot_ms=%lld",
		SLUICE_VERSION, net_addresses(d->net, "mqtt", false, false),
		net_addresses(d->net, "kafka", false, false),
		net_addresses(d->net, "http", false, false), (long long)(clock_ms() - began_ms));
}

/* ---- signals */

/* What was set for the whole cluster by the command line is stronger than this node's sources. */
static void settings_of_cluster(struct daemon *d)
{
	static const char prefix[] = "config.";
	const struct catalog *c = node_catalog(d->node, loops_at(d->loops, 0));
	const char *key, *value;
	char why[WHY_BYTES];

	for (int at = 0; c != NULL && catalog_setting_next(c, &at, &key, &value);)
		if (strncmp(key, prefix, sizeof prefix - 1) == 0 &&
			conf_set(d->conf, key + sizeof prefix - 1, value, why, sizeof why) != OK)
			LOG(LOG_WARN, AREA_CONF, "setting_refused", "why=\"%s\"", why);
}

static void apply_settings(void *arg)
{
	struct daemon *d = arg;

	settings_of_cluster(d);
	conf_apply(d->conf, false);
	settings_in_force(d);
}

static void reload(struct daemon *d)
{
	char why[WHY_BYTES];

	conf_forget(d->conf);
	if (settings_read(d, why, sizeof why) != OK) {
		LOG(LOG_ERROR, AREA_CONF, "reload_refused", "why=\"%s\"", why);
		return;
	}
	loops_stand_still(d->loops, apply_settings, d);
	if (net_reload_tls(d->net, why, sizeof why) != OK) {
		LOG(LOG_ERROR, AREA_CONF, "tls_refused", "why=\"%s\"", why);
		return;
	}
	LOG(LOG_INFO, AREA_CONF, "reloaded", "file=%s", d->options.file ? d->options.file : "none");
}

/* Opens the doors and waits until the node serves. Gives a signal that came meanwhile, or 0, or
 * below 0 what waiting can't help against, with why. */
static int serve(
	struct daemon *d, const sigset_t *ours, int64_t began_ms, char *why, size_t why_size)
{
	bool open = false;

	for (;;) {
		bool ready = broker_ready(d->broker);
		int number;

		if (node_failed(d->node, why, why_size))
			return -1;

		if (!open && (ready || clock_ms() - began_ms >= LISTEN_AFTER_MS)) {
			net_listen(d->net);
			http_serving(d->http, true);
			open = true;
		}
		if (ready) {
			log_ready(d, began_ms);
			return 0;
		}
		number = signal_next(ours, READY_POLL_MS);
		if (number == SIGHUP)
			reload(d);
		else if (number != 0)
			return number;
	}
}

/* ---- the way down */

/* From now on these signals end the process at once: who asks twice does not want to wait. What
 * came together with the first one (a terminal and a parent may both send theirs) asks once. */
static void end_at_next_signal(void)
{
	sigset_t ends;

	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	while (signal_next(&ends, 0) != 0) {
	}
	must(signal(SIGTERM, SIG_DFL) != SIG_ERR);
	must(signal(SIGINT, SIG_DFL) != SIG_ERR);
	must(sigprocmask(SIG_UNBLOCK, &ends, NULL) == 0);
}

static void shut_down(struct daemon *d)
{
	if (d->http != NULL)
		http_serving(d->http, false);
	if (d->node != NULL)
		loops_start(d); /* what was opened ends on its loop */
	if (d->node != NULL)
		node_step_aside(d->node, ASIDE_MS);
	if (d->net != NULL && d->loops_running)
		net_drain(d->net, d->modules.process.drain_ms);
	if (d->kafka != NULL)
		kafka_stop(d->kafka);
	if (d->mqtt != NULL)
		mqtt_stop(d->mqtt);
	if (d->node != NULL)
		node_close(d->node);
	if (d->loops != NULL)
		loops_stop(d->loops);
	net_free(d->net);
	http_free(d->http);
	kafka_free(d->kafka);
	mqtt_free(d->mqtt);
	broker_free(d->broker);
	node_free(d->node);
	workers_free(d->workers);
	if (d->storage != NULL)
		storage_stop(d->storage);
	loops_free(d->loops);
	storage_free(d->storage);
}

/* ---- main */

static enum exit_code fail(const char *why, enum exit_code code)
{
	fprintf(stderr, "sluiced: %s\n", why);
	return code;
}

static enum exit_code run(struct daemon *d)
{
	int64_t began_ms = clock_ms();
	char why[WHY_BYTES] = "";
	sigset_t ours;
	int number;
	enum err e;

	sigemptyset(&ours);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGHUP);
	must(sigprocmask(SIG_BLOCK, &ours, NULL) == 0);
	must(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	(void)limit_raise_files();
	modules_register_metrics();
	threads_start(d);
	e = boot(d, why, sizeof why);
	if (e != OK) {
		shut_down(d);
		return fail(*why ? why : err_text(e), e == ERR_INVALID ? EXIT_USAGE : EXIT_FAILED);
	}
	number = serve(d, &ours, began_ms, why, sizeof why);
	if (number < 0) {
		shut_down(d);
		return fail(why, EXIT_FAILED);
	}
	while (!is_end(number)) {
		if (number == SIGHUP)
			reload(d);
		number = signal_next(&ours, FAILED_POLL_MS);
		if (number == 0 && node_failed(d->node, why, sizeof why)) {
			shut_down(d);
			return fail(why, EXIT_FAILED);
		}
	}
	LOG(LOG_INFO, AREA_MAIN, "stopping", "signal=%d", number);
	end_at_next_signal();
	shut_down(d);
	LOG(LOG_INFO, AREA_MAIN, "stopped", "uptime_s=%lld",
		(long long)((clock_ms() - began_ms) / 1000));
	return EXIT_OK;
}

static enum exit_code settle(struct daemon *d)
{
	char why[WHY_BYTES];

	if (settings_read(d, why, sizeof why) != OK)
		return fail(why, EXIT_USAGE);
	conf_apply(d->conf, true);
	settings_in_force(d);
	if (d->options.what == DO_RUN)
		return run(d);
	if (settings_check(d->conf, why, sizeof why) != OK)
		return fail(why, EXIT_USAGE);
	return EXIT_OK;
}

int main(int argc, char **argv)
{
	struct daemon *d = mem_new(sizeof *d);
	enum exit_code code;

	d->conf = conf_new();
	modules_init(&d->modules, d->conf);
	code = options_read(&d->options, argc, argv);
	if (code == EXIT_OK)
		switch (d->options.what) {
		case DO_RUN:
		case DO_CHECK: code = settle(d); break;
		case DO_VERSION: puts("sluiced " SLUICE_VERSION); break;
		case DO_HELP: fputs(usage_text, stdout); break;
		case DO_SAMPLE: code = print_page(d->conf, conf_write_sample); break;
		case DO_REFERENCE: code = print_page(d->conf, write_reference); break;
		}
	conf_free(d->conf);
	modules_fini(&d->modules);
	mem_free(d->options.sets);
	mem_free(d);
	return (int)code;
}
