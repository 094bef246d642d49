/* What administrators ask for is rare and small, so everything is read from the catalogue in force
 * and from the counters partitions keep for any thread; nothing is kept here. Routes are compiled
 * anew for each question, from the same sources in the same order as the shards' own tables. */
#include "server/broker/admin.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/map.h"
#include "server/base/mem.h"
#include "server/broker/broker_priv.h"
#include "server/broker/keyspace.h"
#include "server/broker/retained.h"
#include "server/broker/topic.h"

enum { BATCH_ROOM = 65536, RETAINED_READ_BYTES = 1 << 26 };
static const char route_prefix[] = "route.";
static const char default_route[] = "# -> mqtt";

/* ---- looking */

void admin_partition(const struct stream *s, int index, struct admin_partition *out)
{
	const struct partition *p = s->partitions[index];

	*out = (struct admin_partition){
		.group = partition_group(p),
		.first_offset = partition_first_offset(p),
		.next_offset = partition_high_watermark(p),
		.bytes = partition_bytes(p),
		.epoch = partition_epoch(p),
		.leads = partition_leads(p),
	};
}

/* A route's key, in the file and among the settings, behind "route.". */
struct route_key_text {
	char text[sizeof route_prefix + TENANT_NAME_MAX + 256];
};

static const char *route_key_of(struct bytes tenant, const char *name, struct route_key_text *out)
{
	(void)snprintf(out->text, sizeof out->text, "%s%.*s%s%s", route_prefix, (int)tenant.len,
		(const char *)tenant.at, tenant.len > 0 ? "/" : "", name);
	return out->text;
}

static bool conf_route(
	const struct shard *s, const char *key, const char *name, struct admin_route *out)
{
	const struct conf_named *set = &shard_conf(s)->routes;

	for (int i = 0; i < set->count; i++)
		if (strcmp(set->pairs[i].name, key + sizeof route_prefix - 1) == 0) {
			*out = (struct admin_route){
				set->pairs[i].name + strlen(set->pairs[i].name) - strlen(name),
				set->pairs[i].value, ROUTE_OF_CONF};
			return true;
		}
	return false;
}

static bool cluster_route(
	const struct shard *s, const char *key, const char *name, struct admin_route *out)
{
	const struct catalog *c = shard_catalog(s);
	const char *held, *value;
	int at = catalog_setting_seek(c, key);

	if (!catalog_setting_next(c, &at, &held, &value) || strcmp(held, key) != 0)
		return false;
	*out = (struct admin_route){held + strlen(held) - strlen(name), value, ROUTE_OF_CLUSTER};
	return true;
}

bool admin_route_next(struct shard *s, struct bytes tenant, int *i, struct admin_route *out)
{
	struct routes *rs = space_routes(shard_conf(s), shard_catalog(s), tenant, false);
	bool more = *i < routes_count(rs);

	if (more) {
		const char *name = routes_at(rs, *i)->name;
		struct route_key_text key;
		if (!cluster_route(s, route_key_of(tenant, name, &key), name, out) &&
			!conf_route(s, key.text, name, out))
			*out = (struct admin_route){"default", default_route, ROUTE_BUILT_IN};
		(*i)++;
	}
	routes_free(rs);
	return more;
}

static int64_t resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	long long total, resident = -1;

	if (f == NULL)
		return -1;
	if (fscanf(f, "%lld %lld", &total, &resident) != 2)
		resident = -1;
	fclose(f);
	return resident < 0 ? -1 : resident * sysconf(_SC_PAGESIZE);
}

static int64_t open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	int64_t count = -3; /* ".", ".." and the folder itself */

	if (d == NULL)
		return -1;
	while (readdir(d) != NULL)
		count++;
	closedir(d);
	return count;
}

static void add_process(struct admin_node *out)
{
	struct rusage u;

	out->memory_bytes = resident_bytes();
	out->files = open_files();
	if (getrusage(RUSAGE_SELF, &u) == 0)
		out->cpu_us = (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
			u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

void admin_node(struct shard *s, struct admin_node *out)
{
	const struct catalog *c = shard_catalog(s);
	const struct node *n = shard_node(s);
	const struct node_conf *conf = node_conf(n);
	struct admin_partition p;

	*out = (struct admin_node){.id = conf->id,
		.name = conf->name,
		.rack = conf->rack,
		.cluster_name = conf->cluster_name,
		.cluster_id = node_cluster_id(n),
		.ready = broker_ready(shard_broker(s)),
		.loops = loops_count(loop_all(shard_loop(s)))};
	add_process(out);
	if (c == NULL)
		return;
	out->catalog_version = catalog_version(c);
	out->streams = catalog_stream_count(c);
	out->tables = catalog_table_count(c);
	for (int i = 0; i < out->tables; i++)
		out->tables_leading += partition_leads(catalog_table_at(c, i));
	for (int i = 0; i < out->streams; i++) {
		const struct stream *stream = catalog_stream_at(c, i);
		for (int k = 0; k < stream->partition_count; k++) {
			admin_partition(stream, k, &p);
			out->partitions++;
			out->leading += p.leads;
			out->records += p.next_offset - p.first_offset;
			out->bytes += p.bytes;
		}
	}
}

/* ---- one record */

struct partition *admin_choose(const struct stream *s, const struct bytes *key, int *index)
{
	uint64_t n;

	if (s->partition_count == 0)
		return NULL;
	/* Kafka's clients clear the sign before they divide. */
	n = key != NULL ? hash_murmur2(*key) & 0x7fffffff : random_u64();
	*index = (int)(n % (uint64_t)s->partition_count);
	return s->partitions[*index];
}

static void produced(struct produce *produce)
{
	struct admin_produce *p = list_entry(produce, struct admin_produce, produce);

	p->err = produce->err;
	p->offset = produce->base_offset;
	if (produce->append_ms >= 0)
		p->timestamp_ms = produce->append_ms;
	p->done(p);
}

enum err admin_produce(struct admin_produce *p, struct shard *s, const struct stream *to,
	const struct admin_record *r)
{
	struct partition *partition;
	struct slice batch;
	enum err e;

	p->partition = (int)r->partition;
	p->timestamp_ms = r->timestamp_ms;
	partition = r->partition < 0 ? admin_choose(to, r->key, &p->partition)
				     : stream_partition(to, r->partition);
	if (partition == NULL)
		return ERR_RANGE;
	if (r->value != NULL && r->value->len > (size_t)shard_conf(s)->message_bytes_max)
		return ERR_TOOBIG;
	batch_builder_init(&p->builder, (size_t)shard_conf(s)->message_bytes_max + BATCH_ROOM);
	e = batch_builder_add(
		&p->builder, r->timestamp_ms, r->key, r->value, r->headers, r->header_count);
	if (e == OK) {
		batch = batch_builder_seal(&p->builder);
		p->produce.done = produced;
		p->produce.forward = true; /* a client of HTTP knows one node */
		e = produce_start(&p->produce, s, to, partition, batch.bytes);
		slice_unref(&batch);
	}
	batch_builder_fini(&p->builder);
	return e;
}

/* ---- trimming */

struct trim_part {
	struct proposal proposal;
	struct offset_seek seek;
	struct trim_all *all;
};

struct trim_all {
	struct admin_trim shown;
	const struct catalog *held; /* the stream may be deleted meanwhile */
	int left, count;
	struct trim_part parts[];
};

static void part_done(struct trim_part *p, enum err e)
{
	struct trim_all *t = p->all;

	if (e == OK)
		t->shown.parts++;
	else if (t->shown.err == OK)
		t->shown.err = e;
	if (--t->left == 0)
		t->shown.done(&t->shown);
}

static void trimmed(struct proposal *q)
{
	part_done(list_entry(q, struct trim_part, proposal), q->err);
}

static void trim_part(struct trim_part *p, int64_t offset)
{
	int64_t end = partition_high_watermark(p->proposal.to);

	p->proposal.done = trimmed;
	partition_trim(&p->proposal, offset < end ? offset : end);
}

static void sought(struct offset_seek *s)
{
	struct trim_part *p = list_entry(s, struct trim_part, seek);

	if (s->err == ERR_NOTFOUND) /* all are older */
		trim_part(p, INT64_MAX);
	else if (s->err != OK)
		part_done(p, s->err);
	else
		trim_part(p, s->offset);
}

static struct trim_all *trim_new(
	struct shard *s, const struct stream *of, const struct admin_trim_what *what)
{
	int count = what->partition < 0 ? of->partition_count : 1;
	struct trim_all *t = mem_try(sizeof *t + (size_t)count * sizeof(struct trim_part));

	if (t == NULL)
		return NULL;
	memset(t, 0, sizeof *t + (size_t)count * sizeof(struct trim_part));
	t->held = catalog_hold(shard_catalog(s));
	t->left = t->count = count;
	for (int i = 0; i < count; i++) {
		struct partition *to = of->partitions[what->partition < 0 ? i : what->partition];
		t->parts[i].all = t;
		t->parts[i].proposal.to = to;
		t->parts[i].seek = (struct offset_seek){
			.from = to, .time_ms = what->time_ms, .done = sought};
	}
	return t;
}

enum err admin_trim(struct shard *s, const struct stream *of, const struct admin_trim_what *what,
	void (*done)(struct admin_trim *t), void *arg)
{
	struct trim_all *t;
	int count;

	if (what->partition >= of->partition_count || of->partition_count == 0)
		return ERR_RANGE;
	t = trim_new(s, of, what);
	if (t == NULL)
		return ERR_NOMEM;
	t->shown.done = done;
	t->shown.arg = arg;
	count = t->count;
	for (int i = 0; i < count; i++)
		if (what->time_ms >= 0)
			partition_seek(&t->parts[i].seek);
		else
			trim_part(&t->parts[i], what->offset);
	return OK;
}

void admin_trim_free(struct admin_trim *shown)
{
	struct trim_all *t = list_entry(shown, struct trim_all, shown);

	catalog_release(t->held);
	mem_free(t);
}

/* ---- retained */

static void retained_read(struct row_read *read)
{
	struct admin_retained *r = list_entry(read, struct admin_retained, read);

	r->err = read->err;
	if (r->err == OK && read->count == 0)
		r->err = ERR_NOTFOUND;
	if (r->err == OK)
		r->err = retained_row_decode(
			r->topic, read->rows[0].value, &r->message, &r->offset);
	if (r->err == OK && r->message.expires_at_ms > 0 &&
		r->message.expires_at_ms <= clock_wall_ms())
		r->err = ERR_NOTFOUND;
	r->done(r);
}

/* The partition whose rows hold the topic's retained value: where its records go. */
static enum err retained_home(
	struct shard *s, struct bytes tenant, struct bytes topic, struct partition **out)
{
	struct routes *rs = space_routes(shard_conf(s), shard_catalog(s), tenant, false);
	int number = routes_find(rs, topic), index;
	struct tenant_stream name;
	const struct stream *stream;
	struct bytes key;
	enum err e = ERR_NOTFOUND;

	if (number >= 0 &&
		tenant_stream(tenant, bytes_text(routes_at(rs, number)->stream), &name) == OK) {
		stream = catalog_stream(shard_catalog(s), bytes_of(name.text, name.len));
		key = route_key(routes_at(rs, number), topic);
		*out = stream == NULL ? NULL : admin_choose(stream, &key, &index);
		e = *out == NULL ? ERR_UNAVAILABLE : OK;
	}
	routes_free(rs);
	return e;
}

enum err admin_retained(struct admin_retained *r, struct shard *s)
{
	struct partition *home;
	enum err e;

	if (!topic_name_valid(r->topic))
		return ERR_INVALID;
	e = retained_home(s, r->tenant, r->topic, &home);
	if (e != OK)
		return e;
	r->read = (struct row_read){.from = home,
		.keyspace = KEYSPACE_RETAINED,
		.linearizable = true,
		.key = r->topic,
		.rows_max = 1,
		.bytes_max = RETAINED_READ_BYTES,
		.done = retained_read};
	partition_read_rows(&r->read);
	return OK;
}

void admin_retained_fini(struct admin_retained *r)
{
	row_read_fini(&r->read);
}
