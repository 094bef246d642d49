/* The few calls of the C library that are about time, the end of the process and the disk below the
 * store's: the program's own definitions go before those of the library. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include "tests/sim/sim.h"
#include "tests/sim/sim_disk.h"

int nanosleep(const struct timespec *want, struct timespec *left)
{
	(void)left;
	sim_sleep_us((int64_t)want->tv_sec * SIM_S + want->tv_nsec / 1000);
	return 0;
}

/* Crash-only: a machine whose disk fails ends; nobody else has a reason to. */
void abort(void)
{
	struct sim_machine *m = sim_here();

	if (m == NULL || !m->doomed)
		sim_fail("abort, and no disk has failed");
	sim_trace("aborts");
	m->crashed(m);
	sim_machine_stop(m);
	_exit(1);
}

int statvfs(const char *path, struct statvfs *out)
{
	(void)path;
	*out = (struct statvfs){.f_frsize = 4096, .f_bsize = 4096};
	out->f_bavail = (uint64_t)sim_disk_free_bytes(sim_here()) / out->f_frsize;
	return 0;
}

/* Small files of the folder are on the real disk; what is theirs of durability is not at stake. */
int fdatasync(int fd)
{
	(void)fd;
	return 0;
}
int fsync(int fd)
{
	(void)fd;
	return 0;
}
int posix_fallocate(int fd, off_t from, off_t len)
{
	(void)fd;
	(void)from;
	(void)len;
	return 0;
}
/* A crashed machine keeps its descriptors. */
int flock(int fd, int operation)
{
	(void)fd;
	(void)operation;
	return 0;
}
int gethostname(char *name, size_t size)
{
	snprintf(name, size, "sim");
	return 0;
}
