/* The order of boot and end is server/main.c's; where that has doors there is nothing. What a crash
 * leaves behind stays in memory: a run ends with its process. */
#include "tests/sim/sim_node.h"
#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "server/base/conf.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "cluster/catchup.h"
#include "cluster/peer.h"
#include "storage/storage.h"
#include "tests/sim/sim_disk.h"

enum { DRAIN_US = 100 * SIM_MS, STEP_ASIDE_MS = 500, FAILED_LOOK_US = 250 * SIM_MS };

struct sim_settings { /* of a life */
	struct node_conf node;
	struct storage_conf storage;
	struct broker_conf broker;
	struct group_conf groups;
	struct peer_settings peers;
	struct catchup_settings catchup;
	char address[16];
};

void sim_process_init(const char *dir)
{
	if ((mkdir(dir, 0700) != 0 && errno != EEXIST) || chdir(dir) != 0) {
		perror(dir);
		exit(2);
	}
	metric_register(&storage_metrics);
	metric_register(&node_metrics);
	metric_register(&catchup_metrics);
	metric_register(&broker_metrics);
}

/* What a disk that lies has lost the side file would tell of. */
static void disk_lost(struct sim_machine *m)
{
	char path[32];

	sim_disk_crash(m);
	snprintf(path, sizeof path, "%d/side", m->id);
	if (sim_disk_of(m)->lies)
		(void)unlink(path);
}

static void on_abort(struct sim_machine *m)
{
	struct sim_node *n = list_entry(m, struct sim_node, machine);

	n->phase = SIM_DOWN;
	n->crashes++;
	n->ended(n);
	disk_lost(m);
}

void sim_node_init(struct sim_node *n, int id, const struct sim_cluster_conf *c)
{
	*n = (struct sim_node){.cluster = c};
	sim_machine_init(&n->machine, id);
	n->machine.crashed = on_abort;
	sim_disk_init(&n->machine);
}

static void setting(struct sim_node *n, const char *key, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static void setting(struct sim_node *n, const char *key, const char *format, ...)
{
	char value[256], why[256];
	va_list args;

	va_start(args, format);
	vsnprintf(value, sizeof value, format, args);
	va_end(args);
	if (conf_set(n->conf, key, value, why, sizeof why) != OK)
		sim_fail("%s = %s: %s", key, value, why);
}

/* The first three, or as many as there are. */
static const char *seeds(const struct sim_cluster_conf *c)
{
	return c->nodes > 2 ? "n1:7400,n2:7400,n3:7400" : "n1:7400,n2:7400";
}

static void configure(struct sim_node *n)
{
	struct sim_settings *s = mem_new(sizeof *s);

	n->settings = s;
	n->conf = conf_new();
	conf_add(n->conf, node_rows, &s->node);
	conf_add(n->conf, storage_rows, &s->storage);
	conf_add(n->conf, broker_rows, &s->broker);
	conf_add(n->conf, peer_rows, &s->peers);
	conf_add(n->conf, catchup_rows, &s->catchup);
	setting(n, "node.id", "%d", n->machine.id);
	setting(n, "node.name", "n%d", n->machine.id);
	if (n->cluster->nodes > 1)
		setting(n, "cluster.seeds", "%s", seeds(n->cluster));
	setting(n, "tables", "%d", n->cluster->tables);
	setting(n, "stream.partitions", "%d", n->cluster->partitions);
	setting(n, "data.dir", "%d", n->machine.id);
	setting(n, "disk.reserve", "1MiB");
	setting(n, "storage.wal", "8MiB");
	setting(n, "storage.tail_cache", "4MiB");
	setting(n, "partition.rows", "1MiB");
	conf_apply(n->conf, true);
	snprintf(s->address, sizeof s->address, "n%d:7400", n->machine.id);
	s->node.version = "sim";
	s->node.peer_address = s->address;
	s->node.peers = &s->peers;
	s->node.catchup = &s->catchup;
	s->catchup.unlogged_bytes_min = n->machine.id % 2; /* every second node: all it fetches */
	s->groups = (struct group_conf){.session_ms_min = 1000,
		.session_ms_max = 60000,
		.members_max = 100,
		.bytes_max = 1 << 20,
		.groups_max = 1000,
		.offset_metadata_max = 4096,
		.loop_bytes_max = 16 << 20,
		.offsets_keep_ms = 7 * 24 * 3600000ll};
}

static void end(void *arg);

/* A node that says that waiting does not help is ended, and begun again by whoever looks after
 * processes. */
static void look_if_failed(void *arg)
{
	struct sim_node *n = arg;
	char why[160];

	if (n->phase != SIM_RUNNING)
		return;
	if (!node_failed(n->node, why, sizeof why)) {
		sim_after(FAILED_LOOK_US, &n->machine, look_if_failed, n);
		return;
	}
	n->phase = SIM_ENDING;
	sim_fiber_after(0, &n->machine, end, n);
}

static void boot(void *arg)
{
	struct sim_node *n = arg;
	struct sim_settings *s;
	char why[512] = "";
	enum err e;

	configure(n);
	s = n->settings;
	n->loops = loops_new(n->cluster->loops);
	n->workers = workers_new(2);
	e = storage_open(&s->storage, n->loops, n->workers, &n->storage, why, sizeof why);
	if (e == OK)
		e = node_open(
			&s->node, n->loops, n->workers, n->storage, &n->node, why, sizeof why);
	if (e == OK)
		e = broker_new(&s->broker, n->node, n->loops, &n->broker, why, sizeof why);
	if (e != OK)
		sim_fail("n%d does not start: %s: %s", n->machine.id, err_text(e), why);
	n->sessions = sessions_new(n->broker, n->loops);
	n->groups = groups_new(&s->groups, n->loops);
	n->wire(n);
	loops_run(n->loops);
	node_start(n->node, NULL);
	broker_start(n->broker);
	n->phase = SIM_RUNNING;
	sim_after(FAILED_LOOK_US, &n->machine, look_if_failed, n);
	n->began(n);
}

void sim_node_start(struct sim_node *n)
{
	sim_must(n->phase == SIM_DOWN);
	n->phase = SIM_BOOTING;
	n->starts++;
	n->machine.doomed = false;
	sim_disk_renew(&n->machine);
	sim_machine_start(&n->machine);
	sim_trace("start n%d life %llu", n->machine.id, (unsigned long long)n->starts);
	sim_fiber_after(0, &n->machine, boot, n);
}

void sim_node_crash(struct sim_node *n)
{
	sim_must(n->phase != SIM_DOWN && sim_here() == NULL);
	sim_trace("crash n%d", n->machine.id);
	n->phase = SIM_DOWN;
	n->crashes++;
	n->ended(n);
	sim_machine_stop(&n->machine);
	disk_lost(&n->machine);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

void sim_node_forget(struct sim_node *n)
{
	char path[32];

	snprintf(path, sizeof path, "%d", n->machine.id);
	sim_must(nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT);
}

static void stopped(void *arg)
{
	struct sim_node *n = arg;

	sim_trace("stopped n%d", n->machine.id);
	sim_machine_stop(&n->machine);
}

static void end(void *arg)
{
	struct sim_node *n = arg;

	node_step_aside(n->node, STEP_ASIDE_MS);
	n->closing(n);
	sim_sleep_us(DRAIN_US);
	groups_stop(n->groups);
	sessions_stop(n->sessions, 5000);
	node_close(n->node);
	loops_stop(n->loops);
	node_free(n->node);
	groups_free(n->groups);
	sessions_free(n->sessions);
	broker_free(n->broker);
	workers_free(n->workers);
	storage_stop(n->storage);
	loops_free(n->loops);
	storage_free(n->storage);
	conf_free(n->conf);
	n->phase = SIM_DOWN;
	n->ended(n);
	sim_after(0, NULL, stopped, n);
	for (;;)
		sim_sleep_us(SIM_S);
}

void sim_node_stop(struct sim_node *n)
{
	sim_must(n->phase == SIM_RUNNING);
	sim_trace("stop n%d", n->machine.id);
	n->phase = SIM_ENDING;
	sim_fiber_after(0, &n->machine, end, n);
}
