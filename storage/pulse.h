/* A thread of storage's own that runs one function when kicked and, if asked, every so many
 * milliseconds. The writer, the syncer and the keepers of a disk are such functions: what they
 * hand over goes through atomics, and the thread behind them can be replaced by a run queue that
 * a simulator steps. */
#ifndef STORAGE_PULSE_H
#define STORAGE_PULSE_H
#include <stdint.h>

struct pulse;

/* every_ms 0: runs only when kicked. name: at most 15 characters. */
struct pulse *pulse_new(const char *name, void (*run)(void *arg), void *arg, int64_t every_ms);
/* run starts at least once after this. Any thread; cheap while a kick is pending. */
void pulse_kick(struct pulse *p);
/* Runs once more if kicked, then ends the thread. NULL is fine. */
void pulse_free(struct pulse *p);

#endif
