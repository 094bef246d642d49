/* Consumer groups: who is in them, how far they have read, where they go on. A group is known where
 * its table is led: another node's are listed from their rows, without a state, and who asks more
 * of them is sent there. Offsets and the ends of partitions are asked of whoever has them. */
#include <stdio.h>
#include "protocols/http/http_priv.h"
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "server/broker/admin_cluster.h"
#include "server/broker/group_home.h"
#include "server/broker/keyspace.h"
#include "server/broker/stream.h"

enum { PAGE_ROWS = 1000, PAGE_BYTES = 1 << 20, GROUP_ID_MAX = 32767, OFFSETS_MAX = 100000 };

static struct groups *groups_of(const struct exchange *x)
{
	return x->http->env.groups;
}

/* The answer to what a group can't do. */
static void answer_group_err(struct exchange *x, enum group_err e)
{
	switch (e) {
	case GROUP_NOT_FOUND: answer_error(x, 404, "not_found", "there is no such group"); break;
	case GROUP_NOT_EMPTY:
	case GROUP_SUBSCRIBED:
	case GROUP_REBALANCING:
	case GROUP_UNKNOWN_MEMBER:
	case GROUP_OLD_GENERATION:
	case GROUP_FENCED_INSTANCE:
		answer_error(x, 409, "conflict", "the group has members: stop them first");
		break;
	case GROUP_BAD_ID: answer_error(x, 400, "invalid", "no valid name of a group"); break;
	case GROUP_OK:
	case GROUP_BAD_TIMEOUT:
	case GROUP_BAD_PROTOCOL:
	case GROUP_ID_REQUIRED:
	case GROUP_FULL:
	case GROUP_METADATA_TOOBIG:
	case GROUP_NOT_HERE:
	case GROUP_UNAVAILABLE:
	case GROUP_ERR_COUNT: answer_err(x, ERR_UNAVAILABLE, NULL); break;
	}
}

/* To the node that leads the group's table, by its own HTTP door. */
static void send_there(struct exchange *x, const struct partition *table)
{
	const struct catalog *c = shard_catalog(x->shard);
	uint32_t node = place_leader(x->shard, table);
	const struct cluster_node *n = c != NULL && node != 0 ? catalog_node(c, node) : NULL;
	bool tls = !x->gone && conn_is_tls(x->conn), local = !x->gone && conn_is_local(x->conn);
	const char *at = n == NULL ? "" : cluster_node_door(n, tls ? "https" : "http");

	if (at == NULL || *at == 0 || local) {
		answer_error(x, 503, "unavailable", "node %u coordinates this group: ask it", node);
		return;
	}
	buf_addf(&x->extra, "Location: %s://%.*s%.*s%s%.*s\r\n", tls ? "https" : "http",
		(int)strcspn(at, ","), at, (int)x->path.len, (const char *)x->path.at,
		x->query.len > 0 ? "?" : "", (int)x->query.len, (const char *)x->query.at);
	answer_error(x, 307, "elsewhere", "node %u coordinates this group: ask it at %.*s", node,
		(int)strcspn(at, ","), at);
}

/* ---- listing */

struct group_list { /* table by table */
	struct group_call call;
	struct row_read rows;
	struct exchange *x;
	const struct catalog *held;
	struct json json;
	int table;
	struct buf after;
	enum err err;
};

static void list_next(struct group_list *l);

static void list_one(struct group_list *l, struct bytes full, const char *state, struct bytes type,
	uint32_t node)
{
	struct exchange *x = l->x;
	struct bytes tenant, id;

	tenant_id_split(full, &tenant, &id);
	if (!bytes_equal(tenant, access_tenant(x->access)) ||
		!exchange_may(x, ACTION_DESCRIBE, RESOURCE_GROUP, id))
		return;
	json_open(&l->json, NULL, '{');
	json_bytes(&l->json, "group", id);
	if (state != NULL)
		json_text(&l->json, "state", state);
	else
		json_null(&l->json, "state");
	json_bytes(&l->json, "type", type);
	json_int(&l->json, "node", node);
	json_close(&l->json, '}');
}

static void list_rows_ask(struct group_list *l);

static void list_rows_read(struct row_read *r)
{
	struct group_list *l = list_entry(r, struct group_list, rows);
	uint32_t node = place_leader(l->x->shard, r->from);
	bool more = r->err == OK && r->more && r->count > 0;

	if (r->err != OK && r->err != ERR_NOTFOUND)
		l->err = r->err;
	for (int i = 0; i < r->count; i++) {
		struct group_row row;
		if (group_row_read(r->rows[i].value, &row) == OK)
			list_one(l, r->rows[i].key, NULL, row.protocol_type, node);
	}
	buf_clear(&l->after);
	if (more)
		buf_add(&l->after, r->rows[r->count - 1].key);
	row_read_fini(r);
	if (more)
		list_rows_ask(l);
	else
		list_next(l);
}

static void list_rows_ask(struct group_list *l)
{
	l->rows = (struct row_read){.from = catalog_table_at(l->held, l->table - 1),
		.keyspace = KEYSPACE_GROUP,
		.prefix = true,
		.linearizable = true,
		.after = buf_bytes(&l->after),
		.rows_max = PAGE_ROWS,
		.bytes_max = PAGE_BYTES,
		.done = list_rows_read};
	partition_read_rows(&l->rows);
}

static void listed(struct group_call *c)
{
	struct group_list *l = list_entry(c, struct group_list, call);
	uint32_t node = place_leader(l->x->shard, c->table);
	enum group_err e = c->err;

	for (uint32_t i = 0; e == GROUP_OK && i < c->listed_count; i++) {
		const struct group_listed *g = &c->listed[i];
		list_one(l, g->id.bytes, group_state_name(g->state), g->type.bytes, node);
	}
	group_call_fini(c);
	if (e == GROUP_OK) {
		list_next(l);
		return;
	}
	list_rows_ask(l);
}

static void list_next(struct group_list *l)
{
	struct exchange *x = l->x;

	if (l->err == OK && !x->gone && l->table < catalog_table_count(l->held)) {
		l->call = (struct group_call){.kind = GROUP_CALL_LIST,
			.table = catalog_table_at(l->held, l->table++),
			.done = listed};
		group_call(groups_of(x), l->held, &l->call);
		return;
	}
	json_close(&l->json, ']');
	json_close(&l->json, '}');
	enum err e = l->err;
	catalog_release(l->held);
	buf_fini(&l->after);
	mem_free(l);
	if (e != OK)
		answer_err(x, e, NULL);
	else
		answer_json(x, 200);
}

void api_groups(struct exchange *x)
{
	const struct catalog *c = exchange_catalog(x);
	struct group_list *l;

	if (c == NULL)
		return;
	l = mem_new(sizeof *l);
	l->x = x;
	l->held = catalog_hold(c);
	l->json = json_over(&x->out);
	buf_init(&l->after, GROUP_ID_MAX + TENANT_ID_EXTRA + 1);
	json_open(&l->json, NULL, '{');
	json_open(&l->json, "groups", '[');
	list_next(l);
}

/* ---- one group */

struct group_op {
	struct group_call call;
	struct offsets_read read;
	struct exchange *x;
	const struct catalog *held;
	uint8_t *room; /* of the id */
	struct bytes id;
	struct admin_look *look;
	/* Where it goes on: */
	cJSON *json;
	const struct stream *stream;
	int64_t time_ms, offset; /* -1: not by that */
	bool latest, dry;
	int first, count; /* of the stream's partitions */
	struct group_offset *offsets;
	struct seek {
		struct offset_seek seek;
		struct group_op *op;
	} * seeks;
	int outstanding;
	enum err err;
};

static void op_free(struct group_op *op)
{
	if (op->look != NULL)
		admin_look_free(op->look);
	catalog_release(op->held);
	cJSON_Delete(op->json);
	mem_free(op->offsets);
	mem_free(op->seeks);
	mem_free(op->room);
	mem_free(op);
}

static struct group_op *op_new(struct exchange *x)
{
	const struct catalog *c = exchange_catalog(x);
	struct bytes id = x->params[0];
	struct group_op *op;

	if (c == NULL)
		return NULL;
	op = mem_new(sizeof *op);
	op->x = x;
	op->held = catalog_hold(c);
	op->room = mem_new(id.len + TENANT_ID_EXTRA);
	op->id = tenant_id(access_tenant(x->access), id, op->room);
	op->time_ms = op->offset = -1;
	return op;
}

static void op_call(
	struct group_op *op, enum group_call_kind kind, void (*done)(struct group_call *c))
{
	op->call = (struct group_call){.kind = kind, .group_id = op->id, .done = done};
	group_call(groups_of(op->x), op->held, &op->call);
}

/* Whether the call went well; if not it is answered, and op is gone. */
static bool op_fine(struct group_op *op)
{
	enum group_err e = op->call.err;

	if (e == GROUP_OK)
		return true;
	if (e == GROUP_NOT_HERE)
		send_there(op->x, op->call.table);
	else
		answer_group_err(op->x, e);
	group_call_fini(&op->call);
	op_free(op);
	return false;
}

/* ---- describing */

static void add_members(struct json *j, const struct group_call *c)
{
	json_open(j, "members", '[');
	for (uint32_t i = 0; i < c->member_count; i++) {
		const struct group_member_view *m = &c->members[i];
		json_open(j, NULL, '{');
		json_bytes(j, "member", m->id.bytes);
		if (m->instance.bytes.len > 0)
			json_bytes(j, "instance", m->instance.bytes);
		json_bytes(j, "client", m->client_id.bytes);
		json_bytes(j, "host", m->client_host.bytes);
		json_close(j, '}');
	}
	json_close(j, ']');
}

/* The partition as its leader sees it: they were asked for in order of what was found. */
static const struct admin_replicas *looked_at(
	const struct group_op *op, const struct partition *p, int *from)
{
	for (int i = *from; op->look != NULL && i < op->look->count; i++)
		if (op->look->of[i].group.partition == p) {
			*from = i + 1;
			return &op->look->of[i];
		}
	return NULL;
}

static const struct stream *seen_stream(
	const struct group_op *op, const struct offsets_found *f, struct bytes *name)
{
	const struct stream *s = catalog_stream_by_uuid(op->held, f->stream);

	return s != NULL && access_sees(op->x->access, s, name) &&
			exchange_may(op->x, ACTION_DESCRIBE, RESOURCE_STREAM, *name)
		? s
		: NULL;
}

static void add_offsets(struct json *j, const struct group_op *op)
{
	int from = 0;

	json_open(j, "offsets", '[');
	for (uint32_t i = 0; i < op->read.count; i++) {
		const struct offsets_found *f = &op->read.found[i];
		struct bytes name;
		const struct stream *s = seen_stream(op, f, &name);
		struct partition *p = s == NULL ? NULL : stream_partition(s, f->partition);
		const struct admin_replicas *r = p == NULL ? NULL : looked_at(op, p, &from);
		char when[32];
		if (r == NULL)
			continue;
		clock_text(f->commit_ms, when);
		json_open(j, NULL, '{');
		json_bytes(j, "stream", name);
		json_int(j, "partition", f->partition);
		json_int(j, "offset", f->offset);
		json_int(j, "end_offset", r->next_offset);
		json_int(j, "lag", r->next_offset > f->offset ? r->next_offset - f->offset : 0);
		json_text(j, "committed", when);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void describe_answer(struct group_op *op)
{
	struct exchange *x = op->x;
	struct json j = json_over(&x->out);

	json_open(&j, NULL, '{');
	json_bytes(&j, "group", x->params[0]);
	json_text(&j, "state", group_state_name(op->call.state));
	json_bytes(&j, "type", op->call.type.bytes);
	json_bytes(&j, "protocol", op->call.protocol.bytes);
	json_int(&j, "node", place_leader(x->shard, op->call.table));
	add_members(&j, &op->call);
	add_offsets(&j, op);
	json_close(&j, '}');
	offsets_read_fini(&op->read);
	group_call_fini(&op->call);
	op_free(op);
	answer_json(x, 200);
}

static void describe_looked(struct admin_look *l)
{
	struct group_op *op = l->arg;

	op->look = l;
	describe_answer(op);
}

static void describe_fail(struct group_op *op, enum err e, const char *why)
{
	struct exchange *x = op->x;

	offsets_read_fini(&op->read);
	group_call_fini(&op->call);
	op_free(op);
	answer_err(x, e, why);
}

static void offsets_found(struct offsets_read *r)
{
	struct group_op *op = list_entry(r, struct group_op, read);
	struct admin_group *groups;
	int count = 0;
	enum err e;

	if (r->err != GROUP_OK) {
		describe_fail(op, ERR_UNAVAILABLE, NULL);
		return;
	}
	if (op->call.state == GROUP_DEAD && r->count == 0) {
		describe_fail(op, ERR_NOTFOUND, "there is no such group");
		return;
	}
	groups = mem_try(((size_t)r->count + 1) * sizeof *groups);
	for (uint32_t i = 0; groups != NULL && i < r->count && count < OFFSETS_MAX; i++) {
		struct bytes name;
		const struct stream *s = seen_stream(op, &r->found[i], &name);
		struct partition *p = s == NULL ? NULL : stream_partition(s, r->found[i].partition);
		if (p != NULL)
			groups[count++] = (struct admin_group){s->name, r->found[i].partition, p};
	}
	if (groups != NULL && count == 0) {
		mem_free(groups);
		describe_answer(op);
		return;
	}
	e = groups == NULL ? ERR_NOMEM
			   : admin_look(op->x->shard, groups, count, describe_looked, op);
	mem_free(groups);
	if (e != OK)
		describe_fail(op, e, NULL);
}

static void described(struct group_call *c)
{
	struct group_op *op = list_entry(c, struct group_op, call);

	if (!op_fine(op))
		return;
	op->read.done = offsets_found;
	offsets_read(&op->read, op->held, op->id);
}

void api_group(struct exchange *x)
{
	struct group_op *op = op_new(x);

	if (op != NULL)
		op_call(op, GROUP_CALL_DESCRIBE, described);
}

/* ---- deleting */

static void group_gone(struct group_call *c)
{
	struct group_op *op = list_entry(c, struct group_op, call);
	struct exchange *x = op->x;

	if (c->err != GROUP_NOT_HERE)
		exchange_audit(x, "group-delete", x->params[0],
			c->err == GROUP_OK ? OK : ERR_CONFLICT, NULL);
	if (!op_fine(op))
		return;
	group_call_fini(c);
	op_free(op);
	answer_empty(x, 204);
}

/* Tried only: whether it could go. */
static void group_could_go(struct group_call *c)
{
	struct group_op *op = list_entry(c, struct group_op, call);
	struct exchange *x = op->x;

	if (!op_fine(op))
		return;
	if (c->state == GROUP_DEAD)
		answer_group_err(x, GROUP_NOT_FOUND);
	else if (c->member_count > 0)
		answer_group_err(x, GROUP_NOT_EMPTY);
	else
		answer_tried(x);
	group_call_fini(c);
	op_free(op);
}

void api_group_delete(struct exchange *x)
{
	struct group_op *op;
	bool dry = false;

	if (request_query_bool(x, "dry_run", &dry) != OK) {
		answer_error(x, 400, "invalid", "dry_run must be true or false");
		return;
	}
	op = op_new(x);
	if (op != NULL)
		op_call(op, dry ? GROUP_CALL_DESCRIBE : GROUP_CALL_DELETE,
			dry ? group_could_go : group_gone);
}

/* ---- going on elsewhere */

static void answer_reset(struct group_op *op)
{
	struct exchange *x = op->x;
	struct json j = json_over(&x->out);

	json_open(&j, NULL, '{');
	if (op->dry)
		json_bool(&j, "dry_run", true);
	json_bytes(&j, "group", x->params[0]);
	json_text(&j, "stream", stream_bare(op->stream->name));
	json_open(&j, "offsets", '[');
	for (int i = 0; i < op->count; i++) {
		json_open(&j, NULL, '{');
		json_int(&j, "partition", op->offsets[i].partition);
		json_int(&j, "offset", op->offsets[i].offset);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
	op_free(op);
	answer_json(x, 200);
}

static void reset_committed(struct group_call *c)
{
	struct group_op *op = list_entry(c, struct group_op, call);
	enum group_err e = c->err;

	for (uint32_t i = 0; e == GROUP_OK && i < c->offset_count; i++)
		e = c->offsets[i].err;
	c->err = e;
	if (e != GROUP_NOT_HERE)
		exchange_audit(op->x, "group-reset", op->x->params[0],
			e == GROUP_OK ? OK : ERR_CONFLICT, stream_bare(op->stream->name));
	if (!op_fine(op))
		return;
	group_call_fini(c);
	answer_reset(op);
}

static void reset_commit(struct group_op *op)
{
	if (op->err != OK) {
		struct exchange *x = op->x;
		enum err e = op->err;
		op_free(op);
		answer_err(x, e, e == ERR_RANGE ? "a partition does not have that offset" : NULL);
	} else if (op->dry) {
		answer_reset(op);
	} else {
		op->call = (struct group_call){.kind = GROUP_CALL_COMMIT,
			.group_id = op->id,
			.generation = -1,
			.offsets = op->offsets,
			.offset_count = (uint32_t)op->count,
			.done = reset_committed};
		group_call(groups_of(op->x), op->held, &op->call);
	}
}

static void sought(struct offset_seek *s)
{
	struct seek *one = list_entry(s, struct seek, seek);
	struct group_op *op = one->op;

	if (s->err == OK)
		op->offsets[one - op->seeks].offset = s->offset;
	else if (s->err != ERR_NOTFOUND) /* none that young: the end, as it is */
		op->err = s->err;
	if (--op->outstanding == 0)
		reset_commit(op);
}

static void reset_looked(struct admin_look *l)
{
	struct group_op *op = l->arg;

	op->look = l;
	for (int i = 0; i < op->count; i++) {
		const struct admin_replicas *r = &l->of[i];
		struct group_offset *o = &op->offsets[i];
		o->offset = op->latest || op->time_ms >= 0 ? r->next_offset : r->first_offset;
		if (!r->answered)
			op->err = ERR_UNAVAILABLE;
		if (op->offset >= 0) {
			o->offset = op->offset;
			if (op->offset < r->first_offset || op->offset > r->next_offset)
				op->err = ERR_RANGE;
		}
	}
	if (op->err != OK || op->time_ms < 0) {
		reset_commit(op);
		return;
	}
	op->seeks = mem_new((size_t)op->count * sizeof *op->seeks);
	op->outstanding = op->count;
	for (int i = 0; i < op->count; i++) {
		op->seeks[i].op = op;
		op->seeks[i].seek = (struct offset_seek){
			.from = l->of[i].group.partition, .time_ms = op->time_ms, .done = sought};
		partition_seek(&op->seeks[i].seek);
	}
}

/* NULL, or what is wrong with the body. */
static const char *reset_read(struct group_op *op)
{
	const cJSON *to = cJSON_GetObjectItemCaseSensitive(op->json, "to");
	const char *stream = NULL;
	int64_t partition = -1;

	if (json_get_text(op->json, "stream", &stream) != OK || stream == NULL)
		return "stream must be a text";
	op->stream = access_stream(op->x->access, bytes_text(stream));
	if (op->stream == NULL)
		return "";
	if (json_get_int(op->json, "partition", &partition) != OK || partition < -1 ||
		partition >= op->stream->partition_count)
		return "no such partition";
	op->first = partition < 0 ? 0 : (int)partition;
	op->count = partition < 0 ? op->stream->partition_count : 1;
	if (json_get_int(op->json, "time", &op->time_ms) != OK || op->time_ms < -1)
		return "time must be milliseconds since 1970";
	if ((to != NULL) == (op->time_ms >= 0))
		return "one of to and time is needed";
	if (to == NULL)
		return NULL;
	if (cJSON_IsNumber(to))
		return json_get_int(op->json, "to", &op->offset) == OK && op->offset >= 0
			? NULL
			: "an offset is a whole number";
	op->latest = cJSON_IsString(to) && strcmp(to->valuestring, "latest") == 0;
	if (op->latest || (cJSON_IsString(to) && strcmp(to->valuestring, "earliest") == 0))
		return NULL;
	return "to is earliest, latest or an offset";
}

static void reset_begin(struct group_op *op)
{
	const struct stream *s = op->stream;
	struct admin_group *groups = mem_new((size_t)op->count * sizeof *groups);
	struct exchange *x = op->x;
	enum err e;

	op->offsets = mem_new((size_t)op->count * sizeof *op->offsets);
	for (int i = 0; i < op->count; i++) {
		int index = op->first + i;
		groups[i] = (struct admin_group){s->name, index, s->partitions[index]};
		op->offsets[i] = (struct group_offset){.partition = index, .epoch = -1};
		memcpy(op->offsets[i].stream, s->uuid, sizeof op->offsets[i].stream);
	}
	e = admin_look(x->shard, groups, op->count, reset_looked, op);
	mem_free(groups);
	if (e != OK) {
		op_free(op);
		answer_err(x, e, NULL);
	}
}

/* Kafka's rule for committing offsets: the group is theirs to read, and the stream, too, whether or
 * not there is one. */
void api_group_reset(struct exchange *x)
{
	cJSON *o = exchange_json(x, "stream partition to time");
	const char *wrong, *stream = NULL;
	struct group_op *op;

	if (o == NULL)
		return;
	bool may = json_get_text(o, "stream", &stream) != OK || stream == NULL ||
		exchange_must(x, ACTION_READ, RESOURCE_STREAM, bytes_text(stream));
	op = may ? op_new(x) : NULL;
	if (op == NULL) {
		cJSON_Delete(o);
		return;
	}
	op->json = o;
	wrong = reset_read(op);
	if (wrong == NULL && request_query_bool(x, "dry_run", &op->dry) != OK)
		wrong = "dry_run must be true or false";
	if (wrong != NULL) {
		bool none = *wrong == 0;
		op_free(op);
		answer_error(x, none ? 404 : 400, none ? "not_found" : "invalid", "%s",
			none ? "no such stream" : wrong);
		return;
	}
	reset_begin(op);
}
