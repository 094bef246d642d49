/* The table of paths: what the door answers, and what /openapi.json says that it answers. A path is
 * cut at its slashes before escapes are decoded, so %2F never separates. */
#include "protocols/http/http_priv.h"

#define BIT(action) (1u << ACTION_##action)
#define OPEN                                                                                       \
	{                                                                                          \
		RIGHT_OPEN, 0, 0                                                                   \
	}
#define LOGIN                                                                                      \
	{                                                                                          \
		RIGHT_LOGIN, 0, 0                                                                  \
	}
#define NAMED(resource, actions)                                                                   \
	{                                                                                          \
		RIGHT_NAMED, RESOURCE_##resource, actions                                          \
	}
#define SOME(resource, actions)                                                                    \
	{                                                                                          \
		RIGHT_SOME, RESOURCE_##resource, actions                                           \
	}
#define ADMIN(actions)                                                                             \
	{                                                                                          \
		RIGHT_ADMIN, RESOURCE_CLUSTER, actions                                             \
	}
#define USER(actions)                                                                              \
	{                                                                                          \
		RIGHT_USER, RESOURCE_CLUSTER, actions                                              \
	}
#define WHOLE(actions)                                                                             \
	{                                                                                          \
		RIGHT_WHOLE, RESOURCE_CLUSTER, actions                                             \
	}

static const struct http_route routes[] = {
	{HTTP_POST, BODY_MESSAGE, NAMED(TOPIC, BIT(WRITE)), "/topics/{topic...}",
		"retain qos expires", "Publish the body as a message on an MQTT topic.",
		topic_publish},
	{HTTP_GET, BODY_NONE, NAMED(TOPIC, BIT(READ)), "/topics/{topic...}", "",
		"The retained value of a topic.", topic_retained},
	{HTTP_DELETE, BODY_NONE, NAMED(TOPIC, BIT(WRITE)), "/topics/{topic...}", "",
		"Forget a topic's retained value.", topic_forget},
	{HTTP_POST, BODY_MESSAGE, NAMED(STREAM, BIT(WRITE)), "/streams/{stream}/records",
		"key partition", "Append the body as a record.", records_produce},
	{HTTP_DELETE, BODY_NONE, NAMED(STREAM, BIT(WRITE)), "/streams/{stream}/records",
		"key partition", "Append a record without a value.", records_delete},
	{HTTP_GET, BODY_NONE, NAMED(STREAM, BIT(READ)), "/streams/{stream}/records",
		"partition offset time max bytes wait encoding",
		"Records of a partition from an offset on, waiting for some if asked to.",
		records_read},
	{HTTP_GET, BODY_NONE, OPEN, "/livez", "", "Whether the process runs.", page_livez},
	{HTTP_GET, BODY_NONE, OPEN, "/readyz", "", "Whether this node serves.", page_readyz},
	{HTTP_GET, BODY_NONE, OPEN, "/metrics", "", "Metrics in Prometheus' text format.",
		page_metrics},
	{HTTP_GET, BODY_NONE, OPEN, "/openapi.json", "", "This description.", page_openapi},
	{HTTP_GET, BODY_NONE, OPEN, "/", "", "What this is.", page_root},
	{HTTP_GET, BODY_NONE, LOGIN, "/api/v1", "", "Where to go from here.", api_index},
	{HTTP_GET, BODY_NONE, LOGIN, "/api/v1/streams", "internal", "All streams.", api_streams},
	{HTTP_POST, BODY_JSON, SOME(STREAM, BIT(CREATE)), "/api/v1/streams", "dry_run",
		"Create a stream.", api_stream_create},
	{HTTP_GET, BODY_NONE, NAMED(STREAM, BIT(DESCRIBE)), "/api/v1/streams/{stream}", "",
		"A stream with its partitions and settings.", api_stream},
	{HTTP_PATCH, BODY_JSON, NAMED(STREAM, BIT(ALTER) | BIT(ALTER_CONFIGS)),
		"/api/v1/streams/{stream}", "dry_run",
		"Change settings of a stream, or add partitions.", api_stream_alter},
	{HTTP_DELETE, BODY_NONE, NAMED(STREAM, BIT(DELETE)), "/api/v1/streams/{stream}", "dry_run",
		"Delete a stream with all its records.", api_stream_delete},
	{HTTP_POST, BODY_JSON, NAMED(STREAM, BIT(DELETE)), "/api/v1/streams/{stream}/trim", "",
		"Forget records below an offset or older than a time.", api_stream_trim},
	{HTTP_GET, BODY_NONE, ADMIN(BIT(DESCRIBE)), "/api/v1/routes", "",
		"Which stream takes which topics.", api_routes},
	{HTTP_PUT, BODY_JSON, ADMIN(BIT(ALTER)), "/api/v1/routes/{route}", "dry_run",
		"Set a route.", api_route_set},
	{HTTP_DELETE, BODY_NONE, ADMIN(BIT(ALTER)), "/api/v1/routes/{route}", "dry_run",
		"Delete a route.", api_route_delete},
	{HTTP_GET, BODY_NONE, WHOLE(BIT(DESCRIBE_CONFIGS)), "/api/v1/config", "",
		"All settings of this node.", api_config},
	{HTTP_PUT, BODY_JSON, WHOLE(BIT(ALTER_CONFIGS)), "/api/v1/config/{key}", "dry_run",
		"Set a key for the whole cluster.", api_config_set},
	{HTTP_DELETE, BODY_NONE, WHOLE(BIT(ALTER_CONFIGS)), "/api/v1/config/{key}", "dry_run",
		"Take back what was set for the whole cluster.", api_config_delete},
	{HTTP_GET, BODY_NONE, WHOLE(BIT(DESCRIBE)), "/api/v1/node", "", "The state of this node.",
		api_node},
	{HTTP_GET, BODY_NONE, WHOLE(BIT(DESCRIBE)), "/api/v1/cluster", "",
		"The cluster: its nodes, what is wrong.", api_cluster},
	{HTTP_GET, BODY_NONE, WHOLE(BIT(DESCRIBE)), "/api/v1/cluster/health", "",
		"Whether anything is wrong with the cluster.", api_cluster_health},
	{HTTP_GET, BODY_NONE, WHOLE(BIT(DESCRIBE)), "/api/v1/cluster/moves", "stream",
		"Groups whose replicas are not yet where they are wanted.", api_cluster_moves},
	{HTTP_POST, BODY_NONE, WHOLE(BIT(ALTER)), "/api/v1/cluster/balance", "dry_run",
		"Spread replicas and leaders evenly; dry_run shows the plan.", api_cluster_balance},
	{HTTP_POST, BODY_NONE, WHOLE(BIT(ALTER)), "/api/v1/cluster/nodes/{node}/drain",
		"dry_run force", "Move everything off a node; dry_run shows the plan.",
		api_node_drain},
	{HTTP_DELETE, BODY_NONE, WHOLE(BIT(ALTER)), "/api/v1/cluster/nodes/{node}/drain", "dry_run",
		"Let a draining node have replicas again.", api_node_undrain},
	{HTTP_DELETE, BODY_NONE, WHOLE(BIT(ALTER)), "/api/v1/cluster/nodes/{node}", "dry_run force",
		"Forget a node on which nothing is any more.", api_node_remove},
	{HTTP_GET, BODY_NONE, LOGIN, "/api/v1/partitions", "stream internal",
		"Partitions with leaders and replicas.", api_partitions},
	{HTTP_GET, BODY_NONE, NAMED(STREAM, BIT(DESCRIBE)),
		"/api/v1/partitions/{stream}/{partition}", "",
		"A partition as its leader sees it, with each replica.", api_partition},
	{HTTP_GET, BODY_NONE, ADMIN(BIT(DESCRIBE)), "/api/v1/users", "", "Users.", api_users},
	{HTTP_POST, BODY_JSON, ADMIN(BIT(ALTER)), "/api/v1/users", "dry_run", "Add a user.",
		api_user_add},
	{HTTP_GET, BODY_NONE, USER(BIT(DESCRIBE)), "/api/v1/users/{user}", "",
		"A user; never its secrets.", api_user},
	{HTTP_PATCH, BODY_JSON, USER(BIT(ALTER)), "/api/v1/users/{user}", "dry_run",
		"Change a user's password or roles, disable or enable it.", api_user_alter},
	{HTTP_DELETE, BODY_NONE, ADMIN(BIT(ALTER)), "/api/v1/users/{user}", "dry_run",
		"Delete a user with its rules and quota.", api_user_delete},
	{HTTP_GET, BODY_NONE, ADMIN(BIT(DESCRIBE)), "/api/v1/acls",
		"user role resource name pattern host permission action", "Rules that match.",
		api_acls},
	{HTTP_POST, BODY_JSON, ADMIN(BIT(ALTER)), "/api/v1/acls", "dry_run", "Add rules.",
		api_acls_add},
	{HTTP_DELETE, BODY_JSON, ADMIN(BIT(ALTER)), "/api/v1/acls",
		"user role resource name pattern host permission action dry_run",
		"Delete the rules that match; which ones is answered.", api_acls_delete},
	{HTTP_GET, BODY_NONE, ADMIN(BIT(DESCRIBE_CONFIGS)), "/api/v1/quotas", "",
		"Quotas of users and tenants.", api_quotas},
	{HTTP_PUT, BODY_JSON, ADMIN(BIT(ALTER_CONFIGS)), "/api/v1/quotas/{kind}/{name}", "dry_run",
		"Set all limits of a user or tenant; name *: of those without.", api_quota_set},
	{HTTP_PATCH, BODY_JSON, ADMIN(BIT(ALTER_CONFIGS)), "/api/v1/quotas/{kind}/{name}",
		"dry_run", "Set some limits, others stay; null: none.", api_quota_alter},
	{HTTP_DELETE, BODY_NONE, ADMIN(BIT(ALTER_CONFIGS)), "/api/v1/quotas/{kind}/{name}",
		"dry_run", "Take all limits away.", api_quota_delete},
	{HTTP_GET, BODY_NONE, LOGIN, "/api/v1/tenants", "", "Tenants.", api_tenants},
	{HTTP_GET, BODY_NONE, LOGIN, "/api/v1/groups", "", "Consumer groups.", api_groups},
	{HTTP_GET, BODY_NONE, NAMED(GROUP, BIT(DESCRIBE)), "/api/v1/groups/{group}", "",
		"A group: its members, offsets and how far it is behind.", api_group},
	{HTTP_DELETE, BODY_NONE, NAMED(GROUP, BIT(DELETE)), "/api/v1/groups/{group}", "dry_run",
		"Delete a group without members, with its offsets.", api_group_delete},
	{HTTP_POST, BODY_JSON, NAMED(GROUP, BIT(READ)), "/api/v1/groups/{group}/reset", "dry_run",
		"Where a group without members goes on: earliest, latest, an offset or a time.",
		api_group_reset},
};
enum { ROUTE_COUNT = sizeof routes / sizeof routes[0] };

const struct http_route *route_at(int index)
{
	return index < ROUTE_COUNT ? &routes[index] : NULL;
}

/* Matches one part of the pattern up to its next slash; false: no match. Both go on behind it. */
static bool match_part(
	const char **pattern, struct bytes *path, struct bytes *param, bool *is_param)
{
	size_t want = strcspn(*pattern, "/");
	const uint8_t *slash = path->len ? memchr(path->at, '/', path->len) : NULL;
	size_t len = slash == NULL ? path->len : (size_t)(slash - path->at);
	bool rest = want > 5 && strncmp(*pattern + want - 4, "...}", 4) == 0;

	*is_param = **pattern == '{';
	if (rest)
		len = path->len;
	if (*is_param ? len == 0 : len != want || memcmp(*pattern, path->at, len) != 0)
		return false;
	*param = bytes_of(path->at, len);
	*pattern += want;
	path->at += len;
	path->len -= len;
	return true;
}

bool route_match(const char *pattern, struct bytes path, struct bytes *params)
{
	int count = 0;

	while (*pattern == '/' && path.len > 0 && path.at[0] == '/') {
		struct bytes param;
		bool is_param;
		pattern++;
		path.at++;
		path.len--;
		if (*pattern == 0 && path.len == 0)
			return true;
		if (!match_part(&pattern, &path, &param, &is_param))
			return false;
		if (is_param)
			params[count++] = param;
	}
	return *pattern == 0 && path.len == 0;
}

static const char *method_name(uint8_t method)
{
	return llhttp_method_name((llhttp_method_t)method);
}

static void allow(struct exchange *x)
{
	struct bytes params[PARAMS_MAX];
	bool any = x->path.len == 1 && x->path.at[0] == '*';

	buf_add_text(&x->extra, "Allow: OPTIONS");
	for (int i = 0; i < ROUTE_COUNT; i++) {
		if (!any && !route_match(routes[i].pattern, x->path, params))
			continue;
		if (any)
			break;
		buf_addf(&x->extra, ", %s", method_name(routes[i].method));
		if (routes[i].method == HTTP_GET)
			buf_add_text(&x->extra, ", HEAD");
	}
	buf_add_text(&x->extra, "\r\n");
}

int route_find(struct exchange *x)
{
	uint8_t method = x->method == HTTP_HEAD ? HTTP_GET : x->method;
	bool known = x->path.len == 1 && x->path.at[0] == '*';

	for (int i = 0; i < ROUTE_COUNT; i++) {
		struct bytes params[PARAMS_MAX] = {{0}};
		if (!route_match(routes[i].pattern, x->path, params))
			continue;
		known = true;
		if (routes[i].method != method)
			continue;
		x->route = &routes[i];
		for (int k = 0; k < PARAMS_MAX; k++)
			if (params[k].at != NULL &&
				percent_decode(x, params[k], false, &x->params[k]) != OK)
				return 400;
		return 0;
	}
	if (!known)
		return 404;
	allow(x);
	return x->method == HTTP_OPTIONS ? 204 : 405;
}
