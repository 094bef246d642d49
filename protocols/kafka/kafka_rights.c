/* Rights and names in one place: what the one who asked may do, and what streams and groups are
 * called by its tenant. Handlers check before they look whether a thing exists, so that a refusal
 * tells nothing of it. */
#include "protocols/kafka/kafka_priv.h"
#include "server/broker/rights_admin.h"

/* Kafka's operations of each kind of resource, for authorized_operations. */
static const enum action stream_actions[] = {ACTION_READ, ACTION_WRITE, ACTION_CREATE,
	ACTION_DELETE, ACTION_ALTER, ACTION_DESCRIBE, ACTION_DESCRIBE_CONFIGS,
	ACTION_ALTER_CONFIGS};
static const enum action group_actions[] = {ACTION_READ, ACTION_DELETE, ACTION_DESCRIBE};
static const enum action cluster_actions[] = {ACTION_CREATE, ACTION_ALTER, ACTION_DESCRIBE,
	ACTION_CLUSTER, ACTION_DESCRIBE_CONFIGS, ACTION_ALTER_CONFIGS, ACTION_IDEMPOTENT_WRITE};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

bool kafka_may(
	struct kafka_request *r, enum action action, enum resource resource, struct bytes name)
{
	return access_may(r->access, action, resource, name);
}

bool kafka_may_stream(struct kafka_request *r, enum action action, struct bytes name)
{
	return access_may(r->access, action, RESOURCE_STREAM, name);
}

bool kafka_may_cluster(struct kafka_request *r, enum action action)
{
	return access_may(r->access, action, RESOURCE_CLUSTER, bytes_of(NULL, 0));
}

bool kafka_may_rights(struct kafka_request *r, enum action action)
{
	return access_admin(r->access) || kafka_may_cluster(r, action);
}

const struct stream *kafka_stream(struct kafka_request *r, struct bytes name)
{
	return access_stream(r->access, name);
}

bool kafka_sees(struct kafka_request *r, const struct stream *s, struct bytes *name)
{
	return access_sees(r->access, s, name);
}

bool kafka_name_valid(struct bytes name)
{
	struct tenant_stream inside;
	return tenant_stream(bytes_of(NULL, 0), name, &inside) == OK;
}

char *kafka_inside(struct kafka_request *r, struct bytes name)
{
	struct tenant_stream inside;
	if (tenant_stream(access_tenant(r->access), name, &inside) != OK)
		return NULL;
	return kafka_text(r, bytes_of(inside.text, inside.len));
}

/* An id with NUL could name another tenant's. */
int16_t kafka_group_inside(struct kafka_request *r, struct bytes id, struct bytes *inside)
{
	struct bytes tenant = access_tenant(r->access);
	*inside = id;
	if (id.len > 0 && memchr(id.at, 0, id.len) != NULL)
		return KAFKA_INVALID_GROUP_ID;
	if (tenant.len == 0 || id.len == 0)
		return KAFKA_NONE;
	uint8_t *room = kafka_take(r, id.len + TENANT_ID_EXTRA);
	if (room == NULL)
		return KAFKA_UNKNOWN_SERVER_ERROR;
	*inside = tenant_id(tenant, id, room);
	return KAFKA_NONE;
}

int16_t kafka_group(
	struct kafka_request *r, enum action action, struct bytes id, struct bytes *inside)
{
	*inside = id;
	if (!kafka_may(r, action, RESOURCE_GROUP, id))
		return KAFKA_GROUP_DENIED;
	return kafka_group_inside(r, id, inside);
}

int32_t kafka_stream_operations(struct kafka_request *r, struct bytes name)
{
	int32_t bits = 0;
	for (size_t i = 0; i < COUNT(stream_actions); i++)
		if (kafka_may_stream(r, stream_actions[i], name))
			bits |= 1 << stream_actions[i];
	return bits;
}

int32_t kafka_group_operations(struct kafka_request *r, struct bytes id)
{
	int32_t bits = 0;
	for (size_t i = 0; i < COUNT(group_actions); i++)
		if (kafka_may(r, group_actions[i], RESOURCE_GROUP, id))
			bits |= 1 << group_actions[i];
	return bits;
}

int32_t kafka_cluster_operations(struct kafka_request *r)
{
	int32_t bits = 0;
	if (!kafka_may_cluster(r, ACTION_DESCRIBE))
		return 0;
	for (size_t i = 0; i < COUNT(cluster_actions); i++)
		if (kafka_may_cluster(r, cluster_actions[i]))
			bits |= 1 << cluster_actions[i];
	return bits;
}

void kafka_who(struct kafka_request *r, struct admin_who *out)
{
	const struct conn *c = r->kc->conn;
	admin_who(
		out, kafka_shard(r), r->access, "kafka", conn_is_closing(c) ? NULL : conn_peer(c));
}

/* Who asked the wrong node goes on to the right one. */
void kafka_tell_group(struct kafka_request *r, const char *what, struct bytes id, enum group_err e)
{
	struct admin_who who;
	if (e == GROUP_NOT_HERE)
		return;
	kafka_who(r, &who);
	admin_tell(&who, what, id, e == GROUP_OK ? OK : ERR_CONFLICT, NULL);
}

void kafka_change(
	struct kafka_request *r, struct admin_change *c, void (*done)(struct admin_change *c))
{
	kafka_who(r, &c->who);
	c->done = done;
	r->outstanding++;
	admin_change(c);
}

void kafka_rights_change(struct kafka_request *r, struct rights_change *c, int kind,
	void (*done)(struct rights_change *c))
{
	const char *peer = conn_is_closing(r->kc->conn)
		? NULL
		: kafka_text(r, bytes_text(conn_peer(r->kc->conn)));
	*c = (struct rights_change){.shard = kafka_shard(r),
		.by = r->access,
		.door = "kafka",
		.peer = peer != NULL ? peer : "",
		.kind = (enum rights_change_kind)kind,
		.tenant = access_tenant(r->access),
		.done = done};
}
