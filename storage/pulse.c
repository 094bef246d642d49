/* One semaphore wakes the thread; a flag keeps it from being raised more than once per run. The
 * flag falls before the run begins, so a kick during a run leads to another one. */
#include "storage/pulse.h"
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include "server/base/mem.h"

struct pulse {
	void (*run)(void *arg);
	void *arg;
	int64_t every_ms;
	sem_t wake;
	_Atomic bool kicked, ending;
	pthread_t thread;
	char name[16];
};

/* False: the time was up. */
static bool wait_for_kick(struct pulse *p)
{
	struct timespec until;
	int64_t ns;

	if (p->every_ms == 0) {
		while (sem_wait(&p->wake) != 0)
			;
		return true;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	ns = until.tv_nsec + p->every_ms % 1000 * 1000000;
	until.tv_sec += p->every_ms / 1000 + ns / 1000000000;
	until.tv_nsec = ns % 1000000000;
	return sem_clockwait(&p->wake, CLOCK_MONOTONIC, &until) == 0;
}

static void *pulse_thread(void *arg)
{
	struct pulse *p = arg;

	pthread_setname_np(pthread_self(), p->name);
	for (;;) {
		bool last, kicked;

		wait_for_kick(p);
		last = atomic_load(&p->ending);
		kicked = atomic_exchange(&p->kicked, false);
		if (kicked || (!last && p->every_ms != 0))
			p->run(p->arg);
		if (last)
			return NULL;
	}
}

struct pulse *pulse_new(const char *name, void (*run)(void *arg), void *arg, int64_t every_ms)
{
	struct pulse *p = mem_new(sizeof *p);
	sigset_t all, before;

	p->run = run;
	p->arg = arg;
	p->every_ms = every_ms;
	snprintf(p->name, sizeof p->name, "%s", name);
	must(sem_init(&p->wake, 0, 0) == 0);
	/* Signals are the main thread's business. */
	sigfillset(&all);
	must(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
	must(pthread_create(&p->thread, NULL, pulse_thread, p) == 0);
	must(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	return p;
}

void pulse_kick(struct pulse *p)
{
	if (!atomic_exchange(&p->kicked, true))
		must(sem_post(&p->wake) == 0);
}

void pulse_free(struct pulse *p)
{
	if (p == NULL)
		return;
	atomic_store(&p->ending, true);
	must(sem_post(&p->wake) == 0);
	must(pthread_join(p->thread, NULL) == 0);
	sem_destroy(&p->wake);
	mem_free(p);
}
