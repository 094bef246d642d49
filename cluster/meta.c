/* Changes of the catalogue are proposals like any other: decided by the leader of the meta group
 * against the rows as they will be, written as whole rows. The stream's row lists the groups of its
 * partitions; groups are numbered by a counter in the cluster's row and never used twice, so a
 * stream that is deleted and created again has nothing of the old one.
 *
 *	c        version 1, id 16, tables 4, next group 8, founded 8
 *	s/NAME   version 1, uuid 16, created 8, replicas 2, log family 1,
 *	         settings 2 {key length 1, key, value length 2, value}, partitions 4 {group 8} */
#include "cluster/meta.h"
#include <stdarg.h>
#include <stdio.h>
#include "server/base/clock.h"
#include "server/base/mem.h"

enum {
	VERSION = 1,
	NAME_MAX = 249,
	KEY_MAX = 255,
	VALUE_MAX = 32768,
	ROW_MAX = 1 << 20,
	DAY_MS = 86400000,
};

static const char cluster_key[] = "c";

/* --- rows --- */

void meta_cluster_encode(const struct meta_cluster *c, struct buf *out)
{
	buf_add_u8(out, VERSION);
	buf_add(out, bytes_of(c->id, sizeof c->id));
	buf_add_u32be(out, c->tables);
	buf_add_u64be(out, c->next_group);
	buf_add_u64be(out, (uint64_t)c->founded_ms);
}

enum err meta_cluster_decode(struct bytes in, struct meta_cluster *out)
{
	struct rd r = rd_over(in);
	struct bytes id;

	if (rd_u8(&r) != VERSION)
		rd_fail(&r, ERR_MALFORMED);
	id = rd_take(&r, sizeof out->id);
	out->tables = rd_u32be(&r);
	out->next_group = rd_u64be(&r);
	out->founded_ms = (int64_t)rd_u64be(&r);
	if (r.err == OK &&
		(out->tables == 0 || out->tables > META_TABLES_MAX ||
			out->next_group < META_STREAM_FIRST))
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

static void setting_fini(struct stream_setting *s)
{
	mem_free((void *)(uintptr_t)s->key);
	mem_free((void *)(uintptr_t)s->value);
}

void meta_stream_free(struct meta_stream *s)
{
	if (s == NULL)
		return;
	for (int i = 0; i < s->setting_count; i++)
		setting_fini(&s->settings[i]);
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

enum store_family meta_family(int64_t retention_ms)
{
	if (retention_ms >= 0 && retention_ms <= DAY_MS)
		return FAMILY_LOG_HOURS;
	if (retention_ms >= 0 && retention_ms <= 31 * (int64_t)DAY_MS)
		return FAMILY_LOG_DAYS;
	return FAMILY_LOG_LONG;
}

/* --- checks --- */

bool meta_name_valid(struct bytes name)
{
	if (name.len == 0 || name.len > NAME_MAX)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		uint8_t c = name.at[i];

		if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
			c != '.' && c != '_' && c != '-')
			return false;
	}
	return !bytes_equal(name, bytes_text(".")) && !bytes_equal(name, bytes_text(".."));
}

enum setting_kind { SETTING_INT, SETTING_BOOL, SETTING_WORD, SETTING_RATIO };

struct setting_row {
	const char *key;
	enum setting_kind kind;
	int64_t min, max;
	const char *words; /* those that are served, between commas */
	const char *known; /* those that exist elsewhere */
};

/* Those of Kafka's topic settings that say something here, or that tools set as a matter of
 * course and that change nothing a client can see. */
static const struct setting_row setting_rows[] = {
	{"retention.ms", SETTING_INT, -1, INT64_MAX, NULL, NULL},
	{"retention.bytes", SETTING_INT, -1, INT64_MAX, NULL, NULL},
	{"max.message.bytes", SETTING_INT, 0, INT32_MAX, NULL, NULL},
	{"cleanup.policy", SETTING_WORD, 0, 0, ",delete,",
		",compact,compact,delete,delete,compact,"},
	{"min.insync.replicas", SETTING_INT, 1, 7, NULL, NULL},
	{"message.timestamp.type", SETTING_WORD, 0, 0, ",CreateTime,LogAppendTime,", NULL},
	{"message.timestamp.difference.max.ms", SETTING_INT, 0, INT64_MAX, NULL, NULL},
	{"compression.type", SETTING_WORD, 0, 0, ",producer,",
		",uncompressed,gzip,snappy,lz4,zstd,"},
	{"unclean.leader.election.enable", SETTING_WORD, 0, 0, ",false,", ",true,"},
	{"segment.bytes", SETTING_INT, 14, INT32_MAX, NULL, NULL},
	{"segment.ms", SETTING_INT, 1, INT64_MAX, NULL, NULL},
	{"segment.jitter.ms", SETTING_INT, 0, INT64_MAX, NULL, NULL},
	{"segment.index.bytes", SETTING_INT, 4, INT32_MAX, NULL, NULL},
	{"index.interval.bytes", SETTING_INT, 0, INT32_MAX, NULL, NULL},
	{"flush.messages", SETTING_INT, 1, INT64_MAX, NULL, NULL},
	{"flush.ms", SETTING_INT, 0, INT64_MAX, NULL, NULL},
	{"delete.retention.ms", SETTING_INT, 0, INT64_MAX, NULL, NULL},
	{"file.delete.delay.ms", SETTING_INT, 0, INT64_MAX, NULL, NULL},
	{"min.compaction.lag.ms", SETTING_INT, 0, INT64_MAX, NULL, NULL},
	{"max.compaction.lag.ms", SETTING_INT, 1, INT64_MAX, NULL, NULL},
	{"min.cleanable.dirty.ratio", SETTING_RATIO, 0, 1, NULL, NULL},
	{"message.downconversion.enable", SETTING_BOOL, 0, 0, NULL, NULL},
	{"preallocate", SETTING_BOOL, 0, 0, NULL, NULL},
};

static bool word_in(const char *words, const char *value)
{
	size_t len = strlen(value);

	for (const char *at = words; at != NULL && (at = strstr(at, value)) != NULL; at += len) {
		if (at > words && at[-1] == ',' && at[len] == ',' && len > 0)
			return true;
		if (len == 0)
			return false;
	}
	return false;
}

static bool ratio_valid(const char *value)
{
	size_t whole = strspn(value, "01"), dot = value[whole] == '.';
	size_t rest = strspn(value + whole + dot, "0123456789");

	if (whole > 1 || whole + rest == 0 || value[whole + dot + rest] != 0)
		return false;
	return value[0] != '1' || strspn(value + whole + dot, "0") == rest;
}

static enum err value_check(const struct setting_row *row, const char *value)
{
	int64_t n;
	bool b;

	switch (row->kind) {
	case SETTING_INT:
		if (conf_parse_int(value, &n) != OK || n < row->min || n > row->max)
			return ERR_INVALID;
		return OK;
	case SETTING_BOOL: return conf_parse_bool(value, &b) == OK ? OK : ERR_INVALID;
	case SETTING_RATIO: return ratio_valid(value) ? OK : ERR_INVALID;
	case SETTING_WORD: break;
	}
	if (word_in(row->words, value))
		return OK;
	return word_in(row->known, value) ? ERR_UNSUPPORTED : ERR_INVALID;
}

enum err meta_setting_check(const char *key, const char *value, char *why, size_t why_size)
{
	for (size_t i = 0; i < sizeof setting_rows / sizeof setting_rows[0]; i++) {
		enum err e;

		if (strcmp(setting_rows[i].key, key) != 0)
			continue;
		if (value == NULL)
			return OK;
		e = strlen(value) > VALUE_MAX ? ERR_INVALID : value_check(&setting_rows[i], value);
		if (e != OK)
			snprintf(why, why_size, "%s: %s value \"%.40s\"", key,
				e == ERR_INVALID ? "invalid" : "unsupported", value);
		return e;
	}
	snprintf(why, why_size, "unknown setting \"%.60s\"", key);
	return ERR_INVALID;
}

/* --- evaluation --- */

static struct meta_op *op_of(struct proposal *p)
{
	return list_entry(p, struct meta_op, proposal);
}

__attribute__((format(printf, 3, 4))) static enum err say(
	struct meta_op *op, enum err e, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(op->why, sizeof op->why, format, args);
	va_end(args);
	return e;
}

static struct bytes row_key(char kind, const char *name, char *out, size_t size)
{
	int len = snprintf(out, size, "%c/%s", kind, name);

	must(len > 0 && (size_t)len < size);
	return bytes_of(out, (size_t)len);
}

/* The stream's row as it will be. */
static enum err stream_get(struct eval *v, const char *name, struct meta_stream **out)
{
	char key[NAME_MAX + 3];
	struct bytes value;
	enum err e = eval_get(v, META_KEYSPACE, row_key('s', name, key, sizeof key), &value);

	return e == OK ? meta_stream_decode(value, out) : e;
}

static enum err stream_put(struct eval *v, const char *name, const struct meta_stream *s)
{
	char key[NAME_MAX + 3];
	struct buf row;
	enum err e;

	buf_init(&row, ROW_MAX);
	meta_stream_encode(s, &row);
	e = row.err;
	if (e == OK)
		eval_put(v, META_KEYSPACE, row_key('s', name, key, sizeof key), buf_bytes(&row));
	buf_fini(&row);
	return e;
}

/* Gives the stream count more groups. */
static enum err groups_add(struct eval *v, struct meta_op *op, struct meta_stream *s, int64_t count)
{
	struct bytes key = bytes_text(cluster_key), value;
	struct meta_cluster c;
	struct buf row;
	enum err e = eval_get(v, META_KEYSPACE, key, &value);

	if (e == ERR_NOTFOUND)
		return ERR_UNAVAILABLE; /* not founded yet */
	if (e == OK)
		e = meta_cluster_decode(value, &c);
	if (e != OK)
		return e;
	if (node_meta_view(op->node)->group_count + count > META_GROUPS_MAX)
		return say(op, ERR_TOOBIG, "at most %d partitions on a node", META_GROUPS_MAX);
	s->groups = mem_resize(s->groups, (size_t)(s->group_count + count) * sizeof *s->groups);
	must(s->groups != NULL);
	for (int64_t i = 0; i < count; i++)
		s->groups[s->group_count++] = c.next_group++;
	if (op->check_only)
		return OK;
	buf_init(&row, ROW_MAX);
	meta_cluster_encode(&c, &row);
	eval_put(v, META_KEYSPACE, key, buf_bytes(&row));
	buf_fini(&row);
	return OK;
}

static void setting_remove(struct meta_stream *s, const char *key)
{
	for (int i = 0; i < s->setting_count; i++) {
		if (strcmp(s->settings[i].key, key) != 0)
			continue;
		setting_fini(&s->settings[i]);
		s->settings[i] = s->settings[--s->setting_count];
		return;
	}
}

static enum err settings_merge(struct meta_op *op, struct meta_stream *s)
{
	for (int i = 0; i < op->setting_count; i++) {
		const struct meta_setting *set = &op->settings[i];
		enum err e = meta_setting_check(set->key, set->value, op->why, sizeof op->why);

		if (e != OK)
			return e;
		setting_remove(s, set->key);
		if (set->value == NULL)
			continue;
		s->settings = mem_resize(
			s->settings, ((size_t)s->setting_count + 1) * sizeof *s->settings);
		must(s->settings != NULL);
		s->settings[s->setting_count].key = mem_text(set->key, strlen(set->key));
		s->settings[s->setting_count++].value = mem_text(set->value, strlen(set->value));
	}
	return OK;
}

static enum err create_check(struct meta_op *op)
{
	if (!meta_name_valid(bytes_text(op->name)))
		return say(op, ERR_INVALID, "invalid stream name");
	if (op->partitions < 1 || op->partitions > META_STREAM_PARTITIONS_MAX)
		return say(
			op, ERR_INVALID, "partitions must be 1 to %d", META_STREAM_PARTITIONS_MAX);
	if (op->replicas < 1 || op->replicas > 7)
		return say(op, ERR_INVALID, "replicas must be 1 to 7");
	return OK;
}

static enum err create(struct meta_op *op, struct eval *v, const struct meta_stream *old)
{
	struct meta_stream *s;
	enum err e = create_check(op);

	if (e != OK)
		return e;
	if (old != NULL)
		return say(op, ERR_EXISTS, "stream \"%s\" exists already", op->name);
	s = mem_new(sizeof *s);
	random_fill(s->uuid, sizeof s->uuid);
	s->created_ms = eval_now_ms(v);
	s->replicas = (uint16_t)op->replicas;
	e = settings_merge(op, s);
	s->log_family = meta_family(meta_stream_number(
		s, "retention.ms", node_meta_view(op->node)->conf->retention_ms));
	if (e == OK)
		e = groups_add(v, op, s, op->partitions);
	if (e == OK && !op->check_only)
		e = stream_put(v, op->name, s);
	meta_stream_free(s);
	return e;
}

static enum err add_partitions(struct meta_op *op, struct eval *v, struct meta_stream *s)
{
	enum err e;

	if (op->partitions <= s->group_count || op->partitions > META_STREAM_PARTITIONS_MAX)
		return say(op, ERR_INVALID,
			"stream has %d partitions; the new number must be greater, at most %d",
			s->group_count, META_STREAM_PARTITIONS_MAX);
	e = groups_add(v, op, s, op->partitions - s->group_count);
	return e == OK && !op->check_only ? stream_put(v, op->name, s) : e;
}

static enum err alter(struct meta_op *op, struct eval *v, struct meta_stream *s)
{
	enum err e = settings_merge(op, s);

	return e == OK && !op->check_only ? stream_put(v, op->name, s) : e;
}

static enum err change_stream(struct meta_op *op, struct eval *v)
{
	struct meta_stream *s = NULL;
	char key[NAME_MAX + 3];
	enum err e = ERR_NOTFOUND;

	if (op->name != NULL && meta_name_valid(bytes_text(op->name)))
		e = stream_get(v, op->name, &s);
	if (e != OK && e != ERR_NOTFOUND)
		return e;
	if (op->kind == META_CREATE_STREAM) {
		e = op->name != NULL ? create(op, v, s) : ERR_INVALID;
	} else if (e == ERR_NOTFOUND) {
		say(op, e, "no stream \"%.100s\"", op->name != NULL ? op->name : "");
	} else if (op->kind == META_ADD_PARTITIONS) {
		e = add_partitions(op, v, s);
	} else if (op->kind == META_ALTER_STREAM) {
		e = alter(op, v, s);
	} else if (!op->check_only) {
		eval_delete(v, META_KEYSPACE, row_key('s', op->name, key, sizeof key));
	}
	meta_stream_free(s);
	return e;
}

static enum err change_settings(struct meta_op *op, struct eval *v)
{
	char key[KEY_MAX + 3];

	for (int i = 0; i < op->setting_count; i++) {
		const struct meta_setting *set = &op->settings[i];
		size_t len = strlen(set->key);

		if (len == 0 || len > KEY_MAX)
			return say(op, ERR_INVALID, "a key has 1 to %d characters", KEY_MAX);
		if (set->value != NULL && strlen(set->value) > VALUE_MAX)
			return say(op, ERR_INVALID, "%.60s: value too long", set->key);
	}
	for (int i = 0; i < op->setting_count && !op->check_only; i++) {
		struct bytes at = row_key('k', op->settings[i].key, key, sizeof key);

		if (op->settings[i].value != NULL)
			eval_put(v, META_KEYSPACE, at, bytes_text(op->settings[i].value));
		else
			eval_delete(v, META_KEYSPACE, at);
	}
	return OK;
}

enum err meta_evaluate(struct proposal *p, struct eval *v)
{
	struct meta_op *op = op_of(p);

	op->why[0] = 0;
	if (op->setting_count < 0 || op->setting_count > META_SETTINGS_MAX)
		return say(op, ERR_INVALID, "at most %d settings at once", META_SETTINGS_MAX);
	return op->kind == META_SET ? change_settings(op, v) : change_stream(op, v);
}

enum err meta_evaluate_founding(struct proposal *p, struct eval *v)
{
	struct meta_founding *f = list_entry(p, struct meta_founding, proposal);
	struct bytes value;
	struct buf row;
	enum err e = eval_get(v, META_KEYSPACE, bytes_text(cluster_key), &value);

	if (e != ERR_NOTFOUND)
		return e;
	f->cluster.founded_ms = eval_now_ms(v);
	buf_init(&row, ROW_MAX);
	meta_cluster_encode(&f->cluster, &row);
	eval_put(v, META_KEYSPACE, bytes_text(cluster_key), buf_bytes(&row));
	buf_fini(&row);
	return OK;
}
