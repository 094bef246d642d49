/* The two ends of a measured flow of messages. A publisher keeps a window of packet ids; a
 * subscriber knows from a number in each payload what is missing, came twice or out of order.
 * Everything belongs to the one thread of the load. */
#ifndef BENCH_MQTT_FLOW_H
#define BENCH_MQTT_FLOW_H
#include "tools/bench/hist.h"
#include "tools/bench/mqtt_fleet.h"

/* Payload: 0 run:4 (which run, so that a stray message of another is not counted),
 * 4 publisher:4, 8 number:8 (0, 1, 2...), 16 time:8 (monotonic ns), then filling. */
enum { STAMP_BYTES = 24 };

struct slot { /* a packet id in flight */
	uint64_t sent_ns;
	bool released; /* QoS 2: PUBREL is out, PUBCOMP awaited */
	bool busy;
};

struct pub {
	uint8_t *packet; /* made once; patched for each message */
	struct mqtt_publish shape;
	uint8_t qos;
	uint64_t sent, acked, refused;
	uint64_t limit;     /* of sent; UINT64_MAX when only time ends the run */
	struct slot *slots; /* window of them; packet id - 1 is the index */
	uint16_t *free_ids; /* a ring of window entries */
	uint32_t window, free_at, free_count;
	uint64_t next_due; /* open loop: when the next one should leave */
	bool held;         /* open loop: it was due while the window or the socket was full */
};

struct sub {
	uint8_t *seen; /* one bit per number */
	uint64_t seen_bits;
	uint64_t unique, twice, disorder, next;
	struct pub *source;
};

struct flow { /* sums over the run */
	uint32_t run_id;
	uint8_t version;
	struct hist deliver, ack, late;
	uint64_t last_delivery_ns, last_ack_ns;
	uint64_t stray; /* messages that are not ours */
};

bool pub_init(struct pub *p, const struct flow *f, const struct options *o, uint32_t index);
void pub_fini(struct pub *p);
/* Whether the window allows another one. */
static inline bool pub_open(const struct pub *p)
{
	return p->sent < p->limit && (p->qos == 0 || p->free_count > 0);
}
/* Writes one PUBLISH stamped with the given time to at (shape.len bytes). */
void pub_write(struct pub *p, uint8_t *at, uint64_t stamp_ns);
/* PUBACK, PUBREC, PUBCOMP; a PUBREL may be added to s->out. False: not allowed here. */
bool pub_on_ack(
	struct pub *p, struct flow *f, struct sock *s, const struct mqtt_packet *k, uint64_t now);

/* Counts a delivery and appends what acknowledges it to s->out. False: malformed. */
bool sub_on_packet(
	struct sub *u, struct flow *f, struct sock *s, const struct mqtt_packet *k, uint64_t now);
void sub_fini(struct sub *u);

#endif
