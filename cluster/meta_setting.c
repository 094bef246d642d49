/* What may be set for a stream: a table of Kafka's topic settings with what is served of each. */
#include <stdio.h>
#include "cluster/meta.h"

enum { VALUE_MAX = 32768 };

/* "default" is how people call the tenant whose streams carry none. */
bool meta_tenant_valid(struct bytes tenant)
{
	if (tenant.len == 0 || tenant.len > META_TENANT_MAX)
		return false;
	for (size_t i = 0; i < tenant.len; i++) {
		uint8_t c = tenant.at[i];

		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-')
			return false;
	}
	return !bytes_equal(tenant, bytes_text("default"));
}

static struct bytes bare_name(struct bytes name)
{
	const uint8_t *slash = name.len > 0 ? memchr(name.at, '/', name.len) : NULL;

	return slash == NULL ? name : bytes_of(slash + 1, name.len - (size_t)(slash - name.at) - 1);
}

bool meta_bare_name_valid(struct bytes name)
{
	if (name.len == 0 || name.len > META_BARE_NAME_MAX)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		uint8_t c = name.at[i];

		if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
			c != '.' && c != '_' && c != '-')
			return false;
	}
	return !bytes_equal(name, bytes_text(".")) && !bytes_equal(name, bytes_text(".."));
}

bool meta_name_valid(struct bytes full)
{
	struct bytes name = bare_name(full);

	if (name.len < full.len && !meta_tenant_valid(bytes_of(full.at, full.len - name.len - 1)))
		return false;
	return meta_bare_name_valid(name);
}

bool meta_name_internal(struct bytes full)
{
	struct bytes name = bare_name(full);

	return name.len >= 2 && name.at[0] == '_' && name.at[1] == '_';
}

bool meta_limited(const struct meta_limit *l, struct bytes name)
{
	size_t len = l->prefix.len;

	if (name.len < len || !bytes_equal(bytes_of(name.at, len), l->prefix))
		return false;
	return l->of == LIMIT_DOCS || name.len == len ||
		memchr(name.at + len, '/', name.len - len) == NULL;
}

enum setting_kind {
	SETTING_INT,
	SETTING_BOOL,
	SETTING_WORD,
	SETTING_RATIO,
	SETTING_POLICY,
	SETTING_MAX /* a number, of which only the greatest is served */
};

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
	{"cleanup.policy", SETTING_POLICY, 0, 0, NULL, NULL},
	{"min.insync.replicas", SETTING_INT, 1, 7, NULL, NULL},
	{"message.timestamp.type", SETTING_WORD, 0, 0, ",CreateTime,LogAppendTime,", NULL},
	{"message.timestamp.difference.max.ms", SETTING_MAX, 0, INT64_MAX, NULL, NULL},
	{"message.timestamp.before.max.ms", SETTING_MAX, 0, INT64_MAX, NULL, NULL},
	{"message.timestamp.after.max.ms", SETTING_MAX, 0, INT64_MAX, NULL, NULL},
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
	{"preallocate", SETTING_WORD, 0, 0, ",false,", ",true,"},
	{"remote.storage.enable", SETTING_WORD, 0, 0, ",false,", ",true,"},
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

/* "compact", "delete" or both; each once. */
static bool policy_read(const char *value, bool *compacts, bool *deletes)
{
	*compacts = *deletes = false;
	for (const char *at = value;; at++) {
		size_t len;
		bool *which;

		at += strspn(at, " ");
		len = strcspn(at, ", ");
		which = len == 7 && memcmp(at, "compact", len) == 0  ? compacts
			: len == 6 && memcmp(at, "delete", len) == 0 ? deletes
								     : NULL;
		if (which == NULL || *which)
			return false;
		*which = true;
		at += len;
		at += strspn(at, " ");
		if (*at == 0)
			return true;
		if (*at != ',')
			return false;
	}
}

/* In millionths; what is not valid was never set. */
static uint32_t ratio_read(const char *value)
{
	uint32_t ppm = 0, part = 1000000;
	bool rest = false;

	for (; *value != 0; value++) {
		if (*value == '.') {
			rest = true;
			continue;
		}
		part = rest ? part / 10 : part;
		ppm += (uint32_t)(*value - '0') * part;
	}
	return ppm;
}

void meta_stream_cleanup(
	const struct meta_stream *s, bool *compacts, bool *deletes, struct compact_policy *policy)
{
	const char *words = meta_stream_setting(s, "cleanup.policy");
	const char *ratio = meta_stream_setting(s, "min.cleanable.dirty.ratio");

	*policy = (struct compact_policy){
		.dirty_ppm = ratio_read(ratio != NULL && ratio_valid(ratio) ? ratio : "0.5"),
		.delete_retention_ms = meta_stream_number(s, "delete.retention.ms", 86400000),
		.lag_min_ms = meta_stream_number(s, "min.compaction.lag.ms", 0),
		.lag_max_ms = meta_stream_number(s, "max.compaction.lag.ms", INT64_MAX),
	};
	if (words != NULL && policy_read(words, compacts, deletes))
		return;
	*compacts = false;
	*deletes = true;
}

static enum err value_check(const struct setting_row *row, const char *value)
{
	int64_t n;
	bool b, other;

	switch (row->kind) {
	case SETTING_INT:
		if (conf_parse_int(value, &n) != OK || n < row->min || n > row->max)
			return ERR_INVALID;
		return OK;
	case SETTING_BOOL: return conf_parse_bool(value, &b) == OK ? OK : ERR_INVALID;
	case SETTING_MAX:
		if (conf_parse_int(value, &n) != OK || n < row->min)
			return ERR_INVALID;
		return n == row->max ? OK : ERR_UNSUPPORTED;
	case SETTING_POLICY: return policy_read(value, &b, &other) ? OK : ERR_INVALID;
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
