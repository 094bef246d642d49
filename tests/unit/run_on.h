/* Runs something on a loop and waits until it has run. */
#ifndef TESTS_RUN_ON_H
#define TESTS_RUN_ON_H
#include <semaphore.h>
#include "server/base/loop.h"

struct run_on {
	void (*fn)(void *arg);
	void *arg;
	sem_t ran;
};

static void run_on_run(void *arg)
{
	struct run_on *r = arg;

	r->fn(r->arg);
	sem_post(&r->ran);
}

/* Not from a loop. */
static void run_on(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct run_on r = {.fn = fn, .arg = arg};

	sem_init(&r.ran, 0, 0);
	loop_call(l, run_on_run, &r);
	while (sem_wait(&r.ran) != 0)
		;
	sem_destroy(&r.ran);
}

#endif
