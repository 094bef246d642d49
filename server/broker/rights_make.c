/* From what an administrator asks for to documents with conditions. What there is, is read from the
 * catalogue in force here, which may be old: each document that is changed must still be what was
 * read, else the whole is made anew.
 *
 * That somebody is left who may administer the cluster can't be read from the documents that one
 * change names, so whatever takes that away from a user also moves a counter,
 *
 *	m NUL "admins"
 *
 * and of two that do so at a time one is made anew, and sees that it would be the last. */
#include <stdarg.h>
#include <stdio.h>
#include "server/base/mem.h"
#include "server/broker/rights_priv.h"
#include "server/broker/tenant.h"

enum {
	PASSWORD_BYTES_MAX = 1024,
	ITERATIONS_MIN = 4096,
	ITERATIONS_MAX = 100000,
	KEPT_BYTES_MAX = CATALOG_CHANGE_BYTES_MAX,
	RULES_BYTES_MAX = KEPT_BYTES_MAX / 2
};
static const char admin_role[] = "admin", guard_key[] = "m\0admins";

enum err rights_no(struct rights_change *c, enum err e, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(c->why, sizeof c->why, format, args);
	va_end(args);
	return e;
}

/* --- what is made */

void rights_made_init(struct rights_made *m)
{
	memset(m, 0, sizeof *m);
	buf_init(&m->kept, KEPT_BYTES_MAX);
}

void rights_made_fini(struct rights_made *m)
{
	secrets_fini(&m->secrets);
	buf_fini(&m->kept);
	mem_free(m->made);
	mem_free(m->docs);
}

static struct part part_from(const struct rights_made *m, size_t at)
{
	return (struct part){at, buf_len(&m->kept) - at, true};
}

static struct part part_of(struct rights_made *m, struct bytes b)
{
	size_t at = buf_len(&m->kept);
	buf_add(&m->kept, b);
	return part_from(m, at);
}

/* A document whose key has just been written, from `at` on. */
static struct made_doc *made_add(struct rights_made *m, size_t at)
{
	if (m->count == m->room) {
		m->room = m->room > 0 ? m->room * 2 : 8;
		m->made = mem_resize(m->made, m->room * sizeof *m->made);
		must(m->made != NULL);
	}
	struct made_doc *d = &m->made[m->count++];
	*d = (struct made_doc){.key = part_from(m, at), .only = DOC_ANY};
	return d;
}

static struct bytes part_bytes(const struct rights_made *m, struct part p)
{
	if (!p.there)
		return bytes_of(NULL, 0);
	struct bytes all = buf_bytes(&m->kept);
	return bytes_of(p.len > 0 ? all.at + p.at : (const uint8_t *)"", p.len);
}

/* Nothing moves any more. */
static enum err made_end(struct rights_change *c, struct rights_made *m)
{
	if (m->kept.err != OK || m->count > CATALOG_CHANGE_DOCS_MAX)
		return rights_no(c, ERR_TOOBIG, "too much for one change: at most %d rules",
			CATALOG_CHANGE_DOCS_MAX);
	mem_free(m->docs);
	m->docs = mem_new((m->count + 1) * sizeof *m->docs);
	for (size_t i = 0; i < m->count; i++) {
		const struct made_doc *d = &m->made[i];
		m->docs[i] = (struct meta_doc){.key = part_bytes(m, d->key),
			.value = part_bytes(m, d->value),
			.before = part_bytes(m, d->before),
			.only = d->only};
	}
	return OK;
}

/* --- who may ask */

static enum err may_touch(struct rights_change *c, struct bytes tenant)
{
	if (c->by == NULL || access_cluster_admin(c->by) ||
		bytes_equal(access_tenant(c->by), tenant))
		return OK;
	return rights_no(c, ERR_DENIED, "only within your own tenant");
}

static bool has_role(const struct bytes *roles, int count, const char *role)
{
	for (int i = 0; i < count; i++)
		if (bytes_equal(roles[i], bytes_text(role)))
			return true;
	return false;
}

static enum err may_make_admins(struct rights_change *c, const struct bytes *roles, int count)
{
	if (c->by == NULL || access_admin(c->by) || !has_role(roles, count, admin_role))
		return OK;
	return rights_no(c, ERR_DENIED, "only administrators make or change administrators");
}

/* --- what is wrong whatever there is */

static bool reserved(struct bytes name)
{
	return bytes_equal(name, bytes_text("*")) || bytes_equal(name, bytes_text("ANONYMOUS"));
}

static enum err check_roles(struct rights_change *c)
{
	if (c->role_count < 0 || c->role_count > USER_ROLES_MAX)
		return rights_no(c, ERR_INVALID, "at most %d roles", USER_ROLES_MAX);
	for (int i = 0; c->roles != NULL && i < c->role_count; i++) {
		if (!role_name_valid(c->roles[i]))
			return rights_no(
				c, ERR_INVALID, "a role is 1 to %d of a-z, 0-9, -", ROLE_NAME_MAX);
		for (int k = 0; k < i; k++)
			if (bytes_equal(c->roles[i], c->roles[k]))
				return rights_no(c, ERR_INVALID, "a role is named twice");
	}
	return c->roles != NULL ? may_make_admins(c, c->roles, c->role_count) : OK;
}

static enum err check_secret(struct rights_change *c)
{
	const struct secret *s = c->secret;
	const struct bytes *p = c->password;
	if (p != NULL && (s != NULL || c->drop != 0))
		return rights_no(c, ERR_INVALID, "either a password or one made of it");
	if (p != NULL &&
		(p->len == 0 || p->len > PASSWORD_BYTES_MAX || memchr(p->at, 0, p->len) != NULL))
		return rights_no(c, ERR_INVALID, "a password has 1 to %d bytes, none of them NUL",
			PASSWORD_BYTES_MAX);
	if (s == NULL)
		return OK;
	if (s->kind != SECRET_SCRAM_256 && s->kind != SECRET_SCRAM_512)
		return rights_no(c, ERR_UNSUPPORTED, "unknown mechanism");
	if (s->iterations < ITERATIONS_MIN || s->iterations > ITERATIONS_MAX)
		return rights_no(c, ERR_INVALID, "iterations must be %d to %d", ITERATIONS_MIN,
			ITERATIONS_MAX);
	size_t len = secret_hash_bytes(s->kind);
	if (s->salt.len == 0 || s->salt.len > 255 || s->stored_key.len != len ||
		s->server_key.len != len)
		return rights_no(c, ERR_INVALID, "keys or salt of the wrong length");
	return OK;
}

static enum err check_user(struct rights_change *c)
{
	if (!user_name_valid(c->name))
		return rights_no(c, ERR_INVALID,
			"a name is 1 to %d bytes of UTF-8 without control characters and colons",
			USER_NAME_MAX);
	if (reserved(c->name))
		return rights_no(c, ERR_INVALID, "that name has a meaning of its own in rules");
	if (c->kind == USER_DELETE)
		return OK;
	if (c->kind == USER_ADD && c->tenant.len > 0 && !tenant_name_valid(c->tenant))
		return rights_no(
			c, ERR_INVALID, "a tenant is 1 to %d of a-z, 0-9, -", TENANT_NAME_MAX);
	enum err e = c->kind == USER_ADD ? may_touch(c, c->tenant) : OK;
	if (e == OK)
		e = check_roles(c);
	return e == OK ? check_secret(c) : e;
}

static enum err check_rules(struct rights_change *c)
{
	enum err e = OK;
	if (c->rule_count < 0 || c->rule_count > CATALOG_CHANGE_DOCS_MAX)
		return rights_no(
			c, ERR_TOOBIG, "at most %d rules at a time", CATALOG_CHANGE_DOCS_MAX);
	for (int i = 0; i < c->rule_count && e == OK; i++) {
		e = rule_check(&c->rules[i], c->why, sizeof c->why);
		if (e == OK)
			e = may_touch(c, c->rules[i].tenant);
	}
	return e;
}

static enum err check_quota(struct rights_change *c)
{
	struct quota_doc q = c->quota;
	for (int i = 0; i < QUOTA_WHATS; i++)
		if (q.limit[i] == QUOTA_AS_IS)
			q.limit[i] = -1;
	if (quota_check(&q) != OK)
		return rights_no(c, ERR_INVALID,
			"not a valid name, or a limit that it has not, or below 1 (of rates) or 0");
	if ((c->quota.kind == QUOTA_TENANT || c->quota.name.len == 0) && c->by != NULL &&
		!access_cluster_admin(c->by))
		return rights_no(c, ERR_DENIED, "only administrators of the cluster set that");
	return OK;
}

enum err rights_check(struct rights_change *c)
{
	switch (c->kind) {
	case USER_ADD:
	case USER_ALTER:
	case USER_DELETE: return check_user(c);
	case RULES_ADD:
	case RULES_DELETE: return check_rules(c);
	case QUOTA_SET: return check_quota(c);
	}
	return ERR_UNSUPPORTED;
}

/* --- users */

static bool administers(const struct user_doc *u)
{
	return u->tenant.len == 0 && !u->disabled && has_role(u->roles, u->role_count, admin_role);
}

/* Somebody else who may administer the cluster. */
static bool another_administers(const struct catalog *at, struct bytes but)
{
	struct bytes tenant = bytes_of("", 0);
	struct user_doc u;
	for (int i = 0; rights_user_next(at, &i, &tenant, &u);)
		if (administers(&u) && !bytes_equal(u.name, but))
			return true;
	return false;
}

static bool another_user(const struct catalog *at, struct bytes but)
{
	struct user_doc u;
	for (int i = 0; rights_user_next(at, &i, NULL, &u);)
		if (!bytes_equal(u.name, but))
			return true;
	return false;
}

/* u may administer the cluster, and will not any more. */
static enum err step_down(struct rights_change *c, const struct catalog *at, struct rights_made *m)
{
	struct bytes key = bytes_of(guard_key, sizeof guard_key - 1);
	const struct catalog_doc *now = catalog_doc(at, key);
	uint8_t next[8];
	if (!another_administers(at, c->name) &&
		(c->kind != USER_DELETE || another_user(at, c->name)))
		return rights_no(c, ERR_CONFLICT,
			"it is the last that may administer the cluster: make another one first");
	size_t spot = buf_len(&m->kept);
	buf_add(&m->kept, key);
	struct made_doc *d = made_add(m, spot);
	put_u64be(next, now != NULL && now->value.len == 8 ? get_u64be(now->value.at) + 1 : 1);
	d->only = DOC_SAME;
	d->value = part_of(m, bytes_of(next, sizeof next));
	if (now != NULL)
		d->before = part_of(m, now->value);
	return OK;
}

static struct made_doc *made_user(struct rights_made *m, struct bytes name)
{
	size_t spot = buf_len(&m->kept);
	user_key(name, &m->kept);
	return made_add(m, spot);
}

static void made_user_value(struct rights_made *m, struct made_doc *d, const struct user_doc *u)
{
	size_t spot = buf_len(&m->kept);
	user_write(u, &m->kept);
	d->value = part_from(m, spot);
}

static struct made_doc *made_index(struct rights_made *m, const struct user_doc *u)
{
	size_t spot = buf_len(&m->kept);
	rights_index_key(u->tenant, u->name, &m->kept);
	return made_add(m, spot);
}

static void secret_remove(struct user_doc *u, enum secret_kind kind)
{
	for (int i = 0; i < u->secret_count; i++)
		if (u->secrets[i].kind == kind) {
			u->secrets[i] = u->secrets[--u->secret_count];
			return;
		}
}

/* What is given of user, as asked. */
static enum err user_set(struct rights_change *c, const struct rights_made *m, struct user_doc *u)
{
	if (c->roles != NULL) {
		u->role_count = c->role_count;
		for (int i = 0; i < c->role_count; i++)
			u->roles[i] = c->roles[i];
	}
	if (c->able != USER_AS_IS)
		u->disabled = c->able == USER_DISABLE;
	if (c->drop != 0 && user_secret(u, c->drop) == NULL)
		return rights_no(c, ERR_NOTFOUND, "the user has no such secret");
	if (c->drop != 0)
		secret_remove(u, c->drop);
	if (c->secret != NULL) {
		secret_remove(u, SECRET_CRYPT);
		secret_remove(u, c->secret->kind);
		u->secrets[u->secret_count++] = *c->secret;
	}
	if (c->password != NULL) {
		if (m->hashed != OK)
			return rights_no(c, m->hashed, "the password can't be hashed");
		u->secret_count = m->secrets.count;
		for (int i = 0; i < m->secrets.count; i++)
			u->secrets[i] = m->secrets.of[i];
	}
	return OK;
}

static enum err make_user(struct rights_change *c, const struct catalog *at, struct rights_made *m)
{
	struct user_doc u = {.name = c->name,
		.tenant = c->tenant,
		.created_ms = loop_now_wall_ms(shard_loop(c->shard))};
	struct user_doc old;
	if (c->first && rights_any_user(at))
		return rights_no(c, ERR_CONFLICT, "there are users already");
	if (rights_user(at, c->name, &old))
		return rights_no(c, ERR_EXISTS, "there is a user of that name");
	enum err e = user_set(c, m, &u);
	if (e != OK)
		return e;
	struct made_doc *d = made_user(m, c->name);
	made_user_value(m, d, &u);
	d->only = DOC_NEW;
	d = made_index(m, &u);
	d->value = part_of(m, bytes_of("", 0));
	return OK;
}

/* The user there is, as far as who asks may see and change it. */
static enum err user_there(struct rights_change *c, const struct catalog *at, struct user_doc *u)
{
	bool own = rights_user(at, c->name, u) && may_touch(c, u->tenant) == OK;
	if (!own)
		return rights_no(c, ERR_NOTFOUND, "there is no such user");
	return may_make_admins(c, u->roles, u->role_count);
}

static struct bytes user_value(const struct catalog *at, struct bytes name)
{
	struct buf key;
	buf_init(&key, CATALOG_DOC_KEY_MAX);
	user_key(name, &key);
	const struct catalog_doc *d = catalog_doc(at, buf_bytes(&key));
	buf_fini(&key);
	return d->value;
}

static enum err alter_user(struct rights_change *c, const struct catalog *at, struct rights_made *m)
{
	struct user_doc old, u;
	enum err e = user_there(c, at, &old);
	u = old;
	if (e == OK)
		e = user_set(c, m, &u);
	if (e == OK && administers(&old) && !administers(&u))
		e = step_down(c, at, m);
	if (e != OK)
		return e;
	struct made_doc *d = made_user(m, c->name);
	made_user_value(m, d, &u);
	d->before = part_of(m, user_value(at, c->name));
	d->only = DOC_SAME;
	return OK;
}

/* All rules of the user go, or as many as there is room for. */
static void remove_rules(
	struct bytes tenant, struct bytes name, const struct catalog *at, struct rights_made *m)
{
	struct buf prefix;
	buf_init(&prefix, CATALOG_DOC_KEY_MAX);
	rule_prefix(tenant, PRINCIPAL_USER, name, &prefix);
	must(prefix.err == OK);
	struct bytes p = buf_bytes(&prefix);
	for (int i = catalog_doc_seek(at, p); i < catalog_doc_count(at); i++) {
		struct bytes key = catalog_doc_at(at, i)->key;
		if (key.len < p.len || memcmp(key.at, p.at, p.len) != 0)
			break;
		m->rules_left = m->count == CATALOG_CHANGE_DOCS_MAX ||
			buf_len(&m->kept) + key.len > RULES_BYTES_MAX;
		if (m->rules_left)
			break;
		size_t spot = buf_len(&m->kept);
		buf_add(&m->kept, key);
		(void)made_add(m, spot);
	}
	buf_fini(&prefix);
}

static enum err remove_user(struct rights_change *c, const struct catalog *at,
	struct rights_made *m, struct user_doc *u)
{
	enum err e = user_there(c, at, u);
	if (e == OK && administers(u))
		e = step_down(c, at, m);
	if (e != OK)
		return e;
	struct made_doc *d = made_user(m, c->name);
	d->before = part_of(m, user_value(at, c->name));
	d->only = DOC_SAME;
	(void)made_index(m, u);
	size_t spot = buf_len(&m->kept);
	quota_key(QUOTA_USER, c->name, &m->kept);
	(void)made_add(m, spot);
	return OK;
}

/* The user first, so that its rights are gone at once. One of the same name that is there when the
 * user has gone is another, and so are its rules. */
static enum err delete_user(
	struct rights_change *c, const struct catalog *at, struct rights_made *m)
{
	struct user_doc u;
	bool there = rights_user(at, c->name, &u);
	struct bytes tenant = m->user_gone ? bytes_of(m->tenant, m->tenant_len) : c->tenant;
	m->rules_left = false;
	if (m->user_gone && there)
		return OK;
	if (there) {
		enum err e = remove_user(c, at, m, &u);
		if (e != OK)
			return e;
		tenant = u.tenant;
	} else if (tenant.len > TENANT_NAME_MAX || may_touch(c, tenant) != OK) {
		return rights_no(c, ERR_NOTFOUND, "there is no such user");
	}
	remove_rules(tenant, c->name, at, m);
	if (m->count == 0 && !m->user_gone)
		return rights_no(c, ERR_NOTFOUND, "there is no such user");
	m->tenant_len = (uint8_t)tenant.len;
	if (tenant.len > 0)
		memmove(m->tenant, tenant.at, tenant.len);
	return OK;
}

/* --- rules and quotas */

static enum err make_rules(struct rights_change *c, struct rights_made *m)
{
	for (int i = 0; i < c->rule_count; i++) {
		size_t spot = buf_len(&m->kept);
		rule_key(&c->rules[i], &m->kept);
		struct made_doc *d = made_add(m, spot);
		if (c->kind == RULES_ADD)
			d->value = part_of(m, bytes_of("", 0));
	}
	return OK;
}

static enum err make_quota(struct rights_change *c, const struct catalog *at, struct rights_made *m)
{
	struct quota_doc q = c->quota, old;
	struct user_doc u;
	bool any = false, merged = false, there = rights_quota(at, q.kind, q.name, &old);
	if (q.kind == QUOTA_USER && c->by != NULL && !access_cluster_admin(c->by) &&
		(!rights_user(at, q.name, &u) || may_touch(c, u.tenant) != OK))
		return rights_no(c, ERR_NOTFOUND, "there is no such user");
	for (int i = 0; i < QUOTA_WHATS; i++) {
		bool stays = q.limit[i] == QUOTA_AS_IS;
		if (stays)
			q.limit[i] = there ? old.limit[i] : -1;
		merged |= stays;
		any |= q.limit[i] >= 0;
	}
	size_t spot = buf_len(&m->kept);
	quota_key(q.kind, q.name, &m->kept);
	struct made_doc *d = made_add(m, spot);
	const struct catalog_doc *now = catalog_doc(at, part_bytes(m, d->key));
	if (merged) {
		d->only = DOC_SAME;
		if (now != NULL)
			d->before = part_of(m, now->value);
	}
	if (!any)
		return OK;
	spot = buf_len(&m->kept);
	quota_write(&q, &m->kept);
	d->value = part_from(m, spot);
	return OK;
}

static enum err make(struct rights_change *c, const struct catalog *at, struct rights_made *m)
{
	switch (c->kind) {
	case USER_ADD: return make_user(c, at, m);
	case USER_ALTER: return alter_user(c, at, m);
	case USER_DELETE: return delete_user(c, at, m);
	case RULES_ADD:
	case RULES_DELETE: return make_rules(c, m);
	case QUOTA_SET: return make_quota(c, at, m);
	}
	return ERR_UNSUPPORTED;
}

enum err rights_make(struct rights_change *c, const struct catalog *at, struct rights_made *m)
{
	buf_clear(&m->kept);
	m->count = 0;
	c->why[0] = 0;
	enum err e = make(c, at, m);
	return e == OK ? made_end(c, m) : e;
}
