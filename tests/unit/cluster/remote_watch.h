/* A watcher for tests of nodes in one process: it sees entries in order, and counts the gaps
 * between them. Included by one .c of a test binary, beside remote_world.h. */
#ifndef TESTS_REMOTE_WATCH_H
#define TESTS_REMOTE_WATCH_H
#include "tests/unit/cluster/remote_world.h"

static struct watcher watch;
static _Atomic int64_t watch_next;
static int watch_gaps;
static void watch_committed(struct watcher *w, struct entry *e)
{
	(void)w;
	ck_assert_int_ge(e->head.base_offset, watch_next);
	watch_gaps += e->head.base_offset > watch_next;
	watch_next = entry_next_offset(&e->head);
}
static void watch_led(struct watcher *w, bool leads)
{
	(void)w, (void)leads;
}
static void watch_run(void *arg)
{
	watch = (struct watcher){.committed = watch_committed, .led = watch_led};
	watch_gaps = 0;
	watch_next = partition_watch(arg, &watch);
	sem_post(&N.done);
}
static void unwatch_run(void *arg)
{
	partition_unwatch(arg, &watch);
	sem_post(&N.done);
}
static void no_bulk_run(void *arg)
{
	N.no_bulk = *(int *)arg;
	sem_post(&N.done);
}
static int64_t watched(int64_t upto)
{
	for (int i = 0; i < 3000 && watch_next < upto; i++)
		usleep(10000);
	return watch_next;
}

static void watch_local_run(void *arg)
{
	watch = (struct watcher){.committed = watch_committed, .led = watch_led, .local = true};
	watch_next = partition_watch(arg, &watch);
	sem_post(&N.done);
}

#endif
