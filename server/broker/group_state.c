/* Each member is written as what its join said plus its assignment, and read back by joining it
 * anew in memory, so what is counted and bounded for a join is counted and bounded here, too. All
 * members get a whole session to be heard of. */
#include "server/broker/group_state.h"
#include "server/base/wire.h"
#include "server/broker/group_priv.h"

enum { STATE_VERSION = 1, NULL_STR = UINT16_MAX, MEMBER_BYTES_MIN = 2 * 4 + 4 * 2 + 1 + 4 };
#define NULL_BLOB UINT32_MAX

static void add_str(struct buf *out, struct bytes b)
{
	if (b.len >= NULL_STR)
		b.len = NULL_STR - 1; /* Kafka's strings are shorter */
	buf_add_u16be(out, b.at == NULL ? NULL_STR : (uint16_t)b.len);
	if (b.at != NULL)
		buf_add(out, b);
}

static void add_blob(struct buf *out, struct bytes b)
{
	buf_add_u32be(out, b.at == NULL ? NULL_BLOB : (uint32_t)b.len);
	if (b.at != NULL)
		buf_add(out, b);
}

static void add_member(struct buf *out, const struct group_member *m)
{
	add_str(out, m->id.bytes);
	add_str(out, m->instance.bytes);
	add_str(out, m->client_id.bytes);
	add_str(out, m->client_host.bytes);
	buf_add_u32be(out, (uint32_t)m->session_ms);
	buf_add_u32be(out, (uint32_t)m->rebalance_ms);
	buf_add_u8(out, (uint8_t)m->protocol_count);
	for (uint32_t i = 0; i < m->protocol_count; i++) {
		add_str(out, m->protocols[i].name.bytes);
		add_blob(out, m->protocols[i].metadata.bytes);
	}
	add_blob(out, m->assignment.bytes);
}

void group_state_write(const struct group *g, struct buf *out)
{
	/* Not yet assigned, it is one whose members are to join: else they would have nothing. */
	bool stable = g->state == GROUP_STABLE || (g->state == GROUP_COMPLETING && g->storing);
	if (g->members.count == 0)
		return;
	buf_add_u8(out, STATE_VERSION);
	buf_add_u8(out, stable);
	add_str(out, g->protocol.bytes);
	add_str(out, g->leader != NULL ? g->leader->id.bytes : bytes_of(NULL, 0));
	buf_add_u32be(out, (uint32_t)g->members.count);
	for (struct list *l = g->in_order.next; l != &g->in_order; l = l->next)
		add_member(out, list_entry(l, struct group_member, node));
}

static struct bytes take(struct rd *r, uint32_t len, uint32_t null)
{
	struct bytes b;
	if (len == null)
		return bytes_of(NULL, 0);
	b = rd_take(r, len);
	return b.at != NULL ? b : bytes_of("", 0);
}

static struct bytes take_str(struct rd *r)
{
	return take(r, rd_u16be(r), NULL_STR);
}

static struct bytes take_blob(struct rd *r)
{
	return take(r, rd_u32be(r), NULL_BLOB);
}

static void read_join(struct rd *r, struct group_join *j, struct group_choice *choices)
{
	j->member_id = take_str(r);
	j->instance_id = take_str(r);
	j->client_id = take_str(r);
	j->client_host = take_str(r);
	j->session_ms = (int32_t)rd_u32be(r);
	j->rebalance_ms = (int32_t)rd_u32be(r);
	j->protocols = choices;
	j->protocol_count = rd_u8(r);
	for (uint32_t i = 0; i < j->protocol_count && i < GROUP_PROTOCOLS_MAX; i++) {
		choices[i].name = take_str(r);
		choices[i].metadata = take_blob(r);
	}
}

static bool has_protocol(const struct group_join *j, struct bytes name)
{
	for (uint32_t i = 0; i < j->protocol_count; i++)
		if (bytes_equal(j->protocols[i].name, name))
			return true;
	return false;
}

static enum err read_member(struct group *g, struct rd *r, int64_t now_ms)
{
	struct group_choice choices[GROUP_PROTOCOLS_MAX];
	struct group_join j = {0};
	struct group_member *m;
	struct slice id;
	read_join(r, &j, choices);
	struct bytes assignment = take_blob(r);
	if (r->err != OK || j.protocol_count == 0 || j.protocol_count > GROUP_PROTOCOLS_MAX ||
		j.member_id.len == 0 || j.session_ms <= 0 || j.rebalance_ms < 0 ||
		map_get(&g->members, j.member_id) != NULL ||
		(j.instance_id.at != NULL && map_get(&g->instances, j.instance_id) != NULL) ||
		(g->protocol.bytes.at != NULL && !has_protocol(&j, g->protocol.bytes)))
		return ERR_CORRUPT;
	enum err e = slice_copy(j.member_id, &id);
	if (e != OK)
		return e;
	e = group_member_new(g, &j, &id, &m);
	slice_unref(&id);
	if (e != OK)
		return e;
	m->deadline_ms = now_ms + m->session_ms;
	m->synced = true;
	return assignment.at != NULL ? group_member_assign(g, m, assignment) : OK;
}

/* All members speak one protocol at least: a group that joins again must find one. */
static bool have_common(const struct group *g)
{
	const struct group_member *first = list_entry(g->in_order.next, struct group_member, node);
	for (uint32_t i = 0; i < first->protocol_count; i++) {
		bool all = true;
		for (struct list *l = g->in_order.next; all && l != &g->in_order; l = l->next) {
			const struct group_member *m = list_entry(l, struct group_member, node);
			all = false;
			for (uint32_t n = 0; !all && n < m->protocol_count; n++)
				all = bytes_equal(
					m->protocols[n].name.bytes, first->protocols[i].name.bytes);
		}
		if (all)
			return true;
	}
	return false;
}

static enum err read_members(struct group *g, struct rd *r, int64_t now_ms)
{
	uint8_t version = rd_u8(r), stable = rd_u8(r);
	struct bytes protocol = take_str(r), leader = take_str(r);
	uint32_t count = rd_count(r, rd_u32be(r), MEMBER_BYTES_MIN);
	int64_t longest = 0;
	enum err e = OK;
	if (r->err != OK || version != STATE_VERSION || stable > 1 || count == 0 ||
		(stable && (protocol.at == NULL || protocol.len == 0)))
		return ERR_CORRUPT;
	if (protocol.len > 0)
		e = slice_copy(protocol, &g->protocol);
	for (uint32_t i = 0; i < count && e == OK; i++)
		e = read_member(g, r, now_ms);
	if (e != OK || rd_done(r) != OK || !have_common(g))
		return e != OK ? e : ERR_CORRUPT;
	if (leader.len > 0)
		g->leader = map_get(&g->members, leader);
	if (g->leader == NULL && stable)
		g->leader = list_entry(g->in_order.next, struct group_member, node);
	for (struct list *l = g->in_order.next; l != &g->in_order; l = l->next) {
		struct group_member *m = list_entry(l, struct group_member, node);
		m->synced = stable;
		if (m->rebalance_ms > longest)
			longest = m->rebalance_ms;
	}
	g->state = stable ? GROUP_STABLE : GROUP_PREPARING;
	g->deadline_ms = stable ? 0 : now_ms + longest;
	return OK;
}

enum err group_state_read(struct group *g, struct bytes in, int64_t now_ms)
{
	struct rd r = rd_over(in);
	enum err e = read_members(g, &r, now_ms);
	if (e == OK)
		return OK;
	while (!list_empty(&g->in_order))
		group_member_remove(g, list_entry(g->in_order.next, struct group_member, node),
			GROUP_UNAVAILABLE);
	slice_unref(&g->protocol);
	return e;
}
