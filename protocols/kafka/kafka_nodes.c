/* Kafka's brokers are the nodes of the catalogue with what each advertises for this door. A client
 * is told of the doors of its own kind: over TLS of "kafkas", else of "kafka"; a node without one
 * is no broker to it, nor is one that can't be reached while the cluster goes on without it. What
 * this node itself is told to advertise holds from its start, before the catalogue has it. */
#include <stdlib.h>
#include "protocols/kafka/kafka_priv.h"

bool kafka_address_read(const char *list, struct bytes *host, int32_t *port)
{
	size_t len = strcspn(list, ",");
	const char *colon = memrchr(list, ':', len);
	size_t host_len = colon != NULL ? (size_t)(colon - list) : 0;
	if (host_len == 0)
		return false;
	bool brackets = list[0] == '[' && host_len > 2;
	*port = (int32_t)strtol(colon + 1, NULL, 10);
	*host = bytes_of(list + brackets, host_len - 2 * (size_t)brackets);
	return true;
}

/* Which door others are told of: that of the connection, unless only the other one is there. */
static bool over_tls(const struct kafka_request *r)
{
	const struct kafka *k = kafka_of(r);
	return (conn_is_tls(r->kc->conn) && k->tls.host != NULL) || k->plain.host == NULL;
}

static struct bytes rack_of(struct kafka_request *r, const char *rack)
{
	return *rack == 0 ? bytes_of(NULL, 0) : kafka_copy(r, bytes_text(rack));
}

static void fill_self(struct kafka_request *r, struct kafka_broker *out)
{
	const struct kafka *k = kafka_of(r);
	const struct kafka_address *a = over_tls(r) ? &k->tls : &k->plain;
	*out = (struct kafka_broker){.id = kafka_node_id(k),
		.host = bytes_text(a->host ? a->host : ""),
		.port = a->port,
		.rack = rack_of(r, node_conf(shard_node(kafka_shard(r)))->rack)};
}

static bool fill(struct kafka_request *r, const struct cluster_node *n, struct kafka_broker *out)
{
	struct bytes host;
	if ((int32_t)n->id == kafka_node_id(kafka_of(r))) {
		fill_self(r, out);
		return true;
	}
	if (!kafka_address_read(
		    cluster_node_door(n, over_tls(r) ? "kafkas" : "kafka"), &host, &out->port))
		return false;
	out->id = (int32_t)n->id;
	out->host = kafka_copy(r, host);
	out->rack = rack_of(r, n->rack);
	return true;
}

bool kafka_broker(struct kafka_request *r, uint32_t node, struct kafka_broker *out)
{
	const struct cluster_node *n;
	if (node != 0 && (int32_t)node == kafka_node_id(kafka_of(r))) {
		fill_self(r, out);
		return true;
	}
	n = node != 0 ? catalog_node(kafka_catalog(r), node) : NULL;
	return n != NULL && n->state != NODE_REMOVED && fill(r, n, out);
}

const struct kafka_broker *kafka_brokers(struct kafka_request *r, uint32_t *count)
{
	const struct shard *s = kafka_shard(r);
	size_t most = (size_t)catalog_node_count(kafka_catalog(r)) + 1;
	struct kafka_broker *list = kafka_take(r, most * sizeof *list);
	const struct partition *meta = catalog_meta(kafka_catalog(r));
	const struct cluster_node *n;
	bool self = false, together = meta != NULL && place_leader(s, meta) != 0;
	*count = 0;
	if (list == NULL)
		return NULL;
	for (int at = 0; place_node_next(s, &at, &n);)
		if ((!together || place_reachable(s, n->id)) && fill(r, n, &list[*count])) {
			self |= list[*count].id == kafka_node_id(kafka_of(r));
			(*count)++;
		}
	if (!self) /* it has not joined yet, or is removed: who asks has reached it all the same */
		fill_self(r, &list[(*count)++]);
	return list;
}

void kafka_hint(struct kafka_request *r, const struct partition *p, int32_t *leader, int32_t *epoch)
{
	uint32_t node = place_leader(kafka_shard(r), p);
	*leader = node != 0 ? (int32_t)node : -1;
	*epoch = node != 0 ? partition_epoch(p) : -1;
}
