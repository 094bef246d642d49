/* Idempotent producers: batches with sequence numbers to one partition, sent again, unchanged,
 * until they are acknowledged, to whichever node. Each record is in the log once, in order. Its key
 * is often one of few, and the stream is compacted: the newest of each stays, on every replica. */
#include <stdio.h>
#include "server/base/crc32c.h"
#include "server/base/mem.h"
#include "server/broker/produce.h"
#include "tests/sim/sim_load.h"

enum {
	HOT = 12,
	KEYS = 500,
	GAP_US = 80 * SIM_MS,
	RECORDS_MAX = 4,
	BATCH_BYTES_MAX = 65536,
	VALUE_BYTES_MAX = 500
};
/* Offsets in a batch of v2. */
enum { AT_CRC = 17, AT_ATTRIBUTES = 21, AT_PRODUCER = 43, AT_EPOCH = 51, AT_SEQUENCE = 53 };

struct producer {
	struct actor actor;
	uint32_t sequence; /* of the batch under way */
	int count;
	uint64_t ops[RECORDS_MAX];
	struct slice batch; /* sent until it is acknowledged */
};

struct producing { /* one attempt */
	struct produce produce;
	struct producer *by;
	uint64_t turn;
	uint32_t sequence;
};

static uint64_t producer_id(const struct producer *p)
{
	return 9000 + (uint64_t)p->actor.id;
}

static void acknowledged(struct producer *p, uint64_t group, int64_t base)
{
	for (int i = 0; i < p->count; i++)
		check_acked(p->ops[i], group, base + i);
	p->sequence += (uint32_t)p->count;
	p->count = 0;
	slice_unref(&p->batch);
}

static void produced(struct produce *r)
{
	struct producing *o = list_entry(r, struct producing, produce);
	struct producer *p = o->by;

	sim_note("producer %d sequence %u count %d group %llu: %s, offset %lld", p->actor.id,
		o->sequence, o->sequence == p->sequence ? p->count : 0,
		(unsigned long long)partition_group(r->proposal.to), err_text(r->err),
		(long long)r->base_offset);
	if (o->sequence == p->sequence && p->count > 0 && r->err == OK)
		acknowledged(p, partition_group(r->proposal.to), r->base_offset);
	else if (r->err != OK && !err_is_passing(r->err) && o->sequence == p->sequence)
		sim_fail(
			"producer %d, sequence %u: %s", p->actor.id, p->sequence, err_text(r->err));
	actor_done(&p->actor, o->turn);
	mem_free(o);
}

static void make_batch(struct producer *p)
{
	struct batch_builder b;
	uint8_t value[VALUE_BYTES_MAX] = {0}, *at;

	batch_builder_init(&b, BATCH_BYTES_MAX);
	p->count = (int)sim_pick(1, RECORDS_MAX);
	for (int i = 0; i < p->count; i++) {
		struct check_value v = {.producer = (uint32_t)producer_id(p),
			.sequence = p->sequence + (uint32_t)i,
			.topic = (uint32_t)sim_pick(0, sim_chance(700) ? HOT - 1 : KEYS - 1)};
		uint8_t room[4];
		struct bytes key = bytes_of(room, sizeof room),
			     all = bytes_of(
				     value, (size_t)sim_pick(CHECK_VALUE_BYTES, VALUE_BYTES_MAX));

		v.op = p->ops[i] = check_op_new();
		put_u32be(room, v.topic);
		check_value_write(&v, value);
		must(batch_builder_add(
			     &b, 1767225600000 + sim_now_us() / SIM_MS, &key, &all, NULL, 0) == OK);
	}
	p->batch = batch_builder_seal(&b);
	at = p->batch.chunk->data + (p->batch.bytes.at - p->batch.chunk->data);
	put_u64be(at + AT_PRODUCER, producer_id(p));
	put_u16be(at + AT_EPOCH, 0);
	put_u32be(at + AT_SEQUENCE, p->sequence);
	put_u32be(at + AT_CRC,
		crc32c(bytes_of(at + AT_ATTRIBUTES, p->batch.bytes.len - AT_ATTRIBUTES)));
	batch_builder_fini(&b);
}

static void start(void *arg)
{
	struct producing *o = arg;
	struct producer *p = o->by;
	struct shard *s = actor_shard(&p->actor);
	const struct stream *to = catalog_stream(shard_catalog(s), bytes_text(load_stream()));
	struct partition *partition;
	enum err e;

	if (to != NULL) {
		partition = to->partitions[p->actor.id % to->partition_count];
		o->produce.done = produced;
		e = produce_start(&o->produce, s, to, partition, p->batch.bytes);
		if (e == OK)
			return;
		if (!err_is_passing(e))
			sim_fail("producer %d: refused with %s", p->actor.id, err_text(e));
	}
	actor_done(&p->actor, o->turn);
	mem_free(o);
}

static void produce_step(struct actor *a)
{
	struct producer *p = list_entry(a, struct producer, actor);
	struct sim_node *n = actor_node();
	struct producing *o;

	if (n == NULL) {
		actor_again(a, GAP_US);
		return;
	}
	if (p->count == 0)
		make_batch(p);
	o = mem_new(sizeof *o);
	o->by = p;
	o->sequence = p->sequence;
	o->turn = actor_call(a, n, start, o);
}

static const struct actor_kind producer_kind = {"producer", produce_step, NULL, NULL};

void load_produce_add(int id)
{
	struct producer *p = mem_new(sizeof *p);

	actor_add(&p->actor, &producer_kind, id, GAP_US);
}
