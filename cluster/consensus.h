/* One replica of one Raft group: canonical/raft behind the guard (see cluster/README.md), its log
 * in a plog. The only module, with guard and raft_wire, that knows raft.h. What Raft holds are
 * stubs; payloads are entries of the plog.
 * Thread: the group's home loop. Completions never run inside the call that started them. */
#ifndef CLUSTER_CONSENSUS_H
#define CLUSTER_CONSENSUS_H
#include "storage/plog.h"

struct consensus;

enum consensus_role { ROLE_FOLLOWER, ROLE_CANDIDATE, ROLE_LEADER, ROLE_DOWN };

struct consensus_install {          /* a point in the leader's log to be fetched up to */
	uint64_t from, index, term; /* replica that leads; last entry of the snapshot */
	int64_t next_offset;        /* of the log after that entry */
	/* What is fetched must reach this entry: a majority may rely on this replica's having it,
	 * on nothing after it. Who leads next may know less of as committed than the point is. */
	uint64_t least;
};

struct consensus_fsm { /* what the owner supplies; called from turns and completions */
	/* e is committed: entries come in order of index, each once in the life of the consensus
	 * (after a start: those above the durable applied mark again). Borrows e. Must not fail,
	 * read the store or look at a clock. Barriers and configurations are passed, too. */
	void (*apply)(void *arg, struct entry *e);
	/* Stage in the lane whatever has been applied and is not in the store yet, with
	 * plog_mark_applied: Raft is about to forget entries up to the last applied. */
	void (*write_back)(void *arg);
	/* Role, term or leader have changed, or the barrier of a new leader has been applied. */
	void (*changed)(void *arg);
	/* A leader says that this replica is too far behind its log: fetch log and rows up to a
	 * snapshot from it, stage them (plog_reset, rows, marks), then call consensus_installed.
	 * NULL: not offered, the replica goes down instead (ROLE_DOWN). Called again before
	 * consensus_installed if another leads by then: the fetch is to be given up for that one.
	 */
	void (*install)(void *arg, const struct consensus_install *i);
};

struct consensus_net { /* how messages leave; NULL for groups that will never have a peer */
	/* Gives a message (parts, in order: to be sent as one frame) for a replica. Takes the
	 * parts. May drop it. */
	void (*send)(void *arg, uint64_t to, const char *address, struct slice *parts, int count);
};

struct consensus_options {
	int64_t heartbeat_ms, election_ms;         /* 150, 600 */
	int snapshot_threshold, snapshot_trailing; /* 256, 128 */
	size_t inflight_bytes_max;                 /* proposed and not committed, per group */
	const struct plog_env
		*env;       /* the log's: loop, lane, store; must be set; borrowed for good */
	bool guard_off[16]; /* tests: rule Gn is off; [0]: the gate */
};

/* A founding configuration: the first entry (index 1, term 1) of every first replica. */
struct consensus_member {
	uint64_t replica;
	const char *address;
};

/* Raft's heap is set once per process, before any group. */
void consensus_process_init(void);
/* Starts a replica over an open log. members NULL: the log knows its configuration (a restart);
 * else the log is empty and gets it, and the first member stands for election at once. Entries
 * above the applied mark are applied before it returns only in a group of one voter. ERR_CORRUPT.
 * Takes nothing; log outlives it. */
enum err consensus_open(struct plog *log, uint64_t replica, const char *address,
	const struct consensus_member *members, int member_count, const struct consensus_options *o,
	const struct consensus_fsm *fsm, void *fsm_arg, const struct consensus_net *net,
	void *net_arg, struct consensus **out) MUST_USE;
/* done runs from the loop when nothing of it is under way any more. Proposals end with ERR_CLOSED.
 */
void consensus_close(struct consensus *c, void (*done)(void *arg), void *arg);

/* Every tick_ms (50): timers of elections and heartbeats. */
void consensus_tick(struct consensus *c);
/* A frame of a peer; checked like any peer's input. ERR_MALFORMED. Copies what it keeps: payload
 * bytes are kept as shares of frame's chunk. */
enum err consensus_receive(struct consensus *c, struct slice frame) MUST_USE;

enum consensus_role consensus_role(const struct consensus *c);
uint64_t consensus_term(const struct consensus *c);
/* Replica id of the leader as far as known, 0 if not. */
uint64_t consensus_leader(const struct consensus *c);
/* Leader, and everything of older terms is applied: may evaluate and serve. */
bool consensus_ready(const struct consensus *c);
/* Ready, and nobody else has been elected, as far as that can be known without asking: a majority
 * has answered within half an election timeout, in which this process did not stand still. */
bool consensus_unrivalled(const struct consensus *c);
uint64_t consensus_applied(const struct consensus *c);
/* Bytes proposed and not yet committed. */
size_t consensus_inflight(const struct consensus *c);

struct consensus_proposal { /* embed */
	struct list node;   /* private */
	struct entry
		*entry; /* share taken by consensus_propose if it gives OK, let go after done */
	int64_t batch_max_ms; /* greatest record timestamp in it, -1 without records */
	/* OK: committed and applied. ERR_UNKNOWN: leadership was lost, it may or may not commit.
	 * ERR_CLOSED. */
	void (*done)(struct consensus_proposal *p, enum err e);
};
/* Appends the entry to the group's log. It is in the plog (plog_append has run) when this returns
 * OK. ERR_NOTLEADER, ERR_BUSY (inflight_bytes_max; done will not run on any failure). */
enum err consensus_propose(struct consensus *c, struct consensus_proposal *p) MUST_USE;

/* Linearizable read point: done(OK) when a quorum has confirmed this leader after the call and all
 * before is applied. Many in one turn share one barrier. */
struct consensus_barrier {
	struct list node;
	void (*done)(struct consensus_barrier *b, enum err e);
};
void consensus_barrier(struct consensus *c, struct consensus_barrier *b);

/* Membership, one change at a time; leader only. Roles as in Raft: spare, standby, voter. */
enum consensus_change_kind {
	CHANGE_ADD_SPARE,
	CHANGE_TO_STANDBY,
	CHANGE_TO_VOTER,
	CHANGE_TO_SPARE,
	CHANGE_REMOVE
};
struct consensus_change {
	enum consensus_change_kind kind;
	uint64_t replica;
	const char *address; /* CHANGE_ADD_SPARE; copied */
	void (*done)(struct consensus_change *c, enum err e);
};
enum err consensus_change(struct consensus *c, struct consensus_change *change) MUST_USE;
/* Hands leadership to a voter; the outcome shows in fsm.changed. */
enum err consensus_transfer(struct consensus *c, uint64_t to) MUST_USE;

/* The configuration in force here (the newest in the log; whose vote is being taken away has it
 * until that is committed); match and in_sync only on the leader. Gives how many there are; writes
 * at most max. */
enum member_role { MEMBER_VOTER, MEMBER_STANDBY, MEMBER_SPARE };
struct consensus_peer {
	uint64_t replica, match_index;
	enum member_role role;
	bool in_sync; /* has answered within an election timeout and since its node was lost, and
		       * lacks less than 1,024 entries */
};
int consensus_peers(const struct consensus *c, struct consensus_peer *out, int max);
bool consensus_changing(const struct consensus *c); /* a change or a transfer is under way */
uint64_t consensus_commit(const struct consensus *c);
/* While pinned no entry above the present applied index is forgotten: somebody fetches a snapshot.
 * Counted. */
void consensus_pin(struct consensus *c, bool on);

/* The connection of a node was reset. Its replicas are not in sync until they answer again. If the
 * leader is there, the voters do not wait for the election timeout to stand; should it still live,
 * its next message is enough to keep it. */
void consensus_lost(struct consensus *c, uint32_t node);

/* Steps aside (the disk hangs): no heartbeats are sent until called with false. */
void consensus_mute(struct consensus *c, bool on);

/* Lowest index that may still be sent to a peer: for plog_trim. */
uint64_t consensus_keep_index(const struct consensus *c);
/* The end of fsm.install, on the home loop: everything is staged in the lane, or e says why not:
 * then fsm.install is called again when a leader is heard, at the earliest after a second, maybe
 * with another from; ERR_CORRUPT ends the replica (ROLE_DOWN). */
void consensus_installed(struct consensus *c, enum err e);

#endif
