/* What the kernel says: time, the processor time and memory of a process, limits. */
#ifndef BENCH_PROC_H
#define BENCH_PROC_H
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct proc_use {
	uint64_t cpu_us;    /* user + system, all threads, those that ended too */
	uint64_t rss_bytes; /* resident */
	uint32_t threads;
};

/* Reads the figures of process pid; false and zeros if it does not exist (or pid is 0). */
bool proc_read(uint64_t pid, struct proc_use *out);
/* Processor time of this process so far. */
uint64_t proc_self_cpu_us(void);
/* Raises the soft limit of open files to the hard one; returns it. */
uint64_t proc_raise_files(void);
/* Wake-ups on time: the default slack of 50 us is half of the latencies measured here. */
void proc_tight_timers(void);

#endif
