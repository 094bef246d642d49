/* Each writer against bytes laid out by hand from the specifications, in both versions, and then
 * what the peer's limits make of it. The client's half is read back by the server's readers. */
#include "protocols/mqtt/mqtt_client_wire.h"
#include <check.h>

static const struct mqtt_peer v3 = {MQTT_V311, UINT32_MAX, true};
static const struct mqtt_peer v5 = {MQTT_V5, UINT32_MAX, true};
static const struct mqtt_user user = {{(const uint8_t *)"k", 1}, {(const uint8_t *)"v", 1}};

static void setup(struct buf *b)
{
	buf_init(b, 1 << 16);
}

#define IS(b, ...)                                                                                 \
	is(b, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), __LINE__)
static void is(struct buf *b, const uint8_t *want, size_t len, int line)
{
	struct bytes got = buf_bytes(b);
	ck_assert_msg(got.len == len, "line %d: %zu bytes, not %zu", line, got.len, len);
	for (size_t i = 0; i < len; i++)
		ck_assert_msg(got.at[i] == want[i], "line %d: byte %zu is %#x, not %#x", line, i,
			got.at[i], want[i]);
	buf_clear(b);
}

/* Reason string "r" and the user property k: v. */
static struct mqtt_props told(void)
{
	struct mqtt_props p = {.reason_text = bytes_text("r"), .users = &user, .user_count = 1};
	mqtt_props_mark(&p, MQTT_PROP_REASON_TEXT);
	return p;
}

START_TEST(connack)
{
	struct buf b;
	setup(&b);
	ck_assert_int_eq(mqtt_write_connack(&b, &v3, true, MQTT_SUCCESS, NULL), OK);
	IS(&b, 0x20, 2, 1, 0);
	ck_assert_int_eq(mqtt_write_connack(&b, &v5, true, MQTT_SUCCESS, NULL), OK);
	IS(&b, 0x20, 3, 1, 0, 0);
	/* MQTT-3.2.2-6: no session with a failure. */
	ck_assert_int_eq(mqtt_write_connack(&b, &v5, true, MQTT_BANNED, NULL), OK);
	IS(&b, 0x20, 3, 0, 0x8a, 0);
	struct mqtt_props p = {.receive_max = 20, .assigned_id = bytes_text("id"), .qos_max = 1};
	mqtt_props_mark(&p, MQTT_PROP_RECEIVE_MAX);
	mqtt_props_mark(&p, MQTT_PROP_ASSIGNED_ID);
	mqtt_props_mark(&p, MQTT_PROP_QOS_MAX);
	ck_assert_int_eq(mqtt_write_connack(&b, &v5, false, MQTT_SUCCESS, &p), OK);
	IS(&b, 0x20, 13, 0, 0, 10, 0x12, 0, 2, 'i', 'd', 0x21, 0, 20, 0x24, 1);
	buf_fini(&b);
}
END_TEST

START_TEST(return_codes_of_311)
{
	static const uint8_t cases[][2] = {{MQTT_SUCCESS, 0}, {MQTT_BAD_VERSION, 1},
		{MQTT_BAD_CLIENT_ID, 2}, {MQTT_QUOTA, 3}, {MQTT_BUSY, 3}, {MQTT_BAD_LOGIN, 4},
		{MQTT_NOT_AUTHORIZED, 5}};
	struct buf b;
	setup(&b);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		enum mqtt_reason reason = (enum mqtt_reason)cases[i][0];
		ck_assert_int_eq(mqtt_write_connack(&b, &v3, false, reason, NULL), OK);
		IS(&b, 0x20, 2, 0, cases[i][1]);
	}
	buf_fini(&b);
}
END_TEST

START_TEST(acks)
{
	struct mqtt_props p = told();
	struct buf b;
	setup(&b);
	ck_assert_int_eq(mqtt_write_ack(&b, &v5, MQTT_PUBACK, 0x102, MQTT_SUCCESS, NULL), OK);
	IS(&b, 0x40, 2, 1, 2);
	ck_assert_int_eq(mqtt_write_ack(&b, &v5, MQTT_PUBREL, 7, MQTT_SUCCESS, NULL), OK);
	IS(&b, 0x62, 2, 0, 7);
	ck_assert_int_eq(mqtt_write_ack(&b, &v3, MQTT_PUBREC, 7, MQTT_QUOTA, &p), OK);
	IS(&b, 0x50, 2, 0, 7);
	ck_assert_int_eq(mqtt_write_ack(&b, &v5, MQTT_PUBCOMP, 7, MQTT_ID_NOT_FOUND, NULL), OK);
	IS(&b, 0x70, 3, 0, 7, 0x92);
	ck_assert_int_eq(mqtt_write_ack(&b, &v5, MQTT_PUBREC, 7, MQTT_QUOTA, &p), OK);
	IS(&b, 0x50, 15, 0, 7, 0x97, 11, 0x1f, 0, 1, 'r', 0x26, 0, 1, 'k', 0, 1, 'v');
	buf_fini(&b);
}
END_TEST

/* MQTT-3.4.2-2, -3: first the user properties go, then the reason string, then the packet. */
START_TEST(the_peers_maximum_is_kept)
{
	struct mqtt_props p = told();
	struct mqtt_peer to = {MQTT_V5, 17, true};
	struct buf b;
	setup(&b);
	ck_assert_int_eq(mqtt_write_ack(&b, &to, MQTT_PUBREC, 7, MQTT_QUOTA, &p), OK);
	ck_assert_uint_eq(buf_len(&b), 17);
	buf_clear(&b);
	to.frame_bytes_max = 16;
	ck_assert_int_eq(mqtt_write_ack(&b, &to, MQTT_PUBREC, 7, MQTT_QUOTA, &p), OK);
	IS(&b, 0x50, 8, 0, 7, 0x97, 4, 0x1f, 0, 1, 'r');
	to.frame_bytes_max = 9;
	ck_assert_int_eq(mqtt_write_ack(&b, &to, MQTT_PUBREC, 7, MQTT_QUOTA, &p), OK);
	IS(&b, 0x50, 3, 0, 7, 0x97);
	to.frame_bytes_max = 5;
	ck_assert_int_eq(mqtt_write_ack(&b, &to, MQTT_PUBREC, 7, MQTT_QUOTA, &p), OK);
	IS(&b, 0x50, 3, 0, 7, 0x97);
	to.frame_bytes_max = 4;
	ck_assert_int_eq(mqtt_write_ack(&b, &to, MQTT_PUBREC, 7, MQTT_QUOTA, &p), ERR_TOOBIG);
	ck_assert_int_eq(mqtt_write_connack(&b, &to, 0, MQTT_SUCCESS, NULL), ERR_TOOBIG);
	ck_assert_int_eq(mqtt_write_suback(&b, &to, 7, bytes_of("\0", 1), NULL), ERR_TOOBIG);
	ck_assert_uint_eq(buf_len(&b), 0);
	buf_fini(&b);
}
END_TEST

/* MQTT-3.1.2-29. */
START_TEST(problem_information_not_wanted)
{
	struct mqtt_props p = told();
	struct mqtt_peer to = {MQTT_V5, UINT32_MAX, false};
	struct buf b;
	setup(&b);
	ck_assert_int_eq(mqtt_write_ack(&b, &to, MQTT_PUBACK, 7, MQTT_QUOTA, &p), OK);
	IS(&b, 0x40, 3, 0, 7, 0x97);
	ck_assert_int_eq(mqtt_write_suback(&b, &to, 7, bytes_of("\x01", 1), &p), OK);
	IS(&b, 0x90, 4, 0, 7, 0, 1);
	ck_assert_int_eq(mqtt_write_disconnect(&b, &to, MQTT_QUOTA, &p), OK);
	ck_assert_uint_eq(buf_len(&b), 15);
	buf_clear(&b);
	ck_assert_int_eq(mqtt_write_connack(&b, &to, false, MQTT_QUOTA, &p), OK);
	ck_assert_uint_eq(buf_len(&b), 16);
	buf_fini(&b);
}
END_TEST

START_TEST(subscription_answers)
{
	static const uint8_t codes[] = {0, 2, MQTT_NOT_AUTHORIZED};
	struct bytes c = bytes_of(codes, sizeof codes);
	struct buf b;
	setup(&b);
	ck_assert_int_eq(mqtt_write_suback(&b, &v3, 7, c, NULL), OK);
	IS(&b, 0x90, 5, 0, 7, 0, 2, 0x80);
	ck_assert_int_eq(mqtt_write_suback(&b, &v5, 7, c, NULL), OK);
	IS(&b, 0x90, 6, 0, 7, 0, 0, 2, 0x87);
	ck_assert_int_eq(mqtt_write_unsuback(&b, &v3, 7, c, NULL), OK);
	IS(&b, 0xb0, 2, 0, 7);
	ck_assert_int_eq(mqtt_write_unsuback(&b, &v5, 7, c, NULL), OK);
	IS(&b, 0xb0, 6, 0, 7, 0, 0, 2, 0x87);
	buf_fini(&b);
}
END_TEST

START_TEST(small_ones)
{
	struct mqtt_props p = {.auth_method = bytes_text("m"), .auth_data = bytes_text("d")};
	mqtt_props_mark(&p, MQTT_PROP_AUTH_METHOD);
	mqtt_props_mark(&p, MQTT_PROP_AUTH_DATA);
	struct buf b;
	setup(&b);
	ck_assert_int_eq(mqtt_write_pingresp(&b), OK);
	IS(&b, 0xd0, 0);
	ck_assert_int_eq(mqtt_write_disconnect(&b, &v3, MQTT_TAKEN_OVER, NULL), OK);
	ck_assert_uint_eq(buf_len(&b), 0);
	ck_assert_int_eq(mqtt_write_disconnect(&b, &v5, MQTT_TAKEN_OVER, NULL), OK);
	IS(&b, 0xe0, 1, 0x8e);
	ck_assert_int_eq(mqtt_write_disconnect(&b, &v5, MQTT_SUCCESS, NULL), OK);
	IS(&b, 0xe0, 0);
	ck_assert_int_eq(mqtt_write_auth(&b, &v5, MQTT_CONTINUE_AUTH, &p), OK);
	IS(&b, 0xf0, 10, 0x18, 8, 0x15, 0, 1, 'm', 0x16, 0, 1, 'd');
	buf_fini(&b);
}
END_TEST

START_TEST(publish_heads)
{
	static const uint32_t ids[] = {5, 300};
	struct mqtt_publish_out o = {.qos = 1,
		.retain = true,
		.packet_id = 9,
		.topic = bytes_text("a/b"),
		.payload_len = 3};
	struct buf b;
	setup(&b);
	ck_assert_int_eq(mqtt_write_publish_head(&b, MQTT_V311, &o), OK);
	ck_assert_uint_eq(mqtt_publish_size(MQTT_V311, &o), buf_len(&b) + 3);
	IS(&b, 0x33, 10, 0, 3, 'a', '/', 'b', 0, 9);
	ck_assert_int_eq(mqtt_write_publish_head(&b, MQTT_V5, &o), OK);
	ck_assert_uint_eq(mqtt_publish_size(MQTT_V5, &o), buf_len(&b) + 3);
	IS(&b, 0x33, 11, 0, 3, 'a', '/', 'b', 0, 9, 0);

	struct mqtt_props p = {.payload_format = 1, .users = &user, .user_count = 1};
	mqtt_props_mark(&p, MQTT_PROP_PAYLOAD_FORMAT);
	struct buf shared;
	setup(&shared);
	mqtt_props_encode(&shared, &p);
	ck_assert_uint_eq(buf_len(&shared), mqtt_props_size(&p));
	o = (struct mqtt_publish_out){.qos = 0,
		.payload_len = 200,
		.alias = 4,
		.subscription_ids = ids,
		.subscription_id_count = 2,
		.props = buf_bytes(&shared)};
	ck_assert_int_eq(mqtt_write_publish_head(&b, MQTT_V5, &o), OK);
	ck_assert_uint_eq(mqtt_publish_size(MQTT_V5, &o), buf_len(&b) + 200);
	IS(&b, 0x30, 0xdc, 1, 0, 0, 17, 0x23, 0, 4, 0x0b, 5, 0x0b, 0xac, 2, 1, 1, 0x26, 0, 1, 'k',
		0, 1, 'v');
	o.payload_len = 268435455;
	ck_assert_uint_eq(mqtt_publish_size(MQTT_V5, &o), SIZE_MAX);
	ck_assert_int_eq(mqtt_write_publish_head(&b, MQTT_V5, &o), ERR_TOOBIG);
	ck_assert_uint_eq(buf_len(&b), 0);
	buf_fini(&shared);
	buf_fini(&b);
}
END_TEST

/* A writer appends a whole packet or nothing. */
START_TEST(a_full_buffer_gets_nothing)
{
	struct buf b;
	buf_init(&b, 3);
	struct mqtt_publish_out o = {.topic = bytes_text("a"), .payload_len = 0};
	ck_assert_int_eq(mqtt_write_ack(&b, &v5, MQTT_PUBACK, 7, MQTT_SUCCESS, NULL), ERR_TOOBIG);
	buf_clear(&b);
	ck_assert_int_eq(mqtt_write_connack(&b, &v5, false, MQTT_SUCCESS, NULL), ERR_TOOBIG);
	buf_clear(&b);
	ck_assert_int_eq(mqtt_write_publish_head(&b, MQTT_V5, &o), ERR_TOOBIG);
	ck_assert_uint_eq(buf_len(&b), 0);
	buf_clear(&b);
	ck_assert_int_eq(mqtt_write_pingresp(&b), OK);
	buf_fini(&b);
}
END_TEST

static struct mqtt_frame frame_in(const struct buf *b)
{
	struct mqtt_frame f;
	size_t used;
	ck_assert_int_eq(mqtt_frame_read(buf_bytes(b), SIZE_MAX, &f, &used), OK);
	ck_assert_uint_eq(used, buf_len(b));
	return f;
}

START_TEST(the_clients_connect_is_read)
{
	enum mqtt_version version = (enum mqtt_version)_i;
	struct mqtt_connect in = {.version = version,
		.clean = true,
		.has_will = true,
		.has_user = true,
		.has_password = true,
		.keep_alive_s = 30,
		.client_id = bytes_text("id"),
		.user = bytes_text("u"),
		.password = bytes_text("p")};
	in.will.topic = bytes_text("w");
	in.will.payload = bytes_text("gone");
	in.will.qos = 2;
	in.props.session_expiry_s = 60;
	mqtt_props_mark(&in.props, MQTT_PROP_SESSION_EXPIRY);
	struct buf b;
	setup(&b);
	ck_assert_int_eq(mqtt_write_connect(&b, &in), OK);
	struct mqtt_frame f = frame_in(&b);
	struct mqtt_connect out;
	enum mqtt_reason why;
	ck_assert_int_eq(mqtt_read_connect(&f, &out, &why), OK);
	ck_assert(out.version == version && out.clean && out.has_will && !out.will.retain);
	ck_assert_uint_eq(out.keep_alive_s, 30);
	ck_assert_uint_eq(out.will.qos, 2);
	ck_assert(bytes_equal(out.client_id, in.client_id));
	ck_assert(bytes_equal(out.will.topic, in.will.topic));
	ck_assert(bytes_equal(out.will.payload, in.will.payload));
	ck_assert(bytes_equal(out.user, in.user));
	ck_assert(bytes_equal(out.password, in.password));
	ck_assert_uint_eq(out.session_expiry_s, version == MQTT_V5 ? 60 : 0);
	buf_fini(&b);
}
END_TEST

START_TEST(the_clients_filters_are_read)
{
	enum mqtt_version version = (enum mqtt_version)_i;
	struct mqtt_filter filters[] = {{.full = bytes_text("a/#"), .qos = 1},
		{.full = bytes_text("$share/s/b"), .qos = 2}},
			   x;
	filters[0].no_local = version == MQTT_V5;
	struct buf b;
	setup(&b);
	ck_assert_int_eq(mqtt_write_subscribe(&b, version, 9, filters, 2, NULL), OK);
	struct mqtt_frame f = frame_in(&b);
	struct mqtt_subscribe s;
	enum mqtt_reason why;
	ck_assert_int_eq(mqtt_read_subscribe(&f, version, &s, &why), OK);
	ck_assert(s.packet_id == 9 && s.count == 2);
	struct bytes rest = s.filters;
	ck_assert(mqtt_filter_next(&s, &rest, &x) && x.qos == 1);
	ck_assert_int_eq(x.no_local, version == MQTT_V5);
	ck_assert(mqtt_filter_next(&s, &rest, &x) && x.shared && x.qos == 2);
	buf_clear(&b);
	ck_assert_int_eq(mqtt_write_unsubscribe(&b, version, 9, filters, 1, NULL), OK);
	f = frame_in(&b);
	ck_assert_int_eq(mqtt_read_unsubscribe(&f, version, &s, &why), OK);
	ck_assert_uint_eq(s.count, 1);
	buf_clear(&b);
	ck_assert_int_eq(mqtt_write_goodbye(&b, version, MQTT_SUCCESS, NULL), OK);
	ck_assert_int_eq(mqtt_write_pingreq(&b), OK);
	IS(&b, 0xe0, 0, 0xc0, 0);
	buf_fini(&b);
}
END_TEST

START_TEST(the_client_reads_answers)
{
	enum mqtt_reason why;
	struct mqtt_props p = told();
	struct mqtt_connack c;
	struct mqtt_codes codes;
	struct mqtt_reasoned d;
	struct buf b;
	setup(&b);
	ck_assert_int_eq(mqtt_write_connack(&b, &v5, true, MQTT_SUCCESS, &p), OK);
	struct mqtt_frame f = frame_in(&b);
	ck_assert_int_eq(mqtt_read_connack(&f, MQTT_V5, &c, &why), OK);
	ck_assert(c.session_present && c.props.user_count == 1);
	buf_clear(&b);
	ck_assert_int_eq(mqtt_write_suback(&b, &v5, 9, bytes_of("\x01\x8f", 2), &p), OK);
	f = frame_in(&b);
	ck_assert_int_eq(mqtt_read_codes(&f, MQTT_V5, &codes, &why), OK);
	ck_assert(codes.packet_id == 9 && codes.codes.len == 2 && codes.codes.at[1] == 0x8f);
	buf_clear(&b);
	ck_assert_int_eq(mqtt_write_disconnect(&b, &v5, MQTT_USE_ANOTHER, &p), OK);
	f = frame_in(&b);
	ck_assert_int_eq(mqtt_read_server_reasoned(&f, &d, &why), OK);
	ck_assert(d.reason == MQTT_USE_ANOTHER);
	ck_assert(bytes_equal(d.props.reason_text, bytes_text("r")));
	buf_fini(&b);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("mqtt_encode");
	tcase_add_test(tc, connack);
	tcase_add_test(tc, return_codes_of_311);
	tcase_add_test(tc, acks);
	tcase_add_test(tc, the_peers_maximum_is_kept);
	tcase_add_test(tc, problem_information_not_wanted);
	tcase_add_test(tc, subscription_answers);
	tcase_add_test(tc, small_ones);
	tcase_add_test(tc, publish_heads);
	tcase_add_test(tc, a_full_buffer_gets_nothing);
	tcase_add_loop_test(tc, the_clients_connect_is_read, MQTT_V311, MQTT_V5 + 1);
	tcase_add_loop_test(tc, the_clients_filters_are_read, MQTT_V311, MQTT_V5 + 1);
	tcase_add_test(tc, the_client_reads_answers);
	Suite *s = suite_create("mqtt_encode");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
