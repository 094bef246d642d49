/* Per message work of the load, kept to a copy of a ready packet, three stores into it, and on
 * the other side one bit and one histogram bucket. Packet ids are 1..window, used in a ring as
 * a client would; each id's slot remembers when its message left. */
#include "tools/bench/mqtt_flow.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEN_BITS_MAX_LOG2 = 36 }; /* 8 GiB of marks: far beyond any run */

static void put_u64(uint8_t *at, uint64_t v)
{
	memcpy(at, &v, sizeof v);
}
static uint64_t get_u64(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof v);
	return v;
}

static void fill_payload(uint8_t *at, const struct flow *f, uint32_t index, size_t size)
{
	uint64_t x = 0x9e3779b97f4a7c15u + index;

	memcpy(at, &f->run_id, 4);
	memcpy(at + 4, &index, 4);
	for (size_t i = STAMP_BYTES; i < size; i++) { /* xorshift: nothing compresses it */
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		at[i] = (uint8_t)x;
	}
}

bool pub_init(struct pub *p, const struct flow *f, const struct options *o, uint32_t index)
{
	char topic[MQTT_NAME_BYTES_MAX + 16];

	memset(p, 0, sizeof *p);
	p->qos = (uint8_t)o->qos;
	p->window = (uint32_t)o->window;
	p->limit = UINT64_MAX;
	p->packet = malloc(o->size + sizeof topic + 512);
	p->slots = calloc(p->window, sizeof *p->slots);
	p->free_ids = calloc(p->window, sizeof *p->free_ids);
	if (!p->packet || !p->slots || !p->free_ids)
		return false;
	snprintf(topic, sizeof topic, "%s%u", o->topic, index);
	p->shape = mqtt_publish_write(p->packet, f->version, topic, p->qos, o->size);
	fill_payload(p->packet + p->shape.payload_at, f, index, o->size);
	for (uint32_t i = 0; i < p->window; i++)
		p->free_ids[i] = (uint16_t)(i + 1);
	p->free_count = p->window;
	return true;
}

void pub_fini(struct pub *p)
{
	free(p->packet);
	free(p->slots);
	free(p->free_ids);
}

void pub_write(struct pub *p, uint8_t *at, uint64_t stamp_ns)
{
	uint8_t *stamp = p->packet + p->shape.payload_at;

	put_u64(stamp + 8, p->sent);
	put_u64(stamp + 16, stamp_ns);
	if (p->qos) {
		uint16_t id = p->free_ids[p->free_at];
		struct slot *slot = &p->slots[id - 1];

		p->free_at = p->free_at + 1 == p->window ? 0 : p->free_at + 1;
		p->free_count--;
		*slot = (struct slot){.sent_ns = stamp_ns, .busy = true};
		set_be16(p->packet + p->shape.pid_at, id);
	}
	memcpy(at, p->packet, p->shape.len);
	p->sent++;
}

static void slot_free(struct pub *p, struct slot *slot)
{
	uint32_t to = p->free_at + p->free_count;

	slot->busy = false;
	p->free_ids[to >= p->window ? to - p->window : to] = (uint16_t)(slot - p->slots + 1);
	p->free_count++;
}

bool pub_on_ack(
	struct pub *p, struct flow *f, struct sock *s, const struct mqtt_packet *k, uint64_t now)
{
	uint16_t id = k->len >= 2 ? get_be16(k->body) : 0;
	bool refused = k->len > 2 && k->body[2] >= 0x80;
	struct slot *slot;

	if (id == 0 || id > p->window || !p->slots[id - 1].busy)
		return false;
	slot = &p->slots[id - 1];
	f->last_ack_ns = now;
	if (k->type == MQTT_PUBREC && p->qos == 2 && !slot->released && !refused) {
		slot->released = true;
		mqtt_ack_write(s->out + s->out_len, MQTT_PUBREL, id);
		s->out_len += 4;
		return true;
	}
	if (k->type == MQTT_PUBCOMP ? !slot->released : k->type == MQTT_PUBREC && !refused)
		return false;
	if (refused)
		p->refused++;
	else
		p->acked++;
	hist_add(&f->ack, now - slot->sent_ns);
	slot_free(p, slot);
	return true;
}

static bool seen_grow(struct sub *u, uint64_t number)
{
	uint64_t bits = u->seen_bits ? u->seen_bits : 1 << 16;
	uint8_t *grown;

	if (number >> SEEN_BITS_MAX_LOG2)
		return false;
	while (bits <= number)
		bits *= 2;
	grown = realloc(u->seen, bits / 8);
	if (!grown)
		return false;
	memset(grown + u->seen_bits / 8, 0, (bits - u->seen_bits) / 8);
	u->seen = grown;
	u->seen_bits = bits;
	return true;
}

static bool sub_count(struct sub *u, struct flow *f, const struct mqtt_delivery *d, uint64_t now)
{
	uint64_t number, left_ns;
	uint8_t mark;

	if (d->len < STAMP_BYTES || memcmp(d->payload, &f->run_id, 4) != 0) {
		f->stray++;
		return true;
	}
	number = get_u64(d->payload + 8);
	if (number >= u->seen_bits && !seen_grow(u, number))
		return false;
	mark = (uint8_t)(1u << (number & 7));
	if (u->seen[number >> 3] & mark) {
		u->twice++;
		return true;
	}
	u->seen[number >> 3] |= mark;
	u->unique++;
	if (number < u->next)
		u->disorder++;
	else
		u->next = number + 1;
	left_ns = get_u64(d->payload + 16);
	hist_add(&f->deliver, now > left_ns ? now - left_ns : 0);
	f->last_delivery_ns = now;
	return true;
}

bool sub_on_packet(
	struct sub *u, struct flow *f, struct sock *s, const struct mqtt_packet *k, uint64_t now)
{
	static const enum mqtt_type answers[3] = {MQTT_PUBLISH, MQTT_PUBACK, MQTT_PUBREC};
	struct mqtt_delivery d;

	if (k->type == MQTT_PUBREL && k->len >= 2) {
		mqtt_ack_write(s->out + s->out_len, MQTT_PUBCOMP, get_be16(k->body));
		s->out_len += 4;
		return true;
	}
	if (k->type != MQTT_PUBLISH)
		return k->type == MQTT_PINGRESP;
	if (!mqtt_delivery_read(k, f->version, &d) || d.qos > 2 || !sub_count(u, f, &d, now))
		return false;
	if (d.qos) {
		mqtt_ack_write(s->out + s->out_len, answers[d.qos], d.pid);
		s->out_len += 4;
	}
	return true;
}

void sub_fini(struct sub *u)
{
	free(u->seen);
}
