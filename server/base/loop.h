/* Loops: threads with a libevent base each, which share nothing. Work reaches another loop as
 * a posted message; what a struct belongs to is its home loop.
 *
 * A turn: events of sockets and timers; posted messages; then the stages, in order, of those
 * hooks that asked for one (loop_hook_want) since the last turn; local posts made meanwhile run
 * in the same turn. So what arrives in one turn is batched by construction and nothing waits on
 * a timer. Mutexes and atomics of message passing live in loop.c and worker.c only.
 *
 * The simulator links another loop.c (tests/sim) with the same functions but loop_event_base. */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H
#include "server/base/list.h"
#include "server/base/metric.h"

struct loop;
struct loops; /* all loops of the process */
struct event_base;

struct loop_msg { /* embed in what is sent; run may free what holds it */
	struct loop_msg *next;
	void (*run)(struct loop_msg *m);
};

/* Starts count loops, each in a thread of its own, not running until loops_run. */
struct loops *loops_new(int count);
void loops_run(struct loops *all);
/* Ends all loops once nothing is on its way between them (if they come to rest at all), joins the
 * threads. What waits or is posted later is dropped: it is not run, and its owner may free it
 * before loops_free. Not from a loop. */
void loops_stop(struct loops *all);
void loops_free(struct loops *all);
int loops_count(const struct loops *all);
struct loop *loops_at(struct loops *all, int index);

int loop_index(const struct loop *l);
struct loops *loop_all(const struct loop *l);
struct event_base *loop_event_base(struct loop *l);
struct metric_cells *loop_cells(struct loop *l);
int64_t loop_now_ms(const struct loop *l);      /* monotonic, cached for the turn */
int64_t loop_now_wall_ms(const struct loop *l); /* wall, cached for the turn */
struct loop *loop_here(void);                   /* the loop whose thread this is, NULL elsewhere */
/* Stops the process unless called on l's own thread (or before loops_run). */
void loop_must_own(const struct loop *l);

/* Runs m on l, after everything posted to l before from this thread. Any thread; takes m. */
void loop_post(struct loop *l, struct loop_msg *m);
/* Posts a call without a struct of its own: fn(arg) runs on l. */
void loop_call(struct loop *l, void (*fn)(void *arg), void *arg);

/* Runs fn(arg) on this thread while every loop stands still: configuration reloads, changes of
 * what all share. Not from a loop. */
void loops_stand_still(struct loops *all, void (*fn)(void *arg), void *arg);

/* The order in which a turn's gathered work is done. */
enum loop_stage {
	STAGE_PUBLISH, /* broker: the turn's publishes leave for their partitions */
	STAGE_PROPOSE, /* partitions: what arrived becomes log entries */
	STAGE_WRITE,   /* storage: the turn's write set leaves for the writer */
	STAGE_DELIVER, /* broker: committed ranges go to those interested */
	STAGE_FLUSH,   /* connections: output leaves */
	STAGE_COUNT
};
struct loop_hook { /* embed; in no stage until wanted */
	struct list node;
	void (*run)(struct loop_hook *h);
};
void loop_hook_init(struct loop_hook *h, void (*run)(struct loop_hook *h));
/* Runs h once at the given stage of this turn (of the next one if that stage is past). Asking
 * twice is asking once; asking for the own stage again from within run waits for the next turn,
 * after the sockets (long work in slices). Owner's thread. */
void loop_hook_want(struct loop *l, enum loop_stage stage, struct loop_hook *h);
void loop_hook_cancel(struct loop_hook *h);

struct loop_timer { /* embed; 32 bytes; one shot */
	struct loop *loop;
	int64_t at_ms;
	uint32_t slot; /* 0: not set */
	void (*fire)(struct loop_timer *t);
};
void loop_timer_init(struct loop_timer *t, struct loop *l, void (*fire)(struct loop_timer *t));
/* (Re)sets the timer: fires once, at least after_ms from the turn's beginning. Owner's thread. */
void loop_timer_set(struct loop_timer *t, int64_t after_ms);
void loop_timer_cancel(struct loop_timer *t); /* not set is fine */
static inline bool loop_timer_is_set(const struct loop_timer *t)
{
	return t->slot != 0;
}

#endif
