/* A node of the product on a machine: booted and ended as server/main.c does it, without doors. */
#ifndef SIM_SIM_NODE_H
#define SIM_SIM_NODE_H
#include "server/broker/broker.h"
#include "server/broker/group_home.h"
#include "server/broker/session.h"
#include "tests/sim/sim.h"

struct sim_cluster_conf { /* the same for all nodes of a run */
	int nodes, loops, tables, partitions;
};

enum sim_phase { SIM_DOWN, SIM_BOOTING, SIM_RUNNING, SIM_ENDING };

struct sim_node {
	struct sim_machine machine; /* first */
	const struct sim_cluster_conf *cluster;
	enum sim_phase phase;
	uint64_t starts, crashes;
	/* Of this life; a crash leaves them behind. */
	struct conf *conf;
	struct sim_settings *settings;
	struct loops *loops;
	struct workers *workers;
	struct storage *storage;
	struct node *node;
	struct broker *broker;
	struct sessions *sessions;
	struct groups *groups;
	void (*wire)(struct sim_node *n);    /* before its loops run */
	void (*began)(struct sim_node *n);   /* running: loads may begin */
	void (*closing)(struct sim_node *n); /* clients are told to go; they have 100 ms */
	void (*ended)(
		struct sim_node *n); /* crashed or closed: told before anything else happens */
};

void sim_node_init(struct sim_node *n, int id, const struct sim_cluster_conf *c);
/* A life begins; boots in a fiber. */
void sim_node_start(struct sim_node *n);
/* Power is lost. */
void sim_node_crash(struct sim_node *n);
/* The small files of its folder go. */
void sim_node_forget(struct sim_node *n);
/* A clean end, which takes its time. */
void sim_node_stop(struct sim_node *n);
/* Once per process, which from then on is in that folder. */
void sim_process_init(const char *dir);

#endif
