/* Reading /proc. The process's own line in stat counts all its threads, and those that have
 * ended; the kernel keeps the sum exactly and only shows it in ticks of 10 ms, which over the
 * seconds of a run is below 1 %. */
#include "tools/bench/proc.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* Reads at most size - 1 bytes of /proc/PID/name as text. */
static bool proc_text(uint64_t pid, const char *name, char *text, size_t size)
{
	char path[64];
	FILE *f;
	size_t len;

	snprintf(path, sizeof path, "/proc/%llu/%s", (unsigned long long)pid, name);
	f = fopen(path, "re");
	if (!f)
		return false;
	len = fread(text, 1, size - 1, f);
	text[len] = 0;
	fclose(f);
	return len > 0;
}

bool proc_read(uint64_t pid, struct proc_use *out)
{
	char text[4096];
	char *at;
	uint64_t ticks = 0;
	uint64_t hz = (uint64_t)sysconf(_SC_CLK_TCK);

	memset(out, 0, sizeof *out);
	if (pid == 0 || !proc_text(pid, "stat", text, sizeof text))
		return false;
	at = strrchr(text, ')'); /* the name before it may hold anything */
	if (!at)
		return false;
	at += 2;
	for (int field = 3; field <= 20 && *at; field++) {
		char *end = strchr(at, ' ');

		if (field == 14 || field == 15)
			ticks += strtoull(at, NULL, 10);
		if (field == 20)
			out->threads = (uint32_t)strtoul(at, NULL, 10);
		if (!end)
			return false;
		at = end + 1;
	}
	out->cpu_us = ticks * 1000000u / (hz ? hz : 100);
	if (!proc_text(pid, "status", text, sizeof text))
		return false;
	at = strstr(text, "VmRSS:");
	out->rss_bytes = at ? strtoull(at + 6, NULL, 10) * 1024 : 0;
	return true;
}

uint64_t proc_self_cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u +
		(uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

uint64_t proc_raise_files(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) != 0)
		return 0;
	l.rlim_cur = l.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &l) != 0)
		getrlimit(RLIMIT_NOFILE, &l);
	return l.rlim_cur;
}

void proc_tight_timers(void)
{
	prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);
}
