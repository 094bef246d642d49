/* Accesses: who a connection is, on its loop. What it may is looked up when it is first asked for,
 * and again after a change: a change marks accesses and is done, however many there are. Those who
 * hold them are told turn by turn, some at a time; the answers are the new ones at once. */
#include "server/broker/access_priv.h"
#include "server/broker/audit.h"
#include "server/broker/rights_admin.h"
#include "server/broker/tenant.h"

enum { TOLD_EACH_TURN = 256, KEY_MAX = 512, STAYS_MS = 1000 };
static const char anonymous[] = "ANONYMOUS";

/* ---- where from */

bool host_is_loopback(struct bytes host)
{
	return (host.len >= 4 && memcmp(host.at, "127.", 4) == 0) ||
		bytes_equal(host, bytes_text("::1"));
}

/* The address in conn_peer's text: "10.0.0.1:4711", "[::1]:4711". */
struct bytes host_of(const char *peer, char out[ACCESS_HOST_MAX + 1])
{
	static const char mapped[] = "::ffff:";
	const char *from = peer == NULL ? "" : peer, *end = strchr(from, ':');
	if (*from == '[') {
		end = strchr(++from, ']');
		size_t skip = sizeof mapped - 1;
		if (strncmp(from, mapped, skip) == 0 && strchr(from + skip, '.') != NULL)
			from += skip;
	}
	size_t len = end != NULL ? (size_t)(end - from) : strlen(from);
	if (len > ACCESS_HOST_MAX)
		len = 0;
	memcpy(out, from, len);
	out[len] = 0;
	return bytes_of(out, len);
}

/* ---- life */

static struct bytes key_make(uint8_t room[KEY_MAX], enum access_kind kind, struct bytes tenant,
	struct bytes user, struct bytes host)
{
	struct wr k = wr_over(room, KEY_MAX);
	wr_u8(&k, (uint8_t)kind);
	wr_bytes(&k, tenant);
	wr_u8(&k, 0);
	wr_bytes(&k, user);
	wr_u8(&k, 0);
	wr_bytes(&k, host);
	must(k.err == OK);
	return bytes_of(room, wr_len(&k));
}

static void anonymous_look(struct loop_timer *t)
{
	struct shard_rights *r = list_entry(t, struct shard_rights, anonymous_timer);
	struct access *a;
	for (uint32_t at = 0; (a = map_next(&r->accesses, &at)) != NULL;)
		if (!access_anonymous_stays(a))
			access_end(a);
	if (r->anonymous_count > 0)
		loop_timer_set(t, STAYS_MS);
}

static struct access *access_get(struct shard_rights *r, enum access_kind kind, struct bytes tenant,
	struct bytes user, struct bytes host)
{
	uint8_t room[KEY_MAX];
	loop_must_own(r->shard->loop);
	struct bytes k = key_make(room, kind, tenant, user, host);
	struct access *a = map_get(&r->accesses, k);
	if (a == NULL) {
		a = mem_new(sizeof *a + k.len);
		uint8_t *at = (uint8_t *)(a + 1);
		memcpy(at, k.at, k.len);
		a->home = r;
		a->kind = kind;
		a->key = bytes_of(at, k.len);
		a->tenant = bytes_of(at + 1, tenant.len);
		a->user = bytes_of(at + tenant.len + 2, user.len);
		a->host = bytes_of(at + tenant.len + user.len + 3, host.len);
		a->loopback = host_is_loopback(host);
		list_init(&a->holders);
		list_init(&a->telling);
		list_init(&a->in_telling);
		list_push_back(&r->all, &a->in_all);
		(void)map_put(&r->accesses, a->key, a);
		access_set_limits(a);
		if (kind == BY_NOBODY && r->anonymous_count++ == 0)
			loop_timer_set(&r->anonymous_timer, STAYS_MS);
	}
	return access_ref(a);
}

struct access *access_ref(struct access *a)
{
	a->refs++;
	return a;
}

void access_free(struct access *a)
{
	list_remove(&a->in_all);
	list_remove(&a->in_telling);
	grants_unref(a->grants);
	mem_free(a);
}

void access_unref(struct access *a)
{
	if (a == NULL || --a->refs > 0)
		return;
	loop_must_own(a->home->shard->loop);
	if (!a->gone)
		(void)map_remove(&a->home->accesses, a->key);
	if (a->kind == BY_NOBODY && --a->home->anonymous_count == 0)
		loop_timer_cancel(&a->home->anonymous_timer);
	access_free(a);
}

void access_init(struct shard_rights *r)
{
	loop_timer_init(&r->anonymous_timer, r->shard->loop, anonymous_look);
	loop_hook_init(&r->tell_hook, access_tell);
}

struct access *access_of_user(struct shard *s, struct bytes user, const char *peer)
{
	struct shard_rights *r = rights_of(s);
	char host[ACCESS_HOST_MAX + 1];
	struct user_doc u;
	if (!rights_find_user(r, user, &u) || u.disabled)
		return NULL;
	return access_get(r, BY_USER, u.tenant, user, host_of(peer, host));
}

struct access *access_anonymous(struct shard *s, const char *peer)
{
	char host[ACCESS_HOST_MAX + 1];
	return access_get(rights_of(s), BY_NOBODY, bytes_of(NULL, 0), bytes_text(anonymous),
		host_of(peer, host));
}

struct access *access_later(struct shard *s, struct bytes user, const char *peer)
{
	char host[ACCESS_HOST_MAX + 1];
	if (!bytes_equal(user, bytes_text(anonymous)))
		return access_of_user(s, user, peer);
	bool loopback = host_is_loopback(host_of(peer, host));
	return anonymous_allowed(rights_of(s), loopback) ? access_anonymous(s, peer) : NULL;
}

/* Its name is no user's: those have no colon. */
struct access *access_all(struct shard *s, struct bytes tenant, const char *peer)
{
	return access_get(rights_of(s), BY_ALL, tenant, bytes_text(peer), bytes_of(NULL, 0));
}

struct access *access_in(struct access *a, struct bytes tenant)
{
	if (bytes_equal(a->tenant, tenant))
		return access_ref(a);
	if (!access_cluster_admin(a))
		return NULL;
	return access_get(a->home, a->kind, tenant, a->user, a->host);
}

/* ---- what it may */

/* No users, and none on its way (auth.bootstrap): who is faster than the first administrator would
 * be one, make another user, and the first one would not come. */
static bool rights_open(const struct shard_rights *r)
{
	return !r->any_user && !r->rights->broker->bootstraps;
}

static void refresh_user(struct access *a)
{
	struct user_doc u;
	if (!rights_find_user(a->home, a->user, &u) || u.disabled)
		return;
	for (int i = 0; i < u.role_count; i++)
		a->admin |= bytes_equal(u.roles[i], bytes_text("admin"));
	a->cluster_admin = a->admin && u.tenant.len == 0;
	if (!bytes_equal(u.tenant, a->tenant))
		a->admin = a->cluster_admin; /* acts in another one */
	else if (!a->admin)
		a->grants = grants_get(a->home, a->user, a->tenant, a->host);
}

static void refresh(struct access *a)
{
	struct grants *old = a->grants;
	a->fresh = true;
	a->admin = a->cluster_admin = a->open = false;
	a->grants = NULL;
	switch (a->kind) {
	case BY_ALL: a->admin = a->cluster_admin = true; break;
	case BY_NOBODY:
		a->open = rights_known(a->home) && rights_open(a->home);
		a->admin = a->cluster_admin = a->open;
		if (!a->open && a->tenant.len == 0)
			a->grants = grants_get(a->home, a->user, a->tenant, a->host);
		break;
	case BY_USER: refresh_user(a); break;
	}
	grants_unref(old); /* last: the same ones need not be compiled anew */
}

/* A fresh one that may at least something; NULL: gone. */
static inline struct access *fresh(const struct access *a)
{
	struct access *mine = (struct access *)(uintptr_t)a;
	if (a->gone)
		return NULL;
	if (!a->fresh)
		refresh(mine);
	return mine;
}

struct bytes access_user(const struct access *a)
{
	return a->user;
}

struct bytes access_tenant(const struct access *a)
{
	return a->tenant;
}

bool access_admin(const struct access *a)
{
	a = fresh(a);
	return a != NULL && a->admin;
}

bool access_cluster_admin(const struct access *a)
{
	a = fresh(a);
	return a != NULL && a->cluster_admin;
}

/* What "the cluster" is to a tenant other than the default one: its own streams. */
static bool beyond_tenant(const struct access *a, enum action action)
{
	return a->tenant.len > 0 && !a->cluster_admin && action != ACTION_DESCRIBE &&
		action != ACTION_CREATE && action != ACTION_IDEMPOTENT_WRITE;
}

/* The server's own. Who does things that are told of can't take that back. */
static bool internal_may(const struct access *a, enum action action, struct bytes name)
{
	bool told = a->tenant.len == 0 && bytes_equal(name, bytes_text(audit_stream));
	bool changes = action == ACTION_WRITE || action == ACTION_DELETE || action == ACTION_ALTER;
	return a->admin && !(told && changes);
}

bool access_may(struct access *a, enum action action, enum resource resource, struct bytes name)
{
	static const char cluster[] = "kafka-cluster";
	if (resource == RESOURCE_TOPIC)
		return access_topic(a, action, name, bytes_of(NULL, 0));
	if (fresh(a) == NULL || (resource == RESOURCE_CLUSTER && beyond_tenant(a, action)))
		return false;
	if (resource == RESOURCE_STREAM && stream_name_internal(name))
		return internal_may(a, action, name);
	if (a->grants == NULL)
		return a->admin;
	if (resource == RESOURCE_CLUSTER)
		name = bytes_of(cluster, sizeof cluster - 1);
	return acl_may(a->grants->acl, action, resource, name);
}

bool access_may_create(struct access *a, struct bytes stream)
{
	return access_may(a, ACTION_CREATE, RESOURCE_STREAM, stream) ||
		(!stream_name_internal(stream) &&
			access_may(a, ACTION_CREATE, RESOURCE_CLUSTER, bytes_of(NULL, 0)));
}

bool access_may_any(struct access *a, enum action action, enum resource resource)
{
	if (fresh(a) == NULL || (resource == RESOURCE_CLUSTER && beyond_tenant(a, action)))
		return false;
	return a->grants == NULL ? a->admin : acl_may_any(a->grants->acl, action, resource);
}

bool access_topic(struct access *a, enum action action, struct bytes topic, struct bytes client_id)
{
	if (fresh(a) == NULL)
		return false;
	return a->grants == NULL ? a->admin : acl_topic(a->grants->acl, action, topic, client_id);
}

enum access_filter access_filter(struct access *a, struct bytes filter, struct bytes client_id)
{
	if (fresh(a) == NULL)
		return ACCESS_NONE;
	if (a->grants == NULL)
		return a->admin ? ACCESS_ALL : ACCESS_NONE;
	return acl_filter(a->grants->acl, ACTION_READ, filter, client_id);
}

/* ---- changes */

bool anonymous_allowed(const struct shard_rights *r, bool loopback)
{
	switch (r->rights->broker->conf->auth_anonymous) {
	case ANONYMOUS_ON: return true;
	case ANONYMOUS_AUTO: return loopback && rights_open(r);
	default: return false;
	}
}

bool access_anonymous_stays(const struct access *a)
{
	if (a->kind != BY_NOBODY)
		return true;
	/* Who was let in while everybody might everything begins anew when there are users. */
	return anonymous_allowed(a->home, a->loopback) && !(a->open && a->home->any_user);
}

static void tell(struct access *a)
{
	while (!list_empty(&a->holders))
		list_push_back(&a->telling, list_pop(&a->holders));
	if (list_empty(&a->telling) || !list_empty(&a->in_telling))
		return;
	list_push_back(&a->home->telling, &access_ref(a)->in_telling);
	loop_hook_want(a->home->shard->loop, STAGE_PUBLISH, &a->home->tell_hook);
}

void access_stale(struct access *a)
{
	a->fresh = false;
	tell(a);
}

void access_end(struct access *a)
{
	if (a->gone)
		return;
	a->gone = true;
	(void)map_remove(&a->home->accesses, a->key);
	tell(a);
}

void access_tell(struct loop_hook *h)
{
	struct shard_rights *r = list_entry(h, struct shard_rights, tell_hook);
	for (int told = 0; told < TOLD_EACH_TURN && !list_empty(&r->telling);) {
		struct access *a = list_entry(r->telling.next, struct access, in_telling);
		struct list *n = list_pop(&a->telling);
		if (n != NULL) {
			struct access_holder *holder = list_entry(n, struct access_holder, node);
			list_push_back(&a->holders, n);
			holder->changed(holder, a->gone);
			told++;
		}
		if (list_empty(&a->telling)) {
			list_remove(&a->in_telling);
			access_unref(a);
		}
	}
	if (!list_empty(&r->telling))
		loop_hook_want(r->shard->loop, STAGE_PUBLISH, h);
}

/* ---- holding and quotas */

enum err access_hold(struct access_holder *h, struct access *a)
{
	for (int i = 0; i < 2; i++) {
		struct limit *l = &a->limits[i];
		if (l->limiter == NULL || limiter_connect(l->limiter, l->most[QUOTA_CONNECTIONS]))
			continue;
		if (i == 1 && a->limits[0].limiter != NULL)
			limiter_add_connections(a->limits[0].limiter, -1);
		return ERR_BUSY;
	}
	h->access = a;
	list_push_back(&a->holders, &h->node);
	a->held++;
	if (a->gone)
		tell(a); /* it went between the login and now */
	return OK;
}

void access_release(struct access_holder *h)
{
	struct access *a = h->access;
	if (a == NULL)
		return;
	h->access = NULL;
	list_remove(&h->node);
	a->held--;
	for (int i = 0; i < 2; i++)
		if (a->limits[i].limiter != NULL)
			limiter_add_connections(a->limits[i].limiter, -1);
	access_unref(a);
}

static bool quota_find(const struct shard_rights *r, enum quota_kind kind, struct bytes name,
	struct quota_doc *out)
{
	return r->catalog != NULL && rights_quota(r->catalog, kind, name, out);
}

/* One of the two: name is of the user or tenant. */
static void set_limit(struct access *a, struct limit *l, enum quota_kind kind, struct bytes name)
{
	struct shard_rights *r = a->home;
	struct quota_doc q;
	struct limiter *before = l->limiter;
	l->limiter = NULL;
	if (a->kind != BY_ALL &&
		(quota_find(r, kind, name, &q) || quota_find(r, kind, bytes_of(NULL, 0), &q))) {
		memcpy(l->most, q.limit, sizeof l->most);
		l->limiter = quota_limiter(r->rights->quotas, kind, name);
	}
	if (before == l->limiter)
		return;
	if (before != NULL)
		limiter_add_connections(before, -a->held);
	if (l->limiter != NULL)
		limiter_add_connections(l->limiter, a->held);
}

struct bytes access_tenant_name(const struct access *a)
{
	return a->tenant.len > 0 ? a->tenant : bytes_text(tenant_text(""));
}

void access_set_limits(struct access *a)
{
	set_limit(a, &a->limits[0], QUOTA_USER, a->user);
	set_limit(a, &a->limits[1], QUOTA_TENANT, access_tenant_name(a));
	a->limited = a->limits[0].limiter != NULL || a->limits[1].limiter != NULL;
}

bool access_limited(const struct access *a)
{
	return a->limited;
}

static int64_t charge(struct access *a, enum quota_what messages_what, int64_t messages,
	enum quota_what bytes_what, int64_t bytes)
{
	int64_t now = loop_now_ms(a->home->shard->loop), wait = 0;
	for (int i = 0; i < 2; i++) {
		const struct limit *l = &a->limits[i];
		if (l->limiter == NULL)
			continue;
		int64_t m = limiter_charge(
			l->limiter, messages_what, l->most[messages_what], messages, now);
		int64_t b = limiter_charge(l->limiter, bytes_what, l->most[bytes_what], bytes, now);
		wait = m > wait ? m : wait;
		wait = b > wait ? b : wait;
	}
	return wait;
}

int64_t access_charge_in(struct access *a, int64_t messages, int64_t bytes)
{
	return a->limited ? charge(a, QUOTA_MESSAGES_IN, messages, QUOTA_BYTES_IN, bytes) : 0;
}

int64_t access_charge_out(struct access *a, int64_t messages, int64_t bytes)
{
	return a->limited ? charge(a, QUOTA_MESSAGES_OUT, messages, QUOTA_BYTES_OUT, bytes) : 0;
}

/* ---- names */

const struct stream *access_stream(const struct access *a, struct bytes name)
{
	struct tenant_stream full;
	const struct catalog *c = shard_catalog(a->home->shard);
	if (c == NULL || tenant_stream(a->tenant, name, &full) != OK)
		return NULL;
	return catalog_stream(c, bytes_of(full.text, full.len));
}

bool access_sees(const struct access *a, const struct stream *s, struct bytes *name)
{
	struct bytes tenant;
	tenant_stream_split(bytes_text(s->name), &tenant, name);
	return bytes_equal(tenant, a->tenant);
}
