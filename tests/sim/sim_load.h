/* Clients. An actor does one thing at a time on some node, notes what was answered, and goes on,
 * maybe elsewhere; when its node crashes it does not know what came of what it did, as a client
 * would. */
#ifndef SIM_LOAD_H
#define SIM_LOAD_H
#include "tests/sim/sim_check.h"

struct actor;
struct actor_kind {
	const char *name;
	/* In the world: begin something, on a loop of a node (actor_call), or ask for another turn
	 * (actor_again). */
	void (*step)(struct actor *a);
	/* The node it was busy on is gone. */
	void (*lost)(struct actor *a);
	/* Set: steps go on after load_stop, until this says that all is well. */
	bool (*idle)(struct actor *a, char *why, size_t why_size);
};

struct actor {
	const struct actor_kind *kind;
	int id;
	int64_t gap_us; /* between two steps, at most */
	/* What is under way: */
	struct sim_node *on;
	uint64_t life;
	uint64_t turn; /* grows with each: answers of earlier ones are too late */
	bool busy;
	int64_t since_us;
};

struct load_conf {
	int publishers, producers, sessions, admins, committers;
	int members, operators, wills, retained;
};
void load_start(struct sim_node *nodes, int count, const struct load_conf *c);
/* Loads end what they do and begin nothing new. */
void load_stop(void);
void load_node_gone(struct sim_node *n);
void load_node_closing(struct sim_node *n); /* its clients are to go */
bool load_idle(char *why, size_t why_size);
bool load_stopping(void);
void load_print(void); /* to the record: what each has done */

/* --- for actors */
void actor_add(struct actor *a, const struct actor_kind *kind, int id, int64_t gap_us);
/* A node that runs, NULL if none does; not always the same. */
struct sim_node *actor_node(void);
struct sim_node *actor_node_at(uint32_t id); /* that one, if it runs */
/* Something begins: fn(arg) on a loop of n, in another turn. Gives the turn for actor_done. */
uint64_t actor_call(struct actor *a, struct sim_node *n, void (*fn)(void *arg), void *arg);
/* On that node's loop: it has ended; the next step comes after a while. */
void actor_done(struct actor *a, uint64_t turn);
void actor_again(struct actor *a, int64_t after_us);
struct shard *actor_shard(struct actor *a); /* on the loop it was called on */
/* In force there; NULL until it has the tables and the stream of the loads. */
const struct catalog *actor_catalog(struct actor *a);

/* How an operation ends when nothing is wrong with the cluster but its nodes. */
bool err_is_passing(int e);

void load_publish_add(int id); /* messages by topic */
void load_produce_add(int id); /* batches, exactly once */
void load_admin_add(int id);   /* streams come, change and go */
void load_session_closing(struct sim_node *n);
void load_session_gone(struct sim_node *n);
void load_session_add(int id); /* durable sessions that wander */
void load_commit_add(int id);  /* positions of groups, written and read */
void load_group_add(int id);   /* members of consumer groups */
void load_operator_add(int id, struct sim_node *nodes, int count); /* a node goes, and comes back */
void load_will_add(int id);                                        /* wills, published once */
void load_will_closing(struct sim_node *n);
void load_will_gone(struct sim_node *n);
void load_retain_add(int id); /* retained values: who sets them, ... */
void load_look_add(int id);   /* ... and who wants to know them */
void load_retained_closing(struct sim_node *n);
const char *load_stream(void); /* that producers write to; made by the first admin */

#endif
