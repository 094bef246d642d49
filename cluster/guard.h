/* The guard: what makes canonical/raft 0.15.0 safe to use. It looks at every message and completion
 * on its way into and out of the core and lets pass, drops, holds or corrects it. The rules have
 * numbers, G1 to G12 and the gate; GUARD.md tells what each is against. It decides; consensus.c and
 * raft_io.c do. Thread: the group's home loop. */
#ifndef CLUSTER_GUARD_H
#define CLUSTER_GUARD_H
#include "cluster/raft_wire.h"

struct guard {                  /* what the rules need to know of one replica */
	struct raft *raft;      /* NULL: no instance at present */
	const bool *off;        /* off[n]: rule Gn does not apply, off[0]: the gate (tests) */
	uint64_t barrier_term;  /* G1: the term whose first entry is ours, of the barrier */
	uint64_t barrier_index; /* and its index */
	bool barrier_stored;    /* and whether its append has completed */
	uint32_t appends;       /* handed to io->append and not completed */
	uint64_t append_term;   /* current term when the last of them was */
	bool completing;        /* within an append completion */
	uint64_t completing_term;
	bool receiving;         /* within the delivery of an AppendEntries */
	uint64_t receiving_end; /* last index that message vouches for */
	int64_t silence_ms;     /* G11: who was silent that long does not lead any more */
	uint64_t lost_leader;   /* its connection was reset; 0: none */
	uint64_t *changes;      /* indices of CHANGE entries above the last applied, ascending */
	uint32_t change_count, change_room;
};

enum {                             /* raft_progress.state */
	GUARD_PEER_PROBE = 0,      /* what it holds is not known */
	GUARD_PEER_INSTALLING = 2, /* a snapshot is on its way to the peer */
	GUARD_PINNED_MAX = 1 << 20 /* entries in memory above which nobody keeps them from being
				      forgotten: about 100 MB of stubs */
};

enum guard_verdict {
	GUARD_PASS,
	GUARD_DROP,
	GUARD_HOLD,    /* ask again when an append has completed */
	GUARD_REBUILD, /* cut the log at guard_plan.cut, make the core anew, deliver then */
	GUARD_DIVERGED /* the logs differ below the commit index: this replica is lost */
};
struct guard_plan {
	uint32_t skip; /* entries to leave out at the front; previous index and term for that */
	uint64_t prev_index, prev_term;
	uint64_t cut; /* GUARD_REBUILD */
};

enum guard_verdict guard_receive(
	const struct guard *g, const struct raft_wire *m, struct guard_plan *plan);
/* What comes in, just before the core gets it. */
void guard_correct(const struct guard *g, int64_t now_ms, struct raft_message *m);
/* G12, around the delivery of m; the second takes what the first gave. */
int guard_lend_vote(const struct guard *g, const struct raft_message *m);
void guard_take_vote(const struct guard *g, int role);
/* May correct m. GUARD_DROP: do not send, report success; GUARD_HOLD: refuse (RAFT_NOCONNECTION).
 */
enum guard_verdict guard_send(const struct guard *g, struct raft_message *m);
/* Whether this replica's timers may run now. */
bool guard_may_tick(const struct guard *g);
/* Whether the core may forget entries now. */
bool guard_may_snapshot(const struct guard *g);
/* Whether a leader must append its barrier now. */
bool guard_wants_barrier(const struct guard *g);
/* The gate: whether the completion of an append of first..last made in term may be told. */
bool guard_may_complete(const struct guard *g, uint64_t first, uint64_t last, uint64_t term);

void guard_change_added(struct guard *g, uint64_t index);
void guard_changes_cut(struct guard *g, uint64_t from);      /* entries >= from are gone */
void guard_changes_applied(struct guard *g, uint64_t index); /* entries <= index are applied */
void guard_fini(struct guard *g);

/* The core's log: NULL or 0 if it does not hold index. */
const struct raft_entry *guard_entry(const struct raft *r, uint64_t index);
uint64_t guard_term(const struct raft *r, uint64_t index);
unsigned guard_voters(const struct raft *r);
struct raft_server *guard_server(struct raft *r, raft_id id); /* NULL: not in the configuration */

#endif
