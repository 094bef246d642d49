/* A change of users, rules or quotas: what is wrong with it is found first; a password is hashed by
 * those who compare them for logins, as anybody may change its own (reads of the disk must not wait
 * for that), and not at all if it is only tried; then documents are made of it and asked for, again
 * a few times if others changed the same meanwhile: by then their change is likely to be in force
 * here. */
#include "server/broker/rights_admin.h"
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>
#include "server/base/log.h"
#include "server/broker/audit.h"
#include "server/broker/auth_priv.h"
#include "server/broker/rights_priv.h"
#include "server/broker/tenant.h"
#include "server/broker/tenant_limit.h"

enum {
	ATTEMPTS = 8,
	AGAIN_MS = 10,    /* doubled each time */
	RULES_TOLD = 100, /* one record each */
	BOOTSTRAP_AGAIN_MS = 1000,
	BOOTSTRAP_POLL_MS = 10, /* until the node is ready */
	PASSWORD_MAX = 1024     /* rights_check has looked */
};

struct work {
	struct rights_change *change;
	struct rights_made made;
	int attempts;
	struct job job; /* touches nothing but this: who asked may be gone at the server's end */
	struct auth_node *auth;
	struct buf password;
	_Atomic bool hashing;
};

static const char *const words[] = {
	[USER_ADD] = "user-add",
	[USER_ALTER] = "user-alter",
	[USER_DELETE] = "user-delete",
	[RULES_ADD] = "rule-add",
	[RULES_DELETE] = "rule-delete",
	[QUOTA_SET] = "quota-set",
};

/* --- what is told of it */

static void tell(const struct rights_change *c, struct bytes object, const char *detail)
{
	struct bytes by = c->by != NULL ? access_user(c->by) : bytes_text("(node)");
	audit(c->shard,
		&(struct audit_event){.what = words[c->kind],
			.door = c->door,
			.peer = c->peer,
			.user = by,
			.tenant = c->by != NULL ? access_tenant(c->by) : bytes_of("", 0),
			.object = object,
			.err = c->err,
			.detail = detail});
	if (c->err == OK)
		LOG(LOG_INFO, AREA_BROKER, "rights_changed", "what=%s by=%s object=%s",
			words[c->kind], log_text(by).text, log_text(object).text);
}

static void tell_user(const struct rights_change *c)
{
	char detail[200];
	int at = 0;
	detail[0] = 0;
#define ADD(...) at += snprintf(detail + at, sizeof detail - (size_t)at, __VA_ARGS__)
	if (c->kind == USER_ADD)
		ADD("tenant=%.*s ", (int)c->tenant.len,
			c->tenant.len > 0 ? (const char *)c->tenant.at : "");
	if (c->password != NULL || c->secret != NULL)
		ADD("password ");
	if (c->drop != 0)
		ADD("drop=%d ", (int)c->drop);
	if (c->able != USER_AS_IS)
		ADD("%s ", c->able == USER_ENABLE ? "enabled" : "disabled");
	for (int i = 0; c->roles != NULL && i < c->role_count && at < 120; i++)
		ADD("role=%.*s ", (int)(c->roles[i].len < 64 ? c->roles[i].len : 64),
			(const char *)c->roles[i].at);
#undef ADD
	tell(c, c->name, at > 0 ? detail : NULL);
}

static void tell_rule(const struct rights_change *c, const struct rule *r)
{
	char who[USER_NAME_MAX + 8], detail[400];
	snprintf(who, sizeof who, "%s:%.*s", r->principal == PRINCIPAL_ROLE ? "role" : "user",
		(int)(r->who.len < USER_NAME_MAX ? r->who.len : USER_NAME_MAX),
		r->who.len > 0 ? (const char *)r->who.at : "");
	snprintf(detail, sizeof detail, "%s %s %s %s %.*s host %.*s", r->deny ? "deny" : "allow",
		action_word(r->action), resource_word(r->resource),
		r->pattern == RULE_PREFIXED ? "prefixed" : "literal",
		(int)(r->name.len < 200 ? r->name.len : 200),
		r->name.len > 0 ? (const char *)r->name.at : "",
		(int)(r->host.len < RULE_HOST_MAX ? r->host.len : RULE_HOST_MAX),
		r->host.len > 0 ? (const char *)r->host.at : "");
	tell(c, bytes_text(who), detail);
}

static void tell_quota(const struct rights_change *c)
{
	char detail[16 + QUOTA_WHATS * 40];
	int at = snprintf(
		detail, sizeof detail, "%s", c->quota.kind == QUOTA_TENANT ? "tenant" : "user");
	for (int i = 0; i < QUOTA_WHATS; i++)
		if (c->quota.limit[i] >= 0)
			at += snprintf(detail + at, sizeof detail - (size_t)at, " %s=%lld",
				quota_word((enum quota_what)i), (long long)c->quota.limit[i]);
	tell(c, c->quota.name, detail);
}

static void tell_all(const struct rights_change *c)
{
	char more[40];
	switch (c->kind) {
	case USER_ADD:
	case USER_ALTER:
	case USER_DELETE: tell_user(c); break;
	case RULES_ADD:
	case RULES_DELETE:
		for (int i = 0; i < c->rule_count && i < RULES_TOLD; i++)
			tell_rule(c, &c->rules[i]);
		snprintf(more, sizeof more, "%d more rules", c->rule_count - RULES_TOLD);
		if (c->rule_count > RULES_TOLD)
			tell(c, bytes_of(NULL, 0), more);
		break;
	case QUOTA_SET: tell_quota(c); break;
	}
}

/* --- the change */

static void work_free(struct work *w)
{
	rights_made_fini(&w->made);
	buf_fini(&w->password);
	mem_free(w);
}

static void end(struct rights_change *c, enum err e)
{
	struct work *w = c->work;
	c->err = e;
	c->work = NULL;
	if (e != OK && c->why[0] == 0)
		snprintf(c->why, sizeof c->why, "%s", err_text(e));
	if (!c->check_only)
		tell_all(c);
	work_free(w);
	c->done(c);
}

static void attempt(struct rights_change *c);

static void again(struct loop_timer *t)
{
	attempt(list_entry(t, struct rights_change, timer));
}

static void changed(struct meta_op *op)
{
	struct rights_change *c = list_entry(op, struct rights_change, op);
	struct work *w = c->work;
	bool lost = op->err == ERR_CONFLICT || op->err == ERR_BUSY ||
		(op->err == ERR_EXISTS && c->kind != USER_ADD);
	if (lost && ++w->attempts < ATTEMPTS) {
		loop_timer_set(&c->timer, AGAIN_MS << w->attempts);
		return;
	}
	c->why[0] = 0;
	if (op->err == OK && w->made.rules_left && !c->check_only) {
		w->made.user_gone = true;
		w->attempts = 0;
		loop_timer_set(&c->timer, 0);
		return;
	}
	if (op->err == ERR_EXISTS)
		(void)rights_no(c, op->err, "there is a user of that name");
	else if (op->err != OK)
		(void)rights_no(c, op->err, "%s", op->why);
	end(c, op->err);
}

/* Of the tenants that it adds something to. */
static enum err limits_of(struct rights_change *c, struct tenant_limits *out)
{
	const struct catalog *at = shard_catalog(c->shard);
	enum err e = OK;
	if (c->kind == USER_ADD)
		e = tenant_limit_add(out, at, c->tenant, QUOTA_USERS);
	for (int i = 0; c->kind == RULES_ADD && e == OK && i < c->rule_count; i++)
		if (i == 0 || !bytes_equal(c->rules[i].tenant, c->rules[i - 1].tenant))
			e = tenant_limit_add(out, at, c->rules[i].tenant, QUOTA_RULES);
	return e == OK ? OK : rights_no(c, e, "rules of too many tenants at once");
}

static void attempt(struct rights_change *c)
{
	struct work *w = c->work;
	struct tenant_limits limits = {0};
	enum err e = rights_make(c, shard_catalog(c->shard), &w->made);
	bool nothing = w->made.user_gone && w->made.count == 0;
	if (e == OK && !nothing)
		e = limits_of(c, &limits);
	if (e != OK || nothing) {
		end(c, e);
		return;
	}
	c->op = (struct meta_op){.kind = META_DOCS,
		.docs = w->made.docs,
		.doc_count = (int)w->made.count,
		.docs_none = c->first ? bytes_of("u", 2) : bytes_of(NULL, 0),
		.limits = limits.at,
		.limit_count = limits.count,
		.check_only = c->check_only,
		.done = changed};
	node_change(shard_node(c->shard), &c->op);
}

static void hash(struct job *j)
{
	struct work *w = list_entry(j, struct work, job);
	struct bytes password = buf_bytes(&w->password);
	if (!atomic_load(&w->auth->stopping))
		w->made.hashed = secrets_make(password, &w->made.secrets);
	secret_wipe((void *)(uintptr_t)password.at, password.len);
	atomic_store(&w->hashing, false);
}

static void hashed(struct job *j)
{
	attempt(list_entry(j, struct work, job)->change);
}

static void hash_password(struct rights_change *c)
{
	struct work *w = c->work;
	buf_add(&w->password, *c->password);
	w->auth = rights_of(c->shard)->rights->auth;
	atomic_store(&w->hashing, true);
	w->job = (struct job){.home = shard_loop(c->shard), .work = hash, .done = hashed};
	worker_run(w->auth->hashers, &w->job);
}

static void start(struct loop_msg *m)
{
	struct rights_change *c = list_entry(m, struct rights_change, msg);
	enum err e = rights_check(c);
	if (e != OK) {
		end(c, e);
	} else if (c->password != NULL && c->kind != USER_DELETE && !c->check_only) {
		hash_password(c);
	} else {
		attempt(c);
	}
}

void rights_change(struct rights_change *c)
{
	struct work *w = mem_new(sizeof *w);
	loop_must_own(shard_loop(c->shard));
	w->change = c;
	rights_made_init(&w->made);
	buf_init(&w->password, PASSWORD_MAX);
	c->work = w;
	c->why[0] = 0;
	loop_timer_init(&c->timer, shard_loop(c->shard), again);
	c->msg.run = start;
	loop_post(shard_loop(c->shard), &c->msg);
}

/* --- the first administrator */

struct bootstrap {
	struct rights_change change;
	struct loop_timer timer;
	struct broker *broker;
	struct bytes password, role;
	size_t len;
	char text[]; /* name:password */
};

static void bootstrap_over(struct bootstrap *b)
{
	secret_wipe(b->text, b->len);
	atomic_store(&b->broker->admin_due, false);
}

static void bootstrap_done(struct rights_change *c)
{
	struct bootstrap *b = list_entry(c, struct bootstrap, change);
	if (c->err == OK)
		LOG(LOG_INFO, AREA_BROKER, "bootstrap_done", "user=%s", log_text(c->name).text);
	if (c->err == OK || c->err == ERR_INVALID) {
		if (c->err != OK)
			LOG(LOG_ERROR, AREA_BROKER, "bootstrap_refused", "why=\"%s\"", c->why);
		bootstrap_over(b);
		return;
	}
	loop_timer_set(&b->timer, BOOTSTRAP_AGAIN_MS); /* there may be users by now */
}

static void bootstrap_try(struct loop_timer *t)
{
	struct bootstrap *b = list_entry(t, struct bootstrap, timer);
	struct shard *s = &b->broker->shards[0];
	const struct catalog *c = shard_catalog(s);
	if (c != NULL && rights_any_user(c)) {
		bootstrap_over(b);
		return;
	}
	if (c == NULL || !node_ready(b->broker->node)) {
		loop_timer_set(t, BOOTSTRAP_POLL_MS);
		return;
	}
	b->change.shard = s;
	rights_change(&b->change);
}

static void bootstrap_start(void *arg)
{
	struct bootstrap *b = arg;
	bootstrap_try(&b->timer);
}

void rights_bootstrap(struct broker *broker, const char *text)
{
	size_t len = text != NULL ? strlen(text) : 0;
	const char *colon = len > 0 ? memchr(text, ':', len) : NULL;
	if (colon == NULL || broker->bootstrap != NULL)
		return;
	struct bootstrap *b = mem_new(sizeof *b + len);
	size_t name = (size_t)(colon - text);
	b->broker = broker;
	b->len = len;
	memcpy(b->text, text, len);
	secret_wipe((void *)(uintptr_t)text, len); /* the configuration's own copy */
	b->password = bytes_of(b->text + name + 1, len - name - 1);
	b->role = bytes_text("admin");
	b->change = (struct rights_change){.kind = USER_ADD,
		.first = true,
		.name = bytes_of(b->text, name),
		.tenant = bytes_of("", 0),
		.password = &b->password,
		.roles = &b->role,
		.role_count = 1,
		.done = bootstrap_done};
	loop_timer_init(&b->timer, loops_at(broker->loops, 0), bootstrap_try);
	broker->bootstrap = b;
	atomic_store(&broker->admin_due, true);
	loop_call(loops_at(broker->loops, 0), bootstrap_start, b);
}

void rights_bootstrap_fini(struct broker *broker)
{
	struct bootstrap *b = broker->bootstrap;
	if (b == NULL)
		return;
	struct work *w = b->change.work;
	while (w != NULL && atomic_load(&w->hashing)) /* some milliseconds, on a worker */
		usleep(1000);
	if (w != NULL)
		work_free(w);
	secret_wipe(b->text, b->len);
	mem_free(b);
	broker->bootstrap = NULL;
}
