/* The network between machines: for each ordered pair a way that frames take, with delay, stalls
 * and cuts, one direction at a time. What travels on it is sim_peer.c's. The world's. */
#ifndef SIM_NET_H
#define SIM_NET_H
#include "tests/sim/sim.h"

struct sim_way {  /* from one machine to another */
	bool cut; /* frames wait; the connection is lost if it takes long */
	int64_t cut_since_us;
	int64_t delay_us_min, delay_us_max;
	int messy; /* per thousand of Raft's messages are lost, late or doubled */
};

struct sim_way *sim_way(int from, int to);
void sim_net_init(void);
void sim_net_cut(int from, int to, bool cut);
/* All connections from one to the other are lost, with what is on its way. */
void sim_net_reset(int from, int to);
/* The machine has gone. silent: the others find out by themselves. */
void sim_net_machine_down(int id, bool silent);
uint64_t sim_net_frames(void);

#endif
