/* All that clients change in the catalogue but users, rules and quotas (rights_admin.c) passes
 * here, so no door can forget a limit or the audit. What is only tried is not told. */
#include "server/broker/admin_change.h"
#include <stdarg.h>
#include <stdio.h>
#include "server/broker/tenant.h"
#include "server/broker/tenant_limit.h"

enum { DETAIL_BYTES = 512, OBJECT_BYTES = 24 };

void admin_who(
	struct admin_who *w, struct shard *s, struct access *by, const char *door, const char *peer)
{
	*w = (struct admin_who){.shard = s, .by = by, .door = door};
	snprintf(w->peer, sizeof w->peer, "%s", peer != NULL ? peer : "");
}

void admin_tell(const struct admin_who *w, const char *what, struct bytes object, enum err e,
	const char *detail)
{
	audit(w->shard,
		&(struct audit_event){.what = what,
			.door = w->door,
			.peer = w->peer[0] ? w->peer : NULL,
			.user = access_user(w->by),
			.tenant = access_tenant(w->by),
			.object = object,
			.err = e,
			.detail = detail != NULL && *detail ? detail : NULL});
}

/* --- what a change is called */

static const char *word_of(const struct meta_op *op)
{
	switch (op->kind) {
	case META_CREATE_STREAM: return "stream-create";
	case META_DELETE_STREAM: return "stream-delete";
	case META_ADD_PARTITIONS:
	case META_ALTER_STREAM:
	case META_REPLICAS: return "stream-alter";
	case META_SET: return op->settings[0].value != NULL ? "setting-set" : "setting-delete";
	case META_PLACE: return "partition-place";
	case META_NODE_STATE:
		return op->node_state == NODE_DRAINING   ? "node-drain"
			: op->node_state == NODE_REMOVED ? "node-remove"
							 : "node-undrain";
	case META_BALANCE: return "cluster-balance";
	case META_DOCS: break; /* rights_admin.c tells of those */
	}
	return "change";
}

static struct bytes object_of(const struct meta_op *op, char room[OBJECT_BYTES])
{
	struct bytes tenant, bare;
	if (op->name != NULL) {
		tenant_stream_split(bytes_text(op->name), &tenant, &bare);
		return bare;
	}
	if (op->kind == META_SET)
		return bytes_text(op->settings[0].key);
	if (op->kind != META_NODE_STATE)
		return bytes_of("", 0);
	snprintf(room, OBJECT_BYTES, "%u", op->node_id);
	return bytes_text(room);
}

/* Adds to text, of DETAIL_BYTES; what does not fit is left out. */
__attribute__((format(printf, 2, 3))) static void add(char *text, const char *format, ...)
{
	size_t at = strlen(text);
	va_list args;
	va_start(args, format);
	vsnprintf(text + at, DETAIL_BYTES - at, format, args);
	va_end(args);
}

static void details(const struct meta_op *op, char text[DETAIL_BYTES])
{
	text[0] = 0;
	if (op->err != OK) {
		add(text, "%s", op->why);
		return;
	}
	if (op->kind == META_SET) {
		add(text, "%s", op->settings[0].value != NULL ? op->settings[0].value : "");
		return;
	}
	if ((op->kind == META_CREATE_STREAM || op->kind == META_ADD_PARTITIONS) &&
		op->partitions > 0)
		add(text, "partitions=%lld ", (long long)op->partitions);
	if ((op->kind == META_CREATE_STREAM || op->kind == META_REPLICAS) && op->replicas > 0)
		add(text, "replicas=%lld ", (long long)op->replicas);
	for (int i = 0; i < op->setting_count; i++)
		add(text, "%s=%s ", op->settings[i].key,
			op->settings[i].value != NULL ? op->settings[i].value : "");
}

/* --- the change */

static void changed(struct meta_op *op)
{
	struct admin_change *c = list_entry(op, struct admin_change, op);
	char room[OBJECT_BYTES], text[DETAIL_BYTES];
	if (!op->check_only) {
		details(op, text);
		admin_tell(&c->who, word_of(op), object_of(op, room), op->err, text);
	}
	c->done(c);
}

void admin_change(struct admin_change *c)
{
	struct tenant_limits limits = {0};
	tenant_limits_of(&limits, shard_catalog(c->who.shard), &c->op);
	c->op.limits = limits.at;
	c->op.limit_count = limits.count;
	c->op.done = changed;
	node_change(shard_node(c->who.shard), &c->op);
}
