/* Who comes in and what it may: logins, rights of packets, what happens when they change, quotas,
 * tenants, enhanced authentication. Topics and client ids are single letters; "o" is an
 * administrator, "u" a user with the rules of a test, their passwords "p". */
#include "protocols/mqtt/mqtt_client_wire.h"
#include "server/base/clock.h"
#include "server/broker/access.h"
#include "server/broker/secret.h"
#include "tests/unit/protocols/mqtt/door.h"

enum { SOON_US = 250000, ITERATIONS = 4096 };
#define B(text) bytes_text(text)

/* Documents */

struct put {
	struct meta_op op;
	struct meta_doc doc;
	_Atomic int done;
};

static void put_done(struct meta_op *op)
{
	atomic_store(&list_entry(op, struct put, op)->done, 1);
}

static void put_run(void *arg)
{
	node_change(t.node, &((struct put *)arg)->op);
}

static void turn_run(void *arg)
{
	atomic_fetch_add((_Atomic int *)arg, 1);
}

/* Those who hold accesses are told in the turn after a change, and do what follows in the next. */
static void turns(void)
{
	enum { TURNS = 5 };
	_Atomic int ran = 0;
	for (int turn = 1; turn <= TURNS; turn++) {
		for (int i = 0; i < 2; i++)
			loop_call(loops_at(t.loops, i), turn_run, &ran);
		for (int i = 0; i < 20000 && atomic_load(&ran) < 2 * turn; i++)
			usleep(1000);
		ck_assert_int_eq(atomic_load(&ran), 2 * turn);
	}
}

/* value at NULL: it goes. In force on all loops when it returns, and connections know. */
static void put_doc(struct buf *key, struct bytes value)
{
	struct put p = {.doc = {.key = buf_bytes(key), .value = value}};
	p.op = (struct meta_op){
		.kind = META_DOCS, .docs = &p.doc, .doc_count = 1, .done = put_done};
	loop_call(loops_at(t.loops, 0), put_run, &p);
	for (int i = 0; i < 20000 && atomic_load(&p.done) == 0; i++)
		usleep(1000);
	ck_assert_int_eq(atomic_load(&p.done), 1);
	ck_assert_int_eq(p.op.err, OK);
	turns();
	buf_fini(key);
}

static void fill_secret(
	struct secret *s, enum secret_kind kind, const char *password, uint8_t *room)
{
	uint8_t salted[SECRET_HASH_MAX];
	size_t len = secret_hash_bytes(kind);
	secret_salted(kind, B(password), B("0123456789abcdef"), ITERATIONS, salted);
	secret_keys(kind, salted, room, room + SECRET_HASH_MAX);
	*s = (struct secret){.kind = kind,
		.salt = B("0123456789abcdef"),
		.stored_key = bytes_of(room, len),
		.server_key = bytes_of(room + SECRET_HASH_MAX, len),
		.iterations = ITERATIONS};
}

static void put_user(const char *name, const char *tenant, const char *password, bool admin)
{
	struct buf key, value;
	uint8_t room[2][2 * SECRET_HASH_MAX];
	struct user_doc u = {.name = B(name), .tenant = B(tenant), .secret_count = 2};
	fill_secret(&u.secrets[0], SECRET_SCRAM_256, password, room[0]);
	fill_secret(&u.secrets[1], SECRET_SCRAM_512, password, room[1]);
	u.roles[0] = B("admin");
	u.role_count = admin;
	buf_init(&key, 4096);
	buf_init(&value, 65536);
	user_key(u.name, &key);
	user_write(&u, &value);
	put_doc(&key, buf_bytes(&value));
	buf_fini(&value);
	if (*tenant == 0)
		return;
	buf_init(&key, 4096);
	buf_add(&key, bytes_of("t", 2));
	buf_addf(&key, "%s/%s", tenant, name);
	put_doc(&key, bytes_of("", 0));
}

static void drop_user(const char *name)
{
	struct buf key;
	buf_init(&key, 4096);
	user_key(B(name), &key);
	put_doc(&key, bytes_of(NULL, 0));
}

static void rule(bool there, bool deny, enum action action, const char *filter)
{
	struct rule r = {.principal = PRINCIPAL_USER,
		.who = B("u"),
		.resource = RESOURCE_TOPIC,
		.pattern = RULE_LITERAL,
		.name = B(filter),
		.host = B("*"),
		.deny = deny,
		.action = action};
	struct buf key;
	char why[160];
	ck_assert_msg(rule_check(&r, why, sizeof why) == OK, "%s", why);
	buf_init(&key, 4096);
	rule_key(&r, &key);
	put_doc(&key, there ? bytes_of("", 0) : bytes_of(NULL, 0));
}

static void quota(enum quota_what what, int64_t limit)
{
	struct quota_doc q = {.kind = QUOTA_USER, .name = B("u")};
	struct buf key, value;
	for (int i = 0; i < QUOTA_WHATS; i++)
		q.limit[i] = i == (int)what ? limit : -1;
	buf_init(&key, 4096);
	buf_init(&value, 4096);
	quota_key(q.kind, q.name, &key);
	quota_write(&q, &value);
	put_doc(&key, buf_bytes(&value));
	buf_fini(&value);
}

static void setup(void)
{
	boot();
	put_user("o", "", "p", true);
	put_user("u", "", "p", false);
}

/* Clients */

struct who {
	enum mqtt_version version;
	const char *id, *user, *password, *will, *method;
	bool kept;
	uint16_t receive_max;
};

static struct who who(
	enum mqtt_version version, const char *id, const char *user, const char *password)
{
	return (struct who){.version = version, .id = id, .user = user, .password = password};
}

static int asks(struct who w, const char *data)
{
	struct mqtt_connect c = {.version = w.version, .clean = !w.kept, .client_id = B(w.id)};
	struct buf out;
	c.has_user = c.has_password = w.user != NULL;
	if (w.user != NULL) {
		c.user = B(w.user);
		c.password = B(w.password);
	}
	if (w.will != NULL) {
		c.has_will = true;
		c.will.topic = B(w.will);
		c.will.payload = B("x");
	}
	if (w.kept && w.version == MQTT_V5) {
		c.props.session_expiry_s = 100;
		mqtt_props_mark(&c.props, MQTT_PROP_SESSION_EXPIRY);
	}
	if (w.receive_max > 0) {
		c.props.receive_max = w.receive_max;
		mqtt_props_mark(&c.props, MQTT_PROP_RECEIVE_MAX);
	}
	if (w.method != NULL) {
		c.props.auth_method = B(w.method);
		mqtt_props_mark(&c.props, MQTT_PROP_AUTH_METHOD);
	}
	if (data != NULL) {
		c.props.auth_data = B(data);
		mqtt_props_mark(&c.props, MQTT_PROP_AUTH_DATA);
	}
	buf_init(&out, 4096);
	ck_assert_int_eq(mqtt_write_connect(&out, &c), OK);
	int fd = dial();
	struct bytes b = buf_bytes(&out);
	ck_assert_int_eq(send(fd, b.at, b.len, MSG_NOSIGNAL), (ssize_t)b.len);
	buf_fini(&out);
	return fd;
}

static int in(struct who w)
{
	int fd = asks(w, NULL);
	hear(fd, w.version == MQTT_V5 ? CONNACK5("00") : "20 02 00 00");
	return fd;
}

/* The same of who is over its number of connections for a moment. */
static int in_soon(struct who w)
{
	static const uint8_t over[5] = {0x20, 3, 0, 0x97, 0};
	uint8_t want[64], got[64];
	size_t len = from_hex(CONNACK5("00"), want);
	for (int i = 0; i < 3000; i++) {
		int fd = asks(w, NULL);
		ck_assert_uint_eq(hear_bytes(fd, got, sizeof over, WAIT_MS), sizeof over);
		if (memcmp(got, over, sizeof over) != 0) {
			ck_assert_uint_eq(hear_bytes(fd, got + 5, len - 5, WAIT_MS), len - 5);
			ck_assert_mem_eq(got, want, len);
			return fd;
		}
		gone(fd);
		usleep(10000);
	}
	ck_abort_msg("never let in");
	return -1;
}

#define ADMIN who(MQTT_V5, "o", "o", "p")
#define USER4 who(MQTT_V311, "c", "u", "p")
#define USER5 who(MQTT_V5, "c", "u", "p")

/* All it was sent before has come by then. */
static void pong(int fd)
{
	say(fd, "c0 00");
	hear(fd, "d0 00");
}

#define SUBSCRIBE5(topic, qos) "82 07 0001 00 0001 " topic " " qos
#define PUBLISH5(topic)        "30 05 0001 " topic " 00 78"

/* Logins */

static const struct {
	const char *user, *password;
	enum mqtt_version version;
	const char *hear;
} logins[] = {
	{"u", "p", MQTT_V5, CONNACK5("00")},
	{"u", "p", MQTT_V311, "20 02 00 00"},
	{"u", "q", MQTT_V5, "20 03 00 86 00"},
	{"u", "q", MQTT_V311, "20 02 00 04"},
	{"v", "p", MQTT_V5, "20 03 00 86 00"},
	{"u", "", MQTT_V311, "20 02 00 04"},
	{NULL, NULL, MQTT_V5, "20 03 00 87 00"},
	{NULL, NULL, MQTT_V311, "20 02 00 05"},
};

START_TEST(lets_in)
{
	struct who w = who(logins[_i].version, "c", logins[_i].user, logins[_i].password);
	int fd = asks(w, NULL);
	hear(fd, logins[_i].hear);
	if (_i >= 2)
		gone(fd);
	else
		close(fd);
}
END_TEST

/* Connections that go while they are logged in, in time and at the very end. */
START_TEST(nobody_waits_for_the_answer)
{
	for (int i = 0; i < 20; i++)
		close(asks(who(MQTT_V5, "e", "u", i % 2 ? "p" : "wrong"), NULL));
	int fd = in(USER5);
	for (int i = 0; i < 20; i++) /* answered late, or not any more */
		(void)asks(who(MQTT_V5, "d", "u", "wrong"), NULL);
	pong(fd);
	close(fd);
}
END_TEST

/* Who was told that it took too long is not let in after it. */
START_TEST(too_late_is_too_late)
{
	int fd = in(USER5);
	mqtt_conf.login_ms = 100;
	t.broker_conf.auth_fail_delay_ms = 400;
	int late = asks(who(MQTT_V5, "c", "u", "wrong"), NULL);
	hear(late, "20 03 00 88 00");
	usleep(500000);
	gone(late);
	pong(fd);
	close(fd);
}
END_TEST

/* What packets may */

START_TEST(publishes_what_it_may)
{
	rule(true, false, ACTION_WRITE, "a");
	int o = in(ADMIN), u = in(USER5);
	say(o, SUBSCRIBE5("23", "00"));
	hear(o, "90 04 0001 00 00");
	say(u,
		PUBLISH5("62") "32 07 0001 62 0001 00 78"
			       "34 07 0001 62 0002 00 78");
	hear(u, "40 03 0001 87 50 03 0002 87");
	say(u,
		"30 08 0001 61 03 23 0001 78"
		"30 08 0001 62 03 23 0002 79"); /* aliases */
	say(u,
		"30 07 0000 03 23 0002 7a"
		"30 07 0000 03 23 0001 7a");
	hear(o, "30 05 0001 61 00 78 30 05 0001 61 00 7a");
	close(u);
	u = in(USER4); /* acknowledged, all the same */
	say(u, "32 06 0001 62 0001 78 34 06 0001 62 0002 78 62 02 0002 32 06 0001 61 0003 7b");
	hear(u, "40 02 0001 50 02 0002 70 02 0002 40 02 0003");
	hear(o, "30 05 0001 61 00 7b");
	silent(o);
	close(u);
	close(o);
}
END_TEST

START_TEST(subscribes_to_what_it_may)
{
	rule(true, false, ACTION_READ, "a");
	int u = in(USER5);
	say(u, "82 13 0001 00 0001 61 00 0001 62 00 0001 23 00 0001 2b 01");
	hear(u, "90 07 0001 00 00 87 87 87");
	close(u);
	u = in(USER4);
	say(u, "82 0a 0001 0001 61 01 0001 62 01");
	hear(u, "90 04 0001 01 80");
	close(u);
}
END_TEST

START_TEST(a_deny_is_sifted_out)
{
	rule(true, false, ACTION_READ, "#");
	rule(true, true, ACTION_READ, "b");
	int o = in(ADMIN), u = in(USER5);
	say(u, SUBSCRIBE5("23", "00"));
	hear(u, "90 04 0001 00 00");
	say(o, PUBLISH5("61") PUBLISH5("62") PUBLISH5("63"));
	hear(u, "30 05 0001 61 00 78 30 05 0001 63 00 78");
	rule(true, true, ACTION_READ, "c"); /* from now on */
	rule(false, true, ACTION_READ, "b");
	say(o, PUBLISH5("61") PUBLISH5("62") PUBLISH5("63"));
	hear(u, "30 05 0001 61 00 78 30 05 0001 62 00 78");
	silent(u);
	close(u);
	close(o);
}
END_TEST

START_TEST(a_client_is_known_by_its_id)
{
	rule(true, false, ACTION_WRITE, "%c/%u");
	rule(true, false, ACTION_READ, "%c/#");
	int u = in(USER5);
	say(u, "82 09 0001 00 0003 632f23 00 82 09 0002 00 0003 642f23 00");
	hear(u, "90 04 0001 00 00 90 04 0002 00 87");
	say(u, "32 09 0003 632f75 0001 00 78");
	uint8_t got[4 + 9];
	ck_assert_uint_eq(hear_bytes(u, got, 4 + 9, WAIT_MS), 4 + 9); /* PUBACK and PUBLISH */
	say(u, "32 09 0003 632f76 0002 00 78 32 09 0003 642f75 0003 00 78");
	hear(u, "40 03 0002 87 40 03 0003 87");
	close(u);
}
END_TEST

/* What is taken away */

START_TEST(a_right_taken_away_stops_a_subscription)
{
	rule(true, false, ACTION_READ, "a");
	rule(true, false, ACTION_READ, "b");
	int o = in(ADMIN), u = in(USER5);
	say(u, "82 0b 0001 00 0001 61 00 0001 62 00");
	hear(u, "90 05 0001 00 00 00");
	say(o, PUBLISH5("61") PUBLISH5("62"));
	hear(u, "30 05 0001 61 00 78 30 05 0001 62 00 78");
	rule(false, false, ACTION_READ, "a");
	say(o, PUBLISH5("61") PUBLISH5("62"));
	hear(u, "30 05 0001 62 00 78");
	silent(u);
	rule(true, false, ACTION_READ, "a"); /* it is to subscribe again */
	say(o, PUBLISH5("61") PUBLISH5("62"));
	hear(u, "30 05 0001 62 00 78");
	silent(u);
	say(u, "a2 09 0002 00 0001 61 0001 62");
	hear(u, "b0 05 0002 00 11 00");
	close(u);
	close(o);
}
END_TEST

/* Also what was encoded already, and waited for the client. */
START_TEST(a_right_taken_away_empties_the_window)
{
	struct who w = USER5;
	w.receive_max = 1;
	rule(true, false, ACTION_READ, "a");
	rule(true, false, ACTION_READ, "b");
	int o = in(ADMIN), u = in(w);
	say(u, "82 0b 0001 00 0001 61 01 0001 62 02");
	hear(u, "90 05 0001 00 01 02");
	say(o, "32 07 0001 61 0001 00 31");
	hear(u, "32 07 0001 61 0001 00 31");
	hear(o, "40 02 0001");
	say(o, "32 07 0001 61 0002 00 32 34 07 0001 62 0003 00 33 32 07 0001 61 0004 00 34");
	hear(o, "40 02 0002 50 02 0003 40 02 0004");
	pong(u);
	usleep(SOON_US);
	rule(false, false, ACTION_READ, "a");
	say(u, "40 02 0001");
	hear(u, "34 07 0001 62 0003 00 33");
	say(u, "50 02 0003");
	hear(u, "62 02 0003");
	say(u, "70 02 0003");
	pong(u);
	silent(u);
	close(u);
	close(o);
}
END_TEST

START_TEST(a_session_is_taken_up_with_what_is_left)
{
	struct who w = USER4;
	w.kept = true;
	rule(true, false, ACTION_READ, "a");
	rule(true, false, ACTION_READ, "b");
	int o = in(ADMIN), u = in(w);
	say(u, "82 0a 0001 0001 61 01 0001 62 01");
	hear(u, "90 04 0001 01 01");
	say(o, "32 07 0001 61 0001 00 31");
	hear(u, "32 06 0001 61 0001 31"); /* not acknowledged */
	close(u);
	rule(false, false, ACTION_READ, "a");
	say(o, "32 07 0001 61 0002 00 32 32 07 0001 62 0003 00 33");
	hear(o, "40 02 0001 40 02 0002 40 02 0003");
	u = asks(w, NULL);
	hear(u, "20 02 01 00 32 06 0001 62 0002 33");
	say(u, "40 02 0002");
	pong(u);
	close(u);
	rule(true, false, ACTION_READ, "a"); /* what was removed is not in the row either */
	say(o, "32 07 0001 61 0005 00 32");
	hear(o, "40 02 0005");
	u = asks(w, NULL);
	hear(u, "20 02 01 00");
	silent(u);
	close(u);
	close(o);
}
END_TEST

START_TEST(who_is_gone_is_sent_away)
{
	int u = in(USER5), four = in(who(MQTT_V311, "d", "u", "p")), o = in(ADMIN);
	if (_i == 0)
		drop_user("u");
	else
		put_user("u", "", "another", false);
	hear(u, "e0 01 87");
	gone(u);
	gone(four);
	pong(o);
	u = asks(USER5, NULL);
	hear(u, "20 03 00 86 00");
	gone(u);
	close(o);
}
END_TEST

/* A will is one more publish: at CONNECT, and when it leaves. */
START_TEST(a_will_needs_the_right)
{
	struct who w = USER5;
	w.will = "w";
	int u = asks(w, NULL), o = in(ADMIN);
	hear(u, "20 03 00 87 00");
	gone(u);
	say(o, SUBSCRIBE5("77", "00"));
	hear(o, "90 04 0001 00 00");
	rule(true, false, ACTION_WRITE, "w");
	u = in(w);
	if (_i == 1) /* in another way, the right is still there */
		put_user("u", "", "another", false);
	else if (_i == 2)
		rule(false, false, ACTION_WRITE, "w");
	else if (_i == 3)
		drop_user("u");
	close(u);
	if (_i < 2)
		hear(o, "30 05 0001 77 00 78");
	silent(o);
	close(o);
}
END_TEST

/* Quotas */

/* 40 messages at 20 a second, sent since then: those of a second come at once (quota_test), so it
 * takes another one. */
static void hear_throttled(int fd, int64_t since)
{
	uint8_t got[40 * 7];
	ck_assert_uint_eq(hear_bytes(fd, got, sizeof got, WAIT_MS), sizeof got);
	ck_assert_int_ge(clock_ms() - since, 700);
}

START_TEST(too_many_messages_are_read_later)
{
	rule(true, false, ACTION_WRITE, "a");
	quota(QUOTA_MESSAGES_IN, 20);
	int o = in(ADMIN), u = in(USER5);
	say(o, SUBSCRIBE5("61", "00"));
	hear(o, "90 04 0001 00 00");
	int64_t since = clock_ms();
	for (int i = 0; i < 40; i++)
		say(u, PUBLISH5("61"));
	hear_throttled(o, since);
	pong(u);
	for (int i = 0; i < 40; i++)
		say(u, PUBLISH5("61"));
	close(u); /* while it is not read */
	close(o);
}
END_TEST

START_TEST(too_many_messages_are_sent_later)
{
	rule(true, false, ACTION_READ, "a");
	quota(QUOTA_MESSAGES_OUT, 20);
	int o = in(ADMIN), u = in(USER5);
	say(u, SUBSCRIBE5("61", "01"));
	hear(u, "90 04 0001 00 01");
	int64_t since = clock_ms();
	for (int i = 0; i < 40; i++)
		say(o, PUBLISH5("61"));
	hear_throttled(u, since);
	pong(u);
	for (int i = 0; i < 40; i++)
		say(o, PUBLISH5("61"));
	usleep(SOON_US);
	close(u); /* while more is owed */
	close(o);
}
END_TEST

START_TEST(what_is_sent_again_counts)
{
	struct who w = USER4;
	w.kept = true;
	rule(true, false, ACTION_READ, "a");
	int o = in(ADMIN), u = in(w);
	say(u, "82 06 0001 0001 61 01");
	hear(u, "90 03 0001 01");
	for (int i = 0; i < 3; i++)
		say(o, "32 07 0001 61 0001 00 78");
	hear(u, "32 06 0001 61 0001 78 32 06 0001 61 0002 78 32 06 0001 61 0003 78");
	hear(o, "40 02 0001 40 02 0001 40 02 0001");
	close(u);
	quota(QUOTA_MESSAGES_OUT, 2);
	int64_t began = clock_ms();
	u = asks(w, NULL);
	hear(u, "20 02 01 00");
	hear(u, "3a 06 0001 61 0001 78 3a 06 0001 61 0002 78 3a 06 0001 61 0003 78");
	say(u, "40 02 0001 40 02 0002 40 02 0003");
	say(o, "32 07 0001 61 0001 00 79");
	hear(u, "32 06 0001 61 0004 79");
	ck_assert_int_ge(clock_ms() - began, 400);
	close(u);
	close(o);
}
END_TEST

START_TEST(too_many_connections_are_refused)
{
	quota(QUOTA_CONNECTIONS, 1);
	int u = in(USER5), other = asks(who(MQTT_V5, "d", "u", "p"), NULL);
	hear(other, "20 03 00 97 00");
	gone(other);
	other = asks(who(MQTT_V311, "d", "u", "p"), NULL);
	hear(other, "20 02 00 03");
	gone(other);
	say(u, "e0 00");
	gone(u);
	close(in_soon(USER5)); /* the client is told before it is over here */
}
END_TEST

/* Tenants */

START_TEST(tenants_do_not_meet)
{
	put_user("x", "x", "p", true);
	put_user("y", "y", "p", true);
	struct who w = who(MQTT_V5, "c", "x", "p");
	int x = in(w), o = in(who(MQTT_V5, "c", "o", "p"));
	w.user = "y";
	int y = in(w);
	int all[] = {x, y, o};
	for (int i = 0; i < 3; i++) {
		say(all[i], SUBSCRIBE5("23", "01"));
		hear(all[i], "90 04 0001 00 01");
	}
	for (int i = 0; i < 3; i++) {
		char hex[40];
		snprintf(hex, sizeof hex, "30 05 0001 74 00 3%d", i);
		say(all[i], hex);
		hear(all[i], hex);
		silent(all[(i + 1) % 3]);
	}
	for (int i = 0; i < 3; i++) {
		pong(all[i]);
		close(all[i]);
	}
}
END_TEST

/* Enhanced authentication: a client's half of SCRAM */

static const char *const methods[] = {"SCRAM-SHA-256", "SCRAM-SHA-512"};
#define CLIENT_FIRST "n,,n=u,r=fyko+d2lbbFgONRv9qkxdawL"

/* The next packet, of at most 300 bytes. */
static struct bytes packet(int fd, uint8_t *out)
{
	size_t head = 2;
	ck_assert_uint_eq(hear_bytes(fd, out, 2, WAIT_MS), 2);
	size_t size = out[1] & 0x7f;
	if (out[1] & 0x80) {
		ck_assert_uint_eq(hear_bytes(fd, out + head++, 1, WAIT_MS), 1);
		size += (size_t)out[2] << 7;
	}
	ck_assert_uint_lt(size, 300);
	ck_assert_uint_eq(hear_bytes(fd, out + head, size, WAIT_MS), size);
	return bytes_of(out, head + size);
}

/* What an AUTH or a CONNACK of the server's says. */
static void heard(int fd, enum mqtt_type type, uint8_t reason, const char *method, char *data)
{
	uint8_t room[310];
	struct mqtt_frame f;
	struct mqtt_reasoned a;
	struct mqtt_connack c;
	enum mqtt_reason why;
	size_t used;
	ck_assert_int_eq(mqtt_frame_read(packet(fd, room), 400, &f, &used), OK);
	ck_assert_int_eq(f.type, type);
	if (type == MQTT_CONNACK) {
		ck_assert_int_eq(mqtt_read_connack(&f, MQTT_V5, &c, &why), OK);
		a = (struct mqtt_reasoned){c.reason, c.props};
	} else {
		ck_assert_int_eq(mqtt_read_server_reasoned(&f, &a, &why), OK);
	}
	ck_assert_uint_eq(a.reason, reason);
	ck_assert(bytes_equal(a.props.auth_method, B(method)));
	snprintf(data, 300, "%.*s", (int)a.props.auth_data.len, (const char *)a.props.auth_data.at);
}

static void auth(int fd, enum mqtt_reason reason, const char *method, const char *data)
{
	struct mqtt_peer to = {MQTT_V5, UINT32_MAX, true};
	struct mqtt_props p = {.auth_method = B(method), .auth_data = B(data)};
	struct buf out;
	mqtt_props_mark(&p, MQTT_PROP_AUTH_METHOD);
	mqtt_props_mark(&p, MQTT_PROP_AUTH_DATA);
	buf_init(&out, 1000);
	ck_assert_int_eq(mqtt_write_auth(&out, &to, reason, &p), OK);
	struct bytes b = buf_bytes(&out);
	ck_assert_int_eq(send(fd, b.at, b.len, MSG_NOSIGNAL), (ssize_t)b.len);
	buf_fini(&out);
}

static void signature(enum secret_kind kind, const uint8_t *key, struct bytes text, uint8_t *out)
{
	struct secret by = {.kind = kind, .server_key = bytes_of(key, secret_hash_bytes(kind))};
	secret_server_signature(&by, text, out);
}

/* The client's last message, and the server's, as it has to be. */
static void prove(enum secret_kind kind, const char *user, const char *password, const char *first,
	char last[300], char want[300])
{
	uint8_t salted[SECRET_HASH_MAX], stored[SECRET_HASH_MAX], server[SECRET_HASH_MAX];
	uint8_t proof[SECRET_HASH_MAX], client_key[SECRET_HASH_MAX];
	char nonce[200], salt[100], said[900];
	unsigned iterations;
	struct buf b;
	size_t len = secret_hash_bytes(kind);
	ck_assert_int_eq(sscanf(first, "r=%199[^,],s=%99[^,],i=%u", nonce, salt, &iterations), 3);
	buf_init(&b, 1000);
	ck_assert_int_eq(base64_read(B(salt), &b), OK);
	secret_salted(kind, B(password), buf_bytes(&b), iterations, salted);
	secret_keys(kind, salted, stored, server);
	snprintf(said, sizeof said, "n=%s,r=fyko+d2lbbFgONRv9qkxdawL,%s,c=biws,r=%s", user, first,
		nonce);
	signature(kind, stored, B(said), proof);
	signature(kind, salted, B("Client Key"), client_key);
	for (size_t i = 0; i < len; i++)
		proof[i] ^= client_key[i];
	buf_clear(&b);
	base64_write(bytes_of(proof, len), &b);
	snprintf(last, 300, "c=biws,r=%s,p=%.*s", nonce, (int)buf_len(&b),
		(const char *)buf_bytes(&b).at);
	signature(kind, server, B(said), proof);
	buf_clear(&b);
	base64_write(bytes_of(proof, len), &b);
	snprintf(want, 300, "v=%.*s", (int)buf_len(&b), (const char *)buf_bytes(&b).at);
	buf_fini(&b);
}

static struct who prover(const char *method)
{
	struct who w = {.version = MQTT_V5, .id = "c", .method = method};
	return w;
}

static int proved(int i, const char *password)
{
	char first[300], last[300], want[300], got[300];
	int fd = asks(prover(methods[i]), CLIENT_FIRST);
	heard(fd, MQTT_AUTH, MQTT_CONTINUE_AUTH, methods[i], first);
	prove(i == 0 ? SECRET_SCRAM_256 : SECRET_SCRAM_512, "u", password, first, last, want);
	auth(fd, MQTT_CONTINUE_AUTH, methods[i], last);
	if (strcmp(password, "p") == 0) {
		heard(fd, MQTT_CONNACK, 0, methods[i], got);
		ck_assert_str_eq(got, want);
	}
	return fd;
}

START_TEST(proves_itself)
{
	char first[300], last[300], want[300], got[300];
	enum secret_kind kind = _i == 0 ? SECRET_SCRAM_256 : SECRET_SCRAM_512;
	rule(true, false, ACTION_READ, "a");
	int fd = proved(_i, "p");
	say(fd, SUBSCRIBE5("61", "00"));
	hear(fd, "90 04 0001 00 00");
	for (int i = 0; i < 2; i++) { /* again */
		auth(fd, MQTT_REAUTHENTICATE, methods[_i], CLIENT_FIRST);
		heard(fd, MQTT_AUTH, MQTT_CONTINUE_AUTH, methods[_i], first);
		pong(fd); /* others go on meanwhile */
		prove(kind, "u", i == 0 ? "p" : "q", first, last, want);
		auth(fd, MQTT_CONTINUE_AUTH, methods[_i], last);
		if (i == 0) {
			heard(fd, MQTT_AUTH, MQTT_SUCCESS, methods[_i], got);
			ck_assert_str_eq(got, want);
			pong(fd);
		}
	}
	hear(fd, "e0 01 87");
	gone(fd);
	fd = proved(_i, "q");
	hear(fd, "20 03 00 86 00");
	gone(fd);
}
END_TEST

/* Only the user it was: what it has here is that user's. */
START_TEST(stays_who_it_is)
{
	char first[300], last[300], want[300];
	put_user("v", "", "p", true);
	int fd = proved(0, "p");
	auth(fd, MQTT_REAUTHENTICATE, methods[0], "n,,n=v,r=fyko+d2lbbFgONRv9qkxdawL");
	heard(fd, MQTT_AUTH, MQTT_CONTINUE_AUTH, methods[0], first);
	prove(SECRET_SCRAM_256, "v", "p", first, last, want);
	auth(fd, MQTT_CONTINUE_AUTH, methods[0], last);
	hear(fd, "e0 01 87");
	gone(fd);
}
END_TEST

/* What breaks the order: before CONNACK the connection ends, after it with a reason. */
START_TEST(keeps_the_order)
{
	char first[300];
	int fd = asks(prover("SCRAM-SHA-1"), CLIENT_FIRST);
	hear(fd, "20 03 00 8c 00");
	gone(fd);
	fd = asks(prover(methods[0]), "n,,n=u");
	hear(fd, "20 03 00 86 00");
	gone(fd);
	fd = asks(prover(methods[0]), NULL);
	hear(fd, "20 03 00 86 00");
	gone(fd);
	fd = asks(prover(methods[0]), CLIENT_FIRST);
	heard(fd, MQTT_AUTH, MQTT_CONTINUE_AUTH, methods[0], first);
	static const char *wrong[] = {
		PUBLISH5("61"), "c0 00", "10 0e 0004 4d515454 05 02 0000 00 0001 61"};
	for (int i = 0; i < 3; i++) {
		if (i > 0) {
			fd = asks(prover(methods[0]), CLIENT_FIRST);
			heard(fd, MQTT_AUTH, MQTT_CONTINUE_AUTH, methods[0], first);
		}
		say(fd, wrong[i]);
		gone(fd);
	}
	fd = asks(prover(methods[0]), CLIENT_FIRST);
	heard(fd, MQTT_AUTH, MQTT_CONTINUE_AUTH, methods[0], first);
	auth(fd, MQTT_CONTINUE_AUTH, methods[1], "c=biws,r=x,p=AA==");
	gone(fd);
	fd = asks(prover(methods[0]), CLIENT_FIRST);
	heard(fd, MQTT_AUTH, MQTT_CONTINUE_AUTH, methods[0], first);
	auth(fd, MQTT_CONTINUE_AUTH, methods[0], "c=biws,r=x,p=AA==");
	close(fd); /* the answer has nobody */
	fd = proved(0, "p");
	auth(fd, MQTT_CONTINUE_AUTH, methods[0], "c=biws,r=x,p=AA==");
	hear(fd, "e0 01 82");
	gone(fd);
	fd = proved(0, "p");
	auth(fd, MQTT_REAUTHENTICATE, methods[1], CLIENT_FIRST);
	hear(fd, "e0 01 82");
	gone(fd);
	fd = proved(0, "p");
	auth(fd, MQTT_REAUTHENTICATE, methods[0], CLIENT_FIRST);
	auth(fd, MQTT_REAUTHENTICATE, methods[0], CLIENT_FIRST);
	heard(fd, MQTT_AUTH, MQTT_CONTINUE_AUTH, methods[0], first);
	hear(fd, "e0 01 82");
	gone(fd);
	fd = in(USER5);
	auth(fd, MQTT_REAUTHENTICATE, methods[0], CLIENT_FIRST);
	hear(fd, "e0 01 82");
	gone(fd);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("mqtt_rights");
	tcase_add_checked_fixture(tc, setup, down);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, lets_in, 0, sizeof logins / sizeof logins[0]);
	tcase_add_test(tc, nobody_waits_for_the_answer);
	tcase_add_test(tc, too_late_is_too_late);
	tcase_add_test(tc, publishes_what_it_may);
	tcase_add_test(tc, subscribes_to_what_it_may);
	tcase_add_test(tc, a_deny_is_sifted_out);
	tcase_add_test(tc, a_client_is_known_by_its_id);
	tcase_add_test(tc, a_right_taken_away_stops_a_subscription);
	tcase_add_test(tc, a_right_taken_away_empties_the_window);
	tcase_add_test(tc, a_session_is_taken_up_with_what_is_left);
	tcase_add_loop_test(tc, who_is_gone_is_sent_away, 0, 2);
	tcase_add_loop_test(tc, a_will_needs_the_right, 0, 4);
	tcase_add_test(tc, too_many_messages_are_read_later);
	tcase_add_test(tc, too_many_messages_are_sent_later);
	tcase_add_test(tc, what_is_sent_again_counts);
	tcase_add_test(tc, too_many_connections_are_refused);
	tcase_add_test(tc, tenants_do_not_meet);
	tcase_add_loop_test(tc, proves_itself, 0, 2);
	tcase_add_test(tc, stays_who_it_is);
	tcase_add_test(tc, keeps_the_order);
	Suite *s = suite_create("mqtt_rights");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
