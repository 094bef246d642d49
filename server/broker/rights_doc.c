/* Users, rules and quotas as documents. A rule is all key, so that two administrators who add the
 * same one add it once, and one who takes it away names it whole; what is the same in many, tenant
 * and principal, comes first, so that all rules of a principal lie side by side.
 *
 *	user   version 1, flags 1 (1 disabled), created 8, tenant {length 2, text},
 *	       roles 1 {length 1, text}, secrets 1 {kind 1,
 *	           crypt: text {length 2}
 *	           SCRAM: iterations 4, salt, stored key, server key {length 2, bytes}}
 *	rule   (key) 'a' NUL tenant NUL kind 1, who NUL resource 1, pattern 1, deny 1, action 1,
 *	       host {length 1, text}, name to the end
 *	quota  version 1, limits 1 {8} */
#include "server/broker/rights_doc.h"
#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include "server/broker/tenant.h"
#include "server/broker/topic.h"

enum {
	VERSION = 1,
	FLAG_DISABLED = 1,
	CRYPT_BYTES_MAX = 384, /* CRYPT_OUTPUT_SIZE */
	SALT_BYTES_MAX = 255,
	ITERATIONS_MAX = 10000000,
	GROUP_NAME_MAX = 255
};

static const char everything[] = "*", cluster_name[] = "kafka-cluster";

static bool is(struct bytes b, const char *text)
{
	return bytes_equal(b, bytes_text(text));
}

/* UTF-8 without control characters. */
static bool plain_text(struct bytes b, size_t max)
{
	if (b.len == 0 || b.len > max || !bytes_utf8(b))
		return false;
	for (size_t i = 0; i < b.len; i++) {
		bool c1 = b.at[i] == 0xc2 && b.at[i + 1] < 0xa0; /* U+0080 to U+009F */
		if (b.at[i] < 0x20 || b.at[i] == 0x7f || c1)
			return false;
	}
	return true;
}

/* --- users */

bool user_name_valid(struct bytes name)
{
	return plain_text(name, USER_NAME_MAX) && memchr(name.at, ':', name.len) == NULL;
}

bool role_name_valid(struct bytes name)
{
	if (name.len == 0 || name.len > ROLE_NAME_MAX)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		uint8_t c = name.at[i];
		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-')
			return false;
	}
	return true;
}

void user_key(struct bytes name, struct buf *out)
{
	buf_add(out, bytes_of("u", 2));
	buf_add(out, name);
}

static size_t key_bytes(enum secret_kind kind)
{
	return kind == SECRET_SCRAM_256 ? 32 : 64;
}

static void secret_write(const struct secret *s, struct buf *out)
{
	buf_add_u8(out, (uint8_t)s->kind);
	if (s->kind == SECRET_CRYPT) {
		buf_add_bytes16(out, s->crypt);
		return;
	}
	buf_add_u32be(out, s->iterations);
	buf_add_bytes16(out, s->salt);
	buf_add_bytes16(out, s->stored_key);
	buf_add_bytes16(out, s->server_key);
}

void user_write(const struct user_doc *u, struct buf *out)
{
	buf_add_u8(out, VERSION);
	buf_add_u8(out, u->disabled ? FLAG_DISABLED : 0);
	buf_add_u64be(out, (uint64_t)u->created_ms);
	buf_add_bytes16(out, u->tenant);
	buf_add_u8(out, (uint8_t)u->role_count);
	for (int i = 0; i < u->role_count; i++) {
		buf_add_u8(out, (uint8_t)u->roles[i].len);
		buf_add(out, u->roles[i]);
	}
	buf_add_u8(out, (uint8_t)u->secret_count);
	for (int i = 0; i < u->secret_count; i++)
		secret_write(&u->secrets[i], out);
}

static void secret_read(struct rd *r, struct secret *s)
{
	uint8_t kind = rd_u8(r);
	*s = (struct secret){.kind = SECRET_CRYPT};
	if (kind == SECRET_CRYPT) {
		s->crypt = rd_bytes16(r);
		if (s->crypt.len == 0 || s->crypt.len > CRYPT_BYTES_MAX ||
			(r->err == OK && memchr(s->crypt.at, 0, s->crypt.len) != NULL))
			rd_fail(r, ERR_MALFORMED);
		return;
	}
	if (kind != SECRET_SCRAM_256 && kind != SECRET_SCRAM_512)
		rd_fail(r, ERR_MALFORMED);
	s->kind = kind == SECRET_SCRAM_512 ? SECRET_SCRAM_512 : SECRET_SCRAM_256;
	s->iterations = rd_u32be(r);
	s->salt = rd_bytes16(r);
	s->stored_key = rd_bytes16(r);
	s->server_key = rd_bytes16(r);
	if (s->iterations == 0 || s->iterations > ITERATIONS_MAX || s->salt.len == 0 ||
		s->salt.len > SALT_BYTES_MAX || s->stored_key.len != key_bytes(s->kind) ||
		s->server_key.len != key_bytes(s->kind))
		rd_fail(r, ERR_MALFORMED);
}

static void user_secrets_read(struct rd *r, struct user_doc *out)
{
	uint8_t count = rd_u8(r);
	if (count > SECRET_KINDS)
		rd_fail(r, ERR_MALFORMED);
	for (uint8_t i = 0; i < count && r->err == OK; i++) {
		struct secret s;
		secret_read(r, &s);
		if (user_secret(out, s.kind) != NULL)
			rd_fail(r, ERR_MALFORMED);
		out->secrets[out->secret_count++] = s;
	}
}

static void user_roles_read(struct rd *r, struct user_doc *out)
{
	uint8_t count = rd_u8(r);
	if (count > USER_ROLES_MAX)
		rd_fail(r, ERR_MALFORMED);
	for (uint8_t i = 0; i < count && r->err == OK; i++) {
		struct bytes role = rd_take(r, rd_u8(r));
		if (!role_name_valid(role))
			rd_fail(r, ERR_MALFORMED);
		out->roles[out->role_count++] = role;
	}
}

static bool starts_with(struct bytes key, char kind)
{
	return key.len >= 2 && key.at[0] == (uint8_t)kind && key.at[1] == 0;
}

enum err user_read(struct bytes key, struct bytes value, struct user_doc *out)
{
	struct rd r = rd_over(value);
	memset(out, 0, sizeof *out);
	if (!starts_with(key, 'u') || !user_name_valid(bytes_of(key.at + 2, key.len - 2)))
		return ERR_MALFORMED;
	out->name = bytes_of(key.at + 2, key.len - 2);
	if (rd_u8(&r) != VERSION)
		rd_fail(&r, ERR_MALFORMED);
	out->disabled = rd_u8(&r) & FLAG_DISABLED;
	out->created_ms = (int64_t)rd_u64be(&r);
	out->tenant = rd_bytes16(&r);
	if (out->tenant.len > 0 && !tenant_name_valid(out->tenant))
		rd_fail(&r, ERR_MALFORMED);
	user_roles_read(&r, out);
	user_secrets_read(&r, out);
	return rd_done(&r);
}

const struct secret *user_secret(const struct user_doc *u, enum secret_kind kind)
{
	for (int i = 0; i < u->secret_count; i++)
		if (u->secrets[i].kind == kind)
			return &u->secrets[i];
	return NULL;
}

/* --- words */

static const char *const action_words[ACTION_END] = {
	[ACTION_ALL] = "all",
	[ACTION_READ] = "read",
	[ACTION_WRITE] = "write",
	[ACTION_CREATE] = "create",
	[ACTION_DELETE] = "delete",
	[ACTION_ALTER] = "alter",
	[ACTION_DESCRIBE] = "describe",
	[ACTION_CLUSTER] = "cluster-action",
	[ACTION_DESCRIBE_CONFIGS] = "describe-configs",
	[ACTION_ALTER_CONFIGS] = "alter-configs",
	[ACTION_IDEMPOTENT_WRITE] = "idempotent-write",
};
static const char *const resource_words[RESOURCE_END] = {
	[RESOURCE_STREAM] = "stream",
	[RESOURCE_GROUP] = "group",
	[RESOURCE_CLUSTER] = "cluster",
	[RESOURCE_TRANSACTION] = "transaction",
	[RESOURCE_USER] = "user",
	[RESOURCE_TOPIC] = "topic",
};
static const char *const quota_words[QUOTA_WHATS] = {
	[QUOTA_BYTES_IN] = "bytes-in",
	[QUOTA_BYTES_OUT] = "bytes-out",
	[QUOTA_MESSAGES_IN] = "messages-in",
	[QUOTA_MESSAGES_OUT] = "messages-out",
	[QUOTA_CONNECTIONS] = "connections",
	[QUOTA_STREAMS] = "streams",
	[QUOTA_PARTITIONS] = "partitions",
	[QUOTA_USERS] = "users",
	[QUOTA_RULES] = "rules",
	[QUOTA_ROUTES] = "routes",
};

static const char *word_at(const char *const *words, int end, int at)
{
	return at >= 0 && at < end && words[at] != NULL ? words[at] : "unknown";
}

static int word_find(const char *const *words, int end, struct bytes word)
{
	for (int i = 0; i < end; i++)
		if (words[i] != NULL && is(word, words[i]))
			return i;
	return -1;
}

const char *action_word(enum action a)
{
	return word_at(action_words, ACTION_END, (int)a);
}

const char *resource_word(enum resource r)
{
	return word_at(resource_words, RESOURCE_END, (int)r);
}

const char *quota_word(enum quota_what w)
{
	return word_at(quota_words, QUOTA_WHATS, (int)w);
}

bool action_of(struct bytes word, enum action *out)
{
	int at = word_find(action_words, ACTION_END, word);
	if (at >= 0)
		*out = (enum action)at;
	return at >= 0;
}

bool resource_of(struct bytes word, enum resource *out)
{
	int at = word_find(resource_words, RESOURCE_END, word);
	if (at >= 0)
		*out = (enum resource)at;
	return at >= 0;
}

bool quota_of(struct bytes word, enum quota_what *out)
{
	int at = word_find(quota_words, QUOTA_WHATS, word);
	if (at >= 0)
		*out = (enum quota_what)at;
	return at >= 0;
}

/* --- rules */

#define A(action) (1u << (action))
/* What can be done with what (Kafka's AclEntry.supportedOperations where it has the resource). */
static const uint32_t actions_of[RESOURCE_END] = {
	[RESOURCE_STREAM] = A(ACTION_ALL) | A(ACTION_READ) | A(ACTION_WRITE) | A(ACTION_CREATE) |
		A(ACTION_DELETE) | A(ACTION_ALTER) | A(ACTION_DESCRIBE) |
		A(ACTION_DESCRIBE_CONFIGS) | A(ACTION_ALTER_CONFIGS),
	[RESOURCE_GROUP] = A(ACTION_ALL) | A(ACTION_READ) | A(ACTION_DELETE) | A(ACTION_DESCRIBE),
	[RESOURCE_CLUSTER] = A(ACTION_ALL) | A(ACTION_CREATE) | A(ACTION_ALTER) |
		A(ACTION_DESCRIBE) | A(ACTION_CLUSTER) | A(ACTION_DESCRIBE_CONFIGS) |
		A(ACTION_ALTER_CONFIGS) | A(ACTION_IDEMPOTENT_WRITE),
	[RESOURCE_TRANSACTION] = A(ACTION_ALL) | A(ACTION_WRITE) | A(ACTION_DESCRIBE),
	[RESOURCE_USER] = A(ACTION_ALL) | A(ACTION_ALTER) | A(ACTION_DESCRIBE),
	[RESOURCE_TOPIC] = A(ACTION_ALL) | A(ACTION_READ) | A(ACTION_WRITE),
};
#undef A

bool resource_has(enum resource r, enum action a)
{
	return (unsigned)r < RESOURCE_END && (unsigned)a < ACTION_END && actions_of[r] >> a & 1;
}

__attribute__((format(printf, 3, 4))) static enum err refuse(
	char *why, size_t size, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(why, size, format, args);
	va_end(args);
	return ERR_INVALID;
}

static bool stream_prefix_valid(struct bytes name)
{
	return stream_name_valid(name) || is(name, ".") || is(name, "..");
}

static enum err topic_check(const struct rule *r, char *why, size_t size)
{
	bool prefixed = r->pattern == RULE_PREFIXED;
	if (prefixed ? !topic_name_valid(r->name) : !topic_filter_valid(r->name))
		return refuse(why, size,
			prefixed ? "not the beginning of a topic" : "not a valid topic filter");
	if (r->name.len >= 7 && memcmp(r->name.at, "$share/", 7) == 0)
		return refuse(why, size,
			"a shared subscription counts as its filter: leave "
			"$share/NAME/ out");
	return OK;
}

static enum err name_check(const struct rule *r, char *why, size_t size)
{
	bool prefixed = r->pattern == RULE_PREFIXED;
	bool good = false;
	if (r->name.len == 0 || r->name.len > RULE_NAME_MAX)
		return refuse(why, size, "a name has 1 to %d bytes", RULE_NAME_MAX);
	if (r->resource == RESOURCE_CLUSTER)
		return is(r->name, cluster_name) && !prefixed
			? OK
			: refuse(why, size, "the cluster's only name is %s", cluster_name);
	if (!prefixed && is(r->name, everything))
		return OK;
	switch (r->resource) {
	case RESOURCE_STREAM:
		good = prefixed ? stream_prefix_valid(r->name) : stream_name_valid(r->name);
		break;
	case RESOURCE_GROUP:
	case RESOURCE_TRANSACTION: good = plain_text(r->name, GROUP_NAME_MAX); break;
	case RESOURCE_USER: good = user_name_valid(r->name); break;
	case RESOURCE_TOPIC: return topic_check(r, why, size);
	case RESOURCE_CLUSTER:
	case RESOURCE_END: break;
	}
	return good ? OK
		    : refuse(why, size, "not a valid name of a %s", resource_word(r->resource));
}

/* An address is compared as text: only its usual form ever matches. One of IPv4 that came over a
 * socket of IPv6 is written as the former (host_of in access.c). */
static enum err host_check(struct bytes host, char *why, size_t size)
{
	static const uint8_t mapped[12] = {[10] = 0xff, 0xff};
	char text[RULE_HOST_MAX + 1], usual[INET6_ADDRSTRLEN];
	uint8_t address[16];
	int family = AF_INET;
	if (is(host, everything))
		return OK;
	if (host.len == 0 || host.len > RULE_HOST_MAX)
		return refuse(why, size, "a host is an address, or *");
	memcpy(text, host.at, host.len);
	text[host.len] = 0;
	if (memchr(text, ':', host.len) != NULL)
		family = AF_INET6;
	bool good = strlen(text) == host.len && inet_pton(family, text, address) == 1;
	bool four = good && family == AF_INET6 && memcmp(address, mapped, sizeof mapped) == 0;
	if (!good ||
		inet_ntop(four ? AF_INET : family, address + (four ? sizeof mapped : 0), usual,
			sizeof usual) == NULL)
		return refuse(why, size, "a host is an address, or *");
	if (strcmp(text, usual) != 0)
		return refuse(why, size, "write the address as %s", usual);
	return OK;
}

static bool kinds_known(const struct rule *r)
{
	return (unsigned)r->resource < RESOURCE_END && resource_words[r->resource] != NULL &&
		(unsigned)r->action < ACTION_END && action_words[r->action] != NULL &&
		(r->pattern == RULE_LITERAL || r->pattern == RULE_PREFIXED) &&
		(r->principal == PRINCIPAL_USER || r->principal == PRINCIPAL_ROLE);
}

enum err rule_check(const struct rule *r, char *why, size_t size)
{
	if (!kinds_known(r))
		return refuse(why, size, "unknown kind of resource, action, pattern or principal");
	if (r->tenant.len > 0 && !tenant_name_valid(r->tenant))
		return refuse(why, size, "not a valid name of a tenant");
	if (r->principal == PRINCIPAL_ROLE ? !role_name_valid(r->who) : !user_name_valid(r->who))
		return refuse(why, size, "not a valid name of a %s",
			r->principal == PRINCIPAL_ROLE ? "role" : "user");
	if (!resource_has(r->resource, r->action))
		return refuse(why, size, "a %s has no action %s", resource_word(r->resource),
			action_word(r->action));
	enum err e = name_check(r, why, size);
	return e == OK ? host_check(r->host, why, size) : e;
}

void rule_prefix(struct bytes tenant, enum principal_kind kind, struct bytes who, struct buf *out)
{
	buf_add(out, bytes_of("a", 2));
	buf_add(out, tenant);
	buf_add_u8(out, 0);
	buf_add_u8(out, (uint8_t)kind);
	buf_add(out, who);
	buf_add_u8(out, 0);
}

void rule_key(const struct rule *r, struct buf *out)
{
	rule_prefix(r->tenant, r->principal, r->who, out);
	buf_add_u8(out, (uint8_t)r->resource);
	buf_add_u8(out, (uint8_t)r->pattern);
	buf_add_u8(out, r->deny);
	buf_add_u8(out, (uint8_t)r->action);
	buf_add_u8(out, (uint8_t)r->host.len);
	buf_add(out, r->host);
	buf_add(out, r->name);
}

/* The bytes before the next NUL, which is passed over. */
static struct bytes rd_to_nul(struct rd *r)
{
	const uint8_t *nul = rd_left(r) > 0 ? memchr(r->at, 0, rd_left(r)) : NULL;
	if (nul == NULL) {
		rd_fail(r, ERR_MALFORMED);
		return bytes_of(NULL, 0);
	}
	struct bytes b = rd_take(r, (size_t)(nul - r->at));
	rd_skip(r, 1);
	return b;
}

enum err rule_read(struct bytes key, struct rule *out)
{
	struct rd r = rd_over(key);
	char why[100];
	memset(out, 0, sizeof *out);
	if (!starts_with(key, 'a'))
		return ERR_MALFORMED;
	rd_skip(&r, 2);
	out->tenant = rd_to_nul(&r);
	out->principal = rd_u8(&r) == PRINCIPAL_ROLE ? PRINCIPAL_ROLE : PRINCIPAL_USER;
	if (r.err == OK && r.at[-1] != (uint8_t)out->principal)
		rd_fail(&r, ERR_MALFORMED);
	out->who = rd_to_nul(&r);
	out->resource = (enum resource)rd_u8(&r);
	out->pattern = rd_u8(&r) == RULE_PREFIXED ? RULE_PREFIXED : RULE_LITERAL;
	if (r.err == OK && r.at[-1] != (uint8_t)out->pattern)
		rd_fail(&r, ERR_MALFORMED);
	out->deny = rd_bool(&r);
	out->action = (enum action)rd_u8(&r);
	out->host = rd_take(&r, rd_u8(&r));
	out->name = rd_rest(&r);
	if (rd_done(&r) != OK || rule_check(out, why, sizeof why) != OK)
		return ERR_MALFORMED;
	return OK;
}

/* --- quotas */

void quota_key(enum quota_kind kind, struct bytes name, struct buf *out)
{
	buf_add(out, bytes_of("q", 2));
	buf_add_u8(out, (uint8_t)kind);
	buf_add_u8(out, 0);
	buf_add(out, name);
}

/* Limits that a version before this one has not are written when they are set. */
void quota_write(const struct quota_doc *q, struct buf *out)
{
	int count = QUOTA_WHATS;
	while (count > QUOTA_STREAMS && q->limit[count - 1] < 0)
		count--;
	buf_add_u8(out, VERSION);
	buf_add_u8(out, (uint8_t)count);
	for (int i = 0; i < count; i++)
		buf_add_u64be(out, (uint64_t)q->limit[i]);
}

enum err quota_check(const struct quota_doc *q)
{
	bool user = q->kind == QUOTA_USER;
	if (!user && q->kind != QUOTA_TENANT)
		return ERR_INVALID;
	if (q->name.len > 0 &&
		(user ? !user_name_valid(q->name)
		      : !tenant_name_valid(q->name) && !is(q->name, "default")))
		return ERR_INVALID;
	for (int i = 0; i < QUOTA_WHATS; i++)
		if (q->limit[i] < -1 || (q->limit[i] == 0 && i < QUOTA_CONNECTIONS) ||
			(q->limit[i] >= 0 && i >= QUOTA_STREAMS && user))
			return ERR_INVALID; /* a rate of nothing would never end */
	return OK;
}

enum err quota_read(struct bytes key, struct bytes value, struct quota_doc *out)
{
	struct rd r = rd_over(value);
	memset(out, 0, sizeof *out);
	if (key.len < 4 || !starts_with(key, 'q') || key.at[3] != 0)
		return ERR_MALFORMED;
	if (key.at[2] != QUOTA_USER && key.at[2] != QUOTA_TENANT)
		return ERR_MALFORMED;
	out->kind = key.at[2] == QUOTA_USER ? QUOTA_USER : QUOTA_TENANT;
	out->name = bytes_of(key.at + 4, key.len - 4);
	if (rd_u8(&r) != VERSION)
		rd_fail(&r, ERR_MALFORMED);
	int count = rd_u8(&r);
	if (count > QUOTA_WHATS)
		rd_fail(&r, ERR_MALFORMED);
	for (int i = 0; i < QUOTA_WHATS; i++)
		out->limit[i] = i < count ? (int64_t)rd_u64be(&r) : -1;
	return rd_done(&r) == OK && quota_check(out) == OK ? OK : ERR_MALFORMED;
}
