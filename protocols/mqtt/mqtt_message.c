/* Properties of MQTT 5 as headers of the record: those with a meaning under their names in all
 * doors, user properties under their own, in their order. A user property whose name means
 * something else here stays one: before the first of such names stands the header mqtt.user, and
 * what follows it is a user property whatever its name. Names that begin with "mqtt." or "~" are
 * ours and not taken from clients. */
#include "protocols/mqtt/mqtt_priv.h"

enum name { NAME_USER, NAME_PFI, NAME_TYPE, NAME_REPLY, NAME_CORRELATION, NAME_FROM, NAME_MARK };
static const char *const names[] = {
	[NAME_PFI] = "mqtt.pfi",
	[NAME_TYPE] = "content-type",
	[NAME_REPLY] = "reply-to",
	[NAME_CORRELATION] = "correlation-id",
	[NAME_FROM] = "mqtt.from",
	[NAME_MARK] = "mqtt.user",
};

static enum name name_of(struct bytes b)
{
	for (int i = NAME_PFI; i <= NAME_MARK; i++)
		if (bytes_equal(b, bytes_text(names[i])))
			return (enum name)i;
	return NAME_USER;
}

static bool is_ours(struct bytes b)
{
	return (b.len >= 5 && memcmp(b.at, "mqtt.", 5) == 0) || (b.len > 0 && b.at[0] == '~');
}

static void add(struct mqtt_headers *h, enum name name, struct bytes value)
{
	h->at[h->count++] = (struct record_header){bytes_text(names[name]), value, false};
}

static bool needs_mark(const struct mqtt_props *p)
{
	struct bytes rest = p->all;
	struct mqtt_user u;
	while (mqtt_user_next(&rest, &u))
		if (name_of(u.name) != NAME_USER && !is_ours(u.name))
			return true;
	return false;
}

/* Nobody says that a message is of another user. */
static bool is_forged(const struct mqtt_user *u, struct bytes user)
{
	return bytes_equal(u->name, bytes_text("user-id")) && !bytes_equal(u->value, user);
}

enum err mqtt_headers_fill(
	struct mqtt_headers *h, const struct mqtt_props *p, struct bytes from, struct bytes user)
{
	h->count = 0;
	if (p->user_count > MQTT_HEADERS_MAX - NAME_MARK)
		return ERR_TOOBIG;
	if (from.len > 0)
		add(h, NAME_FROM, from);
	if (mqtt_props_has(p, MQTT_PROP_PAYLOAD_FORMAT)) {
		h->pfi[0] = p->payload_format ? '1' : '0';
		add(h, NAME_PFI, bytes_of(h->pfi, 1));
	}
	if (mqtt_props_has(p, MQTT_PROP_CONTENT_TYPE))
		add(h, NAME_TYPE, p->content_type);
	if (mqtt_props_has(p, MQTT_PROP_RESPONSE_TOPIC))
		add(h, NAME_REPLY, p->response_topic);
	if (mqtt_props_has(p, MQTT_PROP_CORRELATION))
		add(h, NAME_CORRELATION, p->correlation);
	if (p->user_count == 0)
		return OK;
	if (needs_mark(p))
		add(h, NAME_MARK, bytes_of(NULL, 0));
	struct bytes rest = p->all;
	struct mqtt_user u;
	while (mqtt_user_next(&rest, &u))
		if (!is_ours(u.name) && !is_forged(&u, user))
			h->at[h->count++] = (struct record_header){u.name, u.value, false};
	return OK;
}

bool mqtt_message_from(const struct message *m, struct bytes client_id)
{
	struct bytes rest = m->encoded_headers;
	int left = m->encoded_count;
	struct record_header h;
	while (message_header_next(&rest, &left, &h) == OK) {
		enum name n = name_of(h.name);
		if (n == NAME_FROM)
			return bytes_equal(h.value, client_id);
		if (n == NAME_MARK)
			return false;
	}
	return false;
}

static void set_text(
	struct mqtt_props *p, enum mqtt_prop id, struct bytes *field, struct bytes value)
{
	if (mqtt_props_has(p, id) || value.len > UINT16_MAX)
		return;
	*field = value;
	mqtt_props_mark(p, id);
}

static void add_user(struct mqtt_loop *l, struct mqtt_props *p, const struct record_header *h)
{
	/* What another door stored may be no text; it has no place in an MQTT property. */
	if (h->name.len > UINT16_MAX || h->value.len > UINT16_MAX || !mqtt_text_ok(h->name) ||
		!mqtt_text_ok(h->value))
		return;
	if ((int)p->user_count == l->users_room) {
		int room = l->users_room > 0 ? l->users_room * 2 : 16;
		struct mqtt_user *users = mem_resize(l->users, (size_t)room * sizeof *users);
		if (users == NULL)
			return;
		l->users = users;
		l->users_room = room;
	}
	l->users[p->user_count++] = (struct mqtt_user){h->name, h->value};
	mqtt_props_mark(p, MQTT_PROP_USER);
}

static void add_header(struct mqtt_loop *l, struct mqtt_props *p, const struct record_header *h,
	bool *user_from_here)
{
	switch (*user_from_here ? NAME_USER : name_of(h->name)) {
	case NAME_USER:
		if (!is_ours(h->name))
			add_user(l, p, h);
		break;
	case NAME_PFI:
		p->payload_format = h->value.len > 0 && h->value.at[0] == '1';
		mqtt_props_mark(p, MQTT_PROP_PAYLOAD_FORMAT);
		break;
	case NAME_TYPE:
		if (mqtt_text_ok(h->value))
			set_text(p, MQTT_PROP_CONTENT_TYPE, &p->content_type, h->value);
		break;
	case NAME_REPLY:
		if (mqtt_topic_ok(h->value))
			set_text(p, MQTT_PROP_RESPONSE_TOPIC, &p->response_topic, h->value);
		break;
	case NAME_CORRELATION: set_text(p, MQTT_PROP_CORRELATION, &p->correlation, h->value); break;
	case NAME_FROM: break;
	case NAME_MARK: *user_from_here = true; break;
	}
}

static void gather(struct mqtt_loop *l, const struct message *m, struct mqtt_props *p)
{
	struct bytes rest = m->encoded_headers;
	int left = m->encoded_count;
	struct record_header h;
	bool user_from_here = false;
	while (message_header_next(&rest, &left, &h) == OK)
		add_header(l, p, &h, &user_from_here);
	p->users = l->users;
}

static bool is_cached(const struct mqtt_props_cache *c, const struct delivery *d, int64_t now_ms)
{
	return d->partition != NULL && c->partition == d->partition && c->offset == d->offset &&
		c->at_ms == now_ms;
}

/* Counted down by the time it waited (MQTT-3.3.2-6), in whole seconds begun. */
uint32_t mqtt_message_expiry_s(const struct mqtt_loop *l, int64_t expires_at_ms)
{
	int64_t left_ms = expires_at_ms - loop_now_wall_ms(l->loop);
	int64_t left_s = left_ms < 1000 ? left_ms > 0 : left_ms / 1000;
	return left_s > UINT32_MAX ? UINT32_MAX : (uint32_t)left_s;
}

size_t mqtt_message_expiry_at(struct bytes props)
{
	/* They are in the order of their numbers: only the payload format, of two bytes, is before
	 * it. */
	size_t at = props.len > 2 && props.at[0] == MQTT_PROP_PAYLOAD_FORMAT ? 2 : 0;
	return props.len > at && props.at[at] == MQTT_PROP_MESSAGE_EXPIRY ? at + 1 : 0;
}

struct bytes mqtt_message_props(struct mqtt_loop *l, const struct delivery *d)
{
	const struct message *m = d->message;
	struct mqtt_props_cache *c = &l->cache;
	int64_t now = loop_now_ms(l->loop);
	if (m->encoded_count == 0 && m->expires_at_ms == 0)
		return bytes_of(NULL, 0);
	if (is_cached(c, d, now))
		return buf_bytes(&c->buf);
	struct mqtt_props p = {0};
	if (m->encoded_count > 0)
		gather(l, m, &p);
	if (m->expires_at_ms > 0) {
		p.message_expiry_s = mqtt_message_expiry_s(l, m->expires_at_ms);
		mqtt_props_mark(&p, MQTT_PROP_MESSAGE_EXPIRY);
	}
	buf_clear(&c->buf);
	mqtt_props_encode(&c->buf, &p);
	c->partition = d->partition;
	c->offset = d->offset;
	c->at_ms = now;
	return buf_bytes(&c->buf);
}
