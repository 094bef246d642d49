/* What a turn of a loop is made of, whatever wakes the loop: its own posts, the hooks wanted in
 * each stage, its timers. Both loops stand on it, loop.c and the simulator's (tests/sim), and so do
 * their turns: timers that are due, messages from elsewhere, own posts, stages. Thread: the loop's.
 * Owner: the loop. */
#ifndef BASE_TURN_H
#define BASE_TURN_H
#include "server/base/loop.h"

struct msg_queue { /* first in first out */
	struct loop_msg *head, **tail;
};
void msg_queue_init(struct msg_queue *q);
void msg_queue_push(struct msg_queue *q, struct loop_msg *m);
struct loop_msg *msg_queue_pop(struct msg_queue *q); /* NULL: empty */

struct turn_timer;
struct turn {
	struct msg_queue local;          /* own posts */
	struct list stages[STAGE_COUNT]; /* hooks wanted */
	struct list later;               /* hooks that wanted themselves again while they ran */
	struct loop_hook *hook_now;
	int stage_now;           /* STAGE_COUNT outside of stages */
	struct turn_timer *heap; /* from slot 1 */
	uint32_t timers, timers_room;
};
void turn_init(struct turn *t);
void turn_fini(struct turn *t);

/* Own posts and hooks that wait for the next turn. */
bool turn_waits(const struct turn *t);
void turn_want(struct turn *t, enum loop_stage stage, struct loop_hook *h);
void turn_posts(struct turn *t);
/* The stages in order, own posts after each. */
void turn_stages(struct turn *t);

void turn_timer_set(struct turn *t, struct loop_timer *timer, int64_t at_ms);
void turn_timer_cancel(struct turn *t, struct loop_timer *timer); /* not set is fine */
/* Fires those that are due; at most as many as there are now. */
void turn_timers(struct turn *t, int64_t now_ms);
bool turn_next_ms(const struct turn *t, int64_t *out); /* of the first timer; false: none is set */

/* A message that will not run. Calls have a struct of their own, which would leak; all others
 * belong to their senders. */
void turn_drop(struct loop_msg *m);

#endif
