/* A run: so many nodes, loads, a plan of faults drawn from the seed, healing, and the checks. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H
#include "tests/sim/sim_load.h"

struct world_result {
	uint64_t ops, acknowledged, faults, entries, events;
};
enum world_plant { /* bugs that a run must find */
	PLANT_NONE,
	PLANT_SYNC, /* a sync does nothing: acknowledged before it is durable */
	PLANT_COUNT
};
struct world_conf { /* what a seed does not decide by itself */
	int nodes;  /* 0: by the seed */
	enum world_plant plant;
};
enum world_plant world_plant_named(const char *name); /* PLANT_COUNT: there is none */
void world_run(const struct world_conf *c, struct world_result *out);

#endif
