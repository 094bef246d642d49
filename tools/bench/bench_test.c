/* Tests of what the measurements rest on: percentiles, what counts as lost or repeated, packet
 * ids, and that nothing a server sends is read beyond its end. */
#include "tools/bench/hist.h"
#include "tools/bench/kafka_wire.h"
#include "tools/bench/mqtt_flow.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

START_TEST(percentiles_are_close_and_never_flattered)
{
	static struct hist h;

	for (uint64_t v = 1; v <= 100000; v++)
		hist_add(&h, v * 1000);
	ck_assert_uint_ge(hist_at(&h, 0.5), 50000000);
	ck_assert_uint_le(hist_at(&h, 0.5), 50000000 + 50000000 / 60);
	ck_assert_uint_ge(hist_at(&h, 0.999), 99900000);
	ck_assert_uint_eq(hist_at(&h, 1), 100000000);
	ck_assert_uint_eq(h.max, 100000000);
}
END_TEST

START_TEST(buckets_follow_each_other)
{
	for (int bit = 0; bit < 64; bit++) {
		uint64_t v = 1ull << bit;

		ck_assert_uint_lt(hist_index(v), HIST_BUCKETS);
		ck_assert_uint_ge(hist_index(v), hist_index(v - 1));
		ck_assert_uint_le(hist_index(v) - hist_index(v - 1), 1);
	}
	ck_assert_uint_lt(hist_index(UINT64_MAX), HIST_BUCKETS);
}
END_TEST

START_TEST(an_empty_histogram_is_zero)
{
	static struct hist h;

	ck_assert_uint_eq(hist_at(&h, 0.99), 0);
}
END_TEST

START_TEST(connect_has_the_bytes_of_the_standard)
{
	static const uint8_t want[] = {0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 1, 'a'};
	static const uint8_t want5[] = {0x10, 19, 0, 4, 'M', 'Q', 'T', 'T', 5, 0, 0, 60, 5, 0x11, 0,
		1, 0x51, 0x80, 0, 1, 'a'};
	struct mqtt_login l = {.client_id = "a", .version = 4, .clean = true, .keepalive_s = 60};
	uint8_t at[MQTT_SMALL_BYTES];

	ck_assert_uint_eq(mqtt_connect_write(at, &l), sizeof want);
	ck_assert_mem_eq(at, want, sizeof want);
	l.version = 5;
	l.clean = false;
	l.expiry_s = 86400;
	ck_assert_uint_eq(mqtt_connect_write(at, &l), sizeof want5);
	ck_assert_mem_eq(at, want5, sizeof want5);
}
END_TEST

START_TEST(packets_wait_for_their_last_byte)
{
	static const uint8_t endless[] = {0x30, 0xff, 0xff, 0xff, 0xff, 1};
	uint8_t at[1024];
	struct mqtt_publish p = mqtt_publish_write(at, 5, "bench/1", 1, 300);
	struct mqtt_packet k;

	for (size_t len = 0; len < p.len; len++) {
		uint8_t *exact = malloc(len + 1);

		memcpy(exact, at, len);
		ck_assert_int_eq(mqtt_packet_read(exact, len, &k), 0);
		free(exact);
	}
	ck_assert_int_eq(mqtt_packet_read(at, p.len, &k), (int64_t)p.len);
	ck_assert_int_eq(k.type, MQTT_PUBLISH);
	ck_assert_int_eq(mqtt_packet_read(endless, sizeof endless, &k), -1);
}
END_TEST

START_TEST(a_cut_delivery_is_refused)
{
	uint8_t at[64];
	struct mqtt_publish p = mqtt_publish_write(at, 5, "t", 2, 24);
	struct mqtt_packet k;
	struct mqtt_delivery d;

	ck_assert_int_gt(mqtt_packet_read(at, p.len, &k), 0);
	ck_assert(mqtt_delivery_read(&k, 5, &d));
	ck_assert_uint_eq(d.len, 24);
	ck_assert_uint_eq(d.qos, 2);
	for (k.len = 0; k.len < 6; k.len++) /* topic 3, packet id 2, properties 1 */
		ck_assert(!mqtt_delivery_read(&k, 5, &d));
}
END_TEST

START_TEST(connack_tells_the_receive_maximum)
{
	static const uint8_t body[] = {
		0, 0, 12, 0x1f, 0, 2, 'o', 'k', 0x24, 1, 0x21, 0, 10, 0x25, 1};
	struct mqtt_packet k = {.type = MQTT_CONNACK, .body = body, .len = sizeof body};
	struct mqtt_connack ack;

	ck_assert(mqtt_connack_read(&k, 5, &ack));
	ck_assert_uint_eq(ack.receive_max, 10);
	ck_assert_uint_eq(ack.qos_max, 1);
	for (k.len = 3; k.len < sizeof body; k.len++)
		ck_assert(!mqtt_connack_read(&k, 5, &ack));
}
END_TEST

static struct options small = {.qos = 2, .window = 2, .size = 24, .topic = "t/"};

static bool answer(struct pub *p, struct flow *f, struct sock *s, enum mqtt_type type, uint16_t id)
{
	uint8_t at[4];
	struct mqtt_packet k;

	mqtt_ack_write(at, type, id);
	ck_assert_int_eq(mqtt_packet_read(at, sizeof at, &k), 4);
	return pub_on_ack(p, f, s, &k, 10);
}

START_TEST(the_window_closes_and_opens)
{
	static struct flow f = {.version = 4};
	uint8_t at[256], out[64];
	struct sock s = {.out = out, .out_cap = sizeof out};
	struct pub p;

	ck_assert(pub_init(&p, &f, &small, 0));
	pub_write(&p, at, 1);
	ck_assert(pub_open(&p));
	pub_write(&p, at, 1);
	ck_assert(!pub_open(&p));
	ck_assert(!answer(&p, &f, &s, MQTT_PUBCOMP, 1)); /* before its PUBREC */
	ck_assert(!answer(&p, &f, &s, MQTT_PUBREC, 3));  /* never sent */
	ck_assert(answer(&p, &f, &s, MQTT_PUBREC, 1));
	ck_assert(!pub_open(&p));
	ck_assert_uint_eq(s.out_len, 4);
	ck_assert_uint_eq(out[0], 0x62);
	ck_assert(answer(&p, &f, &s, MQTT_PUBCOMP, 1));
	ck_assert(pub_open(&p));
	ck_assert_uint_eq(p.acked, 1);
	ck_assert(!answer(&p, &f, &s, MQTT_PUBCOMP, 1)); /* once */
	pub_fini(&p);
}
END_TEST

static bool deliver(struct sub *u, struct flow *f, struct sock *s, uint8_t *at, uint64_t number)
{
	struct mqtt_publish shape = mqtt_publish_write(at, 4, "t/0", 1, 24);
	struct mqtt_packet k;

	memset(at + shape.payload_at, 0, 24);
	memcpy(at + shape.payload_at, &f->run_id, 4);
	memcpy(at + shape.payload_at + 8, &number, 8);
	at[shape.pid_at + 1] = 7;
	ck_assert_int_gt(mqtt_packet_read(at, shape.len, &k), 0);
	s->out_len = 0;
	return sub_on_packet(u, f, s, &k, 5);
}

/* A message of another run: counted apart, acknowledged all the same. */
static void stray_is_ignored(struct sub *u, struct flow *f, struct sock *s, uint8_t *at)
{
	struct mqtt_packet k;
	uint64_t unique = u->unique;

	ck_assert(deliver(u, f, s, at, 3));
	ck_assert_uint_eq(u->unique, unique + 1);
	f->run_id++;
	ck_assert_int_gt(mqtt_packet_read(at, 128, &k), 0);
	ck_assert(sub_on_packet(u, f, s, &k, 5));
	ck_assert_uint_eq(f->stray, 1);
	ck_assert_uint_eq(u->unique, unique + 1);
}

START_TEST(gaps_repeats_and_disorder_are_seen)
{
	static struct flow f = {.version = 4, .run_id = 77};
	uint8_t at[128], out[64];
	struct sock s = {.out = out, .out_cap = sizeof out};
	struct sub u = {0};

	ck_assert(deliver(&u, &f, &s, at, 0));
	ck_assert_uint_eq(out[0], MQTT_PUBACK << 4);
	ck_assert_uint_eq(out[3], 7);
	ck_assert(deliver(&u, &f, &s, at, 2));
	ck_assert(deliver(&u, &f, &s, at, 2));
	ck_assert(deliver(&u, &f, &s, at, 1));
	ck_assert(deliver(&u, &f, &s, at, 1000000)); /* the marks grow */
	ck_assert(!deliver(&u, &f, &s, at, UINT64_MAX));
	ck_assert_uint_eq(u.unique, 4);
	ck_assert_uint_eq(u.twice, 1);
	ck_assert_uint_eq(u.disorder, 1);
	stray_is_ignored(&u, &f, &s, at);
	sub_fini(&u);
}
END_TEST

START_TEST(a_batch_reads_back_and_a_flipped_bit_shows)
{
	size_t room = kafka_batch_bytes(3, 100);
	uint8_t *at = malloc(room);
	size_t len = kafka_batch_write(at, room, 3, 100, false);
	struct kafka_batch_view v;

	ck_assert_uint_gt(len, 300);
	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *exact = malloc(cut + 1);

		memcpy(exact, at, cut);
		ck_assert_int_eq(kafka_batch_read(bytes_of(exact, cut), true, &v), 0);
		free(exact);
	}
	ck_assert_int_eq(kafka_batch_read(bytes_of(at, len), true, &v), (int64_t)len);
	ck_assert_uint_eq(v.count, 3);
	ck_assert(v.intact);
	at[len - 5] ^= 1;
	ck_assert_int_eq(kafka_batch_read(bytes_of(at, len), true, &v), (int64_t)len);
	ck_assert(!v.intact);
	ck_assert_uint_eq(kafka_batch_write(at, room / 2, 3, 100, false), 0);
	at[16] = 1; /* an old format */
	ck_assert_int_eq(kafka_batch_read(bytes_of(at, len), true, &v), -1);
	free(at);
}
END_TEST

START_TEST(every_short_produce_response_is_refused)
{
	uint8_t at[128];
	struct wr w = wr_over(at, sizeof at);
	struct kafka_produced p;

	wr_u32be(&w, 9);
	wr_u32be(&w, 1);
	wr_u16be(&w, 1);
	wr_text(&w, "t");
	wr_u32be(&w, 1);
	wr_u32be(&w, 0);
	wr_u16be(&w, 0);
	wr_u64be(&w, 4711);
	wr_u64be(&w, UINT64_MAX);
	wr_u64be(&w, 0);
	wr_u32be(&w, 0);
	for (size_t len = 0; len < wr_len(&w); len++) {
		uint8_t *exact = malloc(len + 1);

		memcpy(exact, at, len);
		ck_assert(!kafka_produce_read(bytes_of(exact, len), &p));
		free(exact);
	}
	ck_assert(kafka_produce_read(bytes_of(at, wr_len(&w)), &p));
	ck_assert_uint_eq(p.correlation, 9);
	ck_assert_uint_eq(p.base_offset, 4711);
}
END_TEST

START_TEST(every_short_join_response_is_refused)
{
	uint8_t at[256], request[512];
	struct wr w = wr_over(at, sizeof at);
	static struct kafka_joined j;
	struct kafka_member m = {.group = "g", .topic = "t", .generation = 3, .id = "me"};

	wr_u32be(&w, 0);
	wr_u32be(&w, 0);
	wr_u16be(&w, 0);
	wr_u32be(&w, 3);
	for (int i = 0; i < 3; i++) { /* protocol, leader, member */
		wr_u16be(&w, 2);
		wr_text(&w, "me");
	}
	wr_u32be(&w, 2);
	for (int i = 0; i < 2; i++) {
		wr_u16be(&w, 2);
		wr_text(&w, i ? "me" : "it");
		wr_u32be(&w, 4);
		wr_u32be(&w, 0);
	}
	for (size_t len = 0; len < wr_len(&w); len++) {
		uint8_t *exact = malloc(len + 1);

		memcpy(exact, at, len);
		ck_assert(!kafka_join_read(bytes_of(exact, len), &j));
		free(exact);
	}
	ck_assert(kafka_join_read(bytes_of(at, wr_len(&w)), &j));
	ck_assert(j.leads);
	ck_assert_int_eq(j.generation, 3);
	ck_assert_uint_eq(j.count, 2);
	ck_assert_str_eq(j.members[0], "it");
	/* Its length is right, and each member's plan has one more partition number. */
	size_t len = kafka_sync_write(request, sizeof request, &m, &j);
	ck_assert_uint_eq(get_u32be(request), len - 4);
	ck_assert_uint_eq(get_u32be(request + len - 8), 1); /* the last one's partition */
	ck_assert_uint_eq(get_u32be(request + len - 21 - 4), 21);
	ck_assert_uint_eq(kafka_sync_write(request, 60, &m, &j), 0);
}
END_TEST

START_TEST(a_token_is_cut_out_of_its_response)
{
	uint8_t at[64];
	struct wr w = wr_over(at, sizeof at);
	struct bytes token;

	wr_u32be(&w, 0);
	wr_u16be(&w, 0);
	wr_u16be(&w, UINT16_MAX);
	wr_u32be(&w, 5);
	wr_text(&w, "v=abc");
	for (size_t len = 0; len < wr_len(&w); len++)
		ck_assert_int_eq(kafka_authenticate_read(bytes_of(at, len), &token), -1);
	ck_assert_int_eq(kafka_authenticate_read(bytes_of(at, wr_len(&w)), &token), 0);
	ck_assert(bytes_equal(token, bytes_text("v=abc")));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("bench");
	TCase *tc = tcase_create("all");
	SRunner *r = srunner_create(s);
	int failed;

	suite_add_tcase(s, tc);
	tcase_add_test(tc, percentiles_are_close_and_never_flattered);
	tcase_add_test(tc, buckets_follow_each_other);
	tcase_add_test(tc, an_empty_histogram_is_zero);
	tcase_add_test(tc, connect_has_the_bytes_of_the_standard);
	tcase_add_test(tc, packets_wait_for_their_last_byte);
	tcase_add_test(tc, a_cut_delivery_is_refused);
	tcase_add_test(tc, connack_tells_the_receive_maximum);
	tcase_add_test(tc, the_window_closes_and_opens);
	tcase_add_test(tc, gaps_repeats_and_disorder_are_seen);
	tcase_add_test(tc, a_batch_reads_back_and_a_flipped_bit_shows);
	tcase_add_test(tc, every_short_produce_response_is_refused);
	tcase_add_test(tc, every_short_join_response_is_refused);
	tcase_add_test(tc, a_token_is_cut_out_of_its_response);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
