/* sim FIRST..LAST: runs each seed in a process of its own, so that each begins from nothing and the
 * end of one is not the end of all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "server/base/map.h"
#include "server/base/mem.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_node.h"

static struct sim_node nodes[SIM_MACHINES_MAX];
static struct sim_cluster_conf cluster = {.nodes = 1, .loops = 2, .tables = 2, .partitions = 2};

static void began(struct sim_node *n)
{
	sim_trace("running n%d", n->machine.id);
}
static void ended(struct sim_node *n)
{
	sim_trace("ended n%d", n->machine.id);
}

static int run_seed(uint64_t seed)
{
	hash_seed(seed);
	sim_init(seed, getenv("SIM_TRACE") != NULL);
	sim_process_init("/dev/shm");
	sim_node_init(&nodes[0], 1, &cluster);
	nodes[0].began = began;
	nodes[0].ended = ended;
	sim_node_start(&nodes[0]);
	sim_run_until(20 * SIM_S);
	sim_node_crash(&nodes[0]);
	sim_node_start(&nodes[0]);
	sim_run_until(40 * SIM_S);
	sim_node_stop(&nodes[0]);
	sim_run_until(50 * SIM_S);
	sim_must(nodes[0].phase == SIM_DOWN);
	sim_node_start(&nodes[0]);
	sim_run_until(60 * SIM_S);
	sim_process_fini();
	printf("seed %llu ok events %llu hash %016llx\n", (unsigned long long)seed,
		(unsigned long long)sim_events(), (unsigned long long)sim_trace_hash());
	return 0;
}

int main(int argc, char **argv)
{
	/* Addresses take part in nothing, but a run that repeats to the last byte is easier to
	 * debug. */
	if ((personality(0xffffffff) & ADDR_NO_RANDOMIZE) == 0 &&
		personality(ADDR_NO_RANDOMIZE) >= 0)
		execv("/proc/self/exe", argv);
	return run_seed(argc > 1 ? strtoull(argv[1], NULL, 10) : 1);
}
