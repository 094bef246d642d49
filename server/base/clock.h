/* Time. Monotonic milliseconds for deadlines, wall milliseconds for records and logs. Both can
 * be replaced (tests, simulator). Loops cache the time once a turn: prefer loop_now_ms. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H
#include <stdint.h>

int64_t clock_ms(void);      /* monotonic */
int64_t clock_us(void);      /* monotonic */
int64_t clock_wall_ms(void); /* since 1970-01-01 UTC */
/* UTC as 2026-01-05T10:11:12.345Z; out holds at least 25 bytes. */
void clock_text(int64_t wall_ms, char *out);

/* Tests and the simulator: both clocks read from fn (microseconds) until NULL is set. */
typedef int64_t (*clock_fn)(void);
void clock_replace(clock_fn monotonic_us, clock_fn wall_us);

/* Random bytes of the operating system, or of the seed given by random_seed (tests). */
uint64_t random_u64(void);
void random_fill(void *at, uint64_t len);
void random_seed(uint64_t seed);

#endif
