/* What a node says of itself, to others by a call, and stepping aside before a stop: leadership of
 * all groups goes to others while the doors are still open, so that clients find the next leader at
 * once instead of after an election. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include "cluster/node_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "storage/storage.h"

enum { STATUS_TIMEOUT_MS = 2000, STATUS_VERSION = 1, NAP_MS = 5, ASIDE_AGAIN_MS = 200 };

/* --- status --- */

/* Resident memory, from a file that is not on a disk. */
static int64_t resident_bytes(void)
{
	long long total, resident = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f == NULL)
		return 0;
	if (fscanf(f, "%lld %lld", &total, &resident) != 2)
		resident = 0;
	fclose(f);
	return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

static void fill(struct node *n, struct node_status *s)
{
	const struct group *g;

	s->err = OK;
	s->ready = atomic_load(&n->ready);
	s->disk_ok = storage_writable(n->storage) && !storage_stalled(n->storage);
	s->uptime_ms = clock_ms() - n->started_ms;
	s->rss_bytes = resident_bytes();
	s->disk_bytes = metric_sum(&storage_metrics, M_DISK_USED);
	s->disk_free_bytes = 0;
	for (int i = 0; i < storage_disks(n->storage); i++)
		s->disk_free_bytes += disk_free_bytes(storage_disk(n->storage, i));
	s->connections = n->connections != NULL ? n->connections(n->connections_arg) : 0;
	s->replicas = s->leaders = s->unsettled = 0;
	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		if (!g->ready)
			continue;
		s->replicas += g->replica != 0;
		s->leaders += partition_leads(g->partition);
		s->unsettled += g->leaving || (g->replica == 0) != (g->asked == 0);
	}
	snprintf(s->version, sizeof s->version, "%s",
		n->conf.version != NULL ? n->conf.version : "");
	if (!s->ready)
		node_unready_why(n, s->why, sizeof s->why);
	else
		s->why[0] = 0;
}

static void encode(const struct node_status *s, struct buf *out)
{
	const int64_t numbers[] = {s->uptime_ms, s->rss_bytes, s->disk_bytes, s->disk_free_bytes,
		s->connections, s->replicas, s->leaders, s->unsettled};

	buf_add_u8(out, STATUS_VERSION);
	buf_add_u8(out, s->ready);
	buf_add_u8(out, s->disk_ok);
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		buf_add_u64be(out, (uint64_t)numbers[i]);
	buf_add_u8(out, (uint8_t)strlen(s->version));
	buf_add_text(out, s->version);
	buf_add_u8(out, (uint8_t)strlen(s->why));
	buf_add_text(out, s->why);
}

static void take_text(struct rd *r, char *out, size_t size)
{
	struct node_words words = node_line(rd_take(r, rd_u8(r)));

	words.text[size - 1 < sizeof words.text ? size - 1 : sizeof words.text - 1] = 0;
	memcpy(out, words.text, strlen(words.text) + 1);
}

enum err node_status_decode(struct bytes in, struct node_status *s)
{
	struct rd r = rd_over(in);

	if (rd_u8(&r) != STATUS_VERSION)
		rd_fail(&r, ERR_MALFORMED);
	s->ready = rd_u8(&r) != 0;
	s->disk_ok = rd_u8(&r) != 0;
	s->uptime_ms = (int64_t)rd_u64be(&r);
	s->rss_bytes = (int64_t)rd_u64be(&r);
	s->disk_bytes = (int64_t)rd_u64be(&r);
	s->disk_free_bytes = (int64_t)rd_u64be(&r);
	s->connections = (int64_t)rd_u64be(&r);
	s->replicas = (int32_t)rd_u64be(&r);
	s->leaders = (int32_t)rd_u64be(&r);
	s->unsettled = (int32_t)rd_u64be(&r);
	take_text(&r, s->version, sizeof s->version);
	take_text(&r, s->why, sizeof s->why);
	return rd_done(&r);
}

struct status_ask { /* of one node_status; one of the two */
	struct loop_msg msg;
	struct peer_call call;
	struct node_status *status;
};

static void status_home(struct loop_msg *m)
{
	struct status_ask *a = list_entry(m, struct status_ask, msg);
	struct node_status *s = a->status;

	mem_free(a);
	s->done(s);
}

static void status_here(struct loop_msg *m)
{
	struct status_ask *a = list_entry(m, struct status_ask, msg);

	fill(a->status->of, a->status);
	a->msg.run = status_home;
	loop_post(a->status->to, &a->msg);
}

static void status_answered(struct peer_call *c)
{
	struct status_ask *a = list_entry(c, struct status_ask, call);
	struct node_status *s = a->status;

	s->err = c->err;
	if (c->err == OK)
		s->err = node_status_decode(c->answer.bytes, s);
	if (s->err != OK) {
		s->ready = s->disk_ok = false;
		snprintf(s->why, sizeof s->why, "%s", err_text(s->err));
	}
	slice_unref(&c->answer);
	mem_free(a);
	s->done(s);
}

void node_ask_status(struct node_status *s)
{
	struct node *n = s->of;
	struct status_ask *a = mem_new(sizeof *a);

	s->to = loop_here();
	a->status = s;
	if (s->node == (uint32_t)n->conf.id) {
		a->msg.run = status_here;
		loop_post(n->home, &a->msg);
	} else if (n->peers == NULL) {
		s->err = ERR_UNAVAILABLE;
		snprintf(s->why, sizeof s->why, "%s", err_text(s->err));
		a->msg.run = status_home;
		loop_post(s->to, &a->msg);
	} else {
		a->call = (struct peer_call){.to = s->node,
			.op = PEER_OP_STATUS,
			.group = META_GROUP_ID,
			.timeout_ms = STATUS_TIMEOUT_MS,
			.done = status_answered};
		peer_call(n->peers, &a->call);
	}
}

static void on_status(void *arg, struct peer_request *r)
{
	const struct node *n = arg;
	struct node_status s = {.of = arg};
	struct slice part;
	struct buf b;

	if (r->loop != n->home) { /* another group than the catalogue's was named */
		peer_answer(r, LANE_HIGH, ERR_MALFORMED, NULL, 0);
		return;
	}
	fill(arg, &s);
	buf_init(&b, 4096);
	encode(&s, &b);
	part = buf_share(&b);
	buf_fini(&b);
	peer_answer(r, LANE_HIGH, OK, &part, 1);
}

void node_status_serve(struct node *n)
{
	peers_serve(n->peers, PEER_OP_STATUS, on_status, n);
}

void node_count_connections(struct node *n, int64_t (*count)(void *arg), void *arg)
{
	n->connections = count;
	n->connections_arg = arg;
}

/* --- stepping aside --- */

struct aside {
	struct loop_msg msg;
	struct partition *partition; /* share */
};

static void aside_one(struct loop_msg *m)
{
	struct aside *a = list_entry(m, struct aside, msg);

	if (partition_leads(a->partition))
		partition_step_aside(a->partition, 0);
	partition_unref(a->partition);
	mem_free(a);
}

/* A member that votes and answers, beside this node. */
static bool other_can_lead(const struct node *n, const struct meta_place *row)
{
	for (int i = 0; i < row->voter_count; i++) {
		uint64_t id = row->members[i] >> 32;
		const struct model_node *m = map_get_u64(&n->nodes, id);

		if (m != NULL && m->up && id != (uint64_t)n->conf.id)
			return true;
	}
	return false;
}

static int led_here(struct node *n, bool tell)
{
	struct group *g;
	int count = 0;

	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		const struct model_place *p = map_get_u64(&n->places, g->id);
		struct aside *a;

		if (!g->ready || p == NULL || !partition_leads(g->partition) ||
			!other_can_lead(n, &p->row))
			continue;
		count++;
		if (!tell)
			continue;
		a = mem_new(sizeof *a);
		a->partition = partition_ref(g->partition);
		a->msg.run = aside_one;
		loop_post(partition_home(g->partition), &a->msg);
	}
	return count;
}

/* A group may have come to be led here meanwhile, or its others were not in sync yet: told again.
 */
void node_aside_tick(struct node *n)
{
	int64_t now_ms = loop_now_ms(n->home);
	bool tell = now_ms - n->aside_ms >= ASIDE_AGAIN_MS;

	if (atomic_load(&n->aside) != 1)
		return;
	if (led_here(n, tell) == 0)
		atomic_store(&n->aside, 2);
	else if (tell)
		n->aside_ms = now_ms;
}

static void aside_begin(void *arg)
{
	struct node *n = arg;

	atomic_store(&n->aside, 1);
	n->aside_ms = loop_now_ms(n->home);
	if (led_here(n, true) == 0)
		atomic_store(&n->aside, 2);
	else
		loop_timer_set(&n->timer, 0);
}

void node_step_aside(struct node *n, int64_t timeout_ms)
{
	struct timespec nap = {0, NAP_MS * 1000000};
	int64_t until = clock_ms() + timeout_ms;

	must(loop_here() == NULL);
	if (node_alone(n) || !node_ready(n))
		return;
	loop_call(n->home, aside_begin, n);
	while (atomic_load(&n->aside) != 2 && clock_ms() < until)
		nanosleep(&nap, NULL);
}
