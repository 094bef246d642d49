/* The log of one group (partition) in one store: appended at the end, cut at the end by Raft's
 * truncation and at the front by trim, read by offset. The tail stays in memory (tail cache, a
 * budget in bytes over all logs of a loop); older entries are read by workers.
 * Thread: the home loop, except plog_open (boot, or a worker's). */
#ifndef STORAGE_PLOG_H
#define STORAGE_PLOG_H
#include "server/base/worker.h"
#include "storage/change.h"
#include "storage/writer.h"

struct plog;

struct tail_cache; /* one per loop: which entries of its logs stay in memory */
struct tail_cache *tail_cache_new(size_t bytes_max);
void tail_cache_free(struct tail_cache *c);
size_t tail_cache_bytes(const struct tail_cache *c);

struct plog_env { /* what logs of one loop and store share */
	struct loop *loop;
	struct store *store;
	struct lane *lane;
	struct tail_cache *cache;
	struct workers *workers;
	struct disk *disk; /* where space and positions are watched (disk.h); NULL: nowhere */
	struct compactor *compactor; /* whose turn compaction is there (compact.h); NULL: never */
};

/* Writes the row that says the group exists, with some bytes of the caller's. An empty log needs no
 * more: plog_open finds nothing and starts it. */
void plog_create(const struct plog_env *env, uint64_t group, enum store_family log_family,
	struct bytes info);
struct plog_group_row {
	uint64_t group;
	enum store_family log_family;
	struct bytes info;
};
/* Calls each for every group of the store, in order of number, until it returns false. Boot. */
enum err plog_groups(struct store *s, bool (*each)(const struct plog_group_row *row, void *arg),
	void *arg) MUST_USE;

struct plog_marks { /* FAMILY_META of one group, as recovered by plog_open and changed by
		       plog_mark_* */
	uint64_t term, vote;
	uint64_t applied_index, applied_term; /* rows in the store are those after this entry */
	uint64_t config_index;                /* of the last committed configuration */
	struct slice config;                  /* encoded by raft_configuration_encode */
	uint64_t first_index;                 /* entries below are trimmed */
	int64_t first_offset;                 /* records below are trimmed */
	bool seeding;           /* log and rows are being fetched: what is there is no state */
	uint64_t seeding_index; /* the entry that was to be reached when it last began */
	/* The last entry of the log that was given up for it: votes go on by that. */
	uint64_t given_up_index, given_up_term;
};

/* Reads marks, the index tail and headers above applied_index; never payloads, except those with
 * ENTRY_HAS_ROWS above applied_index. O(1) in the size of the log. ERR_CORRUPT, ERR_IO. */
enum err plog_open(const struct plog_env *env, uint64_t group, enum store_family log_family,
	struct plog **out) MUST_USE;
void plog_close(struct plog *p);

uint64_t plog_group(const struct plog *p);
enum store_family plog_family(const struct plog *p);
const struct plog_marks *plog_marks(const struct plog *p);
uint64_t plog_last_index(const struct plog *p); /* 0: empty and never trimmed */
uint64_t plog_last_term(const struct plog *p);
int64_t plog_next_offset(const struct plog *p); /* a function of the log's tail */
int64_t plog_max_ms(const struct plog *p);
/* Hybrid clock of the last entry; 0: not known. Who makes an entry goes on from there: retention by
 * age and whoever compares entries rely on its never falling, whatever the wall clock does. */
int64_t plog_hlc(const struct plog *p);

/* Appends e (shares it) at last index + 1; sets e->index, group, head.base_offset and head.max_ms
 * from the tail, stages both keys in the lane. batch_max_ms: greatest timestamp in e, or -1. The
 * batches' base offsets must have been set from plog_next_offset by the caller before. */
void plog_append(struct plog *p, struct entry *e, int64_t batch_max_ms);
/* Removes entries >= index; the tail's state is that after index - 1 again. */
void plog_truncate(struct plog *p, uint64_t index);
/* The log is replaced by nothing, to start after a snapshot at index/term whose next offset is
 * given. */
void plog_reset(struct plog *p, uint64_t index, uint64_t term, int64_t next_offset);
/* Entries at or below are applied: their payload may leave memory (when synced, too). */
void plog_applied(struct plog *p, uint64_t index);

void plog_mark_term_vote(struct plog *p, uint64_t term, uint64_t vote);
void plog_mark_applied(struct plog *p, uint64_t index, uint64_t term);
void plog_mark_config(struct plog *p, uint64_t index, struct bytes config);
/* Forgets records below offset: they can't be read any more. Their entries are deleted from the
 * store later, whole entries only, and never at or above keep_index (what Raft may still send). */
void plog_trim(struct plog *p, int64_t offset, uint64_t keep_index);
/* Deletes everything of the group from the store (rows and marks too) and closes p. */
void plog_destroy(struct plog *p);

/* The entry at index if its payload is in memory (borrowed), else NULL. */
struct entry *plog_cached(const struct plog *p, uint64_t index);
/* The header of the entry at index if it is in memory (borrowed), else NULL. After plog_open those
 * above applied_index are, whole only where it says there. */
const struct entry_header *plog_header(const struct plog *p, uint64_t index);
/* The entry that holds offset, or the next after it, if in memory; NULL otherwise. */
struct entry *plog_cached_at(const struct plog *p, int64_t offset);

/* Term of an entry still indexed in memory or marks; 0: not known without reading. */
uint64_t plog_term_cached(const struct plog *p, uint64_t index);

/* An offset below 0 reads by index instead, from hint_index on, and gives every entry. By offset
 * only entries with records are given, of those that compaction has emptied only the last one, if
 * nothing else is found. A read gives at most 8 MiB, or one larger entry. */
struct plog_read {      /* embed; one read under way each */
	struct job job; /* private */
	/* asked: */
	struct plog *log;
	int64_t offset;      /* first record wanted */
	int64_t end_offset;  /* entries that start at or above are not given */
	size_t bytes_max;    /* at least one entry is given, if there is one */
	uint64_t hint_index; /* index of the entry wanted if known, else 0 */
	/* given: */
	enum err err;           /* ERR_RANGE: trimmed meanwhile; ERR_IO, ERR_CORRUPT */
	struct entry **entries; /* caller unrefs each and mem_frees the array */
	int count;
	void (*done)(struct plog_read *r); /* on the log's home loop */
	uint32_t generation;               /* private */
	uint64_t low, high;                /* private: the indices to look at in the store */
};
/* Reads entries from the store by a worker, or from memory; done never runs inside the call. A log
 * that is closed or trimmed meanwhile ends the read with ERR_CLOSED or ERR_RANGE. Takes r until
 * done. */
void plog_read(struct plog_read *r);

/* At the trimmed start of a log the entry may hold only older records: then what was asked for
 * starts behind it. */
struct plog_seek { /* embed; find by time: the first entry with a record at or after time_ms */
	struct job job;
	struct plog *log;
	int64_t time_ms;
	int64_t end_offset;
	enum err err;        /* ERR_NOTFOUND: all are older */
	struct entry *entry; /* shared: caller unrefs; the record itself is found by walking */
	void (*done)(struct plog_seek *s);
	uint64_t low, high; /* private */
};
void plog_seek(struct plog_seek *s);

/* The last offset of a term: the first offset of the first entry whose term is greater (Kafka's
 * OffsetForLeaderEpoch, KIP-101). By a worker when not in memory. */
struct plog_epoch {
	struct job job;
	struct plog *log;
	uint64_t term;
	enum err err;
	uint64_t found_term; /* greatest term <= the one asked, 0: none */
	int64_t end_offset;
	void (*done)(struct plog_epoch *q);
	uint64_t low, high; /* private */
};
void plog_epoch(struct plog_epoch *q);

/* What retention needs: the offset from which to keep so that what is older than before_ms (by
 * append time) or over bytes goes; whole entries. -1: not limited. By a worker. */
struct plog_retain {
	struct job job;
	struct plog *log;
	int64_t before_ms, bytes_max;
	int64_t end_offset; /* never above */
	enum err err;
	int64_t keep_offset;
	int64_t bytes; /* payload bytes held now */
	void (*done)(struct plog_retain *q);
	uint64_t low, high, edge; /* private, as is what the ring alone says */
	int64_t ring_age, ring_bytes;
};
void plog_retain(struct plog_retain *q);
int64_t plog_bytes(const struct plog *p); /* payload bytes held, an estimate after a restart */

/* --- compaction (compact.h): entries lose records whose keys have newer ones --- */
enum { CLEANED_SECTIONS_MAX = 16 };
struct cleaned_section {
	int64_t end_offset; /* records below it, and not in the section before */
	int64_t time_ms;    /* since when no older records of their keys are there; wall clock */
	bool tombstones;    /* some of them are null values still */
};
struct plog_cleaned {       /* how far that has got; lost without harm */
	int64_t end_offset; /* of what was compared; 0: nothing yet */
	int64_t append_ms;  /* of the last entry of that */
	/* Payload up to there as it was appended, from first_bytes on; and what is left of it. */
	uint64_t first_bytes, log_bytes, held_bytes;
	int section_count;
	struct cleaned_section sections[CLEANED_SECTIONS_MAX];
};
const struct plog_cleaned *plog_cleaned(const struct plog *p);
void plog_mark_cleaned(struct plog *p, const struct plog_cleaned *c);
/* Stages e (shares it) instead of the entry of its index, which has the same header but for payload
 * and flags. False: that is not there any more, or may still be needed as it was. */
bool plog_replace(struct plog *p, struct entry *e);
/* Of the log's indices: when it changes, all entries are others. */
uint32_t plog_generation(const struct plog *p);

/* --- seeding: the log, rows and marks of a group come from another node's store ---
 * From plog_seed_begin to plog_seed_end the group is in no state: its log is empty in memory, the
 * store says META_SEEDING, and plog_open gives an empty log with marks.seeding. Only term and vote
 * are kept, and where the log had ended. Each of the two is one write. */

/* The log up to and with one entry; all zero but max_ms -1: nothing. */
struct plog_state {
	uint64_t index, term;
	int64_t next_offset, max_ms;
	uint64_t bytes; /* of payload, ever */
	int64_t hlc;    /* 0: not known */
};
struct plog_state plog_state_of(uint64_t index, const struct entry_header *h);
struct plog_state plog_below(const struct plog *p); /* below the first entry */
/* Whether an entry may follow: the rule that makes offsets a function of the log. */
bool plog_follows(const struct plog_state *last, uint64_t index, const struct entry_header *h);

struct plog_seed {
	struct plog_state first; /* below the first entry that is not trimmed */
	struct plog_state last;  /* the applied entry: rows are those after it */
	int64_t first_offset;
	uint64_t config_index; /* of the configuration last marked; may lie above last */
	struct slice config;
	bool cut;           /* plog_seed_end: entries below first may be there from before, */
	uint64_t cut_bytes; /* with so much payload */
};
/* What a store (NULL: now) holds of a group up to its applied mark. Gives config. A worker's.
 * ERR_NOTFOUND: nothing is applied; ERR_UNAVAILABLE: it is being fetched itself. */
enum err plog_seed_source(struct store *s, struct store_snapshot *snapshot, uint64_t group,
	struct plog_seed *out) MUST_USE;
/* What the store has of a log before `end`, a run of entries that are whole: those above *below,
 * up to *last; both 0: none. With UINT64_MAX what an earlier seeding has kept and staged. A
 * worker's. */
enum err plog_seed_found(struct store *s, uint64_t group, enum store_family log_family,
	uint64_t end, uint64_t *below, struct plog_state *last) MUST_USE;
/* Everything of the group goes but term and vote and the entries up to and with `keep` (0: none),
 * which must be committed ones: what follows them comes next. */
void plog_seed_begin(struct plog *p, uint64_t index_min, uint64_t keep);
/* Stages one entry; the caller has checked it. payload is empty where the header stands in.
 * Unlogged, the payload goes to the disk once (store_write_unlogged): what plog_seed_begin staged
 * must be durable before; once an entry was, those after it are, too, until a store_flush of the
 * log's family has made durable what is written. */
void plog_seed_entry(struct plog *p, uint64_t index, const struct entry_header *h,
	struct bytes payload, bool unlogged);
/* Stages a row; key: keyspace and key. */
void plog_seed_row(struct plog *p, struct bytes key, struct bytes value);
/* All is durable, what was unlogged, too: the log is what s says from now on. Shares config. */
void plog_seed_end(struct plog *p, const struct plog_seed *s);

#endif
