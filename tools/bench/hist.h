/* A histogram of nanoseconds: buckets of 1/64 relative width over the whole range of 64 bits,
 * so a percentile is at most 1.6 % off and recording is a few instructions. */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H
#include <stdint.h>

enum { HIST_SUB_BITS = 6, HIST_BUCKETS = (64 - HIST_SUB_BITS) * (1 << HIST_SUB_BITS) + 64 };

struct hist {
	uint64_t buckets[HIST_BUCKETS];
	uint64_t count, max;
};

static inline uint32_t hist_index(uint64_t v)
{
	int top = 63 - __builtin_clzll(v | 1);
	int shift = top > HIST_SUB_BITS ? top - HIST_SUB_BITS : 0;

	return ((uint32_t)shift << HIST_SUB_BITS) + (uint32_t)(v >> shift);
}

static inline void hist_add(struct hist *h, uint64_t v)
{
	h->buckets[hist_index(v)]++;
	h->count++;
	if (v > h->max)
		h->max = v;
}

/* The value below which the share (0..1) of what was recorded lies; 0 when empty. */
uint64_t hist_at(const struct hist *h, double share);

#endif
