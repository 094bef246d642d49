/* A log-linear histogram. Bucket i below 2^(SUB+1) is the value itself; above, each doubling
 * has 2^SUB buckets, and a bucket answers with its upper edge so that a percentile is never
 * flattered. */
#include "tools/bench/hist.h"

static uint64_t bucket_edge(uint32_t i)
{
	uint32_t shift = i >> HIST_SUB_BITS;

	if (shift <= 1)
		return i;
	shift--;
	return ((((uint64_t)i - ((uint64_t)shift << HIST_SUB_BITS)) + 1) << shift) - 1;
}

uint64_t hist_at(const struct hist *h, double share)
{
	uint64_t want = (uint64_t)(share * (double)h->count + 0.999999);
	uint64_t seen = 0;

	if (want < 1)
		want = 1;
	for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen >= want)
			return bucket_edge(i) < h->max ? bucket_edge(i) : h->max;
	}
	return h->max;
}
