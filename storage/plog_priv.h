/* What the files of the log share.
 *
 * In memory a log has its marks, its tail, and the ring: the entries from some index to the last
 * one without a gap. before is the state of the log just below the ring, so cutting the tail back
 * needs no read. Entries leave the ring at its front only, when they are durable and applied and
 * the tail cache wants the memory.
 *
 *	first_index         before.index               durable   applied   tail.index
 *	     |--- in the store only ---|--- ring -----------|---------|---------|
 */
#ifndef STORAGE_PLOG_PRIV_H
#define STORAGE_PLOG_PRIV_H
#include "storage/keys.h"
#include "storage/plog.h"

enum { RUNS_MAX = 16, READ_BYTES_MAX = 8 << 20 };

struct slot {             /* of the ring */
	struct list node; /* in the cache's list once it may leave */
	struct plog *log;
	struct entry *entry;
	size_t memory; /* as counted in the cache, 0: not yet */
};

struct tail_cache {
	struct list may_leave; /* slots, oldest first; per log in order of index */
	size_t bytes, bytes_max;
};

struct run { /* entries from index on have this term */
	uint64_t index, term;
};

struct plog_trimmer { /* deferred deletes of trimmed entries */
	struct job job;
	struct loop_timer timer;
	bool running;            /* the job is with a worker */
	uint64_t keep_index;     /* entries from here on stay */
	int64_t last_ms;         /* of the last range delete; 0: none yet */
	int64_t offset;          /* what the job looks for */
	uint64_t low, high;      /* where it looks */
	struct plog_state found; /* by the job: the state below the first entry to stay */
	enum err err;
};

struct plog {
	struct plog_env env;
	uint64_t group;
	enum store_family family;
	struct plog_marks marks;
	struct plog_cleaned cleaned;
	uint32_t generation;      /* of the log's indices: a reset begins a new one */
	bool trim_row;            /* META_TRIM is in the store or staged */
	struct plog_state first;  /* below first_index */
	struct plog_state before; /* below the ring */
	struct plog_state tail;
	struct slot **ring; /* slot of index i at i & ring_mask */
	uint64_t ring_mask;
	struct durable durable;
	bool durable_asked;
	uint64_t durable_asked_index, durable_index, applied_index;
	uint64_t leave_index;      /* ring entries up to here may leave */
	struct run runs[RUNS_MAX]; /* terms, oldest first; complete from runs[0].index on */
	int run_count;
	struct plog_trimmer trim;
	struct side_slot *side; /* NULL: not watched */
	int refs;               /* the owner's and one per job under way; home loop */
	bool closed;
};

struct plog *plog_ref(struct plog *p);
void plog_unref(struct plog *p);
/* The slot's entry, NULL below or above the ring. */
struct entry *plog_ring_at(const struct plog *p, uint64_t index);
void plog_ring_push(struct plog *p, struct entry *e); /* takes e; at tail.index, set before */
/* Likewise, for a log that is not open yet: leaves the cache alone. Any thread. */
void plog_ring_recover(struct plog *p, struct entry *e);
/* The entry of its index is this one now (shared), if it is in the ring. */
void plog_ring_replace(struct plog *p, struct entry *e);
void plog_ring_drop_front(struct plog *p);
void plog_ring_cut(struct plog *p, uint64_t index); /* entries >= index go */
void plog_ring_fini(struct plog *p);
/* Entries up to min(durable, applied) may leave from now on. */
void plog_may_leave(struct plog *p);
void plog_note_term(struct plog *p, uint64_t index, uint64_t term);
void plog_stage_entry(struct plog *p, const struct entry *e);
/* plog_compact.c */
enum err plog_read_cleaned(struct plog *p, struct rd *r) MUST_USE;
void plog_forget_cleaned(struct plog *p); /* with what it speaks of */
/* The coordinate (log_bytes) from which the log's end holds `bytes` of payload. */
uint64_t plog_edge(const struct plog *p, int64_t bytes);
void plog_write_trim_row(struct plog *p);
void plog_put_mark(struct plog *p, enum meta_what what, const struct bytes *parts, int count);
void plog_note_side(struct plog *p);
void plog_stage_deletes(struct plog *p, uint64_t from, uint64_t to); /* of entries, to excluded */
void plog_note_space(struct plog *p); /* all that the log holds goes */
/* The group's marks as of a snapshot (NULL: now) into p, which is not open yet. */
enum err plog_read_marks(struct plog *p, struct store_snapshot *snapshot) MUST_USE;

/* Reads the header at index from the store. ERR_NOTFOUND, ERR_IO, ERR_CORRUPT. */
enum err plog_fetch_header(const struct plog *p, uint64_t index, struct entry_header *out) MUST_USE;
/* Reads the payload that belongs to a header, and checks it. Gives the entry. */
enum err plog_fetch_entry(const struct plog *p, uint64_t index, const struct entry_header *head,
	struct entry **out) MUST_USE;
/* The header was read, then the entry compacted, then its payload read: gives it as it is now, or
 * `why` reading it had failed. */
enum err plog_fetch_again(const struct plog *p, uint64_t index, const struct entry_header *head,
	enum err why, struct entry **out) MUST_USE;
/* Makes and checks an entry of a header and its payload (taken). */
enum err plog_entry_check(const struct plog *p, uint64_t index, const struct entry_header *head,
	struct slice *payload, struct entry **out) MUST_USE;

/* A condition that holds for all entries behind the first for which it does. */
typedef bool (*plog_reached)(const struct entry_header *h, const void *arg);
/* The first index in [low, high) of the store that has reached it: high, if none. Entries that
 * are not there (trimmed meanwhile) have not. Worker. */
enum err plog_search(const struct plog *p, uint64_t low, uint64_t high, plog_reached reached,
	const void *arg, uint64_t *index, struct entry_header *head) MUST_USE;
/* The same in the ring; tail.index + 1, if none. */
uint64_t plog_search_ring(const struct plog *p, plog_reached reached, const void *arg);
bool plog_reached_offset(const struct entry_header *h, const void *offset);
void plog_trim_init(struct plog *p);
void plog_trim_fini(struct plog *p);

/* done of a request on its home loop by a post of its own, as if a worker had run. */
void plog_answer(struct plog *p, struct job *j, void (*done)(struct job *j));

#endif
