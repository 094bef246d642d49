/* How long the disk takes to make 4 KB durable: appended to a growing file and fdatasync'ed,
 * as a write-ahead log is. Latencies of a server that syncs are read against its median. */
#include "tools/bench/bench.h"
#include "tools/bench/hist.h"
#include "tools/bench/proc.h"
#include "tools/bench/report.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_BYTES = 4096 };

static bool sync_loop(int fd, const struct options *o, struct hist *h)
{
	static const uint8_t block[BLOCK_BYTES] = {1};
	uint64_t end = now_ns() + o->seconds * 1000000000u;

	while (now_ns() < end && (o->count == 0 || h->count < o->count)) {
		uint64_t start = now_ns();

		if (write(fd, block, sizeof block) != (ssize_t)sizeof block || fdatasync(fd) != 0)
			return false;
		hist_add(h, now_ns() - start);
	}
	return true;
}

int bench_sync(const struct options *o, const char *name)
{
	static const char *const names[5] = {
		"sync_p50_ms", "sync_p90_ms", "sync_p99_ms", "sync_p999_ms", "sync_max_ms"};
	struct hist *h = calloc(1, sizeof *h);
	struct report r = {0};
	char path[512];
	int fd, status = EXIT_TROUBLE;

	snprintf(path, sizeof path, "%s/bench-sync-%d", o->dir, (int)getpid());
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	if (h && fd >= 0 && sync_loop(fd, o, h)) {
		report_word(&r, "workload", name);
		report_int(&r, "syncs", h->count);
		report_hist(&r, names, h);
		report_print(&r, o->json);
		status = EXIT_FINE;
	} else {
		fprintf(stderr, "sluice-bench: %s: %s\n", path, strerror(errno));
	}
	if (fd >= 0) {
		close(fd);
		unlink(path);
	}
	free(h);
	return status;
}
