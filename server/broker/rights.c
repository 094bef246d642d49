/* Rights follow the catalogue: a shard compares the documents before and after, and what has
 * changed ends the rules compiled from it and the accesses of users who are not what they were. */
#include "server/broker/access_priv.h"
#include "server/broker/rights_admin.h"

static int changed_mark, gone_mark; /* what maps of names hold */

bool rights_known(const struct shard_rights *r)
{
	return r->catalog != NULL && catalog_version(r->catalog) > 0;
}

bool rights_find_user(const struct shard_rights *r, struct bytes name, struct user_doc *out)
{
	return r->catalog != NULL && rights_user(r->catalog, name, out);
}

/* ---- what differs */

struct difference {
	struct map users, principals;
	struct map quotas[2]; /* of users, of tenants: by name */
	bool defaults;        /* quotas of those without one */
};

static bool secrets_equal(const struct user_doc *a, const struct user_doc *b)
{
	if (a->secret_count != b->secret_count)
		return false;
	for (int i = 0; i < a->secret_count; i++) {
		const struct secret *x = &a->secrets[i], *y = user_secret(b, x->kind);
		if (y == NULL || !bytes_equal(x->crypt, y->crypt) ||
			!bytes_equal(x->salt, y->salt) ||
			!bytes_equal(x->stored_key, y->stored_key) ||
			!bytes_equal(x->server_key, y->server_key) ||
			x->iterations != y->iterations)
			return false;
	}
	return true;
}

/* Whether logins made before do not count any more. */
static bool login_over(const struct catalog_doc *was, const struct catalog_doc *is)
{
	struct user_doc a, b;
	if (is == NULL || user_read(is->key, is->value, &b) != OK || b.disabled)
		return true;
	if (was == NULL || user_read(was->key, was->value, &a) != OK)
		return false;
	return !bytes_equal(a.tenant, b.tenant) || a.created_ms != b.created_ms ||
		!secrets_equal(&a, &b);
}

/* A rule's key up to and with the principal's end: "a NUL TENANT NUL PRINCIPAL NUL". */
static struct bytes principal_of(struct bytes key)
{
	int ends = 0;
	for (size_t i = 0; i < key.len; i++)
		if (key.at[i] == 0 && ++ends == 3)
			return bytes_of(key.at, i + 1);
	return key;
}

/* "q NUL KIND NUL NAME" */
static void note_quota(struct difference *d, struct bytes key)
{
	if (key.len <= 4)
		d->defaults = true;
	else
		(void)map_put(&d->quotas[key.at[2] == QUOTA_TENANT],
			bytes_of(key.at + 4, key.len - 4), &changed_mark);
}

static void note(struct difference *d, const struct catalog_doc *was, const struct catalog_doc *is)
{
	struct bytes key = is != NULL ? is->key : was->key;
	if (key.len < 2 || key.at[1] != 0)
		return;
	if (key.at[0] == 'u')
		(void)map_put(&d->users, bytes_of(key.at + 2, key.len - 2),
			login_over(was, is) ? &gone_mark : &changed_mark);
	else if (key.at[0] == 'a')
		(void)map_put_u64(&d->principals, hash_bytes(principal_of(key)), &changed_mark);
	else if (key.at[0] == 'q')
		note_quota(d, key);
}

/* ---- following */

static void follow_access(struct access *a, const struct difference *d, bool everybody)
{
	const void *mark = a->kind == BY_USER ? map_get(&d->users, a->user) : NULL;
	if (mark == &gone_mark || !access_anonymous_stays(a))
		access_end(a);
	else if (mark != NULL || (a->grants != NULL && a->grants->dead) ||
		(a->kind == BY_NOBODY && everybody))
		access_stale(a);
}

static bool quota_differs(const struct access *a, const struct difference *d)
{
	return d->defaults || (d->quotas[0].count > 0 && map_get(&d->quotas[0], a->user) != NULL) ||
		(d->quotas[1].count > 0 && map_get(&d->quotas[1], access_tenant_name(a)) != NULL);
}

static void follow(struct shard_rights *r, const struct catalog *old, bool everybody)
{
	struct difference d = {.defaults = false};
	struct catalog_docs_walk at = {0};
	const struct catalog_doc *was, *is;
	struct access *a;
	while (catalog_docs_changed(old, r->catalog, &at, &was, &is))
		note(&d, was, is);
	grants_follow(r, &d.principals, &d.users);
	for (uint32_t i = 0; (a = map_next(&r->accesses, &i)) != NULL;) {
		if (quota_differs(a, &d)) {
			access_set_limits(a);
			access_stale(a); /* who waits need not any more, perhaps */
		}
		follow_access(a, &d, everybody);
	}
	map_fini(&d.users);
	map_fini(&d.principals);
	map_fini(&d.quotas[0]);
	map_fini(&d.quotas[1]);
}

static void catalog_changed(struct catalog_watcher *w, const struct catalog *c)
{
	struct shard_rights *r = list_entry(w, struct shard_rights, watcher);
	const struct catalog *old = r->catalog;
	bool known = rights_known(r), users = r->any_user;
	/* None any more: the node closes. What was in force stays so until the end. */
	if (old != NULL && known && catalog_version(c) == 0)
		return;
	r->catalog = catalog_hold(c);
	r->any_user = rights_any_user(c);
	bool everybody = known != rights_known(r) || users != r->any_user;
	bool differs = old == NULL || catalog_docs_version(old) != catalog_docs_version(c);
	if ((differs || everybody) && (r->accesses.count > 0 || r->grants.count > 0))
		follow(r, old, everybody);
	if (old != NULL)
		catalog_release(old);
}

/* ---- life */

struct rights *rights_new(struct broker *b)
{
	struct rights *r = mem_new(sizeof *r + (size_t)b->count * sizeof r->shards[0]);
	r->broker = b;
	r->count = b->count;
	r->quotas = quotas_new();
	for (int i = 0; i < r->count; i++) {
		struct shard_rights *s = &r->shards[i];
		s->rights = r;
		s->shard = &b->shards[i];
		list_init(&s->all);
		list_init(&s->telling);
		access_init(s);
		list_init(&s->watcher.node);
		s->watcher.loop = s->shard->loop;
		s->watcher.changed = catalog_changed;
		node_watch_catalog(b->node, &s->watcher);
	}
	auth_init(r);
	return r;
}

void rights_free(struct rights *r)
{
	if (r == NULL)
		return;
	auth_fini(r);
	for (int i = 0; i < r->count; i++) {
		struct shard_rights *s = &r->shards[i];
		while (!list_empty(&s->all))
			access_free(list_entry(s->all.next, struct access, in_all));
		map_fini(&s->accesses);
		map_fini(&s->grants);
		if (s->catalog != NULL)
			catalog_release(s->catalog);
	}
	quotas_free(r->quotas);
	mem_free(r);
}
