/* Workers: a few threads for what may block (disk reads, password hashes, name look-ups). */
#ifndef BASE_WORKER_H
#define BASE_WORKER_H
#include "server/base/loop.h"

struct workers;

struct job {                 /* embed; belongs to the workers from worker_run until done runs */
	struct loop_msg msg; /* used to bring it home */
	struct loop *home;
	void (*work)(struct job *j); /* on a worker's thread */
	void (*done)(struct job *j); /* on home, exactly once, never inside worker_run */
	/* Instead of done after workers_leave, on any thread: its memory may go. NULL: never left.
	 */
	void (*left)(struct job *j);
};

struct workers *workers_new(int threads);
/* Ends the threads after the jobs under way; queued jobs run too. */
void workers_free(struct workers *w);
/* The same without waiting: queued jobs do not run, and those under way end by themselves. For jobs
 * that have `left`. */
void workers_leave(struct workers *w);
/* Takes j until its done runs. Any thread; home is the loop that gets done, set by the caller;
 * NULL: the loop that calls. */
void worker_run(struct workers *w, struct job *j);

#endif
