/* Time is the system's unless a test replaced it. Random bytes come from getrandom through a
 * small pool per thread; once seeded they come from a counter run through a mixing function,
 * which any thread may advance. */
#include "server/base/clock.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static _Atomic(clock_fn) monotonic_replaced, wall_replaced;
static _Atomic bool seeded;
static _Atomic uint64_t seed_state;

static int64_t read_us(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void clock_replace(clock_fn monotonic_us, clock_fn wall_us)
{
	atomic_store_explicit(&monotonic_replaced, monotonic_us, memory_order_relaxed);
	atomic_store_explicit(&wall_replaced, wall_us, memory_order_relaxed);
}

int64_t clock_us(void)
{
	clock_fn fn = atomic_load_explicit(&monotonic_replaced, memory_order_relaxed);

	return fn ? fn() : read_us(CLOCK_MONOTONIC);
}

int64_t clock_ms(void)
{
	return clock_us() / 1000;
}

int64_t clock_wall_ms(void)
{
	clock_fn fn = atomic_load_explicit(&wall_replaced, memory_order_relaxed);

	return (fn ? fn() : read_us(CLOCK_REALTIME)) / 1000;
}

static char *digits(char *at, int64_t v, int width, char after)
{
	for (int i = width - 1; i >= 0; i--, v /= 10)
		at[i] = (char)('0' + v % 10);
	at[width] = after;
	return at + width + 1;
}

/* The civil date by counting from 1 March of year 0 in eras of 400 years, whose lengths are all
 * the same; a year that starts in March has its leap day at the end. */
void clock_text(int64_t wall_ms, char *out)
{
	const int64_t day_ms = 86400000, era_days = 146097;
	int64_t in_day = wall_ms % day_ms, days = wall_ms / day_ms;

	if (wall_ms < 0 || wall_ms > 253402300799999) { /* 9999-12-31: the form has four digits */
		in_day = 0;
		days = 0;
	}
	days += 719468;
	int64_t of_era = days % era_days;
	int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
	int64_t month = (5 * of_year + 2) / 153; /* 0: March */
	int64_t day = of_year - (153 * month + 2) / 5 + 1;

	year += days / era_days * 400 + (month >= 10);
	month = month < 10 ? month + 3 : month - 9;
	out = digits(out, year, 4, '-');
	out = digits(out, month, 2, '-');
	out = digits(out, day, 2, 'T');
	out = digits(out, in_day / 3600000, 2, ':');
	out = digits(out, in_day / 60000 % 60, 2, ':');
	out = digits(out, in_day / 1000 % 60, 2, '.');
	out = digits(out, in_day % 1000, 3, 'Z');
	*out = 0;
}

void random_seed(uint64_t seed)
{
	atomic_store(&seed_state, seed);
	atomic_store(&seeded, true);
}

/* One step of splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t seeded_next(void)
{
	uint64_t v = atomic_fetch_add(&seed_state, 0x9e3779b97f4a7c15u) + 0x9e3779b97f4a7c15u;

	v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
	v = (v ^ v >> 27) * 0x94d049bb133111ebu;
	return v ^ v >> 31;
}

static void system_fill(void *at, size_t len)
{
	uint8_t *to = at;

	while (len > 0) {
		ssize_t got = getrandom(to, len, 0);
		if (got < 0) /* a signal came in between */
			continue;
		to += got;
		len -= (size_t)got;
	}
}

uint64_t random_u64(void)
{
	static _Thread_local uint64_t pool[32];
	static _Thread_local unsigned left;
	uint64_t v;

	if (atomic_load_explicit(&seeded, memory_order_relaxed))
		return seeded_next();
	if (left == 0) {
		system_fill(pool, sizeof pool);
		left = sizeof pool / sizeof pool[0];
	}
	v = pool[--left];
	pool[left] = 0; /* what was given out is not kept: it may become a secret */
	return v;
}

void random_fill(void *at, uint64_t len)
{
	uint8_t *to = at;

	if (!atomic_load_explicit(&seeded, memory_order_relaxed)) {
		system_fill(at, len);
		return;
	}
	while (len > 0) {
		uint64_t v = seeded_next();
		size_t n = len < sizeof v ? len : sizeof v;
		memcpy(to, &v, n);
		to += n;
		len -= n;
	}
}
