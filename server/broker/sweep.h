/* Forgetting rows whose time is over: looks through one keyspace, partition after partition, a page
 * at a time, and has deleted what a rule says. Each loop looks after the partitions at home on it,
 * as far as this node leads them; a round is spread over its period, so that it costs next to
 * nothing at any moment. What is deleted is decided in log order, by the row as it then is: a rule
 * has a word at first sight, where the sweep runs, and a last one, which sees nothing but rows.
 * Thread: its loop. Memory lasts until the loops stand. */
#ifndef BROKER_SWEEP_H
#define BROKER_SWEEP_H
#include "server/base/buf.h"
#include "server/base/loop.h"
#include "server/broker/broker.h"

struct sweep;

enum sweep_word { SWEEP_KEEP, SWEEP_DELETE, SWEEP_REPLACE };

struct sweep_row {               /* a row to be judged */
	struct bytes key, value; /* value only until the next eval call */
	int64_t now_ms, keep_ms;
	uint8_t why;             /* judge's, for decide; 0 unless set */
	struct eval *eval;       /* decide: other rows are read through it */
	struct buf *replacement; /* SWEEP_REPLACE: filled by decide */
};

struct sweep_rule { /* static */
	uint8_t keyspace;
	bool tables; /* in tables; else in the partitions of streams */
	/* Of the rule alone: its evaluate gives what sweep_evaluate gives. Added at sweep_start. */
	const struct proposal_kind *kind;
	/* Whether the row, as applied, may have had its time. */
	bool (*judge)(struct sweep *s, const struct partition *p, struct sweep_row *row);
	/* What becomes of it, as it will be. Its errors (eval_get's) are passed on. */
	enum err (*decide)(struct sweep_row *row, enum sweep_word *word);
	int64_t (*keep_ms)(const struct sweep *s);   /* handed to both */
	int64_t (*period_ms)(const struct sweep *s); /* of a round; looked at before each */
	/* Of rows that tell their age, and the sweep's arg their life (const int64_t *): whether it
	 * is over. Then the other functions stay NULL. */
	bool (*is_old)(const struct sweep_row *row);
};
/* args: 0/8 keep_ms; then each row: why 1, key length 2, key. */
enum err sweep_evaluate(const struct sweep_rule *rule, struct eval *v, struct bytes args) MUST_USE;

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
	struct buf args;
	int doomed_count; /* rows in args */
	bool stopped;
};

/* Of a round over rows that live keep_ms: a fraction of that, ten minutes at the most. */
int64_t expire_period_ms(int64_t keep_ms);

/* Before the loops run, or from any thread. The first round begins a period later. */
void sweep_start(struct sweep *s, const struct sweep_rule *rule, const void *arg, struct node *node,
	struct loop *l);
void sweep_stop(struct sweep *s); /* any thread; takes effect when the loop has turned */
void sweep_free(struct sweep *s); /* loops stand; not started is fine */

#endif
