/* Forgetting rows whose time is over: looks through one keyspace, partition after partition, a page
 * at a time, and has deleted what a rule says. Each loop looks after the partitions at home on it,
 * as far as this node leads them; a round is spread over its period, so that it costs next to
 * nothing at any moment. What is deleted is decided in log order, by the row as it then is.
 * Thread: its loop. Memory lasts until the loops stand. */
#ifndef BROKER_SWEEP_H
#define BROKER_SWEEP_H
#include "server/base/buf.h"
#include "server/base/loop.h"
#include "server/broker/broker.h"

struct sweep;

enum sweep_word { SWEEP_KEEP, SWEEP_DELETE, SWEEP_REPLACE };

struct sweep_row { /* a row to be judged */
	struct partition *partition;
	struct bytes key, value; /* value only until the next eval call */
	int64_t now_ms;
	/* NULL: the row as applied, and the word is a guess; else the row as it will be, and the
	 * word counts. Other rows are read through it; its errors are passed on. */
	struct eval *eval;
	struct buf *replacement; /* SWEEP_REPLACE: filled by the rule */
};

struct sweep_rule { /* static */
	uint8_t keyspace;
	bool tables; /* in tables; else in the partitions of streams */
	enum err (*judge)(struct sweep *s, struct sweep_row *row, enum sweep_word *word);
	int64_t (*period_ms)(const struct sweep *s); /* of a round; looked at before each */
};

enum { SWEEP_SLICE = 64 }; /* rows changed by one proposal */

struct sweep { /* embed; all private but arg */
	const struct sweep_rule *rule;
	const void *arg; /* the rule's */
	struct node *node;
	struct loop *loop;
	struct loop_timer timer;
	struct loop_msg start, stop;
	int64_t gap_ms;    /* between two partitions */
	int stream, index; /* where the round is */
	uint64_t group;    /* the partition being looked through */
	struct buf after;  /* the last key seen in it */
	struct row_read page;
	int at; /* rows of the page that have been judged */
	struct proposal proposal;
	int doomed[SWEEP_SLICE]; /* rows of the page to be changed */
	int doomed_count;
	bool stopped;
};

/* Before the loops run, or from any thread. The first round begins a period later. */
void sweep_start(struct sweep *s, const struct sweep_rule *rule, const void *arg, struct node *node,
	struct loop *l);
void sweep_stop(struct sweep *s); /* any thread; takes effect when the loop has turned */
void sweep_free(struct sweep *s); /* loops stand; not started is fine */

#endif
