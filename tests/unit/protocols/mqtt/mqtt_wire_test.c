/* Packets are written as text, "0004 'MQTT' 05": hex digits and quoted characters, the fixed
 * header's length left out (it is computed). Golden packets are from the layouts of the two
 * specifications by hand; each refusal names the statement it is for. */
#include "protocols/mqtt/mqtt_client_wire.h"
#include <check.h>
#include <ctype.h>
#include <stdlib.h>

#define LEN(a) ((int)(sizeof(a) / sizeof((a)[0])))
enum { V3 = MQTT_V311, V5 = MQTT_V5, PACKET_MAX = 2048 };

struct packet {
	uint8_t bytes[PACKET_MAX];
	size_t len, head; /* head: of the fixed header */
};

static unsigned digit(char c)
{
	return (unsigned)(isdigit((unsigned char)c) ? c - '0'
						    : tolower((unsigned char)c) - 'a' + 10);
}

static size_t parse(const char *text, uint8_t *out)
{
	size_t n = 0;
	for (bool quoted = false; *text; text++) {
		if (*text == '\'')
			quoted = !quoted;
		else if (quoted)
			out[n++] = (uint8_t)*text;
		else if (*text != ' ')
			out[n++] = (uint8_t)(digit(text[0]) << 4 | digit(text[1])), text++;
	}
	return n;
}

/* The packet with this first byte and body. */
static struct packet packet_of(uint8_t first, const char *text)
{
	struct packet p;
	uint8_t body[PACKET_MAX];
	size_t len = parse(text, body), at = 0;
	p.bytes[at++] = first;
	for (size_t left = len;; left >>= 7) {
		p.bytes[at++] = (uint8_t)(left >= 0x80 ? left | 0x80 : left);
		if (left < 0x80)
			break;
	}
	memcpy(p.bytes + at, body, len);
	p.head = at;
	p.len = at + len;
	return p;
}

static enum err read_frame(const struct mqtt_frame *f, enum mqtt_version v, enum mqtt_reason *why)
{
	struct mqtt_connect connect;
	struct mqtt_publish publish;
	struct mqtt_ack ack;
	struct mqtt_subscribe sub;
	struct mqtt_reasoned reasoned;
	struct mqtt_connack connack;
	struct mqtt_codes codes;
	switch (f->type) {
	case MQTT_CONNECT: return mqtt_read_connect(f, &connect, why);
	case MQTT_CONNACK: return mqtt_read_connack(f, v, &connack, why);
	case MQTT_PUBLISH: return mqtt_read_publish(f, v, &publish, why);
	case MQTT_PUBACK:
	case MQTT_PUBREC:
	case MQTT_PUBREL:
	case MQTT_PUBCOMP: return mqtt_read_ack(f, v, &ack, why);
	case MQTT_SUBSCRIBE: return mqtt_read_subscribe(f, v, &sub, why);
	case MQTT_UNSUBSCRIBE: return mqtt_read_unsubscribe(f, v, &sub, why);
	case MQTT_SUBACK:
	case MQTT_UNSUBACK: return mqtt_read_codes(f, v, &codes, why);
	case MQTT_DISCONNECT: return mqtt_read_disconnect(f, v, &reasoned, why);
	case MQTT_AUTH: return mqtt_read_auth(f, v, &reasoned, why);
	case MQTT_PINGREQ:
	case MQTT_PINGRESP: return mqtt_read_empty(f, why);
	case MQTT_TYPE_COUNT: break;
	}
	return ERR_UNSUPPORTED;
}

/* Cuts and reads a packet from memory of exactly its size; a failure gives its reason code. */
static int answer(const uint8_t *at, size_t len, int version)
{
	uint8_t *exact = malloc(len ? len : 1);
	ck_assert_ptr_nonnull(exact);
	memcpy(exact, at, len);
	struct mqtt_frame f;
	size_t used;
	enum mqtt_reason why = MQTT_SUCCESS;
	enum err e = mqtt_frame_read(bytes_of(exact, len), SIZE_MAX, &f, &used);
	if (e == OK) {
		e = read_frame(&f, (enum mqtt_version)version, &why);
		ck_assert_int_eq(e == OK, why == MQTT_SUCCESS);
		ck_assert_int_eq(e == ERR_MALFORMED, why == MQTT_MALFORMED);
		ck_assert_int_eq(e == ERR_UNSUPPORTED, why == MQTT_BAD_VERSION);
	} else {
		why = MQTT_MALFORMED;
	}
	free(exact);
	return (int)why;
}

/* clang-format off */
#define PROPS_MESSAGE "01 01 02 0000003c 03 0002'ct' 08 0001'r' 09 0002 00ff"
static const struct golden {
	const char *name;
	int version;
	uint8_t first;
	const char *body;
	int whole_from; /* body bytes from which on a prefix is itself a packet */
} goldens[] = {
	{"connect 3.1.1", V3, 0x10, "0004'MQTT' 04 02 003c 0001'a'", 13},
	{"connect 3.1.1 all", V3, 0x10,
		"0004'MQTT' 04 ee 0000 0001'a' 0003'w/t' 0002'hi' 0001'u' 0001'p'", 28},
	{"connect 5", V5, 0x10, "0004'MQTT' 05 02 003c 00 0001'a'", 14},
	{"connect 5 all", V5, 0x10, "0004'MQTT' 05 ee 000a"
		"24 11 0000000a 21 0014 27 00001000 22 000a 19 01 17 00 26 0001'k' 0001'v'"
		"15 0001'm' 16 0002 0001"
		"0001'a' 05 18 00000005 0001'w' 0000 0001'u' 0001'p'", 67},
	{"connack 3.1.1", V3, 0x20, "0100", 2},
	{"connack 5", V5, 0x20, "0000 0a 21 0014 24 01 26 0000 0000", 13},
	{"publish 3.1.1", V3, 0x30, "0003'a/b' 'hello'", 5},
	{"publish 3.1.1 q2 dup", V3, 0x3d, "0003'a/b' 0007 'x'", 7},
	{"publish 5", V5, 0x30, "0003'a/b' 00 'hello'", 6},
	{"publish 5 q1 all", V5, 0x32,
		"0003'a/b' 0007 1c" PROPS_MESSAGE "26 0001'k' 0001'v' 'pay'", 36},
	{"publish 5 alias", V5, 0x30, "0000 03 23 0001", 6},
	{"puback 3.1.1", V3, 0x40, "0007", 2},
	{"puback 5", V5, 0x40, "0007", 2},
	{"pubrec 5 reason", V5, 0x50, "0007 97", 2},
	{"pubrel 5 props", V5, 0x62, "0007 92 0a 1f 0000 26 0001'k' 0001'v'", 14},
	{"pubcomp 3.1.1", V3, 0x70, "0007", 2},
	{"subscribe 3.1.1", V3, 0x82, "0007 0001'a' 01", 6},
	{"subscribe 5", V5, 0x82, "0007 03 0b 8001 0003'a/#' 2e", 12},
	{"suback 3.1.1", V3, 0x90, "0007 01", 3},
	{"suback 5", V5, 0x90, "0007 00 02", 4},
	{"unsubscribe 3.1.1", V3, 0xa2, "0007 0003'a/+'", 7},
	{"unsubscribe 5", V5, 0xa2, "0007 00 0003'a/+'", 8},
	{"unsuback 3.1.1", V3, 0xb0, "0007", 2},
	{"unsuback 5", V5, 0xb0, "0007 00 11", 4},
	{"pingreq", V3, 0xc0, "", 0},
	{"pingresp", V5, 0xd0, "", 0},
	{"disconnect 3.1.1", V3, 0xe0, "", 0},
	{"disconnect 5", V5, 0xe0, "04", 0},
	{"disconnect 5 props", V5, 0xe0, "00 05 11 00000000", 7},
	{"auth", V5, 0xf0, "18 09 15 0001'm' 16 0002 0102", 11},
};

#define C5 "0004'MQTT' 05"
#define C3 "0004'MQTT' 04"
static const struct refusal {
	const char *statement;
	int version;
	uint8_t first;
	const char *body;
	int want;
} refusals[] = {
	{"MQTT-1.5.4-1 surrogate in client id", V5, 0x10, C5 "02 0000 00 0003 eda080", 0x81},
	{"MQTT-1.5.4-1 overlong form", V5, 0x10, C5 "02 0000 00 0002 c0af", 0x81},
	{"MQTT-1.5.4-2 NUL in client id", V5, 0x10, C5 "02 0000 00 0001 00", 0x81},
	{"MQTT-1.5.4-2 NUL in topic", V5, 0x30, "0003'a'00'b' 00", 0x81},
	{"MQTT-1.5.5-1 property length not minimal", V5, 0x30, "0001'a' 8000", 0x81},
	{"MQTT-1.5.5-1 varint of five bytes", V5, 0x30, "0001'a' 8080808001", 0x81},
	{"MQTT-1.5.7-1 user property not UTF-8", V5, 0x30, "0001'a' 06 26 0001 ff 0000", 0x81},
	{"MQTT-2.1.3-1 CONNECT flags", V5, 0x11, C5 "02 0000 00 0000", 0x81},
	{"MQTT-2.1.3-1 PUBACK flags", V5, 0x42, "0007", 0x81},
	{"MQTT-3.6.1-1 PUBREL flags", V5, 0x60, "0007", 0x81},
	{"MQTT-3.8.1-1 SUBSCRIBE flags", V5, 0x80, "0007 00 0001'a' 00", 0x81},
	{"MQTT-3.10.1-1 UNSUBSCRIBE flags", V5, 0xa0, "0007 00 0001'a'", 0x81},
	{"MQTT-3.14.1-1 DISCONNECT flags", V5, 0xe1, "", 0x81},
	{"MQTT-3.15.1-1 AUTH flags", V5, 0xf2, "18 04 15 0001'm'", 0x81},
	{"type 0", V5, 0x00, "", 0x81},
	{"MQTT-2.2.1-3 PUBLISH id 0", V5, 0x32, "0001'a' 0000 00", 0x82},
	{"MQTT-2.2.1-3 SUBSCRIBE id 0", V5, 0x82, "0000 00 0001'a' 00", 0x82},
	{"MQTT-2.2.1-3 UNSUBSCRIBE id 0", V3, 0xa2, "0000 0001'a'", 0x82},
	{"MQTT-2.2.1-5 PUBACK id 0", V5, 0x40, "0000", 0x82},
	{"MQTT-2.2.2-1 no property length", V5, 0x30, "0001'a'", 0x81},
	{"2.2.2.2 unknown property", V5, 0x30, "0001'a' 02 7f00", 0x81},
	{"2.2.2.2 property of another packet", V5, 0x30, "0001'a' 05 11 00000001", 0x81},
	{"2.2.2.2 will delay in CONNECT", V5, 0x10, C5 "02 0000 05 18 00000001 0000", 0x81},
	{"2.2.2.2 session expiry in will", V5, 0x10,
		C5 "06 0000 00 0000 05 11 00000001 0001'w' 0000",
		0x81},
	{"2.2.2.2 property cut short", V5, 0x30, "0001'a' 03 02 0000", 0x81},
	{"2.2.2.2 property twice", V5, 0x30, "0001'a' 04 01 00 01 00", 0x82},
	{"2.2.2.2 content type twice", V5, 0x30, "0001'a' 06 03 0000 03 0000", 0x82},
	{"MQTT-3.1.2-1 name", V5, 0x10, "0004'MQTP' 05 02 0000 00 0000", 0x84},
	{"MQTT-3.1.2-1 MQTT 3.1", V3, 0x10, "0006'MQIsdp' 03 02 0000 0001'a'", 0x84},
	{"MQTT-3.1.2-2 level 6", V5, 0x10, "0004'MQTT' 06 02 0000 00 0000", 0x84},
	{"MQTT-3.1.2-2 level 3", V5, 0x10, "0004'MQTT' 03 02 0000 0000", 0x84},
	{"MQTT-3.1.2-3 reserved flag", V5, 0x10, C5 "03 0000 00 0000", 0x81},
	{"MQTT-3.1.2-11 will QoS without will", V5, 0x10, C5 "0a 0000 00 0000", 0x81},
	{"MQTT-3.1.2-12 will QoS 3", V5, 0x10, C5 "1e 0000 00 0000 00 0001'w' 0000", 0x81},
	{"MQTT-3.1.2-13 will retain without will", V5, 0x10, C5 "22 0000 00 0000", 0x81},
	{"MQTT-3.1.2-9 will flag, no will", V5, 0x10, C5 "06 0000 00 0000", 0x81},
	{"MQTT-3.1.2-16 no user name there is", V5, 0x10, C5 "02 0000 00 0000 0001'u'", 0x81},
	{"MQTT-3.1.2-17 user name missing", V5, 0x10, C5 "82 0000 00 0000", 0x81},
	{"MQTT-3.1.2-19 password missing", V5, 0x10, C5 "42 0000 00 0000", 0x81},
	{"3.1.1 MQTT-3.1.2-22 password alone", V3, 0x10, C3 "42 0000 0001'a' 0001'p'", 0x81},
	{"3.1.2.11.3 receive maximum 0", V5, 0x10, C5 "02 0000 03 21 0000 0000", 0x82},
	{"3.1.2.11.4 maximum packet size 0", V5, 0x10, C5 "02 0000 05 27 00000000 0000", 0x82},
	{"3.1.2.11.6 response information 2", V5, 0x10, C5 "02 0000 02 19 02 0000", 0x82},
	{"3.1.2.11.7 problem information 2", V5, 0x10, C5 "02 0000 02 17 02 0000", 0x82},
	{"3.1.2.11.10 data without method", V5, 0x10, C5 "02 0000 03 16 0000 0000", 0x82},
	{"MQTT-3.1.3-3 client id missing", V5, 0x10, C5 "02 0000 00", 0x81},
	{"3.1.1 MQTT-3.1.3-8 empty id, session kept", V3, 0x10, C3 "00 0000 0000", 0x85},
	{"MQTT-3.1.3-11 will topic not UTF-8", V5, 0x10,
		C5 "06 0000 00 0000 00 0001 ff 0000", 0x81},
	{"will topic with wildcard", V5, 0x10, C5 "06 0000 00 0000 00 0001'#' 0000", 0x90},
	{"will topic empty", V3, 0x10, C3 "06 0000 0001'a' 0000 0000", 0x90},
	{"MQTT-3.1.3-12 user name not UTF-8", V5, 0x10, C5 "82 0000 00 0000 0001 ff", 0x81},
	{"bytes after CONNECT", V3, 0x10, C3 "02 0000 0001'a' 00", 0x81},
	{"MQTT-3.3.1-2 DUP with QoS 0", V5, 0x38, "0001'a' 00", 0x82},
	{"MQTT-3.3.1-4 QoS 3", V5, 0x36, "0001'a' 0001 00", 0x81},
	{"MQTT-3.3.2-1 topic not UTF-8", V5, 0x30, "0001 ff 00", 0x81},
	{"MQTT-3.3.2-1 topic truncated UTF-8", V3, 0x30, "000a 'abcdefghi' c3", 0x81},
	{"MQTT-3.3.2-2 + in topic", V5, 0x30, "0003'a/+' 00", 0x90},
	{"MQTT-3.3.2-2 # deep in topic", V3, 0x30, "0013'abcdefghijklmnop#rs'", 0x90},
	{"3.3.2.1 no topic, no alias", V5, 0x30, "0000 00", 0x82},
	{"MQTT-4.7.3-1 empty topic", V3, 0x30, "0000", 0x82},
	{"3.3.2.3.2 payload format 2", V5, 0x30, "0001'a' 02 01 02", 0x82},
	{"MQTT-3.3.2-8 alias 0", V5, 0x30, "0001'a' 03 23 0000", 0x94},
	{"MQTT-3.3.2-13 response topic not UTF-8", V5, 0x30, "0001'a' 04 08 0001 ff", 0x81},
	{"MQTT-3.3.2-14 wildcard in response topic", V5, 0x30, "0001'a' 04 08 0001 '+'", 0x82},
	{"MQTT-3.3.4-6 subscription id from client", V5, 0x30, "0001'a' 02 0b 01", 0x82},
	{"MQTT-3.4.2-1 reason of PUBACK", V5, 0x40, "0007 92", 0x82},
	{"MQTT-3.5.2-1 reason of PUBREC", V5, 0x50, "0007 01", 0x82},
	{"MQTT-3.6.2-1 reason of PUBREL", V5, 0x62, "0007 80", 0x82},
	{"MQTT-3.7.2-1 reason of PUBCOMP", V5, 0x70, "0007 10", 0x82},
	{"reason string twice", V5, 0x40, "0007 00 06 1f 0000 1f 0000", 0x82},
	{"bytes after PUBACK", V3, 0x40, "0007 00", 0x81},
	{"bytes after properties of PUBACK", V5, 0x40, "0007 00 00 00", 0x81},
	{"MQTT-3.8.3-1 filter not UTF-8", V5, 0x82, "0007 00 0001 ff 00", 0x81},
	{"MQTT-3.8.3-2 no filter", V5, 0x82, "0007 00", 0x82},
	{"MQTT-3.8.3-2 no filter in 3.1.1", V3, 0x82, "0007", 0x82},
	{"MQTT-3.8.3-3 options missing", V5, 0x82, "0007 00 0001'a'", 0x81},
	{"MQTT-3.8.3-4 no local, shared", V5, 0x82, "0007 00 000a'$share/s/a' 04", 0x82},
	{"MQTT-3.8.3-5 reserved option 6", V5, 0x82, "0007 00 0001'a' 40", 0x81},
	{"MQTT-3.8.3-5 reserved option 7", V5, 0x82, "0007 00 0001'a' 80", 0x81},
	{"3.1.1 MQTT-3-8.3-4 reserved option", V3, 0x82, "0007 0001'a' 04", 0x81},
	{"3.8.3.1 QoS 3", V5, 0x82, "0007 00 0001'a' 03", 0x82},
	{"3.8.3.1 retain handling 3", V5, 0x82, "0007 00 0001'a' 30", 0x82},
	{"3.8.2.1.2 subscription id 0", V5, 0x82, "0007 02 0b 00 0001'a' 00", 0x82},
	{"3.8.2.1.2 subscription id twice", V5, 0x82, "0007 04 0b 01 0b 01 0001'a' 00", 0x82},
	{"MQTT-4.7.1-1 # not last", V5, 0x82, "0007 00 0003'#/a' 00", 0x8f},
	{"MQTT-4.7.1-1 # not alone", V5, 0x82, "0007 00 0002'a#' 00", 0x8f},
	{"MQTT-4.7.1-2 + not alone", V5, 0x82, "0007 00 0002'a+' 00", 0x8f},
	{"MQTT-4.7.1-2 + followed by text", V5, 0x82, "0007 00 0004'a/+b' 00", 0x8f},
	{"MQTT-4.7.3-1 empty filter", V5, 0x82, "0007 00 0000 00", 0x8f},
	{"MQTT-4.7.3-2 NUL in filter", V5, 0x82, "0007 00 0001 00 00", 0x81},
	{"MQTT-4.8.2-1 empty share name", V5, 0x82, "0007 00 0009'$share//a' 00", 0x8f},
	{"MQTT-4.8.2-2 + in share name", V5, 0x82, "0007 00 000a'$share/+/a' 00", 0x8f},
	{"MQTT-4.8.2-2 no inner filter", V5, 0x82, "0007 00 0008'$share/s' 00", 0x8f},
	{"MQTT-4.8.2-2 empty inner filter", V5, 0x82, "0007 00 0009'$share/s/' 00", 0x8f},
	{"second filter bad", V5, 0x82, "0007 00 0001'a' 00 0002'b#' 00", 0x8f},
	{"MQTT-3.10.3-1 filter not UTF-8", V5, 0xa2, "0007 00 0001 ff", 0x81},
	{"MQTT-3.10.3-2 no filter", V5, 0xa2, "0007 00", 0x82},
	{"UNSUBSCRIBE filter invalid", V3, 0xa2, "0007 0002'b#'", 0x8f},
	{"2.2.2.2 subscription id in UNSUBSCRIBE", V5, 0xa2, "0007 02 0b 01 0001'a'", 0x81},
	{"bytes after PINGREQ", V5, 0xc0, "00", 0x81},
	{"bytes after DISCONNECT", V3, 0xe0, "00", 0x81},
	{"MQTT-3.14.2-1 a server's reason", V5, 0xe0, "8e", 0x82},
	{"server reference from client", V5, 0xe0, "00 03 1c 0000", 0x81},
	{"MQTT-3.15.2-1 reason of AUTH", V5, 0xf0, "00 04 15 0001'm'", 0x82},
	{"3.15.2.2.2 no method", V5, 0xf0, "18 00", 0x82},
	{"3.15.2.2.3 method twice", V5, 0xf0, "18 06 15 0000 15 0000", 0x82},
	{"AUTH in 3.1.1", V3, 0xf0, "", 0x81},
};

static const struct admitted {
	const char *why;
	int version;
	uint8_t first;
	const char *body;
} admitted[] = {
	{"MQTT-1.5.4-3 U+FEFF is kept", V5, 0x30, "0004 efbbbf'a' 00"},
	{"four-byte UTF-8 topic", V3, 0x30, "0004 f09f9880"},
	{"user property repeated", V5, 0x30, "0001'a' 0a 26 0000 0000 26 0000 0000"},
	{"MQTT 5: password alone", V5, 0x10, C5 "42 0000 00 0000 0001'p'"},
	{"MQTT 5: empty id, session kept", V5, 0x10, C5 "00 0000 00 0000"},
	{"3.1.1: empty id, clean", V3, 0x10, C3 "02 0000 0000"},
	{"topic and alias", V5, 0x30, "0001'a' 03 23 ffff"},
	{"empty payload", V3, 0x31, "0001'a'"},
	{"$ topics are not the reader's matter", V3, 0x30, "0002'$a'"},
	{"lone wildcards", V5, 0x82, "0007 00 0001'#' 00 0001'+' 00 0001'/' 00 0005'+/+/#' 00"},
	{"shared with wildcard", V5, 0x82, "0007 00 000c'$share/s/a/#' 02"},
	{"retain handling 2, all options", V5, 0x82, "0007 00 0001'a' 2e"},
	{"property length in two bytes", V5, 0x30,
		"0001'a' 8001 26 0001'k' 007a '0123456789012345678901234567890123456789"
		"0123456789012345678901234567890123456789"
		"0123456789012345678901234567890123456789ab'"},
};
/* clang-format on */

START_TEST(golden_packets_are_read)
{
	const struct golden *g = &goldens[_i];
	struct packet p = packet_of(g->first, g->body);
	int why = answer(p.bytes, p.len, g->version);
	ck_assert_msg(why == MQTT_SUCCESS, "%s: %#x", g->name, (unsigned)why);
}
END_TEST

/* Cut as bytes of a stream: more is wanted, and how much is told as soon as it is known. */
START_TEST(every_prefix_wants_more)
{
	const struct golden *g = &goldens[_i];
	struct packet p = packet_of(g->first, g->body);
	for (size_t len = 0; len < p.len; len++) {
		uint8_t *exact = malloc(len ? len : 1);
		memcpy(exact, p.bytes, len);
		struct mqtt_frame f;
		size_t used = 99;
		ck_assert_int_eq(
			mqtt_frame_read(bytes_of(exact, len), PACKET_MAX, &f, &used), ERR_MORE);
		ck_assert_uint_eq(used, len < p.head ? 0 : p.len);
		free(exact);
	}
}
END_TEST

/* MQTT 5 lets reason and properties be left out from the end. */
static bool is_short_form(const struct golden *g, size_t len)
{
	bool ack = g->first >> 4 >= MQTT_PUBACK && g->first >> 4 <= MQTT_PUBCOMP;
	bool goodbye = g->first >> 4 == MQTT_DISCONNECT;
	return g->version == V5 && ((ack && (len == 2 || len == 3)) || (goodbye && len < 2));
}

/* Cut with a length that vouches for it: refused while fields are missing. */
START_TEST(every_short_body_is_refused)
{
	const struct golden *g = &goldens[_i];
	struct packet p = packet_of(g->first, g->body);
	size_t body = p.len - p.head;
	for (size_t len = 0; len < body; len++) {
		uint8_t cut[PACKET_MAX] = {g->first, (uint8_t)len};
		ck_assert_uint_lt(len, 0x80);
		memcpy(cut + 2, p.bytes + p.head, len);
		int why = answer(cut, 2 + len, g->version);
		if ((int)len < g->whole_from && !is_short_form(g, len))
			ck_assert_msg(why != MQTT_SUCCESS, "%s of %zu bytes", g->name, len);
	}
}
END_TEST

/* Any byte changed to any value: the reader answers, and never reads past the end. */
START_TEST(every_byte_mutated)
{
	const struct golden *g = &goldens[_i];
	struct packet p = packet_of(g->first, g->body);
	for (size_t at = 0; at < p.len; at++) {
		uint8_t was = p.bytes[at];
		for (unsigned v = 0; v < 256; v += at < p.head ? 1 : 5) {
			p.bytes[at] = (uint8_t)v;
			ck_assert_str_ne(
				mqtt_reason_text((uint8_t)answer(p.bytes, p.len, g->version)),
				"unknown reason");
		}
		p.bytes[at] = was;
	}
}
END_TEST

START_TEST(refuses)
{
	const struct refusal *c = &refusals[_i];
	struct packet p = packet_of(c->first, c->body);
	int why = answer(p.bytes, p.len, c->version);
	ck_assert_msg(why == c->want, "%s: %#x", c->statement, (unsigned)why);
}
END_TEST

START_TEST(admits)
{
	const struct admitted *c = &admitted[_i];
	struct packet p = packet_of(c->first, c->body);
	int why = answer(p.bytes, p.len, c->version);
	ck_assert_msg(why == MQTT_SUCCESS, "%s: %#x", c->why, (unsigned)why);
}
END_TEST

static enum err frame_of(const char *text, size_t max, size_t *used)
{
	uint8_t bytes[64];
	struct mqtt_frame f;
	return mqtt_frame_read(bytes_of(bytes, parse(text, bytes)), max, &f, used);
}

START_TEST(frame_lengths)
{
	size_t used;
	ck_assert_int_eq(frame_of("c000 ff", 2, &used), OK);
	ck_assert_uint_eq(used, 2);
	ck_assert_int_eq(frame_of("c0 8000", 100, &used), ERR_MALFORMED);
	ck_assert_int_eq(frame_of("30 ff808000", 100, &used), ERR_MALFORMED);
	ck_assert_int_eq(frame_of("30 80808080", 100, &used), ERR_MALFORMED);
	ck_assert_int_eq(frame_of("30 ffffff", 100, &used), ERR_MORE);
	ck_assert_uint_eq(used, 0);
	ck_assert_int_eq(frame_of("30 ffffff7f", SIZE_MAX, &used), ERR_MORE);
	ck_assert_uint_eq(used, 5 + 268435455);
	/* MQTT-3.1.2-24's mirror: refused by its length, before its bytes are there. */
	ck_assert_int_eq(frame_of("30 0a", 11, &used), ERR_TOOBIG);
	ck_assert_int_eq(frame_of("30 0a", 12, &used), ERR_MORE);
	ck_assert_uint_eq(used, 12);
	ck_assert_int_eq(frame_of("00", 100, &used), ERR_MALFORMED);
}
END_TEST

static struct mqtt_frame cut(const struct packet *p)
{
	struct mqtt_frame f;
	size_t used;
	ck_assert_int_eq(mqtt_frame_read(bytes_of(p->bytes, p->len), SIZE_MAX, &f, &used), OK);
	ck_assert_uint_eq(used, p->len);
	return f;
}

#define TEXT_IS(b, text) ck_assert(bytes_equal(b, bytes_text(text)))

START_TEST(connect_fields)
{
	enum mqtt_reason why;
	struct mqtt_connect c;
	struct packet p = packet_of(0x10, goldens[3].body);
	struct mqtt_frame f = cut(&p);
	ck_assert_int_eq(mqtt_read_connect(&f, &c, &why), OK);
	ck_assert(c.version == MQTT_V5 && c.clean && c.has_will && c.has_user && c.has_password);
	ck_assert_uint_eq(c.keep_alive_s, 10);
	ck_assert_uint_eq(c.session_expiry_s, 10);
	ck_assert_uint_eq(c.receive_max, 20);
	ck_assert_uint_eq(c.frame_bytes_max, 4096);
	ck_assert_uint_eq(c.alias_max, 10);
	ck_assert(c.want_response_info && !c.problem_info);
	TEXT_IS(c.client_id, "a");
	TEXT_IS(c.user, "u");
	TEXT_IS(c.password, "p");
	TEXT_IS(c.props.auth_method, "m");
	ck_assert_uint_eq(c.props.auth_data.len, 2);
	TEXT_IS(c.will.topic, "w");
	ck_assert_uint_eq(c.will.payload.len, 0);
	ck_assert_uint_eq(c.will.qos, 1);
	ck_assert(c.will.retain);
	ck_assert_uint_eq(c.will.props.will_delay_s, 5);
	struct bytes rest = c.props.all;
	struct mqtt_user u;
	ck_assert(mqtt_user_next(&rest, &u));
	TEXT_IS(u.name, "k");
	TEXT_IS(u.value, "v");
	ck_assert(!mqtt_user_next(&rest, &u));
}
END_TEST

START_TEST(connect_defaults)
{
	enum mqtt_reason why;
	struct mqtt_connect c;
	for (int clean = 0; clean < 2; clean++) {
		struct packet p = packet_of(
			0x10, clean ? C3 "02 0000 0001'a'" : C3 "00 0000 0001'a'");
		struct mqtt_frame f = cut(&p);
		ck_assert_int_eq(mqtt_read_connect(&f, &c, &why), OK);
		ck_assert_uint_eq(c.session_expiry_s, clean ? 0 : UINT32_MAX);
		ck_assert_uint_eq(c.receive_max, 65535);
		ck_assert_uint_eq(c.frame_bytes_max, UINT32_MAX);
		ck_assert_uint_eq(c.alias_max, 0);
		ck_assert(c.problem_info && !c.want_response_info);
	}
}
END_TEST

/* The form of the answer to a version we don't speak. */
START_TEST(connect_version_to_answer_in)
{
	static const struct {
		const char *body;
		int version;
	} cases[] = {
		{"0006'MQIsdp' 03 02 0000 0001'a'", V3},
		{"0004'MQTT' 03 02 0000 0001'a'", V3},
		{"0004'MQTT' 07 02 0000 00 0000", V5},
		{C5 "03 0000 00 0000", V5},
		{"0004'MQ", V3},
	};
	struct mqtt_connect c;
	enum mqtt_reason why;
	struct packet p = packet_of(0x10, cases[_i].body);
	struct mqtt_frame f = cut(&p);
	ck_assert_int_ne(mqtt_read_connect(&f, &c, &why), OK);
	ck_assert_int_eq((int)c.version, cases[_i].version);
}
END_TEST

START_TEST(publish_fields)
{
	enum mqtt_reason why;
	struct mqtt_publish m;
	struct packet p = packet_of(
		0x3b, "0003'a/b' 0007 1c" PROPS_MESSAGE "26 0001'k' 0001'v' 'pay'");
	struct mqtt_frame f = cut(&p);
	ck_assert_int_eq(mqtt_read_publish(&f, MQTT_V5, &m, &why), OK);
	ck_assert(m.dup && m.retain && m.qos == 1 && m.packet_id == 7);
	TEXT_IS(m.topic, "a/b");
	TEXT_IS(m.payload, "pay");
	ck_assert_uint_eq(m.props.payload_format, 1);
	ck_assert_uint_eq(m.props.message_expiry_s, 60);
	TEXT_IS(m.props.content_type, "ct");
	TEXT_IS(m.props.response_topic, "r");
	ck_assert_uint_eq(m.props.correlation.len, 2);
	ck_assert_uint_eq(m.props.user_count, 1);
	ck_assert(!mqtt_props_has(&m.props, MQTT_PROP_ALIAS));
}
END_TEST

START_TEST(a_delivery_may_have_several_subscription_ids)
{
	enum mqtt_reason why;
	struct mqtt_publish m;
	struct packet p = packet_of(0x30, "0001'a' 09 0b 8001 01 01 0b 02 01 00");
	struct mqtt_frame f = cut(&p);
	ck_assert_int_eq(mqtt_read_delivery(&f, MQTT_V5, &m, &why), ERR_PROTOCOL); /* 01 twice */
	p = packet_of(0x30, "0001'a' 07 0b 8001 01 01 0b 02");
	f = cut(&p);
	ck_assert_int_eq(mqtt_read_delivery(&f, MQTT_V5, &m, &why), OK);
	ck_assert_uint_eq(m.props.subscription_id, 128);
	uint32_t id;
	struct bytes rest = m.props.all;
	ck_assert(mqtt_subscription_id_next(&rest, &id) && id == 128);
	ck_assert(mqtt_subscription_id_next(&rest, &id) && id == 2);
	ck_assert(!mqtt_subscription_id_next(&rest, &id));
}
END_TEST

START_TEST(filters_are_walked)
{
	enum mqtt_reason why;
	struct mqtt_subscribe s;
	struct packet p = packet_of(0x82, "0007 02 0b 05 0003'a/#' 2e 000a'$share/s/b' 01");
	struct mqtt_frame f = cut(&p);
	ck_assert_int_eq(mqtt_read_subscribe(&f, MQTT_V5, &s, &why), OK);
	ck_assert_uint_eq(s.count, 2);
	ck_assert_uint_eq(s.props.subscription_id, 5);
	struct bytes rest = s.filters;
	struct mqtt_filter x;
	ck_assert(mqtt_filter_next(&s, &rest, &x));
	TEXT_IS(x.filter, "a/#");
	ck_assert(!x.shared && x.no_local && x.retain_as_published);
	ck_assert(x.qos == 2 && x.retain_handling == 2);
	ck_assert(mqtt_filter_next(&s, &rest, &x));
	TEXT_IS(x.full, "$share/s/b");
	TEXT_IS(x.share, "s");
	TEXT_IS(x.filter, "b");
	ck_assert(x.shared && x.qos == 1);
	ck_assert(!mqtt_filter_next(&s, &rest, &x));
}
END_TEST

/* Topics of every length: the word-wise check sees a bad byte wherever it stands. */
START_TEST(a_bad_byte_anywhere_in_a_topic)
{
	static const uint8_t bad[] = {0, '#', '+', 0x80};
	uint8_t topic[40];
	for (size_t len = 1; len <= sizeof topic; len++) {
		memset(topic, 'x', sizeof topic);
		ck_assert(mqtt_topic_ok(bytes_of(topic, len)));
		for (size_t at = 0; at < len; at++) {
			for (int i = 0; i < LEN(bad); i++) {
				topic[at] = bad[i];
				ck_assert(!mqtt_topic_ok(bytes_of(topic, len)));
			}
			topic[at] = at % 2 ? '"' : '*'; /* next to # and + */
			ck_assert(mqtt_topic_ok(bytes_of(topic, len)));
		}
	}
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("mqtt_wire");
	tcase_add_loop_test(tc, golden_packets_are_read, 0, LEN(goldens));
	tcase_add_loop_test(tc, every_prefix_wants_more, 0, LEN(goldens));
	tcase_add_loop_test(tc, every_short_body_is_refused, 0, LEN(goldens));
	tcase_add_loop_test(tc, every_byte_mutated, 0, LEN(goldens));
	tcase_add_loop_test(tc, refuses, 0, LEN(refusals));
	tcase_add_loop_test(tc, admits, 0, LEN(admitted));
	tcase_add_test(tc, frame_lengths);
	tcase_add_test(tc, connect_fields);
	tcase_add_test(tc, connect_defaults);
	tcase_add_loop_test(tc, connect_version_to_answer_in, 0, 5);
	tcase_add_test(tc, publish_fields);
	tcase_add_test(tc, a_delivery_may_have_several_subscription_ids);
	tcase_add_test(tc, filters_are_walked);
	tcase_add_test(tc, a_bad_byte_anywhere_in_a_topic);
	Suite *s = suite_create("mqtt_wire");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
