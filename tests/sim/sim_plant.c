/* Each wrapper is the function it wraps, unless its bug is planted. */
#include "tests/sim/sim_plant.h"
#include <stdlib.h>
#include <string.h>
#include "cluster/partition_priv.h"
#include "server/broker/broker_priv.h"
#include "server/broker/group.h"
#include "server/broker/keyspace.h"
#include "server/broker/publish.h"
#include "server/broker/session_rows.h"

static enum sim_plant planted;

static const char *const names[] = {
	"none", "sync", "vote", "duplicate", "fence", "read", "commit", "held", "will", "retained"};
enum { NAMES = sizeof names / sizeof names[0], ARGS_MAX = 1 << 20, ROW_EPOCH_AT = 2 };
_Static_assert((int)NAMES == (int)PLANT_GUARD, "a name each");

void sim_plant_set(enum sim_plant p)
{
	planted = p;
}
enum sim_plant sim_planted(void)
{
	return planted;
}

enum sim_plant sim_plant_named(const char *name)
{
	static const char guard[] = "guard-";

	for (int i = 0; i < NAMES; i++)
		if (strcmp(names[i], name) == 0)
			return (enum sim_plant)i;
	if (strncmp(name, guard, sizeof guard - 1) == 0) {
		long n = strtol(name + sizeof guard - 1, NULL, 10);

		if (n >= 0 && n < PLANT_COUNT - PLANT_GUARD)
			return (enum sim_plant)(PLANT_GUARD + n);
	}
	return PLANT_COUNT;
}

/* --- consensus */

enum err __real_consensus_open(struct plog *log, uint64_t replica, const char *address,
	const struct consensus_member *members, int member_count, const struct consensus_options *o,
	const struct consensus_fsm *fsm, void *fsm_arg, const struct consensus_net *net,
	void *net_arg, struct consensus **out);
enum err __wrap_consensus_open(struct plog *log, uint64_t replica, const char *address,
	const struct consensus_member *members, int member_count, const struct consensus_options *o,
	const struct consensus_fsm *fsm, void *fsm_arg, const struct consensus_net *net,
	void *net_arg, struct consensus **out);
enum err __wrap_consensus_open(struct plog *log, uint64_t replica, const char *address,
	const struct consensus_member *members, int member_count, const struct consensus_options *o,
	const struct consensus_fsm *fsm, void *fsm_arg, const struct consensus_net *net,
	void *net_arg, struct consensus **out)
{
	struct consensus_options with = *o;

	if (planted >= PLANT_GUARD)
		with.guard_off[planted - PLANT_GUARD] = true;
	return __real_consensus_open(log, replica, address, members, member_count, &with, fsm,
		fsm_arg, net, net_arg, out);
}

void __real_plog_mark_term_vote(struct plog *p, uint64_t term, uint64_t vote);
void __wrap_plog_mark_term_vote(struct plog *p, uint64_t term, uint64_t vote);
void __wrap_plog_mark_term_vote(struct plog *p, uint64_t term, uint64_t vote)
{
	__real_plog_mark_term_vote(p, term, planted == PLANT_VOTE ? 0 : vote);
}

static void barrier_done(void *arg)
{
	struct consensus_barrier *b = arg;

	b->done(b, OK);
}

void __real_consensus_barrier(struct consensus *c, struct consensus_barrier *b);
void __wrap_consensus_barrier(struct consensus *c, struct consensus_barrier *b);
void __wrap_consensus_barrier(struct consensus *c, struct consensus_barrier *b)
{
	if (planted == PLANT_READ)
		loop_call(loop_here(), barrier_done, b);
	else
		__real_consensus_barrier(c, b);
}

/* --- proposals */

/* The producer is not known: whatever comes is its first batch. */
static enum err forget_producer(struct eval *v, struct bytes args)
{
	struct batch b;
	uint8_t key[8];

	(void)args;
	if (batch_read(eval_batch(v), &b) != OK)
		return ERR_MALFORMED;
	put_u64be(key, (uint64_t)b.producer_id);
	eval_delete(v, KEYSPACE_PRODUCER, bytes_of(key, sizeof key));
	return OK;
}

extern const struct proposal_kind session_write_kind __attribute__((weak));

/* args: flags 1, epoch 8, length 2 and client id, ...: the row that is there gets that epoch. */
static enum err write_unfenced(struct eval *v, struct bytes args)
{
	struct rd r = rd_over(args);
	struct session_row row;
	struct bytes id, value;
	struct slice copy;
	uint64_t epoch;
	enum err e;

	(void)rd_u8(&r);
	epoch = rd_u64be(&r);
	id = rd_take(&r, rd_u16be(&r));
	e = eval_get(v, KEYSPACE_SESSION, id, &value);
	if (e == OK && session_row_read(value, &row) == OK && row.connected && row.epoch != epoch &&
		slice_copy(value, &copy) == OK) {
		put_u64be(copy.chunk->data + ROW_EPOCH_AT, epoch);
		eval_put(v, KEYSPACE_SESSION, id, copy.bytes);
		slice_unref(&copy);
	}
	return session_write_kind.evaluate(v, args);
}

static const struct proposal_kind planted_produce = {PROPOSAL_PRODUCE, forget_producer};
static const struct proposal_kind planted_write = {PROPOSAL_SESSION_WRITE, write_unfenced};

static const struct proposal_kind *instead(const struct proposal_kind *k)
{
	if (k != NULL && k->number == PROPOSAL_PRODUCE && planted == PLANT_DUPLICATE)
		return &planted_produce;
	if (k != NULL && k->number == PROPOSAL_SESSION_WRITE && planted == PLANT_FENCE)
		return &planted_write;
	return k;
}

void __real_partition_propose(struct proposal *p);
void __wrap_partition_propose(struct proposal *p);
void __wrap_partition_propose(struct proposal *p)
{
	p->kind = instead(p->kind);
	__real_partition_propose(p);
}

const struct proposal_kind *__real_proposal_kind_find(uint32_t number);
const struct proposal_kind *__wrap_proposal_kind_find(uint32_t number);
const struct proposal_kind *__wrap_proposal_kind_find(uint32_t number)
{
	return instead(__real_proposal_kind_find(number));
}

/* --- groups, nodes that go, wills, retained values */

enum group_err __real_group_may_commit(struct group *g, int32_t generation, struct bytes member_id,
	struct bytes instance_id, int64_t now_ms);
enum group_err __wrap_group_may_commit(struct group *g, int32_t generation, struct bytes member_id,
	struct bytes instance_id, int64_t now_ms);
enum group_err __wrap_group_may_commit(struct group *g, int32_t generation, struct bytes member_id,
	struct bytes instance_id, int64_t now_ms)
{
	enum group_err e = __real_group_may_commit(g, generation, member_id, instance_id, now_ms);

	return planted == PLANT_COMMIT ? GROUP_OK : e;
}

int __real_model_held(void *node, uint32_t id);
int __wrap_model_held(void *node, uint32_t id);
int __wrap_model_held(void *node, uint32_t id)
{
	return planted == PLANT_HELD ? 0 : __real_model_held(node, id);
}

enum err __real_shard_publish_claimed(struct shard *s, const struct message *m,
	const struct qos2_claim *claim, struct publish *p);
enum err __wrap_shard_publish_claimed(struct shard *s, const struct message *m,
	const struct qos2_claim *claim, struct publish *p);
enum err __wrap_shard_publish_claimed(
	struct shard *s, const struct message *m, const struct qos2_claim *claim, struct publish *p)
{
	if (planted == PLANT_WILL && claim->will)
		return shard_publish(s, m, p);
	return __real_shard_publish_claimed(s, m, claim, p);
}

void __real_retained_overtaken(struct subscriber *who, struct bytes topic);
void __wrap_retained_overtaken(struct subscriber *who, struct bytes topic);
void __wrap_retained_overtaken(struct subscriber *who, struct bytes topic)
{
	if (planted != PLANT_RETAINED)
		__real_retained_overtaken(who, topic);
}
