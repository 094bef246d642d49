/* A run: so many nodes, loads, a plan of faults drawn from the seed, healing, and the checks. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H
#include "tests/sim/sim_load.h"
#include "tests/sim/sim_plant.h"

struct world_result {
	uint64_t ops, acknowledged, faults, entries, events, compacted;
};
struct world_conf { /* what a seed does not decide by itself */
	int nodes;  /* 0: by the seed */
	int aim;    /* sim_aim.h; -1: by the seed */
	enum sim_plant plant;
	const char *
		without; /* loads and faults that are left out, by name: to narrow a failure down */
};
void world_run(const struct world_conf *c, struct world_result *out);

#endif
