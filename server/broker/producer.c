/* A block is taken by a proposal that adds to a row; while it is under way those who ask wait.
 * What is left of a block when the node stops is never used: there are 2^63 ids. */
#include "server/broker/producer.h"
#include "server/broker/keyspace.h"

static const char row_key[] = "next";

void producer_ids_init(struct producer_ids *p, struct shard *s)
{
	*p = (struct producer_ids){.shard = s};
	list_init(&p->waiting);
}

/* No args; the reply is the first id of the block. Asked again, it takes another block: no harm. */
static enum err evaluate(struct eval *v, struct bytes args)
{
	uint8_t value[8];
	struct bytes found;
	int64_t next = 0;
	if (args.len != 0)
		return ERR_MALFORMED;
	enum err e = eval_get(v, KEYSPACE_PRODUCER_ID, bytes_text(row_key), &found);
	if (e == OK && found.len == sizeof value)
		next = (int64_t)get_u64be(found.at);
	else if (e == OK)
		return ERR_CORRUPT;
	else if (e != ERR_NOTFOUND)
		return e;
	buf_add_u64be(eval_reply(v), (uint64_t)next);
	put_u64be(value, (uint64_t)next + PRODUCER_ID_BLOCK);
	eval_put(v, KEYSPACE_PRODUCER_ID, bytes_text(row_key), bytes_of(value, sizeof value));
	return OK;
}

const struct proposal_kind producer_ids_kind = {PROPOSAL_PRODUCER_IDS, evaluate};

static void serve(struct producer_ids *p, enum err e)
{
	struct list *l;
	while ((e != OK || p->next < p->end) && (l = list_pop(&p->waiting)) != NULL) {
		struct producer_id_ask *a = list_entry(l, struct producer_id_ask, node);
		a->err = e;
		a->id = e == OK ? p->next++ : -1;
		a->done(a);
	}
}

static void take_block(struct producer_ids *p);

static void on_block(struct proposal *proposal)
{
	struct producer_ids *p = list_entry(proposal, struct producer_ids, proposal);
	enum err e = proposal->err;
	struct rd r = rd_over(proposal->reply.bytes);
	int64_t first = (int64_t)rd_u64be(&r);
	p->asking = false;
	if (e == OK && (rd_done(&r) != OK || first < 0))
		e = ERR_UNAVAILABLE; /* what another version answers: not ids, at least */
	if (e == OK) {
		p->next = first;
		p->end = first + PRODUCER_ID_BLOCK;
	}
	serve(p, e);
	if (!list_empty(&p->waiting))
		take_block(p);
}

static void take_block(struct producer_ids *p)
{
	const struct catalog *c = shard_catalog(p->shard);
	if (p->asking)
		return;
	if (c == NULL || catalog_table_count(c) == 0) { /* the node is of no cluster yet */
		serve(p, ERR_UNAVAILABLE);
		return;
	}
	p->asking = true;
	p->proposal = (struct proposal){.to = catalog_table_at(c, 0),
		.kind = &producer_ids_kind,
		.repeatable = true,
		.done = on_block};
	partition_propose(&p->proposal);
}

void producer_id_get(struct producer_ids *p, struct producer_id_ask *a)
{
	list_push_back(&p->waiting, &a->node);
	serve(p, OK);
	if (!list_empty(&p->waiting))
		take_block(p);
}
