/* The assignment protocols members speak: what a join offers, copied; whether it has one in common
 * with everybody; which one the group takes. */
#include "server/broker/group_priv.h"
#include "server/base/mem.h"
#include "server/base/wire.h"

/* Shares: copies of what a request lends. A null stays null. */

enum err group_keep(struct bytes b, struct slice *out)
{
	*out = (struct slice){NULL, b};
	return b.at == NULL || b.len == 0 ? OK : slice_copy(b, out);
}

void group_protocols_free(struct group_member_protocol *list, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		slice_unref(&list[i].name);
		slice_unref(&list[i].metadata);
	}
	mem_free(list);
}

/* The protocols of a join, copied. */
enum err group_protocols_copy(
	const struct group_join *j, struct group_member_protocol **out, size_t *bytes)
{
	enum err e = OK;
	struct group_member_protocol *list = mem_try((j->protocol_count + 1) * sizeof *list);
	if (list == NULL)
		return ERR_NOMEM;
	memset(list, 0, (j->protocol_count + 1) * sizeof *list);
	*bytes = 0;
	for (uint32_t i = 0; i < j->protocol_count && e == OK; i++) {
		e = group_keep(j->protocols[i].name, &list[i].name);
		if (e == OK)
			e = group_keep(j->protocols[i].metadata, &list[i].metadata);
		*bytes += j->protocols[i].name.len + j->protocols[i].metadata.len + sizeof *list;
	}
	if (e != OK)
		group_protocols_free(list, j->protocol_count);
	*out = list;
	return e;
}

size_t group_protocols_bytes(const struct group_join *j)
{
	size_t bytes = 0;
	for (uint32_t i = 0; i < j->protocol_count; i++)
		bytes += j->protocols[i].name.len + j->protocols[i].metadata.len +
			sizeof(struct group_member_protocol);
	return bytes;
}

/* Whether all other members speak one of the protocols asked for. */
bool group_protocols_fit(
	const struct group *g, const struct group_join *j, const struct group_member *but)
{
	if (j->protocol_count == 0 || j->protocol_count > GROUP_PROTOCOLS_MAX ||
		j->protocol_type.len == 0)
		return false;
	if (g->members.count == (but ? 1 : 0))
		return true;
	if (!bytes_equal(g->protocol_type.bytes, j->protocol_type))
		return false;
	for (uint32_t i = 0; i < j->protocol_count; i++) {
		bool all = true;
		for (struct list *l = g->in_order.next; all && l != &g->in_order; l = l->next) {
			const struct group_member *m = list_entry(l, struct group_member, node);
			bool speaks = m == but;
			for (uint32_t n = 0; !speaks && n < m->protocol_count; n++)
				speaks = bytes_equal(
					m->protocols[n].name.bytes, j->protocols[i].name);
			all = speaks;
		}
		if (all)
			return true;
	}
	return false;
}

bool group_protocols_same(const struct group_member *m, const struct group_join *j)
{
	if (m->protocol_count != j->protocol_count)
		return false;
	for (uint32_t i = 0; i < j->protocol_count; i++)
		if (!bytes_equal(m->protocols[i].name.bytes, j->protocols[i].name) ||
			!bytes_equal(m->protocols[i].metadata.bytes, j->protocols[i].metadata))
			return false;
	return true;
}

/* The protocol most members like best among those that all speak. */
struct slice group_protocol_choose(const struct group *g)
{
	const struct group_member *first = list_entry(g->in_order.next, struct group_member, node);
	const struct slice *best = NULL;
	uint32_t most = 0;
	for (uint32_t i = 0; i < first->protocol_count; i++) {
		const struct slice *name = &first->protocols[i].name;
		uint32_t votes = 0, speakers = 0;
		for (struct list *l = g->in_order.next; l != &g->in_order; l = l->next) {
			const struct group_member *m = list_entry(l, struct group_member, node);
			for (uint32_t n = 0; n < m->protocol_count; n++)
				if (bytes_equal(m->protocols[n].name.bytes, name->bytes)) {
					speakers++;
					votes += n == 0;
					break;
				}
		}
		if (speakers == g->members.count && (best == NULL || votes > most)) {
			best = name;
			most = votes;
		}
	}
	must(best != NULL); /* group_protocols_fit has let everyone in */
	return slice_ref(*best);
}

/* What consumers say of themselves begins with a version and the topics they want (Kafka's
 * ConsumerProtocolSubscription): 2, count 4 {length 2, name}. */
static bool wants(struct bytes metadata, struct bytes topic)
{
	struct rd r = rd_over(metadata);
	bool found = false;
	rd_skip(&r, 2);
	for (uint32_t left = rd_count(&r, rd_u32be(&r), 2); left > 0 && !found; left--)
		found = bytes_equal(rd_bytes16(&r), topic);
	return found || r.err != OK;
}

static const struct group_member_protocol *chosen(
	const struct group *g, const struct group_member *m)
{
	for (uint32_t i = 0; i < m->protocol_count; i++)
		if (bytes_equal(m->protocols[i].name.bytes, g->protocol.bytes))
			return &m->protocols[i];
	return NULL;
}

bool group_consumers(const struct group *g)
{
	return g->members.count > 0 && bytes_equal(g->protocol_type.bytes, bytes_text("consumer"));
}

bool group_subscribes(const struct group *g, struct bytes topic)
{
	for (struct list *l = g->in_order.next; l != &g->in_order; l = l->next) {
		const struct group_member *m = list_entry(l, struct group_member, node);
		const struct group_member_protocol *p = chosen(g, m);
		if (p == NULL || wants(p->metadata.bytes, topic))
			return true;
	}
	return false;
}
