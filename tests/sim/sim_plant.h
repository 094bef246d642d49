/* Bugs that the simulator must find: a run in which one is planted and that passes shows that the
 * checks are blind. They sit between the product's modules, by the linker (--wrap in
 * tests/build.mk): the product has no switch for them. */
#ifndef SIM_PLANT_H
#define SIM_PLANT_H
#include <stdbool.h>

enum sim_plant {
	PLANT_NONE,
	PLANT_SYNC,      /* acknowledged before it is on the disk: a sync does nothing */
	PLANT_VOTE,      /* a vote is forgotten when the node restarts */
	PLANT_DUPLICATE, /* a batch that is sent again is taken again */
	PLANT_FENCE,     /* what a session writes counts, whoever has its name by now */
	PLANT_READ,      /* linearizable reads do not ask whether this node still leads */
	PLANT_COMMIT,    /* a member may commit whatever its generation */
	PLANT_HELD,      /* a node is removed though groups count on its vote */
	PLANT_WILL,      /* a will is published whether it was or not */
	PLANT_RETAINED,  /* retained values are sent after newer ones that came live */
	PLANT_GUARD,     /* + n: rule n of the guard is off; 0: the gate */
	PLANT_COUNT = PLANT_GUARD + 16
};

void sim_plant_set(enum sim_plant p);
enum sim_plant sim_planted(void);
/* "sync", "vote", ..., "guard-2"; PLANT_COUNT: there is none of that name. */
enum sim_plant sim_plant_named(const char *name);

#endif
