/* The tenants of a shard. The default one is always there; another has a space while it has
 * subscribers here, or has published lately. Nothing of a message's way leads out of its space: its
 * routes name streams of the tenant only, whose feeds are matched against the tenant's filters
 * only. So there is nothing to be checked per message, and one of the default tenant costs what it
 * would cost without tenants.
 *
 * The streams that a tenant's routes lead to are made by the first shard, when any shard has first
 * use for them; for the short while until they are there, publishers are told to wait. */
#include <stdatomic.h>
#include <stdio.h>
#include "server/base/log.h"
#include "server/broker/broker_priv.h"
#include "server/broker/rights_admin.h"
#include "server/broker/tenant_limit.h"

enum {
	CREATE_SOON_MS = 20,
	CREATE_RETRY_MS = 500,
	WANT_AGAIN_MS = 1000,
	AWAIT_MS = 3000, /* how long publishers wait for a stream to be made */
	IDLE_MS = 10000,
	HOME_CACHE_BYTES = 8 << 20,
	TENANT_CACHE_BYTES = 1 << 20
};
static const char route_prefix[] = "route.";

struct bytes space_tenant(const struct space *sp)
{
	return bytes_of(sp->tenant, sp->tenant_len);
}

struct bytes space_bare_name(const struct space *sp, const struct stream *stream)
{
	size_t before = sp->tenant_len > 0 ? (size_t)sp->tenant_len + 1 : 0;
	return bytes_text(stream->name + before);
}

/* ---- whether there is such a tenant */

/* It has users, streams, or a route. */
static bool tenant_exists(const struct catalog *c, struct bytes tenant)
{
	char prefix[sizeof route_prefix + TENANT_NAME_MAX + 1];
	const char *key, *value;
	if (rights_tenant_exists(c, tenant))
		return true;
	int n = snprintf(prefix, sizeof prefix, "%s%.*s/", route_prefix, (int)tenant.len,
		(const char *)tenant.at);
	int at = catalog_setting_seek(c, prefix);
	return catalog_setting_next(c, &at, &key, &value) && strncmp(key, prefix, (size_t)n) == 0;
}

/* ---- routes */

struct routing { /* a table being made */
	struct routes *routes;
	bool tell; /* what is wrong with a route */
};

static void route_add(struct routing *r, const char *name, const char *text)
{
	char why[160];
	if (routes_set(r->routes, name, text, why, sizeof why) != OK && r->tell)
		LOG(LOG_ERROR, AREA_BROKER, "route_invalid", "route=%s why=\"%s\"", name, why);
}

/* The route's name within the tenant, or NULL: it is another one's. */
static const char *own_name(const char *name, struct bytes tenant)
{
	struct bytes whose, bare;
	tenant_stream_split(bytes_text(name), &whose, &bare);
	return bytes_equal(whose, tenant) ? (const char *)bare.at : NULL;
}

struct routes *space_routes(
	const struct broker_conf *conf, const struct catalog *c, struct bytes tenant, bool tell)
{
	struct routing r = {routes_new(), tell};
	const struct conf_named *set = &conf->routes;
	const char *key, *value, *name;
	char prefix[sizeof route_prefix + TENANT_NAME_MAX + 1];
	int n = snprintf(prefix, sizeof prefix, "%s%.*s%s", route_prefix, (int)tenant.len,
		(const char *)tenant.at, tenant.len > 0 ? "/" : "");
	for (int i = 0; i < set->count; i++)
		if ((name = own_name(set->pairs[i].name, tenant)) != NULL)
			route_add(&r, name, set->pairs[i].value);
	for (int at = catalog_setting_seek(c, prefix);
		catalog_setting_next(c, &at, &key, &value);) {
		if (strncmp(key, prefix, (size_t)n) != 0)
			break;
		if ((name = own_name(key + sizeof route_prefix - 1, tenant)) != NULL)
			route_add(&r, name, value);
	}
	return r.routes;
}

/* ---- the streams they lead to */

static void targets_free(struct space *sp)
{
	for (int i = 0; i < sp->target_count; i++) {
		struct target *t = &sp->targets[i];
		for (int k = 0; k < t->slot_count; k++)
			must(t->slots[k].open == NULL);
		batch_builder_fini(&t->memory_batch.builder);
		mem_free(t->slots);
		mem_free(t->name);
	}
	mem_free(sp->targets);
	mem_free(sp->route_targets);
	sp->targets = NULL;
	sp->route_targets = NULL;
	sp->target_count = 0;
}

static int target_find(const struct space *sp, const char *name)
{
	for (int i = 0; i < sp->target_count; i++)
		if (strcmp(sp->targets[i].name, name) == 0)
			return i;
	return -1;
}

static void target_init(struct space *sp, struct target *t, const struct tenant_stream *name)
{
	t->name = mem_text(name->text, name->len);
	list_init(&t->memory_batch.publishes);
	batch_builder_init(&t->memory_batch.builder, 0); /* its bound: memory_publish */
	t->stream = catalog_stream(sp->shard->catalog, bytes_of(name->text, name->len));
	if (t->stream == NULL || t->stream->partition_count == 0)
		return;
	t->slot_count = t->stream->partition_count;
	t->slots = mem_new((size_t)t->slot_count * sizeof *t->slots);
	for (int i = 0; i < t->slot_count; i++) {
		list_init(&t->slots[i].node);
		t->slots[i].to = t->stream->partitions[i];
	}
}

static void targets_build(struct space *sp)
{
	int n = routes_count(sp->routes);
	bool missing = false;
	sp->targets = mem_new((size_t)n * sizeof *sp->targets);
	sp->route_targets = mem_new((size_t)n * sizeof *sp->route_targets);
	for (int i = 0; i < n; i++) {
		struct tenant_stream name;
		const char *stream = routes_at(sp->routes, i)->stream;
		must(tenant_stream(space_tenant(sp), bytes_text(stream), &name) == OK);
		int t = target_find(sp, name.text);
		if (t < 0) {
			t = sp->target_count;
			target_init(sp, &sp->targets[t], &name);
			missing = missing || sp->targets[t].stream == NULL;
			sp->target_count++;
		}
		sp->route_targets[i] = t;
	}
	if (missing && !sp->missing)
		sp->missing_ms = loop_now_ms(sp->shard->loop);
	sp->missing = missing;
	sp->full = missing &&
		tenant_full(sp->shard->catalog, space_tenant(sp),
			node_conf(sp->shard->broker->node)->stream_partitions);
}

static void space_build(struct space *sp)
{
	const struct shard *s = sp->shard;
	targets_free(sp);
	routes_free(sp->routes);
	sp->routes = space_routes(s->broker->conf, s->catalog, space_tenant(sp), s->index == 0);
	targets_build(sp);
}

/* ---- making those that are missing, on the first shard's loop */

static struct space *space_made(struct shard *s, struct bytes tenant);
static void streams_check(struct broker *b);

static struct space *space_by_stream(struct shard *s, const char *name)
{
	struct bytes tenant, bare;
	tenant_stream_split(bytes_text(name), &tenant, &bare);
	return tenant.len == 0 ? &s->home : map_get(&s->spaces, tenant);
}

static void stream_created(struct meta_op *op)
{
	struct broker *b = list_entry(op, struct broker, create);
	struct shard *s = &b->shards[0];
	enum err e = op->err;
	bool soon = e == OK || e == ERR_UNAVAILABLE;
	struct space *sp = space_by_stream(s, b->creating);
	if (e != OK && e != ERR_EXISTS && e != ERR_UNAVAILABLE && e != ERR_CLOSED)
		LOG(LOG_WARN, AREA_BROKER, "route_stream_failed", "stream=%s err=\"%s\" why=\"%s\"",
			b->creating, err_text(e), op->why);
	mem_free(b->creating);
	b->creating = NULL;
	/* Not at once even when it worked: the catalogue that has it may still be on its way. Those
	 * of other tenants need not wait for one that can't be made. */
	if (sp != NULL)
		sp->create_ms = loop_now_ms(s->loop) + (soon ? CREATE_SOON_MS : CREATE_RETRY_MS);
	loop_timer_set(&b->create_timer, CREATE_SOON_MS);
}

static void create_again(struct loop_timer *t)
{
	streams_check(list_entry(t, struct broker, create_timer));
}

/* One that can be made. */
static const char *missing_of(const struct space *sp)
{
	if (sp->full)
		return NULL;
	for (int i = 0; i < sp->target_count; i++)
		if (sp->targets[i].stream == NULL)
			return sp->targets[i].name;
	return NULL;
}

/* The next to be made; *later: there are some, which were tried just now. */
static const char *missing_next(struct shard *s, bool *later)
{
	int64_t now = loop_now_ms(s->loop);
	const char *name = missing_of(&s->home);
	*later = false;
	if (name != NULL && now >= s->home.create_ms)
		return name;
	*later = name != NULL;
	for (struct list *n = s->tenants.next; n != &s->tenants; n = n->next) {
		struct space *sp = list_entry(n, struct space, node);
		name = sp->missing && sp->wanted ? missing_of(sp) : NULL;
		if (name != NULL && now >= sp->create_ms)
			return name;
		*later = *later || name != NULL;
	}
	return NULL;
}

static void streams_check(struct broker *b)
{
	struct shard *s = &b->shards[0];
	struct tenant_limits limits = {0};
	bool later;
	if (!atomic_load(&b->started) || s->catalog == NULL || b->creating != NULL)
		return;
	if (catalog_version(s->catalog) == 0)
		return; /* none yet, or none any more */
	if (missing_of(&s->home) == NULL)
		atomic_store(&b->streams_exist, true);
	const char *missing = missing_next(s, &later);
	if (missing == NULL) {
		if (later && !loop_timer_is_set(&b->create_timer))
			loop_timer_set(&b->create_timer, CREATE_SOON_MS);
		return;
	}
	b->creating = mem_text(missing, strlen(missing));
	b->create = (struct meta_op){.kind = META_CREATE_STREAM,
		.name = b->creating,
		.partitions = -1,
		.replicas = -1,
		.done = stream_created};
	tenant_limits_of(&limits, s->catalog, &b->create);
	b->create.limits = limits.at;
	b->create.limit_count = limits.count;
	node_change(b->node, &b->create);
}

struct want { /* a shard has use for a tenant's streams */
	struct loop_msg msg;
	struct broker *broker;
	size_t len;
	char tenant[TENANT_NAME_MAX];
};

static void wanted(struct loop_msg *msg)
{
	struct want *w = list_entry(msg, struct want, msg);
	struct shard *s = &w->broker->shards[0];
	struct bytes tenant = bytes_of(w->tenant, w->len);
	if (s->catalog != NULL && tenant_exists(s->catalog, tenant)) {
		struct space *sp = space_made(s, tenant);
		sp->used_ms = loop_now_ms(s->loop);
		sp->wanted = true;
		streams_check(w->broker);
	}
	mem_free(w);
}

/* Says on the first shard what is missing; now and then again, for it forgets. */
static void space_want(struct space *sp)
{
	struct shard *s = sp->shard;
	int64_t now = loop_now_ms(s->loop);
	if (!sp->missing || (sp->wanted_ms > 0 && now - sp->wanted_ms < WANT_AGAIN_MS))
		return;
	sp->wanted_ms = now;
	struct want *w = mem_new(sizeof *w);
	w->msg.run = wanted;
	w->broker = s->broker;
	w->len = sp->tenant_len;
	memcpy(w->tenant, sp->tenant, sp->tenant_len);
	loop_post(s->broker->shards[0].loop, &w->msg);
}

bool space_awaits_streams(struct space *sp)
{
	struct shard *s = sp->shard;
	if (sp != &s->home) /* the first shard has it always */
		space_want(sp);
	if (loop_now_ms(s->loop) - sp->missing_ms >= AWAIT_MS)
		return false;
	if (!loop_timer_is_set(&s->streams_timer))
		loop_timer_set(&s->streams_timer, CREATE_SOON_MS);
	return true;
}

static void try_again(struct loop_timer *t)
{
	struct shard *s = list_entry(t, struct shard, streams_timer);
	loop_hook_want(s->loop, STAGE_PUBLISH, &s->publish_hook);
}

/* ---- spaces come and go */

static void space_init(struct space *sp, struct shard *s, struct bytes tenant, size_t cache_bytes)
{
	sp->shard = s;
	list_init(&sp->node);
	list_init(&sp->feeds);
	sp->match = match_new(cache_bytes);
	sp->tenant_len = (uint8_t)tenant.len;
	if (tenant.len > 0)
		memcpy(sp->tenant, tenant.at, tenant.len);
}

static void space_fini(struct space *sp)
{
	targets_free(sp);
	routes_free(sp->routes);
	match_free(sp->match);
}

static struct space *space_made(struct shard *s, struct bytes tenant)
{
	struct space *sp = map_get(&s->spaces, tenant);
	if (sp != NULL)
		return sp;
	must(tenant_name_valid(tenant));
	sp = mem_new(sizeof *sp);
	space_init(sp, s, tenant, TENANT_CACHE_BYTES);
	(void)map_put(&s->spaces, space_tenant(sp), sp);
	list_push_back(&s->tenants, &sp->node);
	if (s->catalog != NULL)
		space_build(sp);
	priv_tick(s, IDLE_MS);
	return sp;
}

struct space *space_find(struct shard *s, struct bytes tenant)
{
	return tenant.len == 0 ? &s->home : map_get(&s->spaces, tenant);
}

struct space *space_join(struct shard *s, struct bytes tenant)
{
	struct space *sp = tenant.len == 0 ? &s->home : space_made(s, tenant);
	sp->subscriber_count++;
	return sp;
}

void space_leave(struct space *sp)
{
	must(sp->subscriber_count > 0);
	if (--sp->subscriber_count == 0 && sp != &sp->shard->home)
		priv_tick(sp->shard, IDLE_MS);
}

struct space *space_to_publish(struct shard *s, struct bytes tenant)
{
	struct space *sp = map_get(&s->spaces, tenant);
	if (sp == NULL && s->catalog != NULL && tenant_name_valid(tenant) &&
		tenant_exists(s->catalog, tenant))
		sp = space_made(s, tenant);
	if (sp != NULL)
		sp->used_ms = loop_now_ms(s->loop);
	return sp;
}

void space_follow(struct space *sp)
{
	if (sp != &sp->shard->home)
		space_want(sp);
	feeds_follow(sp);
}

void spaces_sweep(struct shard *s)
{
	int64_t now = loop_now_ms(s->loop);
	bool idle = false;
	for (struct list *n = s->tenants.next; n != &s->tenants;) {
		struct space *sp = list_entry(n, struct space, node);
		n = n->next;
		if (sp->subscriber_count > 0 || sp->feed_count > 0)
			continue;
		if (now - sp->used_ms < IDLE_MS) {
			idle = true;
			continue;
		}
		(void)map_remove(&s->spaces, space_tenant(sp));
		list_remove(&sp->node);
		space_fini(sp);
		mem_free(sp);
	}
	if (idle)
		priv_tick(s, IDLE_MS);
}

void spaces_catalog(struct shard *s)
{
	space_build(&s->home);
	for (struct list *n = s->tenants.next; n != &s->tenants; n = n->next) {
		struct space *sp = list_entry(n, struct space, node);
		space_build(sp);
		space_want(sp);
	}
	if (s->index == 0)
		streams_check(s->broker);
	if (!loop_timer_is_set(&s->streams_timer))
		return;
	loop_timer_cancel(&s->streams_timer);
	try_again(&s->streams_timer);
}

void spaces_init(struct shard *s)
{
	space_init(&s->home, s, bytes_of("", 0), HOME_CACHE_BYTES);
	list_init(&s->tenants);
	loop_timer_init(&s->streams_timer, s->loop, try_again);
	if (s->index == 0)
		loop_timer_init(&s->broker->create_timer, s->loop, create_again);
}

void spaces_start(struct broker *b)
{
	streams_check(b);
}

void spaces_fini(struct shard *s)
{
	for (struct list *n; (n = list_pop(&s->tenants)) != NULL;) {
		struct space *sp = list_entry(n, struct space, node);
		space_fini(sp);
		mem_free(sp);
	}
	map_fini(&s->spaces);
	space_fini(&s->home);
}
