/* The insides of a partition, shared by partition.c (life), partition_home.c (ticks), propose.c and
 * propose_eval.c (writing), partition_read.c and partition_seek.c (reading), partition_trim.c
 * (forgetting) and remote*.c (other nodes). All of it is the home loop's but the atomics and refs.
 */
#ifndef CLUSTER_PARTITION_PRIV_H
#define CLUSTER_PARTITION_PRIV_H
#include <stdatomic.h>
#include "cluster/catchup.h"
#include "cluster/membership.h"
#include "cluster/node_metrics.h"
#include "cluster/partition_own.h"
#include "cluster/peer.h"
#include "server/base/mem.h"
#include "storage/storage_metrics.h"

enum { KEYSPACE_OWN = 0 }; /* rows of this keyspace are orders to the partition, not kept */

struct building { /* the entry being made; empty between turns */
	struct buf rows;
	struct slice *parts; /* [0] is for the rows */
	uint32_t part_count, part_room;
	size_t batch_bytes;
	uint32_t records;
	bool confirms; /* leaves also without rows and batches: an answer waits for it */
	int64_t max_ms;
	struct list proposals;
};

struct answers { /* chain of finished proposals for one loop, by node.next */
	struct proposal *first, *last;
};

struct partition_home {
	struct loop *loop;
	struct partition_limits limits;
	struct rows_cache *cache;
	struct building building;
	struct answers *answers; /* per loop */
	struct loop_hook answer_hook;
	struct loop_timer timer;
	struct loop_hook tick_hook;
	struct partition **all;
	int count, room;
	int tick_at; /* who is ticked next in the round under way; 0: none is */
	int leading;
	int compact_waiting; /* partitions whose turn to be compacted has not come */
	int64_t hlc;
	struct list spare; /* pending_entry */

	/* other nodes; peers NULL: there are none */
	struct peers *peers;
	struct peer_watcher peer_watcher;
	uint32_t *nodes; /* connected with this loop */
	int node_count, node_room;
	struct loop_hook leads_hook;
	int64_t leads_again_ms; /* when all is told anew */
	int serving;            /* reads of other nodes under way */
};

struct pending_entry { /* proposed */
	struct consensus_proposal proposal;
	struct list node; /* partition.inflight */
	struct partition *partition;
	uint64_t index;
	struct list proposals; /* whose outcome is its */
};

enum partition_phase { PARTITION_NEW, PARTITION_OPEN, PARTITION_CLOSING, PARTITION_CLOSED };

struct partition {
	struct partition_home *home;
	struct loop *loop;
	const struct plog_env *env;
	struct partition_options options;
	struct plog *log;
	struct rows *rows;
	struct consensus *consensus;
	struct consensus_options consensus_options;
	enum partition_phase phase;
	int home_at; /* place in home.all */

	_Atomic uint32_t refs;
	_Atomic int64_t high_watermark, first_offset, bytes;
	_Atomic int32_t epoch;
	_Atomic bool leads, attached;
	_Atomic uint32_t leader; /* node; 0: not known */

	/* who leads */
	uint64_t leader_term;  /* in which leader does */
	uint32_t heard_leader; /* as other nodes say */
	uint64_t heard_term;
	uint64_t lead_told;            /* term of which the others know that this node leads */
	struct membership *membership; /* with a replica */
	uint64_t *wanted_ids; /* members by the catalogue, voters first; NULL: not known yet */
	int wanted_voters, wanted_learners;
	uint64_t *founders;

	/* a replica comes or goes */
	struct loop_msg bare; /* created or closed without one */
	bool attaching, detaching;

	/* other nodes: NULL until needed */
	struct forwarding *forwarding; /* proposals sent to the leader */
	struct guests *guests;         /* proposals of others */
	struct following *following;   /* the log of another node */
	struct feeding *feeding;       /* those who follow this one */
	struct list parked;            /* reads that wait for a leader */
	struct list points, point_waits;
	struct point_call *point_call;

	/* writing */
	struct loop_hook hook;   /* STAGE_PROPOSE */
	struct list gathered;    /* proposals not evaluated yet */
	struct list again;       /* those decided under an earlier leader without an outcome */
	struct list inflight;    /* pending_entry */
	size_t held_bytes;       /* of proposals from arrival to answer */
	struct rows_fetch fetch; /* a row the first proposal needs */
	enum err fetch_err;
	bool fetching;
	bool overlay_stale; /* pending rows no longer tell what is in flight */
	uint64_t term;
	uint64_t overlay_term; /* in which the pending rows were evaluated here, as leader */
	int64_t unready_ms;    /* since when proposals wait for a leader; 0: none do */

	/* applying */
	uint64_t applied_index, applied_term, marked_index;
	int64_t applied_offset; /* the next one, as applied here */
	uint32_t applied_count; /* entries since the last write-back */
	int64_t applied_ms;     /* when the first of them was */
	struct list watchers, waits;

	/* forgetting */
	int64_t retention_ms, retention_bytes, retain_at_ms;
	struct plog_retain retain;
	struct proposal trim;
	bool retaining;

	/* compaction */
	bool compacts, compacting, compact_waiting;
	struct compact_policy compact_policy;
	int64_t compact_at_ms;
	struct compaction compaction;
	void (*compact_then)(void *arg); /* when the run has ended */

	/* catch-up */
	struct catchup *install; /* the fetch under way */
	struct catchup_source source;

	/* beginning and end */
	struct job job;
	enum err open_err;
	void (*created)(void *arg, enum err e);
	void (*closed)(void *arg);
	void *owner_arg;
	bool destroy;
};

/* The old state is gone and the new one not there: nothing of log and rows may be read. */
bool partition_stateless(const struct partition *p);
/* Its replica may be read and written back. */
static inline bool partition_local(const struct partition *p)
{
	return p->consensus != NULL && !p->detaching && !partition_stateless(p);
}

/* partition.c */
void partition_write_back(struct partition *p);
bool partition_write_back_due(const struct partition *p);
/* Why it does not serve here; OK: it does. ERR_NOTLEADER: another node is known to lead. */
enum err partition_unserved(const struct partition *p);
void partition_heard(struct partition *p, uint32_t node, uint64_t term); /* that it leads */
void partition_moved(struct partition *p, int64_t next);   /* high watermark, told by who leads */
void partition_show(struct partition *p, struct entry *e); /* to the watchers */
void partition_tick(struct partition *p, int64_t now_ms);

/* partition_home.c */
void partition_home_add(struct partition_home *h, struct partition *p);
void partition_home_remove(struct partition_home *h, struct partition *p);

/* propose.c */
void propose_init(struct partition *p);
void propose_turn(struct loop_hook *h);
void propose_fail_all(struct partition *p, enum err e);
void propose_tick(struct partition *p, int64_t now_ms);
void propose_answers_run(struct loop_hook *h);
void propose_changed(struct partition *p); /* who leads */
size_t propose_cost(const struct proposal *q);
void propose_answer(struct partition *p, struct proposal *q); /* with what it says */
void propose_answer_all(struct partition *p, struct list *l, enum err e);
void propose_lost(struct partition *p, struct list *l, enum err e); /* with their entry */
void propose_unproposed(struct partition *p, struct list *l); /* their entry never was in the log */
void propose_again(struct partition *p, struct proposal *q);
void propose_guest(struct partition *p, struct proposal *q); /* arrives from another node */

/* propose_eval.c */
void building_init(struct building *b);
void building_fini(struct building *b);
void evaluate_gathered(struct partition *p);
void eval_put_own(struct eval *v, struct bytes key, struct bytes value);
void eval_answer_offset(struct eval *v, int64_t offset); /* proposal.base_offset is to say */
struct partition *eval_partition(const struct eval *v);

/* partition_read.c */
void reads_fire_waits(struct partition *p, bool all);
void reads_rows(struct row_read *r);       /* on the home loop */
void reads_records(struct record_read *r); /* on the home loop */
void reads_rows_end(struct row_read *r, enum err e);
void reads_records_end(struct record_read *r, enum err e);

/* partition_seek.c */
void reads_seek(struct offset_seek *s); /* on the home loop */
void reads_seek_end(struct offset_seek *s, enum err e);

/* partition_info.c */
void reads_info(struct partition_info *i); /* on the home loop */
void reads_info_fill(struct partition *p, struct partition_info *i);
void reads_info_end(struct partition_info *i, enum err e);

/* partition_install.c */
void partition_install(void *arg, const struct consensus_install *i); /* fsm.install */
/* Leadership is lost: nobody fetches from here any more. */
void partition_install_unled(struct partition *p);
/* Before consensus_close. */
void partition_install_close(struct partition *p);

/* partition_compact.c */
void compact_tick(struct partition *p, int64_t now_ms);
/* A run that is under way is ended first. then(p). */
void compact_when_idle(struct partition *p, void (*then)(void *arg));

/* partition_trim.c */
void trim_apply(struct partition *p, const struct row_change *row);
void trim_tick(struct partition *p, int64_t now_ms);
void trim_grown(struct partition *p);
bool trim_asked(const struct proposal *p); /* it is a partition_trim */
extern const struct proposal_kind trim_kind;

#endif
