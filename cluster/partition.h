/* A partition: one replicated log and one table of rows, changed atomically. Everything that is
 * written anywhere in Sluice passes partition_propose. What a proposal means is decided once, by
 * the leader, in log order, by the proposal's kind, against applied rows plus those of
 * its pending entries; the log holds only the absolute outcome.
 * Thread: home loop unless a function says any loop. Owner: node. Other loops hold pointers only
 * through a catalogue (meta.h) that is in force on them. */
#ifndef CLUSTER_PARTITION_H
#define CLUSTER_PARTITION_H
#include "cluster/consensus.h"

struct partition;
struct proposal;
struct eval; /* the leader's view while a proposal is evaluated */

/* --- writing: any loop --- */
/* What a proposal wants, so that any node's leader can decide it: registered at boot, the same on
 * every node. The numbers are the wire's. */
enum proposal_number {
	PROPOSAL_TRIM = 1,
	PROPOSAL_FOUND = 2,
	PROPOSAL_META = 3,
	PROPOSAL_PUBLISH = 16,
	PROPOSAL_PRODUCE = 17,
	PROPOSAL_PRODUCER_IDS = 18,
	PROPOSAL_SWEEP = 19,
	PROPOSAL_GROUP_STORE = 20,
	PROPOSAL_GROUP_OFFSETS = 21,
	PROPOSAL_GROUP_DELETE = 22,
	PROPOSAL_SWEEP_OFFSETS = 23,
	PROPOSAL_SWEEP_GROUPS = 24,
	PROPOSAL_SWEEP_QOS2 = 25,
	PROPOSAL_SESSION_CLAIM = 32,
	PROPOSAL_SESSION_WRITE = 33,
	PROPOSAL_SESSION_END = 34,
	PROPOSAL_QOS2_FORGET = 35,
	PROPOSAL_QOS2_RELEASE = 36,
	PROPOSAL_SESSION_ABSENT = 37,
	PROPOSAL_NUMBER_MAX = 64
};
struct proposal_kind { /* static const */
	enum proposal_number number;
	/* Reads through eval_get and eval_batch, writes through eval_put/eval_delete, answers OK or
	 * what to answer, and in eval_reply whatever the proposer wants to know. ERR_MORE, passed
	 * on from eval_get or eval_settle: it runs anew when what it needs is there. args: the
	 * proposal's; checked like a peer's input (ERR_MALFORMED). */
	enum err (*evaluate)(struct eval *v, struct bytes args);
};
/* Boot, before loops run; the same one again is fine. Number 0 stands for no kind. */
void proposal_kind_add(const struct proposal_kind *k);
/* NULL: this version does not know it. */
const struct proposal_kind *proposal_kind_find(uint32_t number);

struct proposal {            /* belongs to the partition from partition_propose until done runs */
	struct loop_msg msg; /* private */
	struct list node;    /* private */
	struct partition *to;
	struct loop *from; /* done runs here; set by partition_propose */
	/* One record batch of v2 or no bytes; the partition owns these bytes alone and sets offset
	 * and epoch in them. Share taken. */
	struct slice batch;
	int64_t batch_max_ms;             /* greatest timestamp in batch */
	uint32_t batch_count;             /* records in batch */
	const struct proposal_kind *kind; /* NULL: always goes */
	struct bytes args;                /* borrowed until done */
	bool leader_only; /* ERR_NOTLEADER where another node leads, instead of going there */
	/* May be evaluated again when it is not known whether it was: duplicates do no harm or are
	 * found out. Else such a proposal ends with ERR_UNKNOWN. */
	bool repeatable;
	void (*done)(struct proposal *p); /* on `from`, never inside partition_propose */
	/* The outcome: */
	enum err err; /* ERR_NOTLEADER, ERR_UNAVAILABLE, ERR_UNKNOWN, ERR_NOSPACE, ERR_BUSY, or
			 evaluate's */
	int64_t base_offset; /* of the first record */
	uint64_t index;      /* of the entry */
	struct slice reply;  /* what evaluate left; let go when done has returned */
	/* Private: */
	uint64_t sent_term;   /* of the leader that another node sent this to; 0: proposed here */
	struct slice kept;    /* the batch as it lies in an entry */
	size_t sent_at;       /* where its batch belongs in the frame being made */
	bool wrote;           /* it changes something: its entry decides */
	bool unsure;          /* it may have been carried out before */
	bool not_evaluated;   /* of another node: to be decided elsewhere */
	uint8_t trim_args[8]; /* partition_trim's */
};
/* Any loop. Proposals of one loop to one partition keep their order. Takes p until done. */
void partition_propose(struct proposal *p);

int64_t eval_offset(const struct eval *v); /* what batch's first record will get */
int64_t eval_now_ms(const struct eval *v); /* wall clock of the leader's turn */
uint64_t eval_index(
	const struct eval *v); /* a number that grows with each entry (the next index) */
/* Borrowed until the next eval call. ERR_NOTFOUND; ERR_MORE: not in memory, see evaluate. */
enum err eval_get(struct eval *v, uint8_t keyspace, struct bytes key, struct bytes *out) MUST_USE;
/* OK: all that was decided before is applied, so what follows the log tells what there is. Else
 * ERR_MORE, to be passed on: it runs anew when that is so. Before anything is written. */
enum err eval_settle(struct eval *v) MUST_USE;
void eval_put(struct eval *v, uint8_t keyspace, struct bytes key, struct bytes value);
void eval_delete(struct eval *v, uint8_t keyspace, struct bytes key);
/* The batch as proposed; "" without one. */
struct bytes eval_batch(const struct eval *v);
/* It is a repeat of records that are in the log from offset on: the batch is dropped. */
void eval_duplicate(struct eval *v, int64_t offset);
/* Empty each time evaluate runs; sent whatever it answers, but not when the outcome got lost.
 * At most 48 MiB (rows that are handed over). */
struct buf *eval_reply(struct eval *v);

/* --- reading rows: any loop --- */
struct row {
	struct bytes key, value;
};
struct row_read { /* one key (prefix false), or keys with a prefix after `after`, in order */
	struct loop_msg msg; /* private */
	struct job job;      /* private */
	bool guest;          /* private: of another node, not to be sent on */
	struct partition *from;
	struct loop *to; /* done runs here; set by the call */
	uint8_t keyspace;
	bool prefix, linearizable;
	struct bytes key, after; /* borrowed until done */
	int rows_max;
	size_t bytes_max;
	enum err err;     /* one key: ERR_NOTFOUND */
	struct row *rows; /* given; with held, freed by row_read_fini */
	int count;
	bool more;         /* a limit ended it: go on after the last key */
	int64_t at_offset; /* next offset at the time read: rows reflect all records below */
	struct chunk *held;
	void (*done)(struct row_read *r);
};
void partition_read_rows(struct row_read *r);
void row_read_fini(struct row_read *r);

/* --- reading records: any loop --- */
struct record_read {
	struct loop_msg msg;   /* private */
	bool guest;            /* private */
	struct plog_read read; /* private */
	struct partition *from;
	struct loop *to; /* done runs here; set by the call */
	int64_t offset;
	size_t bytes_max;       /* at least one entry is given if there is a committed one */
	enum err err;           /* ERR_RANGE: below first_offset or above high watermark */
	struct entry **entries; /* given: only committed ones; record_read_fini */
	int count;
	int64_t first_offset, high_watermark;
	void (*done)(struct record_read *r);
};
void partition_read_records(struct record_read *r);
void record_read_fini(struct record_read *r);

struct partition_wait {      /* embed; tells when the log grows past an offset */
	struct loop_msg msg; /* private */
	struct list node;    /* private */
	struct partition *at;
	struct loop *to; /* set by the call */
	int64_t offset;
	bool armed;     /* owner's: from partition_wait until done; memory must last as long */
	bool cancelled; /* private */
	void (*done)(struct partition_wait *w);
};
/* done runs on the caller's loop when the high watermark is above offset (or leadership is lost, or
 * it was cancelled). Any loop. */
void partition_wait(struct partition_wait *w);
void partition_wait_cancel(struct partition_wait *w); /* done still runs, soon */

/* Seeks (any loop): times, leader epochs; see plog.h. */
struct offset_seek {
	struct loop_msg msg; /* private */
	bool guest;          /* private */
	union {
		struct plog_seek time;
		struct plog_epoch epoch;
	} op; /* private */
	struct partition *from;
	struct loop *to;
	bool by_epoch;
	int64_t time_ms; /* or */
	int32_t epoch;
	enum err err; /* ERR_NOTFOUND: no record that young */
	int64_t offset, timestamp_ms;
	int32_t found_epoch;
	void (*done)(struct offset_seek *s);
};
void partition_seek(struct offset_seek *s);

/* All that the leader had committed when this was asked is applied here: what is read from the
 * local replica then is at least that new. The leader tells it while it hears from a majority: on
 * its node at once. */
struct partition_point {
	struct loop_msg msg; /* private */
	struct list node;    /* private */
	struct partition *at;
	struct loop *to;  /* set by the call */
	uint64_t index;   /* private */
	int64_t until_ms; /* private */
	enum err err;     /* ERR_UNAVAILABLE: no leader answered in 3 s; ERR_CLOSED */
	int64_t offset;   /* high watermark here, then */
	void (*done)(struct partition_point *q);
};
void partition_point(struct partition_point *q);

/* What others may look at from any loop; each value is never ahead of a completion that told it. */
int64_t partition_high_watermark(const struct partition *p);
int64_t partition_first_offset(const struct partition *p);
int32_t partition_epoch(const struct partition *p); /* Raft term */
bool partition_leads(const struct partition *p);    /* ready to serve on this node */
uint32_t partition_leader(
	const struct partition *p); /* node that leads as far as known here; 0: none */
bool partition_attached(const struct partition *p); /* has a replica on this node */
int64_t partition_bytes(const struct partition *p);
uint64_t partition_group(const struct partition *p);
struct loop *partition_home(const struct partition *p);

/* A group as its leader sees it; others ask the leader's node. For admin pages and doors. */
struct partition_member {
	uint64_t replica; /* node << 32 | incarnation */
	enum member_role role;
	uint64_t match_index;
	bool in_sync; /* answers, and is not far behind */
	bool fetches; /* log and rows, from the leader: its own log ends too early */
	/* Of the log, those it has and all that it is given; the rows follow. Bytes of both, given
	 * until now. */
	uint64_t fetched, fetched_total;
	int64_t fetched_bytes;
};
enum { PARTITION_MEMBERS_MAX = 64 };
struct partition_info {
	struct loop_msg msg; /* private */
	void *priv;          /* private */
	struct partition *at;
	struct loop *to; /* set by the call */
	int64_t wait_ms; /* for the leader's answer, then ERR_UNAVAILABLE; 0: 3 s */
	bool prefer; /* asked of the leader: to hand over to who leads best, if that one is in sync
		      */
	enum err err;
	uint64_t term, last_index, commit_index;
	int64_t first_offset, high_watermark, bytes;
	uint32_t leader;
	int member_count;
	struct partition_member members[PARTITION_MEMBERS_MAX];
	void (*done)(struct partition_info *i);
};
void partition_ask_info(struct partition_info *i); /* any loop */

/* --- following: home loop --- */
struct watcher { /* embed; sees every committed entry after it is applied, in order; on followers,
		  * too, and where there is no replica (there from the log of another node: gaps
		  * are possible, and are read with partition_read_records) */
	struct list node;
	void (*committed)(struct watcher *w, struct entry *e); /* borrows e; NULL: does not care */
	void (*led)(struct watcher *w, bool leads);            /* leadership won (ready) or lost */
	/* Entries were left out: log and rows are another state, fetched from another node. Who
	 * keeps anything made from them makes it anew (partition_walk_rows). NULL: does not care.
	 */
	void (*replaced)(struct watcher *w);
	/* Only what is applied here: where there is no replica, no log is followed because of it.
	 */
	bool local;
};
/* Gives the next offset: entries from there on will be seen. */
int64_t partition_watch(struct partition *p, struct watcher *w);
void partition_unwatch(struct partition *p, struct watcher *w);
/* Rows in memory and store, synchronously; only for watchers and boot code that must rebuild state
 * of their own when leadership is won. Walks one keyspace. May block on the store. */
enum err partition_walk_rows(struct partition *p, uint8_t keyspace,
	void (*each)(void *arg, struct bytes key, struct bytes value), void *arg) MUST_USE;

/* Forgets records below offset, through the log (replicated). Any loop; as a proposal whose
 * fields to and done are set. */
void partition_trim(struct proposal *p, int64_t offset);

#endif
