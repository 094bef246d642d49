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

static enum err evaluate(struct proposal *proposal, struct eval *v)
{
	struct producer_ids *p = list_entry(proposal, struct producer_ids, proposal);
	uint8_t value[8];
	struct bytes found;
	int64_t next = 0;
	enum err e = eval_get(v, KEYSPACE_PRODUCER_ID, bytes_text(row_key), &found);
	if (e == OK && found.len == sizeof value)
		next = (int64_t)get_u64be(found.at);
	else if (e == OK)
		return ERR_CORRUPT;
	else if (e != ERR_NOTFOUND)
		return e;
	p->taken = next;
	put_u64be(value, (uint64_t)next + PRODUCER_ID_BLOCK);
	eval_put(v, KEYSPACE_PRODUCER_ID, bytes_text(row_key), bytes_of(value, sizeof value));
	return OK;
}

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
	p->asking = false;
	if (proposal->err == OK) {
		p->next = p->taken;
		p->end = p->taken + PRODUCER_ID_BLOCK;
	}
	serve(p, proposal->err);
	if (!list_empty(&p->waiting))
		take_block(p);
}

static void take_block(struct producer_ids *p)
{
	struct partition *table = catalog_table_at(shard_catalog(p->shard), 0);
	if (p->asking)
		return;
	p->asking = true;
	p->proposal = (struct proposal){.to = table, .evaluate = evaluate, .done = on_block};
	partition_propose(&p->proposal);
}

void producer_id_get(struct producer_ids *p, struct producer_id_ask *a)
{
	list_push_back(&p->waiting, &a->node);
	serve(p, OK);
	if (!list_empty(&p->waiting))
		take_block(p);
}
