/* The rows of the catalogue as bytes. Pure; what does not decode is ERR_MALFORMED, whole.
 *
 *	c        version 2, id 16, tables 4, next group 8, founded 8, next incarnation 4
 *	s/NAME   version 1, uuid 16, created 8, replicas 2, log family 1,
 *	         settings 2 {key length 1, key, value length 2, value}, partitions 4 {group 8}
 *	n/ID     version 1, state 1, instance 16, incarnation floor 4, joined 8,
 *	         name, rack, address {length 2, text}, doors 1 {length 2, text; length 2, text}
 *	g/GROUP  version 1, founders 1 {replica 8}, members 1 {replica 8}, voters 1 */
#include "cluster/meta.h"
#include "server/base/mem.h"

enum { VERSION = 1, CLUSTER_VERSION = 2, DAY_MS = 86400000 };

void meta_cluster_encode(const struct meta_cluster *c, struct buf *out)
{
	buf_add_u8(out, CLUSTER_VERSION);
	buf_add(out, bytes_of(c->id, sizeof c->id));
	buf_add_u32be(out, c->tables);
	buf_add_u64be(out, c->next_group);
	buf_add_u64be(out, (uint64_t)c->founded_ms);
	buf_add_u32be(out, c->next_incarnation);
}

enum err meta_cluster_decode(struct bytes in, struct meta_cluster *out)
{
	struct rd r = rd_over(in);
	struct bytes id;

	if (rd_u8(&r) != CLUSTER_VERSION)
		rd_fail(&r, ERR_MALFORMED);
	id = rd_take(&r, sizeof out->id);
	out->tables = rd_u32be(&r);
	out->next_group = rd_u64be(&r);
	out->founded_ms = (int64_t)rd_u64be(&r);
	out->next_incarnation = rd_u32be(&r);
	if (r.err == OK &&
		(out->tables == 0 || out->tables > META_TABLES_MAX ||
			out->next_group < META_STREAM_FIRST || out->next_incarnation == 0))
		rd_fail(&r, ERR_MALFORMED);
	if (r.err == OK)
		memcpy(out->id, id.at, sizeof out->id);
	return rd_done(&r);
}

void meta_stream_encode(const struct meta_stream *s, struct buf *out)
{
	buf_add_u8(out, VERSION);
	buf_add(out, bytes_of(s->uuid, sizeof s->uuid));
	buf_add_u64be(out, (uint64_t)s->created_ms);
	buf_add_u16be(out, s->replicas);
	buf_add_u8(out, (uint8_t)s->log_family);
	buf_add_u16be(out, (uint16_t)s->setting_count);
	for (int i = 0; i < s->setting_count; i++) {
		struct bytes key = bytes_text(s->settings[i].key);
		struct bytes value = bytes_text(s->settings[i].value);

		buf_add_u8(out, (uint8_t)key.len);
		buf_add(out, key);
		buf_add_u16be(out, (uint16_t)value.len);
		buf_add(out, value);
	}
	buf_add_u32be(out, (uint32_t)s->group_count);
	for (int i = 0; i < s->group_count; i++)
		buf_add_u64be(out, s->groups[i]);
}

static void read_settings(struct rd *r, struct meta_stream *s)
{
	uint32_t count = rd_count(r, rd_u16be(r), 3);

	s->settings = mem_new((count + 1) * sizeof *s->settings);
	for (uint32_t i = 0; i < count && r->err == OK; i++) {
		struct bytes key = rd_take(r, rd_u8(r)), value = rd_take(r, rd_u16be(r));

		if (r->err != OK)
			return;
		s->settings[i].key = mem_text(key.at, key.len);
		s->settings[i].value = mem_text(value.at, value.len);
		s->setting_count++;
	}
}

enum err meta_stream_decode(struct bytes in, struct meta_stream **out)
{
	struct meta_stream *s = mem_new(sizeof *s);
	struct rd r = rd_over(in);
	struct bytes uuid;
	uint32_t count;

	if (rd_u8(&r) != VERSION)
		rd_fail(&r, ERR_MALFORMED);
	uuid = rd_take(&r, sizeof s->uuid);
	s->created_ms = (int64_t)rd_u64be(&r);
	s->replicas = rd_u16be(&r);
	s->log_family = (enum store_family)rd_u8(&r);
	if (!store_family_is_log(s->log_family))
		rd_fail(&r, ERR_MALFORMED);
	read_settings(&r, s);
	count = rd_count(&r, rd_u32be(&r), 8);
	s->groups = mem_new((count + 1) * sizeof *s->groups);
	for (uint32_t i = 0; i < count; i++)
		s->groups[i] = rd_u64be(&r);
	s->group_count = (int)count;
	if (r.err == OK && count == 0)
		rd_fail(&r, ERR_MALFORMED);
	if (rd_done(&r) != OK) {
		meta_stream_free(s);
		return ERR_MALFORMED;
	}
	memcpy(s->uuid, uuid.at, sizeof s->uuid);
	*out = s;
	return OK;
}

void meta_setting_fini(struct stream_setting *s)
{
	mem_free((void *)(uintptr_t)s->key);
	mem_free((void *)(uintptr_t)s->value);
}

void meta_stream_free(struct meta_stream *s)
{
	if (s == NULL)
		return;
	for (int i = 0; i < s->setting_count; i++)
		meta_setting_fini(&s->settings[i]);
	mem_free(s->settings);
	mem_free(s->groups);
	mem_free(s->name);
	mem_free(s);
}

const char *meta_stream_setting(const struct meta_stream *s, const char *key)
{
	for (int i = 0; i < s->setting_count; i++) {
		if (strcmp(s->settings[i].key, key) == 0)
			return s->settings[i].value;
	}
	return NULL;
}

int64_t meta_stream_number(const struct meta_stream *s, const char *key, int64_t otherwise)
{
	const char *value = meta_stream_setting(s, key);
	int64_t n;

	return value != NULL && conf_parse_int(value, &n) == OK ? n : otherwise;
}

enum store_family meta_family(bool compacts, int64_t retention_ms)
{
	if (compacts)
		return FAMILY_LOG_COMPACTED;
	if (retention_ms >= 0 && retention_ms <= DAY_MS)
		return FAMILY_LOG_HOURS;
	if (retention_ms >= 0 && retention_ms <= 31 * (int64_t)DAY_MS)
		return FAMILY_LOG_DAYS;
	return FAMILY_LOG_LONG;
}

/* --- nodes --- */

static void add_text(struct buf *out, const char *text)
{
	struct bytes b = bytes_text(text != NULL ? text : "");

	buf_add_u16be(out, (uint16_t)b.len);
	buf_add(out, b);
}

/* NULL: it is not a text; r has failed. */
static char *read_text(struct rd *r)
{
	struct bytes b = rd_take(r, rd_u16be(r));

	if (r->err == OK && (b.len > META_TEXT_MAX || memchr(b.at, 0, b.len) != NULL))
		rd_fail(r, ERR_MALFORMED);
	return r->err == OK ? mem_text(b.at, b.len) : NULL;
}

void meta_node_encode(const struct meta_node *n, struct buf *out)
{
	buf_add_u8(out, VERSION);
	buf_add_u8(out, (uint8_t)n->state);
	buf_add(out, bytes_of(n->instance, sizeof n->instance));
	buf_add_u32be(out, n->incarnation_min);
	buf_add_u64be(out, (uint64_t)n->joined_ms);
	add_text(out, n->name);
	add_text(out, n->rack);
	add_text(out, n->address);
	buf_add_u8(out, (uint8_t)n->door_count);
	for (int i = 0; i < n->door_count; i++) {
		add_text(out, n->doors[i].key);
		add_text(out, n->doors[i].value);
	}
}

static void read_doors(struct rd *r, struct meta_node *n)
{
	uint32_t count = rd_count(r, rd_u8(r), 4);

	if (count > META_DOORS_MAX)
		rd_fail(r, ERR_MALFORMED);
	if (r->err != OK)
		return;
	n->doors = mem_new((count + 1) * sizeof *n->doors);
	for (uint32_t i = 0; i < count && r->err == OK; i++) {
		char *key = read_text(r), *value = read_text(r);

		n->doors[n->door_count++] = (struct stream_setting){key, value};
	}
}

enum err meta_node_decode(struct bytes in, struct meta_node **out)
{
	struct meta_node *n = mem_new(sizeof *n);
	struct rd r = rd_over(in);
	struct bytes instance;
	uint8_t state;

	if (rd_u8(&r) != VERSION)
		rd_fail(&r, ERR_MALFORMED);
	state = rd_u8(&r);
	if (state > NODE_REMOVED)
		rd_fail(&r, ERR_MALFORMED);
	n->state = (enum node_state)state;
	instance = rd_take(&r, sizeof n->instance);
	n->incarnation_min = rd_u32be(&r);
	n->joined_ms = (int64_t)rd_u64be(&r);
	n->name = read_text(&r);
	n->rack = read_text(&r);
	n->address = read_text(&r);
	read_doors(&r, n);
	if (rd_done(&r) != OK) {
		meta_node_free(n);
		return ERR_MALFORMED;
	}
	memcpy(n->instance, instance.at, sizeof n->instance);
	*out = n;
	return OK;
}

void meta_node_free(struct meta_node *n)
{
	if (n == NULL)
		return;
	for (int i = 0; i < n->door_count; i++)
		meta_setting_fini(&n->doors[i]);
	mem_free(n->doors);
	mem_free(n->name);
	mem_free(n->rack);
	mem_free(n->address);
	mem_free(n);
}

/* --- places --- */

void meta_place_encode(const struct meta_place *p, struct buf *out)
{
	buf_add_u8(out, VERSION);
	buf_add_u8(out, (uint8_t)p->founder_count);
	for (int i = 0; i < p->founder_count; i++)
		buf_add_u64be(out, p->founders[i]);
	buf_add_u8(out, (uint8_t)p->member_count);
	for (int i = 0; i < p->member_count; i++)
		buf_add_u64be(out, p->members[i]);
	buf_add_u8(out, (uint8_t)p->voter_count);
}

static int read_replicas(struct rd *r, uint64_t *out)
{
	uint32_t count = rd_count(r, rd_u8(r), 8);

	if (r->err == OK && (count == 0 || count > META_MEMBERS_MAX))
		rd_fail(r, ERR_MALFORMED);
	for (uint32_t i = 0; i < count && r->err == OK; i++) {
		out[i] = rd_u64be(r);
		if (out[i] >> 32 == 0 || (uint32_t)out[i] == 0)
			rd_fail(r, ERR_MALFORMED);
	}
	return (int)count;
}

enum err meta_place_decode(struct bytes in, struct meta_place *out)
{
	struct rd r = rd_over(in);

	if (rd_u8(&r) != VERSION)
		rd_fail(&r, ERR_MALFORMED);
	out->founder_count = read_replicas(&r, out->founders);
	out->member_count = read_replicas(&r, out->members);
	out->voter_count = rd_u8(&r);
	if (r.err == OK && (out->voter_count == 0 || out->voter_count > out->member_count))
		rd_fail(&r, ERR_MALFORMED);
	return rd_done(&r);
}

uint64_t meta_place_on(const struct meta_place *p, uint32_t node)
{
	for (int i = 0; i < p->member_count; i++) {
		if (p->members[i] >> 32 == node)
			return p->members[i];
	}
	return 0;
}

bool meta_place_founded_by(const struct meta_place *p, uint64_t replica)
{
	for (int i = 0; i < p->founder_count; i++) {
		if (p->founders[i] == replica)
			return true;
	}
	return false;
}

void meta_docs_encode(const struct meta_docs *d, uint8_t out[META_DOCS_BYTES])
{
	put_u32be(out, d->count);
	put_u64be(out + 4, d->bytes);
	put_u64be(out + 12, d->changes);
}

enum err meta_docs_decode(struct bytes in, struct meta_docs *out)
{
	struct rd r = rd_over(in);

	out->count = rd_u32be(&r);
	out->bytes = rd_u64be(&r);
	out->changes = rd_u64be(&r);
	return rd_done(&r);
}
