#include "tests/unit/server/net/fixture.h"

static bool has(struct bytes text, const char *what)
{
	return memmem(text.at, text.len, what, strlen(what)) != NULL;
}

START_TEST(defaults_are_those_promised)
{
	static const char *const expected[][2] = {{"listen.mqtt", "127.0.0.1:1883"},
		{"listen.mqtts", "off"}, {"listen.amqp", "127.0.0.1:5672"}, {"listen.amqps", "off"},
		{"listen.http", "127.0.0.1:8080"}, {"listen.https", "off"},
		{"listen.kafka", "127.0.0.1:9092"}, {"listen.kafkas", "off"},
		{"listen.peer", "127.0.0.1:7400"}, {"listen.geo", "off"}};
	struct conf *c = conf_new();
	void *values = mem_new(net_conf_bytes());
	struct conf_item item;
	int found = 0;
	conf_add(c, net_rows, values);
	for (int i = 0; conf_next(c, &i, &item);)
		for (int k = 0; k < 10; k++)
			if (strcmp(item.name, expected[k][0]) == 0) {
				ck_assert_str_eq(item.value, expected[k][1]);
				found++;
			}
	ck_assert_int_eq(found, 10);
	ck_assert_int_eq(
		conf_set(c, "listen.mqtt", "nonsense", fix_why, sizeof fix_why), ERR_INVALID);
	ck_assert_ptr_nonnull(strstr(fix_why, "listen.mqtt"));
	ck_assert_int_eq(
		conf_set(c, "tls.client", "perhaps", fix_why, sizeof fix_why), ERR_INVALID);
	conf_free(c);
	mem_free(values);
}
END_TEST

START_TEST(door_without_adapter_stays_shut)
{
	START("listen.mqtt=127.0.0.1:0", "listen.geo=127.0.0.1:0");
	ck_assert_str_eq(net_addresses(fix.net, "geo", false, false), "");
	ck_assert_str_ne(net_addresses(fix.net, "mqtt", false, false), "");
	fixture_stop();
}
END_TEST

START_TEST(advertises_a_name_for_a_wildcard)
{
	char host[256] = "";
	START("listen.mqtt=0.0.0.0:0");
	ck_assert_int_eq(gethostname(host, sizeof host - 1), 0);
	const char *told = net_addresses(fix.net, "mqtt", false, true);
	ck_assert_int_eq(strncmp(told, host, strlen(host)), 0);
	ck_assert_int_eq(strtol(strrchr(told, ':') + 1, NULL, 10), fixture_port(false));
	fixture_stop();
}
END_TEST

START_TEST(counts)
{
	struct buf text;
	START("listen.mqtt=127.0.0.1:0", "conn.max=1");
	int fd = dial();
	put_frame(fd, 'e', "12345", 5);
	expect_frame(fd, "e12345");
	int over = dial();
	char byte;
	ck_assert_int_le(recv(over, &byte, 1, 0), 0);
#define MQTT "{protocol=\"mqtt\",door=\"mqtt\"} "
	buf_init(&text, 1 << 20);
	for (int i = 0; i < 30000; i++) { /* what has been sent is counted a little later */
		buf_clear(&text);
		metric_scrape(&text);
		if (has(buf_bytes(&text), "sluice_net_sent_bytes_total" MQTT "10\n"))
			break;
		nap(1);
	}
	struct bytes b = buf_bytes(&text);
	ck_assert(has(b, "sluice_connections_open" MQTT "1\n"));
	ck_assert(has(b, "sluice_connections_accepted_total" MQTT "2\n"));
	ck_assert(has(b, "sluice_connections_refused_total" MQTT "1\n"));
	ck_assert(has(b, "sluice_net_received_bytes_total" MQTT "10\n"));
	ck_assert(has(b, "sluice_net_sent_bytes_total" MQTT "10\n"));
	buf_fini(&text);
	close(fd);
	close(over);
	ck_assert(reaches(&fix.closed, 1));
	fixture_stop();
}
END_TEST

START_TEST(frees_what_was_never_drained)
{
	START("listen.mqtt=127.0.0.1:0");
	int fd = dial();
	put_frame(fd, 'e', "x", 1);
	expect_frame(fd, "ex");
	loops_stop(fix.loops);
	net_free(fix.net);
	expect_end(fd);
	close(fd);
	fixture_free();
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("net");
	tcase_add_test(tc, defaults_are_those_promised);
	tcase_add_test(tc, door_without_adapter_stays_shut);
	tcase_add_test(tc, advertises_a_name_for_a_wildcard);
	tcase_add_test(tc, counts);
	tcase_add_test(tc, frees_what_was_never_drained);
	return run_tests(tc);
}
