/* The MQTT door: packets in hex, spaces apart. */
#ifndef TESTS_MQTT_DOOR_H
#define TESTS_MQTT_DOOR_H
#include "protocols/mqtt/mqtt.h"
#include <poll.h>
#include "tests/unit/protocols/door.h"

static struct mqtt_conf mqtt_conf;
static struct mqtt *mqtt;

static inline void boot(void)
{
	door_init("mqtt", &mqtt_kind, mqtt_rows, &mqtt_conf, &mqtt_metrics);
	set("tables", "2");
	set("message.bytes_max", "1024");
	set("mqtt.inflight_max", "3");
	set("mqtt.subscriptions_max", "4");
	door_open();
	mqtt = mqtt_new(&mqtt_conf, t.broker, t.loops);
	door_listen(mqtt);
}

static inline void down(void)
{
	net_drain(t.net, 1000);
	mqtt_stop(mqtt);
	door_close();
	mqtt_free(mqtt);
	door_free();
}

/* A client */

enum { WAIT_MS = 30000, ALLOCS = 8 };

static inline size_t from_hex(const char *text, uint8_t *out)
{
	size_t n = 0;
	for (; *text != 0; text++) {
		char two[3] = {text[0], text[1], 0};
		if (*text == ' ')
			continue;
		out[n++] = (uint8_t)strtoul(two, NULL, 16);
		text++;
	}
	return n;
}

static inline void say(int fd, const char *hex)
{
	uint8_t bytes[4096];
	size_t n = from_hex(hex, bytes);
	ck_assert_int_eq(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

static inline size_t hear_bytes(int fd, uint8_t *out, size_t want, int ms)
{
	size_t have = 0;
	while (have < want) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n = poll(&p, 1, ms) > 0 ? recv(fd, out + have, want - have, 0) : -1;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	return have;
}

static inline void hear(int fd, const char *hex)
{
	uint8_t want[4096], got[4096];
	char text[600] = "";
	size_t n = from_hex(hex, want), have = hear_bytes(fd, got, n, WAIT_MS);
	for (size_t i = 0; i < have && i < 190; i++)
		snprintf(text + i * 3, 4, "%02x ", got[i]);
	ck_assert_msg(have == n && memcmp(want, got, n) == 0, "want %s\ngot  %s", hex, text);
}

static inline void silent(int fd)
{
	uint8_t b;
	ck_assert_uint_eq(hear_bytes(fd, &b, 1, 100), 0);
}

/* Closed, after a DISCONNECT at most. */
static inline void gone(int fd)
{
	uint8_t rest[16];
	size_t n = hear_bytes(fd, rest, sizeof rest, WAIT_MS);
	ck_assert_msg(n == 0 || rest[0] == 0xe0, "unexpected packet %02x", rest[0]);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ck_assert_int_eq(poll(&p, 1, WAIT_MS), 1);
	ck_assert_int_le(recv(fd, rest, 1, 0), 0);
	close(fd);
}

#define CONNECT4(id)      "10 0d 0004 4d515454 04 02 0000 0001 " id
#define CONNECT4_KEPT(id) "10 0d 0004 4d515454 04 00 0000 0001 " id
#define CONNECT5(id)      "10 0e 0004 4d515454 05 02 0000 00 0001 " id
#define CONNECT5_KEPT(id) "10 13 0004 4d515454 05 00 0000 05 11 00000064 0001 " id
#define CONNACK5(present) "20 10 " present " 00 0d 21 0003 22 0010 27 00010400 2a 00"

static inline int client4(const char *connect)
{
	int fd = dial();
	say(fd, connect);
	hear(fd, "20 02 00 00");
	return fd;
}

static inline int client5(const char *connect)
{
	int fd = dial();
	say(fd, connect);
	hear(fd, CONNACK5("00"));
	return fd;
}

#endif
