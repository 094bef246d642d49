/* A heap of events by time, dice breaking ties. An event runs on the scheduler's stack; a fiber has
 * a stack of its own from a pool, and a sleep is an event that switches back to it. A life is a
 * number: an event whose machine has another one by now is dropped. A machine that ends itself in
 * the midst of a call leaves that call by a jump to the scheduler, which never returns to it. */
#undef _FORTIFY_SOURCE /* its longjmp takes another stack for a fault */
#include "tests/sim/sim.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "tests/sim/sim_stack.h"

enum { STACK_BYTES = 512 << 10, LAST_LINES = 50, LINE_BYTES = 512, HEAP_FIRST = 4096 };
/* The world's wall clock starts here: 2026-01-01. */
static const int64_t wall_start_us = 1767225600000000;

struct event {
	int64_t at_us;
	uint64_t order;
	struct sim_machine *machine;
	uint64_t life;
	sim_fn fn;
	void *arg;
};

struct fiber {
	struct list node;   /* of the machine while it sleeps, or of the pool */
	ucontext_t context; /* its first beginning; from then on jumps, which cost no system call */
	jmp_buf at;
	bool begun;
	void *stack;
	struct sim_stack_mark mark;
	sim_fn fn;
	void *arg;
	bool ended;
};

static struct {
	uint64_t seed, dice, events, hash;
	int64_t now_us;
	bool tracing, quiet;
	struct event *heap; /* from 1 */
	uint32_t count, room;
	struct sim_machine *here;
	struct fiber *fiber; /* that runs */
	struct list pool;
	jmp_buf scheduler;
	struct sim_stack_mark scheduler_mark;
	jmp_buf out; /* of the event that runs on the scheduler's stack */
	char lines[LAST_LINES][LINE_BYTES];
	uint64_t line_count;
} sim;

/* --- dice */

uint64_t sim_random(void)
{
	uint64_t v = sim.dice += 0x9e3779b97f4a7c15u;

	v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
	v = (v ^ v >> 27) * 0x94d049bb133111ebu;
	return v ^ v >> 31;
}

int64_t sim_pick(int64_t from, int64_t to)
{
	must(to >= from);
	return from + (int64_t)(sim_random() % (uint64_t)(to - from + 1));
}

bool sim_chance(int per_thousand)
{
	return (int)(sim_random() % 1000) < per_thousand;
}

/* --- time */

int64_t sim_now_us(void)
{
	return sim.now_us;
}
uint64_t sim_seed(void)
{
	return sim.seed;
}
struct sim_machine *sim_here(void)
{
	return sim.here;
}
uint64_t sim_events(void)
{
	return sim.events;
}

static int64_t machine_mono_us(void)
{
	const struct sim_machine *m = sim.here;
	int64_t passed;

	if (m == NULL)
		return sim.now_us + SIM_S;
	passed = sim.now_us - m->started_us;
	return m->mono_us + passed + passed / 1000 * m->drift / 1000;
}

static int64_t machine_wall_us(void)
{
	return wall_start_us + sim.now_us + (sim.here ? sim.here->wall_us : 0);
}

/* --- the heap */

static bool before(const struct event *a, const struct event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void heap_push(struct event e)
{
	uint32_t slot;

	if (sim.count + 2 > sim.room) {
		sim.room = sim.room ? sim.room * 2 : HEAP_FIRST;
		sim.heap = mem_resize(sim.heap, sim.room * sizeof *sim.heap);
		must(sim.heap != NULL);
	}
	for (slot = ++sim.count; slot > 1 && before(&e, &sim.heap[slot / 2]); slot /= 2)
		sim.heap[slot] = sim.heap[slot / 2];
	sim.heap[slot] = e;
}

static struct event heap_pop(void)
{
	struct event top = sim.heap[1], last = sim.heap[sim.count--];
	uint32_t slot = 1;

	for (;;) {
		uint32_t child = slot * 2;

		if (child > sim.count)
			break;
		if (child < sim.count && before(&sim.heap[child + 1], &sim.heap[child]))
			child++;
		if (before(&last, &sim.heap[child]))
			break;
		sim.heap[slot] = sim.heap[child];
		slot = child;
	}
	sim.heap[slot] = last;
	return top;
}

void sim_at(int64_t at_us, struct sim_machine *m, sim_fn fn, void *arg)
{
	heap_push((struct event){
		.at_us = at_us < sim.now_us ? sim.now_us : at_us,
		.order = sim_random(),
		.machine = m,
		.life = m ? m->life : 0,
		.fn = fn,
		.arg = arg,
	});
}

void sim_after(int64_t after_us, struct sim_machine *m, sim_fn fn, void *arg)
{
	sim_at(sim.now_us + after_us, m, fn, arg);
}

static void dispatch(struct event e)
{
	sim.here = e.machine;
	if (setjmp(sim.out) == 0)
		e.fn(e.arg);
	sim.here = NULL;
}

static void run_one(void)
{
	struct event e = heap_pop();

	must(e.at_us >= sim.now_us);
	sim.now_us = e.at_us;
	if (e.machine != NULL && (e.machine->life != e.life || !e.machine->up))
		return;
	if (e.machine != NULL && e.machine->paused_until_us > sim.now_us) {
		/* Its order among the others of the same machine stays. */
		e.at_us = e.machine->paused_until_us;
		heap_push(e);
		return;
	}
	sim.events++;
	dispatch(e);
}

void sim_run_until(int64_t until_us)
{
	must(sim.here == NULL);
	while (sim.count > 0 && sim.heap[1].at_us <= until_us)
		run_one();
	sim.now_us = until_us;
}

void sim_run_as(struct sim_machine *m, sim_fn fn, void *arg)
{
	struct sim_machine *was = sim.here;

	must(sim.fiber == NULL);
	sim.here = m;
	fn(arg);
	sim.here = was;
}

/* --- fibers */

bool sim_in_fiber(void)
{
	return sim.fiber != NULL;
}

static void fiber_enter(void)
{
	struct fiber *f = sim.fiber;

	sim_stack_entered(&f->mark, &sim.scheduler_mark);
	f->fn(f->arg);
	f->ended = true;
	sim_stack_leave(NULL, &sim.scheduler_mark);
	_longjmp(sim.scheduler, 1);
}

/* A function of its own: getcontext may return twice as far as the compiler knows. */
static void fiber_prepare(struct fiber *f)
{
	must(getcontext(&f->context) == 0);
	f->context.uc_stack.ss_sp = f->stack;
	f->context.uc_stack.ss_size = STACK_BYTES;
	f->context.uc_link = NULL;
	makecontext(&f->context, fiber_enter, 0);
}

static struct fiber *fiber_new(sim_fn fn, void *arg)
{
	struct list *n = list_pop(&sim.pool);
	struct fiber *f = n ? list_entry(n, struct fiber, node) : NULL;

	if (f == NULL) {
		f = mem_new(sizeof *f);
		f->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		must(f->stack != MAP_FAILED);
		list_init(&f->node);
	}
	f->fn = fn;
	f->arg = arg;
	f->ended = f->begun = false;
	fiber_prepare(f);
	sim_stack_init(&f->mark, f->stack, STACK_BYTES);
	return f;
}

static void fiber_go_on(struct fiber *f)
{
	if (_setjmp(sim.scheduler) != 0)
		return;
	if (f->begun)
		_longjmp(f->at, 1);
	f->begun = true;
	setcontext(&f->context);
}

/* Runs the fiber until it sleeps or ends. A life that ended in it has moved it to the pool. */
static void fiber_resume(void *arg)
{
	struct fiber *f = arg;

	list_remove(&f->node);
	sim.fiber = f;
	sim_stack_leave(&sim.scheduler_mark, &f->mark);
	fiber_go_on(f);
	sim_stack_arrived(&sim.scheduler_mark);
	sim.fiber = NULL;
	if (f->ended)
		list_push_back(&sim.pool, &f->node);
}

static void fiber_begin(void *arg)
{
	fiber_resume(arg);
}

void sim_fiber_after(int64_t after_us, struct sim_machine *m, sim_fn fn, void *arg)
{
	struct fiber *f = fiber_new(fn, arg);

	if (m != NULL)
		list_push_back(&m->fibers, &f->node);
	sim_after(after_us, m, fiber_begin, f);
}

void sim_sleep_us(int64_t us)
{
	struct fiber *f = sim.fiber;
	struct sim_machine *m = sim.here;

	must(f != NULL);
	if (m != NULL)
		list_push_back(&m->fibers, &f->node);
	sim_after(us, m, fiber_resume, f);
	sim_stack_leave(&f->mark, &sim.scheduler_mark);
	if (_setjmp(f->at) == 0)
		_longjmp(sim.scheduler, 1);
	sim_stack_arrived(&f->mark);
}

/* --- machines */

void sim_machine_init(struct sim_machine *m, int id)
{
	*m = (struct sim_machine){.id = id};
	list_init(&m->fibers);
}

void sim_machine_start(struct sim_machine *m)
{
	must(!m->up);
	m->life++;
	m->up = true;
	m->started_us = sim.now_us;
	m->mono_us = sim_pick(1, 1000) * SIM_S;
	m->paused_until_us = 0;
}

void sim_machine_stop(struct sim_machine *m)
{
	struct list *n;

	must(m->up);
	m->up = false;
	m->life++;
	while ((n = list_pop(&m->fibers)) != NULL)
		list_push_back(&sim.pool, n);
	if (sim.here != m)
		return;
	if (sim.fiber != NULL) {
		sim.fiber->ended = true;
		sim_stack_leave(NULL, &sim.scheduler_mark);
		_longjmp(sim.scheduler, 1);
	}
	longjmp(sim.out, 1);
}

/* --- the record */

bool sim_tracing(void)
{
	return sim.tracing;
}
uint64_t sim_trace_hash(void)
{
	return sim.hash;
}

static void line_hash(const char *line)
{
	for (; *line != 0; line++)
		sim.hash = (sim.hash ^ (uint8_t)*line) * 0x100000001b3u;
}

void sim_trace(const char *format, ...)
{
	char *line = sim.lines[sim.line_count++ % LAST_LINES];
	va_list args;
	int len;

	len = snprintf(line, LINE_BYTES, "%9.6f n%d ", (double)sim.now_us / SIM_S,
		sim.here ? sim.here->id : 0);
	va_start(args, format);
	vsnprintf(line + len, LINE_BYTES - (size_t)len, format, args);
	va_end(args);
	line_hash(line);
	if (sim.tracing)
		printf("%s\n", line);
}

void sim_note(const char *format, ...)
{
	va_list args;

	if (!sim.tracing)
		return;
	printf("%9.6f n%d   ", (double)sim.now_us / SIM_S, sim.here ? sim.here->id : 0);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

void sim_quiet(void)
{
	sim.quiet = true;
}

void sim_print_last(void)
{
	uint64_t first = sim.line_count > LAST_LINES ? sim.line_count - LAST_LINES : 0;

	for (uint64_t i = first; !sim.tracing && !sim.quiet && i < sim.line_count; i++)
		printf("%s\n", sim.lines[i % LAST_LINES]);
	fflush(stdout);
}

void sim_fail(const char *format, ...)
{
	char why[LINE_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof why, format, args);
	va_end(args);
	sim_print_last();
	printf("seed %llu FAILED at %.6f s: %s\n", (unsigned long long)sim.seed,
		(double)sim.now_us / SIM_S, why);
	fflush(stdout);
	_exit(1);
}

static void on_signal(int number)
{
	sim_print_last();
	printf("seed %llu FAILED at %.6f s: signal %d in n%d\n", (unsigned long long)sim.seed,
		(double)sim.now_us / SIM_S, number, sim.here ? sim.here->id : 0);
	fflush(stdout);
	signal(number, SIG_DFL);
	raise(number);
}

void sim_init(uint64_t seed, bool trace)
{
	sim.seed = sim.dice = seed;
	sim.hash = 0xcbf29ce484222325u;
	sim.tracing = trace;
	list_init(&sim.pool);
	clock_replace(machine_mono_us, machine_wall_us);
	random_seed(seed);
	sim_stack_catch(on_signal);
	signal(SIGXCPU, on_signal); /* it takes too long: by name, as any other failure */
}
