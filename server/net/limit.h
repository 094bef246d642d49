/* How many connections are let in: a bound for the whole process, and for each loop a rate of
 * accepts and a bound on connections that have not finished their TLS or PROXY beginning (which
 * cost the most memory and have proven nothing).
 * Thread: struct limit_total any; struct limit_gate its loop. */
#ifndef NET_LIMIT_H
#define NET_LIMIT_H
#include <stdbool.h>
#include <stdint.h>

struct limit_total { /* shared by all loops */
	int64_t max;
	_Atomic int64_t open;
};

/* max 0: what open files allow, less a reserve for the store and the peers. */
void limit_total_init(struct limit_total *t, int64_t max, int64_t files);
bool limit_total_take(struct limit_total *t); /* false: full */
void limit_total_give(struct limit_total *t);
int64_t limit_total_open(const struct limit_total *t);

/* Raises the soft limit of open files to the hard one and gives it. */
int64_t limit_raise_files(void);

struct limit_gate {        /* one loop's */
	int64_t rate;      /* accepts per second; 0: no limit */
	int64_t tokens_us; /* microseconds of accepting earned, at most a second of them */
	int64_t at_us;     /* when they were counted last */
	int64_t begun_max; /* connections in their beginning; 0: no limit */
	int64_t begun;
};

void limit_gate_init(struct limit_gate *g, int64_t rate, int64_t begun_max, int64_t now_us);
/* Whether one more may be accepted now, which has such a beginning or none; counts it against the
 * rate. */
bool limit_gate_pass(struct limit_gate *g, bool begins, int64_t now_us);
void limit_gate_begin(struct limit_gate *g);
void limit_gate_end(struct limit_gate *g);

#endif
