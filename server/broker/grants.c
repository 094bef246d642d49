/* Rules of users, compiled once per user, tenant and, where some rule names the host, host; shared
 * by all accesses they are the same for. Only documents decide: who is disabled or gone is looked
 * after where accesses are made and ended. */
#include <stdlib.h>
#include "server/broker/access_priv.h"

enum { RULE_PREFIX_MAX = 1024, KEY_MAX = 512 };

static void grants_free(struct grants *g)
{
	acl_free(g->acl);
	for (int i = 0; i < g->host_count; i++)
		mem_free((void *)(uintptr_t)g->hosts[i].at);
	mem_free(g->hosts);
	mem_free(g->principals);
	mem_free(g);
}

void grants_unref(struct grants *g)
{
	if (g == NULL || --g->refs > 0)
		return;
	if (!g->dead)
		(void)map_remove(&g->home->grants, g->key);
	grants_free(g);
}

static bool names_host(const struct grants *g, struct bytes host)
{
	for (int i = 0; i < g->host_count; i++)
		if (bytes_equal(g->hosts[i], host))
			return true;
	return false;
}

static void host_note(struct grants *g, struct bytes host)
{
	if (names_host(g, host))
		return;
	struct bytes *more = mem_resize(g->hosts, ((size_t)g->host_count + 1) * sizeof *g->hosts);
	must(more != NULL);
	g->hosts = more;
	g->hosts[g->host_count++] = bytes_of(mem_text(host.at, host.len), host.len);
}

/* All rules of one principal. */
static void add_rules(struct grants *g, enum principal_kind kind, struct bytes who)
{
	const struct catalog *c = g->home->catalog;
	struct buf prefix;
	struct rule rule;
	buf_init(&prefix, RULE_PREFIX_MAX);
	rule_prefix(g->tenant, kind, who, &prefix);
	must(prefix.err == OK);
	struct bytes p = buf_bytes(&prefix);
	g->principals[g->principal_count++] = hash_bytes(p);
	for (int i = c != NULL ? catalog_doc_seek(c, p) : 0; c != NULL && i < catalog_doc_count(c);
		i++) {
		struct bytes key = catalog_doc_at(c, i)->key;
		if (key.len < p.len || memcmp(key.at, p.at, p.len) != 0)
			break;
		if (rule_read(key, &rule) != OK)
			continue; /* of a later version: it says nothing here */
		bool every = bytes_equal(rule.host, bytes_text("*"));
		if (every || (g->host.len > 0 && bytes_equal(rule.host, g->host)))
			acl_add(g->acl, &rule, g->user);
		else if (g->host.len == 0)
			host_note(g, rule.host);
	}
	buf_fini(&prefix);
}

static void compile(struct grants *g)
{
	struct user_doc u = {.role_count = 0};
	bool exists = rights_find_user(g->home, g->user, &u);
	int roles = exists ? u.role_count : 0;
	g->acl = acl_new();
	g->principals = mem_new(((size_t)roles + 2) * sizeof *g->principals);
	add_rules(g, PRINCIPAL_USER, g->user);
	add_rules(g, PRINCIPAL_USER, bytes_text("*"));
	for (int i = 0; i < roles; i++)
		add_rules(g, PRINCIPAL_ROLE, u.roles[i]);
	acl_seal(g->acl);
}

static struct grants *get(
	struct shard_rights *r, struct bytes user, struct bytes tenant, struct bytes host)
{
	uint8_t room[KEY_MAX];
	struct wr key = wr_over(room, sizeof room);
	wr_bytes(&key, tenant);
	wr_u8(&key, 0);
	wr_bytes(&key, user);
	wr_u8(&key, 0);
	wr_bytes(&key, host);
	must(key.err == OK);
	struct bytes k = bytes_of(room, wr_len(&key));
	struct grants *g = map_get(&r->grants, k);
	if (g == NULL) {
		g = mem_new(sizeof *g + k.len);
		uint8_t *at = (uint8_t *)(g + 1);
		memcpy(at, k.at, k.len);
		g->home = r;
		g->key = bytes_of(at, k.len);
		g->tenant = bytes_of(at, tenant.len);
		g->user = bytes_of(at + tenant.len + 1, user.len);
		g->host = bytes_of(at + tenant.len + user.len + 2, host.len);
		compile(g);
		(void)map_put(&r->grants, g->key, g);
	}
	g->refs++;
	return g;
}

struct grants *grants_get(
	struct shard_rights *r, struct bytes user, struct bytes tenant, struct bytes host)
{
	struct grants *g = get(r, user, tenant, bytes_of(NULL, 0));
	if (host.len == 0 || !names_host(g, host))
		return g;
	struct grants *special = get(r, user, tenant, host);
	grants_unref(g);
	return special;
}

static bool concerned(const struct grants *g, const struct map *principals, const struct map *users)
{
	if (users->count > 0 && map_get(users, g->user) != NULL)
		return true;
	for (int i = 0; i < g->principal_count && principals->count > 0; i++)
		if (map_get_u64(principals, g->principals[i]) != NULL)
			return true;
	return false;
}

void grants_follow(struct shard_rights *r, const struct map *principals, const struct map *users)
{
	struct grants *g;
	for (uint32_t at = 0; (g = map_next(&r->grants, &at)) != NULL;)
		if (concerned(g, principals, users)) {
			g->dead = true;
			(void)map_remove(&r->grants, g->key);
		}
}
