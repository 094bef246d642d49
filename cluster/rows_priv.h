/* The insides of the row table, shared by rows.c (cells, pending values, write-back) and
 * rows_scan.c (ordered walks over store and memory). */
#ifndef CLUSTER_ROWS_PRIV_H
#define CLUSTER_ROWS_PRIV_H
#include "cluster/rows.h"
#include "server/base/map.h"
#include "storage/keys.h"

enum cell_state { CELL_CLEAN, CELL_DIRTY, CELL_WRITING };

struct value { /* bytes with room, or no row */
	uint8_t *at;
	uint32_t len, room;
	bool present;
};

struct overlay {                /* what a row will be */
	struct list node;       /* rows.pending or cache spare */
	struct list stage_node; /* rows.staged, or in none */
	struct cell *cell;
	uint64_t index;     /* of the newest pending entry that sets the row; 0: only staged */
	struct value value; /* after that entry */
	struct value staged;
	bool is_staged;
};

struct fetch { /* a read from the store under way */
	struct job job;
	struct cell *cell;
	struct list waiting; /* rows_fetch */
	struct slice value;
	uint64_t generation; /* of the table when asked */
	enum err err;
};

struct cell {
	struct list node; /* cache.lru, rows.dirty, rows.writing, or in none */
	struct rows *table;
	struct overlay *over;
	struct fetch *fetch;
	struct value value;
	uint64_t round; /* CELL_WRITING: of write-back */
	uint32_t key_len;
	uint8_t state;
	bool known;        /* value is the applied one; else not read yet */
	bool maybe_stored; /* the store may hold a value: a delete must reach it */
	uint8_t key[];     /* keyspace, key */
};

struct rows_cache {
	struct list lru; /* evictable cells, most recent first */
	size_t bytes, bytes_max, count;
	size_t lru_bytes, lru_count; /* of the evictable ones */
	struct list spare;           /* overlays */
	int spare_count;
	uint8_t scratch[1 + ROW_KEY_BYTES_MAX];
};

struct rows {
	const struct plog_env *env;
	struct rows_cache *cache;
	uint64_t group;
	struct map cells;
	size_t bytes;  /* of them */
	bool complete; /* every row there is, is in memory */
	struct list dirty, writing, pending, staged;
	size_t dirty_bytes, pending_count;
	uint64_t round;      /* of write-back: the last begun */
	uint64_t generation; /* of rows_reset: older reads do not count */
	int under_way;       /* fetches, scans, write-backs */
	void (*idle)(void *arg);
	void *idle_arg;
};

struct rows_mem { /* a row in memory, copied for a walk */
	struct bytes key, value;
	bool present;
	struct chunk *chunk;
};

void rows_let_go(struct rows *t); /* one less under way */

#endif
