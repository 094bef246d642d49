/* Who asks, and what that one may. Credentials come with each request; a connection remembers the
 * last ones, as an HMAC under a key of the process, together with what they gave, so that requests
 * on it cost a comparison. Without credentials: the node's own socket, a certificate, or whatever
 * auth.anonymous allows.
 *
 * The table of routes says what each request needs, and here is the one place that asks. Handlers
 * ask again only about what the path does not tell: names in bodies and what lists may show. */
#include <strings.h>
#include "protocols/http/http_priv.h"
#include "server/base/mem.h"
#include "server/broker/audit.h"

enum { CREDENTIALS_BYTES_MAX = 4096 };

struct http_login { /* a password that is being compared */
	struct auth_login login;
	struct http_who *who;
	struct exchange *x; /* NULL: the connection has gone */
	uint8_t mac[32];
};

/* ---- logins */

static void peer_of(const struct exchange *x, struct auth_peer *out)
{
	const struct conn *c = x->conn;

	*out = (struct auth_peer){.door = "http",
		.address = conn_peer(c),
		.tls = conn_is_tls(c),
		.local = conn_is_local(c),
		.cert_subject = conn_cert_subject(c),
		.cert_name = conn_cert_name(c),
		.cert_san = conn_cert_san(c)};
}

void login_changed(struct access_holder *h, bool gone)
{
	if (gone)
		access_release(h);
}

/* Keeps what a login gave for the connection, and gives x its share. */
static enum err who_keep(struct http_who *w, struct exchange *x, struct access *a)
{
	if (w->holder.access == a) {
		access_unref(a);
	} else {
		access_release(&w->holder);
		if (access_hold(&w->holder, a) != OK) {
			access_unref(a);
			return ERR_RANGE;
		}
	}
	x->access = access_ref(w->holder.access);
	return OK;
}

static void logged_in(struct auth_login *l)
{
	struct http_login *p = list_entry(l, struct http_login, login);
	struct exchange *x = p->x;
	enum err e = l->err;

	if (x == NULL) {
		access_unref(l->access);
		mem_free(p);
		return;
	}
	p->who->pending = NULL;
	if (e == OK)
		e = who_keep(p->who, x, l->access);
	p->who->credentials = e == OK;
	memcpy(p->who->mac, p->mac, sizeof p->mac);
	mem_free(p);
	exchange_known(x, e);
}

/* "Basic" and base64 of user:password; whatever else there is, is nobody's. */
static void credentials_read(struct bytes text, struct buf *out)
{
	static const char scheme[] = "basic ";
	size_t len = sizeof scheme - 1;

	buf_init(out, CREDENTIALS_BYTES_MAX);
	if (text.len <= len || strncasecmp((const char *)text.at, scheme, len) != 0)
		return;
	while (len < text.len && text.at[len] == ' ')
		len++;
	if (base64_read(bytes_of(text.at + len, text.len - len), out) != OK)
		buf_clear(out);
}

static void login_start(
	struct http_who *w, struct exchange *x, struct bytes text, const uint8_t *mac)
{
	struct http_login *p = mem_new(sizeof *p);
	struct bytes user, password = {0};
	const uint8_t *colon;
	struct auth_peer peer;
	struct buf kept;

	credentials_read(text, &kept);
	user = buf_bytes(&kept);
	colon = user.len > 0 ? memchr(user.at, ':', user.len) : NULL;
	if (colon != NULL) {
		size_t len = (size_t)(colon - user.at);
		password = bytes_of(colon + 1, user.len - len - 1);
		user.len = len;
	}
	p->who = w;
	p->x = x;
	memcpy(p->mac, mac, sizeof p->mac);
	p->login.shard = x->shard;
	p->login.done = logged_in;
	w->pending = p;
	access_release(&w->holder);
	w->credentials = false;
	peer_of(x, &peer);
	auth_login(&p->login, &peer, user, password);
	secret_wipe((void *)(uintptr_t)buf_bytes(&kept).at, buf_len(&kept));
	buf_fini(&kept);
}

enum err login_begin(struct http_who *w, struct exchange *x)
{
	struct bytes text = request_header(x, "authorization");
	uint8_t mac[32];
	struct auth_peer peer;
	struct access *a;
	enum err e;

	if (text.at != NULL && text.len > 0) {
		secret_mac(bytes_of(x->http->key, sizeof x->http->key), text, mac);
		if (w->credentials && w->holder.access != NULL &&
			secret_equal(bytes_of(mac, sizeof mac), bytes_of(w->mac, sizeof mac))) {
			x->access = access_ref(w->holder.access);
			return OK;
		}
		login_start(w, x, text, mac);
		return ERR_MORE;
	}
	if (!w->credentials && w->holder.access != NULL && conn_cert_subject(x->conn) != NULL) {
		x->access = access_ref(w->holder.access);
		return OK;
	}
	w->credentials = false;
	peer_of(x, &peer);
	e = auth_without(x->shard, &peer, &a);
	return e == OK ? who_keep(w, x, a) : e;
}

struct exchange *login_drop(struct http_who *w)
{
	struct exchange *x = NULL;

	if (w->pending != NULL) {
		x = w->pending->x;
		w->pending->x = NULL;
		auth_cancel(&w->pending->login);
		w->pending = NULL;
	}
	access_release(&w->holder);
	return x;
}

/* ---- rights */

bool exchange_may(struct exchange *x, enum action action, enum resource resource, struct bytes name)
{
	return access_may(x->access, action, resource, name);
}

bool exchange_may_cluster(struct exchange *x, enum action action)
{
	return access_may(x->access, action, RESOURCE_CLUSTER, bytes_of(NULL, 0));
}

static bool denied(struct exchange *x, enum action action, enum resource resource)
{
	answer_error(x, 403, "denied", "not allowed: %s on %s %s", action_word(action),
		resource == RESOURCE_CLUSTER ? "the" : "this", resource_word(resource));
	return false;
}

bool exchange_must(
	struct exchange *x, enum action action, enum resource resource, struct bytes name)
{
	return exchange_may(x, action, resource, name) || denied(x, action, resource);
}

/* Some action of the right for which may says yes. */
static bool any_action(struct exchange *x, const struct http_right *r,
	bool (*may)(struct exchange *x, const struct http_right *r, enum action action))
{
	for (int a = ACTION_ALL; a < ACTION_END; a++)
		if ((r->actions & 1u << a) != 0 && may(x, r, (enum action)a))
			return true;
	return false;
}

static bool may_named(struct exchange *x, const struct http_right *r, enum action action)
{
	return exchange_may(x, action, r->resource, x->params[0]);
}

static bool may_some(struct exchange *x, const struct http_right *r, enum action action)
{
	return access_may_any(x->access, action, r->resource) ||
		(action == ACTION_CREATE && exchange_may_cluster(x, action));
}

static bool may_cluster(struct exchange *x, const struct http_right *r, enum action action)
{
	(void)r;
	return exchange_may_cluster(x, action);
}

static bool right_held(struct exchange *x, const struct http_right *r)
{
	switch (r->of) {
	case RIGHT_OPEN:
	case RIGHT_LOGIN: return true;
	case RIGHT_NAMED: return any_action(x, r, may_named);
	case RIGHT_SOME: return any_action(x, r, may_some);
	case RIGHT_USER:
		if (bytes_equal(access_user(x->access), x->params[0]))
			return true;
		return access_admin(x->access) || any_action(x, r, may_cluster);
	case RIGHT_ADMIN: return access_admin(x->access) || any_action(x, r, may_cluster);
	case RIGHT_WHOLE:
		return access_cluster_admin(x->access) ||
			(access_tenant(x->access).len == 0 && any_action(x, r, may_cluster));
	}
	return false;
}

/* ?tenant=NAME, or X-Tenant: to act in another one, for administrators of the cluster. */
static bool tenant_set(struct exchange *x)
{
	struct bytes text = request_query(x, "tenant"), tenant;
	const struct catalog *c = shard_catalog(x->shard);
	struct access *in;

	if (text.at == NULL)
		text = request_header(x, "x-tenant");
	x->tenant_asked = text.at != NULL;
	if (text.at == NULL)
		return true;
	if (tenant_read(text, &tenant) != OK) {
		answer_error(
			x, 400, "invalid", "a tenant is 1 to %d of a-z, 0-9, -", TENANT_NAME_MAX);
		return false;
	}
	in = access_in(x->access, tenant);
	if (in == NULL) {
		answer_error(x, 403, "denied",
			"only administrators of the cluster act in other tenants");
		return false;
	}
	access_unref(x->access);
	x->access = in;
	if (c != NULL && rights_tenant_exists(c, tenant))
		return true;
	answer_error(x, 404, "not_found", "no such tenant: it comes with its first user");
	return false;
}

static enum action first_action(unsigned actions)
{
	enum action a = ACTION_ALL;

	while (a < ACTION_END && (actions & 1u << a) == 0)
		a++;
	return a;
}

bool right_check(struct exchange *x)
{
	const struct http_right *r = &x->route->right;

	if (r->of == RIGHT_OPEN)
		return true;
	if (!tenant_set(x))
		return false;
	if (right_held(x, r))
		return true;
	metric_add(loop_cells(conn_loop(x->conn)), &http_metrics, M_REFUSED, 1);
	return denied(x, first_action(r->actions),
		r->of == RIGHT_NAMED || r->of == RIGHT_SOME ? r->resource : RESOURCE_CLUSTER);
}

const char *stream_bare(const char *name)
{
	const char *slash = strchr(name, '/');

	return slash == NULL ? name : slash + 1;
}

/* ---- what is told of it */

static void who_is(struct exchange *x, struct admin_who *out)
{
	admin_who(out, x->shard, x->access, "http", x->gone ? NULL : conn_peer(x->conn));
}

void exchange_audit(
	struct exchange *x, const char *what, struct bytes object, enum err e, const char *detail)
{
	struct admin_who w;

	who_is(x, &w);
	admin_tell(&w, what, object, e, detail);
}

void exchange_change(
	struct exchange *x, struct admin_change *c, void (*done)(struct admin_change *c))
{
	who_is(x, &c->who);
	c->done = done;
	admin_change(c);
}
