/* Idle connections: what one costs in the server's resident memory, and how fast they come.
 * The first hundred are made before the base line is read, so that code and pools touched by
 * any connection at all are not charged to the others. */
#include "tools/bench/mqtt_fleet.h"
#include "tools/bench/proc.h"
#include "tools/bench/report.h"
#include <stdio.h>
#include <unistd.h>

enum { WARM_UP = 100, IDLE_IN_BYTES = 256, FILES_OF_OUR_OWN = 16 };

static void report_idle(
	const struct options *o, const char *name, const struct proc_use use[2], double took_s)
{
	struct report r = {0};
	double grown = (double)use[1].rss_bytes - (double)use[0].rss_bytes;

	report_word(&r, "workload", name);
	report_int(&r, "connections", o->idle);
	report_real(&r, "connects_per_s", (double)o->idle / took_s, 0);
	report_real(&r, "rss_before_mb", (double)use[0].rss_bytes / 1e6, 1);
	report_real(&r, "rss_after_mb", (double)use[1].rss_bytes / 1e6, 1);
	report_real(&r, "bytes_per_connection", grown / (double)o->idle, 0);
	report_real(&r, "cpu_us_per_connect",
		(double)(use[1].cpu_us - use[0].cpu_us) / (double)o->idle, 1);
	report_print(&r, o->json);
}

int bench_mqtt_idle(const struct options *o, const char *name)
{
	struct fleet warm = {.ep = -1}, f = {.ep = -1};
	struct proc_use use[2];
	struct options clean = *o;
	uint64_t start;
	double took_s;
	int status = EXIT_TROUBLE;

	clean.qos = 0;
	if (proc_raise_files() < o->idle + WARM_UP + FILES_OF_OUR_OWN) {
		fprintf(stderr, "sluice-bench: too few open files allowed for %llu connections\n",
			(unsigned long long)o->idle);
		return EXIT_TROUBLE;
	}
	if (!fleet_init(&warm, &clean, WARM_UP) || !fleet_init(&f, &clean, (uint32_t)o->idle))
		goto end;
	warm.in_cap = f.in_cap = IDLE_IN_BYTES;
	warm.out_cap = f.out_cap = MQTT_SMALL_BYTES;
	for (uint32_t i = 0; i < warm.count; i++)
		warm.clients[i].role = 'w';
	for (uint32_t i = 0; i < f.count; i++)
		f.clients[i].role = 'i';
	if (!fleet_connect(&warm)) {
		fprintf(stderr, "sluice-bench: %s\n", warm.trouble);
		goto end;
	}
	sleep(1);
	proc_read(o->pid, &use[0]);
	start = now_ns();
	if (!fleet_connect(&f)) {
		fprintf(stderr, "sluice-bench: %u connected, then %s\n", f.ready, f.trouble);
		goto end;
	}
	took_s = (double)(now_ns() - start) / 1e9;
	sleep((unsigned)o->hold);
	proc_read(o->pid, &use[1]);
	report_idle(o, name, use, took_s);
	status = EXIT_FINE;
end:
	fleet_fini(&f);
	fleet_fini(&warm);
	return status;
}
