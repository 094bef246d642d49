/* Workers and pulses as fibers. Each job, and each run of a pulse, starts after a time by the dice
 * and may sleep: a disk that is slow or hangs holds it up, and nobody else. */
#include "server/base/worker.h"
#include "server/base/mem.h"
#include "storage/pulse.h"
#include "tests/sim/sim.h"

enum { JOB_US_MAX = 200, PULSE_US_MAX = 30, WAIT_US = 20 };

struct workers {
	int threads, running;
	struct sim_machine *machine;
	struct loop_msg *head, **tail; /* jobs, by their msg */
};

static void job_done(struct loop_msg *m)
{
	struct job *j = list_entry(m, struct job, msg);

	j->done(j);
}

/* One thread: jobs until none is left. */
static void work(void *arg)
{
	struct workers *w = arg;
	struct loop_msg *m;

	while ((m = w->head) != NULL) {
		struct job *j = list_entry(m, struct job, msg);

		w->head = m->next;
		if (w->head == NULL)
			w->tail = &w->head;
		j->work(j);
		j->msg.run = job_done;
		loop_post(j->home, &j->msg);
		sim_sleep_us(sim_pick(1, JOB_US_MAX));
	}
	w->running--;
}

struct workers *workers_new(int threads)
{
	struct workers *w = mem_new(sizeof *w);

	must(threads > 0);
	w->threads = threads;
	w->tail = &w->head;
	w->machine = sim_here();
	return w;
}

void workers_free(struct workers *w)
{
	while (w != NULL && w->running > 0)
		sim_sleep_us(WAIT_US);
	mem_free(w);
}

void worker_run(struct workers *w, struct job *j)
{
	if (j->home == NULL)
		j->home = loop_here();
	must(j->home != NULL);
	j->msg.next = NULL;
	*w->tail = &j->msg;
	w->tail = &j->msg.next;
	if (w->running == w->threads)
		return;
	w->running++;
	sim_fiber_after(sim_pick(1, JOB_US_MAX), w->machine, work, w);
}

/* --- pulses */

struct pulse {
	void (*run)(void *arg);
	void *arg;
	int64_t every_us;
	struct sim_machine *machine;
	bool kicked, running, ended;
};

static void pulse_run(void *arg);

static void pulse_plan(struct pulse *p)
{
	if (p->running || p->ended)
		return;
	p->running = true;
	sim_fiber_after(sim_pick(1, PULSE_US_MAX), p->machine, pulse_run, p);
}

static void pulse_run(void *arg)
{
	struct pulse *p = arg;

	do {
		p->kicked = false;
		p->run(p->arg);
	} while (p->kicked);
	p->running = false;
}

static void pulse_timer(void *arg)
{
	struct pulse *p = arg;

	if (p->ended)
		return;
	pulse_plan(p);
	sim_after(p->every_us, p->machine, pulse_timer, p);
}

struct pulse *pulse_new(const char *name, void (*run)(void *arg), void *arg, int64_t every_ms)
{
	struct pulse *p = mem_new(sizeof *p);

	(void)name;
	p->run = run;
	p->arg = arg;
	p->every_us = every_ms * SIM_MS;
	p->machine = sim_here();
	if (every_ms > 0)
		sim_after(sim_pick(1, p->every_us), p->machine, pulse_timer, p);
	return p;
}

void pulse_kick(struct pulse *p)
{
	p->kicked = true;
	pulse_plan(p);
}

/* Its timer may still be planned: the memory stays. */
void pulse_free(struct pulse *p)
{
	if (p == NULL)
		return;
	while (p->running)
		sim_sleep_us(WAIT_US);
	if (p->kicked)
		p->run(p->arg);
	p->ended = true;
}
