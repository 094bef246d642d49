/* What the sanitizer must be told of a change of stacks, and the signals that it handles better
 * than we do. Nothing in other builds. */
#ifndef SIM_STACK_H
#define SIM_STACK_H
#include <signal.h>
#include <stddef.h>

struct sim_stack_mark {
	void *fake;
	const void *bottom;
	size_t size;
};

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
static inline void sim_stack_init(struct sim_stack_mark *m, const void *bottom, size_t size)
{
	m->bottom = bottom;
	m->size = size;
}
/* from NULL: that stack is not used again. */
static inline void sim_stack_leave(struct sim_stack_mark *from, const struct sim_stack_mark *to)
{
	__sanitizer_start_switch_fiber(from ? &from->fake : NULL, to->bottom, to->size);
}
static inline void sim_stack_arrived(struct sim_stack_mark *m)
{
	__sanitizer_finish_switch_fiber(m->fake, NULL, NULL);
}
/* First time on a stack; where it came from is learnt. */
static inline void sim_stack_entered(struct sim_stack_mark *m, struct sim_stack_mark *from)
{
	(void)m;
	__sanitizer_finish_switch_fiber(NULL, &from->bottom, &from->size);
}
static inline void sim_stack_catch(void (*fn)(int))
{
	(void)fn;
}
#else
static inline void sim_stack_init(struct sim_stack_mark *m, const void *bottom, size_t size)
{
	(void)m;
	(void)bottom;
	(void)size;
}
static inline void sim_stack_leave(struct sim_stack_mark *from, const struct sim_stack_mark *to)
{
	(void)from;
	(void)to;
}
static inline void sim_stack_arrived(struct sim_stack_mark *m)
{
	(void)m;
}
static inline void sim_stack_entered(struct sim_stack_mark *m, struct sim_stack_mark *from)
{
	(void)m;
	(void)from;
}
static inline void sim_stack_catch(void (*fn)(int))
{
	signal(SIGSEGV, fn);
	signal(SIGBUS, fn);
	signal(SIGFPE, fn);
	signal(SIGILL, fn);
	signal(SIGABRT, fn);
}
#endif

#endif
