/* How long the disk hangs. What a watch sees grows also while the whole process stands still
 * (SIGSTOP, a virtual machine that is moved, a laptop that sleeps): that is not the disk's doing,
 * and no reason for the process to end. Owned by the watch's thread. */
#ifndef STORAGE_STALL_H
#define STORAGE_STALL_H
#include <stdint.h>

struct stall {
	int64_t every_ms;  /* the watch looks so often */
	int64_t looked_ms; /* the last time; 0: never */
	int64_t seen_ms, excused_ms;
};

/* At now_ms the write or sync under way has taken ms (0: there is none). Gives how much of that the
 * disk has had while this process ran. */
int64_t stall_look(struct stall *s, int64_t ms, int64_t now_ms);

#endif
