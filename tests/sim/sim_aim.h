/* Faults that wait for their moment: in four seeds of five one kind of moment is watched for on
 * the wire, and what could go wrong right then is made to happen. Random faults alone hit these
 * windows of a few hundred microseconds once in thousands of seeds. */
#ifndef SIM_AIM_H
#define SIM_AIM_H
#include "server/base/buf.h"
#include "tests/sim/sim_node.h"

enum sim_aim {
	AIM_NONE,
	AIM_VOTES,  /* voters die after a vote, candidates are cut off: elections collide */
	AIM_FENCES, /* who is told that its session is claimed elsewhere does not hear it */
	AIM_TERMS,  /* leaders are cut off while they append, and meet the next one at once */
	AIM_PAUSES, /* leaders stand still until there are others, and go on with what waits */
	AIM_COUNT
};

struct aim_hands { /* what it may do */
	void (*cut)(int from, int to, int64_t us);
	void (*mend)(int from, int to);
	void (*blink)(int id);
	void (*pause)(int id, int64_t us);
	void (*slow)(int id, int64_t sync_us, int64_t us);
	void (*count)(void); /* a fault that was made here */
};
void sim_aim_start(enum sim_aim aim, int nodes, const struct aim_hands *hands);
void sim_aim_stop(void);
/* A message of Raft, or a call, is about to leave. Gives whether the call is not heard. */
void sim_aim_raft(int from, int to, struct slice frame);
bool sim_aim_call(int from, int to, uint32_t op);

#endif
