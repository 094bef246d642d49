/* The simulator's clock, dice, run queue and record. One process, one thread, one seed: whole nodes
 * run as events in virtual time, and whatever may block in the product (a worker's job, the writer,
 * the syncer, a node's boot and end) runs as a fiber that sleeps in virtual time. What runs belongs
 * to a machine, or to nobody (the world: faults, load, checks). A machine that crashes takes all
 * its events and fibers with it; its memory is left behind. */
#ifndef SIM_SIM_H
#define SIM_SIM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "server/base/list.h"

enum { SIM_MACHINES_MAX = 9, SIM_MS = 1000, SIM_S = 1000000 };

struct sim_machine {   /* a computer; what runs on it comes and goes */
	int id;        /* from 1 */
	uint64_t life; /* grows with each start: events of an earlier one are dropped */
	bool up;
	bool doomed;             /* its disk fails or hangs: it may abort */
	int64_t paused_until_us; /* nothing runs before */
	int64_t started_us;      /* of this life */
	int64_t mono_us, drift;  /* its monotonic clock at that time; parts per million */
	int64_t wall_us;         /* its wall clock is that far from the world's */
	struct list fibers;      /* of this life, while they sleep */
	void (*crashed)(struct sim_machine *m); /* told at once when it ends by itself */
};

typedef void (*sim_fn)(void *arg);

void sim_init(uint64_t seed, bool trace);
uint64_t sim_seed(void);
int64_t sim_now_us(void);
struct sim_machine *sim_here(void); /* whose code runs; NULL: the world's */

/* fn(arg) runs at that time, as m (NULL: the world), unless m's life has ended. */
void sim_at(int64_t at_us, struct sim_machine *m, sim_fn fn, void *arg);
void sim_after(int64_t after_us, struct sim_machine *m, sim_fn fn, void *arg);
/* The same on a stack of its own: fn may sleep. */
void sim_fiber_after(int64_t after_us, struct sim_machine *m, sim_fn fn, void *arg);
bool sim_in_fiber(void);
void sim_sleep_us(int64_t us); /* fibers only */
/* Runs until that time. */
void sim_run_until(int64_t until_us);
void sim_run_as(struct sim_machine *m, sim_fn fn, void *arg); /* at once; may not sleep */

void sim_machine_init(struct sim_machine *m, int id);
void sim_machine_start(struct sim_machine *m); /* a new life begins */
/* The life ends: events and fibers are dropped, nothing of it runs again. May be called by the
 * machine itself; then it does not return. */
void sim_machine_stop(struct sim_machine *m);

/* Dice: the world's and the scheduler's. */
uint64_t sim_random(void);
int64_t sim_pick(int64_t from, int64_t to); /* both included */
bool sim_chance(int per_thousand);

/* The record: what happened, with time and machine. The last lines are printed on failure. */
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool sim_tracing(void);
/* The same for what is too much to keep: printed when all is. */
void sim_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t sim_trace_hash(void); /* of all that was recorded: the same seed gives the same */
uint64_t sim_events(void);
void sim_print_last(void);
void sim_quiet(void); /* a failure is one line */
/* A promise is broken: prints why and the last lines, ends the process with 1. */
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define sim_must(x) ((x) ? (void)0 : sim_fail("%s:%d: %s", __FILE__, __LINE__, #x))

#endif
