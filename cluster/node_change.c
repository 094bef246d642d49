/* Changes of the catalogue, from any loop of any node: they become proposals to the meta group,
 * which go to its leader by themselves, and are told as done when every loop here has them in
 * force. */
#include <stdio.h>
#include "cluster/node_priv.h"

enum {
	ARGS_MAX = 64 << 20,
	IN_FORCE_MS = 10000 /* a catalogue that is further behind is not waited for */
};

static void op_home(struct loop_msg *m)
{
	struct meta_op *op = list_entry(m, struct meta_op, msg);

	op->done(op);
}

void op_tell(struct meta_op *op)
{
	op->msg.run = op_home;
	loop_post(op->from, &op->msg);
}

static void op_await(struct loop_msg *m)
{
	struct meta_op *op = list_entry(m, struct meta_op, msg);
	struct node *n = op->node;

	op->since_ms = loop_now_ms(n->home);
	if (n->force_index < op->proposal.index && !n->closing)
		list_push_back(&n->waiting, &op->proposal.node);
	else
		op_tell(op);
}

void ops_tick(struct node *n, int64_t now_ms)
{
	while (!list_empty(&n->waiting)) {
		struct meta_op *op = list_entry(list_entry(n->waiting.next, struct proposal, node),
			struct meta_op, proposal);

		if (now_ms - op->since_ms < IN_FORCE_MS)
			return;
		list_remove(&op->proposal.node);
		op->err = ERR_TIMEOUT;
		snprintf(op->why, sizeof op->why,
			"the change is made, but the catalogue of node %lld is behind and does not "
			"have it yet",
			(long long)n->conf.id);
		op_tell(op);
	}
}

static void op_proposed(struct proposal *p)
{
	struct meta_op *op = list_entry(p, struct meta_op, proposal);
	bool nothing = op->check_only || (op->kind == META_SET && op->setting_count == 0);

	op->err = p->err;
	snprintf(op->why, sizeof op->why, "%.*s", (int)p->reply.bytes.len,
		p->reply.bytes.len > 0 ? (const char *)p->reply.bytes.at : "");
	slice_unref(&op->args);
	if (op->err == OK && !nothing) {
		op->msg.run = op_await;
		loop_post(op->node->home, &op->msg);
		return;
	}
	if (op->err != OK && op->why[0] == 0)
		snprintf(op->why, sizeof op->why, "%s", err_text(op->err));
	op->done(op);
}

static void op_refused(struct loop_msg *m)
{
	struct meta_op *op = list_entry(m, struct meta_op, msg);

	snprintf(op->why, sizeof op->why, "%s", err_text(op->err));
	op->done(op);
}

static enum err docs_check(const struct meta_op *op)
{
	size_t bytes = op->docs_none.len;

	if (op->doc_count < 0 || op->doc_count > CATALOG_CHANGE_DOCS_MAX)
		return ERR_TOOBIG;
	for (int i = 0; i < op->doc_count; i++) {
		const struct meta_doc *d = &op->docs[i];

		bytes += d->key.len + d->value.len + d->before.len;
	}
	return bytes > CATALOG_CHANGE_BYTES_MAX ? ERR_TOOBIG : OK;
}

static enum err op_encode(struct meta_op *op)
{
	struct meta_asked_place place = {.group = op->group};
	struct meta_request q = {
		.kind = (int)op->kind,
		.check_only = op->check_only,
		.force = op->force,
		.name = (char *)(uintptr_t)op->name,
		.partitions = op->partitions,
		.replicas = op->replicas,
		.setting_count = op->setting_count,
		.node_id = op->node_id,
		.node_state = op->node_state,
		.doc_count = op->doc_count,
		.docs = (struct meta_doc *)(uintptr_t)op->docs,
		.docs_none = op->docs_none,
		.limit_count = op->limit_count,
		.limits = (struct meta_limit *)(uintptr_t)op->limits,
	};
	struct buf args;
	enum err e;

	if (op->kind == META_DOCS && (e = docs_check(op)) != OK)
		return e;
	if (op->setting_count < 0 || op->setting_count > META_SETTINGS_MAX ||
		op->member_count < 0 || op->member_count > META_MEMBERS_MAX ||
		op->limit_count < 0 || op->limit_count > META_LIMITS_MAX)
		return ERR_INVALID;
	if (op->kind == META_PLACE && op->member_count > 0) {
		place.count = op->member_count;
		memcpy(place.nodes, op->members, (size_t)place.count * sizeof place.nodes[0]);
		q.places = &place;
		q.place_count = 1;
	}
	q.settings = mem_new(((size_t)op->setting_count + 1) * sizeof *q.settings);
	for (int i = 0; i < op->setting_count; i++)
		q.settings[i] = (struct stream_setting){op->settings[i].key, op->settings[i].value};
	buf_init(&args, ARGS_MAX);
	meta_request_encode(&q, &args);
	mem_free(q.settings);
	e = args.err;
	if (e == OK)
		op->args = buf_share(&args);
	buf_fini(&args);
	return e;
}

void node_change(struct node *n, struct meta_op *op)
{
	op->node = n;
	op->from = loop_here();
	op->err = OK;
	op->why[0] = 0;
	if (op->kind == META_CREATE_STREAM && op->partitions == -1)
		op->partitions = n->conf.stream_partitions;
	if (op->kind == META_CREATE_STREAM && op->replicas == -1)
		op->replicas = n->conf.stream_replicas;
	op->err = op_encode(op);
	if (op->err != OK) {
		op->msg.run = op_refused;
		loop_post(op->from, &op->msg);
		return;
	}
	op->proposal = (struct proposal){.to = n->meta,
		.batch_max_ms = -1,
		.kind = &meta_kind,
		.args = op->args.bytes,
		.done = op_proposed};
	partition_propose(&op->proposal);
}
