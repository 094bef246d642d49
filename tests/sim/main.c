/* sim FIRST..LAST: runs each seed in a process of its own, so that each begins from nothing and the
 * end of one is not the end of all; as many at a time as there are cores. The last line is the
 * summary; the status is not 0 if a seed failed. With SIM_PLANT=BUG it is 0 if one did: the bug was
 * found. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "server/base/map.h"
#include "server/base/mem.h"
#include "tests/sim/sim_world.h"

enum { SEED_SECONDS_MAX = 300, FAILED_MAX = 20 };

struct totals { /* shared by the processes */
	_Atomic uint64_t seeds, failed, ops, acknowledged, faults, entries, events, compacted;
};

static char stdout_buffer[1 << 16];
static struct totals *totals;
static struct world_conf conf;

/* The few small files of the nodes of a run. */
static const char *folder_of(pid_t pid, char *out, size_t size)
{
	snprintf(out, size, "%s/sluice-sim-%d", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
		(int)pid);
	return out;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static void folder_remove(const char *folder)
{
	(void)nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int run_seed(uint64_t seed)
{
	struct world_result r;
	char folder[64];

	/* Of the processor: whoever measures may have stopped us for long. */
	setrlimit(RLIMIT_CPU, &(struct rlimit){SEED_SECONDS_MAX, RLIM_INFINITY});
	hash_seed(seed);
	sim_init(seed, getenv("SIM_TRACE") != NULL);
	if (conf.plant != PLANT_NONE)
		sim_quiet();
	folder_of(getpid(), folder, sizeof folder);
	folder_remove(folder); /* of a process that was killed, and had this number */
	sim_process_init(folder);
	world_run(&conf, &r);
	totals->ops += r.ops;
	totals->acknowledged += r.acknowledged;
	totals->faults += r.faults;
	totals->entries += r.entries;
	totals->compacted += r.compacted;
	totals->events += r.events;
	if (getenv("SIM_VERBOSE") != NULL)
		printf("seed %llu ok ops %llu acknowledged %llu faults %llu entries %llu events "
		       "%llu hash %016llx\n",
			(unsigned long long)seed, (unsigned long long)r.ops,
			(unsigned long long)r.acknowledged, (unsigned long long)r.faults,
			(unsigned long long)r.entries, (unsigned long long)r.events,
			(unsigned long long)sim_trace_hash());
	fflush(stdout);
	_exit(0);
}

static void reap(uint64_t *running)
{
	char folder[64];
	int status;
	pid_t pid = wait(&status);

	if (pid < 0)
		return;
	folder_remove(folder_of(pid, folder, sizeof folder));
	--*running;
	totals->seeds++;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		totals->failed++;
}

static bool range_read(const char *text, uint64_t *first, uint64_t *last)
{
	char *end;

	*first = *last = strtoull(text, &end, 10);
	if (end == text)
		return false;
	if (strncmp(end, "..", 2) == 0)
		*last = strtoull(end + 2, &end, 10);
	return *end == 0 && *last >= *first;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int run_all(uint64_t first, uint64_t last, uint64_t at_a_time)
{
	uint64_t running = 0;
	double began = seconds();
	uint64_t failed_max = conf.plant == PLANT_NONE ? FAILED_MAX : 1;

	for (uint64_t seed = first; seed <= last && totals->failed < failed_max; seed++) {
		pid_t pid;

		while (running >= at_a_time)
			reap(&running);
		fflush(stdout);
		pid = fork();
		must(pid >= 0);
		if (pid == 0)
			run_seed(seed);
		running++;
	}
	while (running > 0)
		reap(&running);
	printf("sim: seeds %llu..%llu run %llu failed %llu operations %llu acknowledged %llu "
	       "faults %llu entries %llu compacted %llu events %llu seconds %.1f\n",
		(unsigned long long)first, (unsigned long long)last,
		(unsigned long long)totals->seeds, (unsigned long long)totals->failed,
		(unsigned long long)totals->ops, (unsigned long long)totals->acknowledged,
		(unsigned long long)totals->faults, (unsigned long long)totals->entries,
		(unsigned long long)totals->compacted, (unsigned long long)totals->events,
		seconds() - began);
	if (conf.plant != PLANT_NONE && totals->failed == 0)
		printf("sim: the planted bug was NOT FOUND\n");
	return (totals->failed > 0) != (conf.plant != PLANT_NONE);
}

int main(int argc, char **argv)
{
	const char *jobs = getenv("SIM_JOBS"), *node_count = getenv("SIM_NODES");
	const char *plant = getenv("SIM_PLANT"), *aim = getenv("SIM_AIM");
	uint64_t first = 1, last = 10;

	/* Addresses take part in nothing, but a run that repeats to the last byte is easier to
	 * debug. */
	if (getenv("SIM_ASLR") == NULL && (personality(0xffffffff) & ADDR_NO_RANDOMIZE) == 0 &&
		personality(ADDR_NO_RANDOMIZE) >= 0)
		execv("/proc/self/exe", argv);
	/* So that printing takes nothing from the heap. */
	setvbuf(stdout, stdout_buffer, _IOLBF, sizeof stdout_buffer);
	if (argc > 1 && !range_read(argv[1], &first, &last)) {
		fprintf(stderr, "usage: sim FIRST..LAST\n");
		return 2;
	}
	conf.without = getenv("SIM_WITHOUT") ? getenv("SIM_WITHOUT") : "";
	conf.nodes = node_count ? (int)strtol(node_count, NULL, 10) : 0;
	conf.aim = aim ? (int)strtol(aim, NULL, 10) : -1;
	conf.plant = plant ? sim_plant_named(plant) : PLANT_NONE;
	if (conf.plant == PLANT_COUNT) {
		fprintf(stderr, "sim: there is no planted bug %s\n", plant);
		return 2;
	}
	totals = mmap(
		NULL, sizeof *totals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(totals != MAP_FAILED);
	return run_all(first, last, jobs ? strtoull(jobs, NULL, 10) : 1);
}
