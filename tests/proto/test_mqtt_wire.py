"""MQTT packet by packet: what is owed to a client that does the unusual, and what is done with
one that breaks the rules. Each refusal ends its own connection and no other."""
import socket
import struct
import time

import pytest

import mqtt_client as m
from mqtt_client import Client, Raw, ack, connect, packet, publish, subscribe, text


def u16(n):
    return struct.pack(">H", n)


def prop_u16(key, n):
    return bytes([key]) + u16(n)


def prop_u32(key, n):
    return bytes([key]) + struct.pack(">I", n)


EXPIRY, RECEIVE_MAX, ALIAS_MAX, ALIAS, PACKET_MAX = 0x11, 0x21, 0x22, 0x23, 0x27


def opened(node, *args, **more):
    raw = Raw(node.mqtt, connect(*args, **more))
    got = raw.expect(m.CONNACK)
    assert got.body[1] == 0, got
    return raw


MALFORMED = {
    "no connect first": [publish("t", b"x")],
    "connect twice": [connect("x"), connect("x")],
    "wrong protocol name": [packet(m.CONNECT, text("MQIT") + b"\x05\x02\x00\x00\x00" + text("x"))],
    "reserved connect flag": [connect("x", flags=0x03)],
    "will qos 3": [connect("x", flags=0x1E, rest=b"\x00" + text("t") + text("p"))],
    "five byte length": [connect("x"), b"\x30\xff\xff\xff\xff\x01"],
    "overlong length": [b"\x10\x80\x80\x80\x80\x00"],
    "packet type 0": [connect("x"), b"\x00\x00"],
    "publish qos 3": [connect("x"), packet(m.PUBLISH, text("t") + b"\x00\x01\x00x", 6)],
    "publish pid 0": [connect("x"), publish("t", b"x", qos=1, pid=0)],
    "publish with a wildcard": [connect("x"), publish("a/#", b"x")],
    "publish without a topic": [connect("x"), publish("", b"x")],
    "topic with NUL": [connect("x"), publish("a\0b", b"x")],
    "topic not UTF-8": [connect("x"), publish(b"\xc3\x28", b"x")],
    "topic with a surrogate": [connect("x"), publish(b"\xed\xa0\x80", b"x")],
    "a property twice": [connect("x"), publish("t", b"x", props=b"\x01\x00\x01\x00")],
    "a property of another packet": [connect("x"), publish("t", b"x", props=prop_u32(EXPIRY, 1))],
    "an unknown property": [connect("x"), publish("t", b"x", props=b"\x7f\x00")],
    "a client's subscription id": [connect("x"), publish("t", b"x", props=b"\x0b\x01")],
    "subscribe flags": [connect("x"), packet(m.SUBSCRIBE, u16(1) + b"\x00" + text("t") + b"\0", 0)],
    "subscribe to nothing": [connect("x"), packet(m.SUBSCRIBE, u16(1) + b"\x00", 2)],
    "subscribe qos 3": [connect("x"), subscribe("t", 3)],
    "subscribe retain handling 3": [connect("x"), subscribe("t", 0x30)],
    "no local on a share": [connect("x"), subscribe("$share/g/t", 0x04)],
    "pubrel flags": [connect("x"), packet(m.PUBREL, u16(1), 0)],
    "receive maximum 0": [connect("x", props=prop_u16(RECEIVE_MAX, 0))],
    "packet maximum 0": [connect("x", props=prop_u32(PACKET_MAX, 0))],
    "alias 0": [connect("x"), publish("t", b"x", props=prop_u16(ALIAS, 0))],
    "alias unknown": [connect("x"), publish("", b"x", props=prop_u16(ALIAS, 1))],
    "alias over the maximum": [connect("x"), publish("t", b"x", props=prop_u16(ALIAS, 65535))],
    "pingreq with a body": [connect("x"), packet(m.PINGREQ, b"x")],
    "cut string": [connect("x"), packet(m.PUBLISH, b"\x00\x20ab")],
}


@pytest.mark.parametrize("what", MALFORMED)
def test_broken_rules_close_that_connection_only(node, name, what):
    with Client(node.mqtt) as other:
        other.subscribe(name, 1)
        with Raw(node.mqtt, *MALFORMED[what]) as raw:
            reason = raw.expect_closed()
            if reason is not None and what != "connect twice":
                assert reason >= 0x80 or reason == 0, reason
        other.publish(name, b"still here", 1)
        assert other.get().payload == b"still here"


def test_reasons(node):
    for first, reason in (
            ([connect("x"), publish("", b"x", props=prop_u16(ALIAS, 1))], 0x82),
            ([connect("x"), publish("t", b"x", props=prop_u16(ALIAS, 0))], 0x94),
            ([connect("x"), publish("a/#", b"x")], 0x90),
            ([connect("x"), packet(m.SUBSCRIBE, u16(1) + b"\x00", 2)], 0x82),
            ([connect("x"), packet(m.PUBLISH, b"\x00\x20ab")], 0x81)):
        with Raw(node.mqtt, *first) as raw:
            raw.expect_closed(reason)


def test_an_unknown_version_is_refused(node):
    with Raw(node.mqtt, connect("x", level=6)) as raw:
        assert raw.expect_closed() in (0x84, 0x01)
    with Raw(node.mqtt, connect("", level=4, flags=0)) as raw:  # 3.1.1: needs clean session
        raw.expect_closed(0x02)


def test_packets_byte_by_byte_and_all_at_once(node, name):
    stream = connect(name) + subscribe(name, 1) + publish(name, b"a", 1, 2) + packet(m.PINGREQ)
    for step in (1, 3, len(stream)):
        with Raw(node.mqtt) as raw:
            for at in range(0, len(stream), step):
                raw.send(stream[at:at + step])
                if step < len(stream):
                    time.sleep(0.001)
            kinds = sorted(raw.read().kind for _ in range(5))
            assert kinds == sorted([m.CONNACK, m.SUBACK, m.PUBACK, m.PUBLISH, m.PINGRESP])


def test_receive_maximum_of_the_client(node, name):
    with opened(node, name, props=prop_u16(RECEIVE_MAX, 2)) as raw, Client(node.mqtt) as pub:
        raw.send(subscribe(name, 1))
        raw.expect(m.SUBACK)
        for i in range(6):
            pub.publish(name, b"%d" % i, 1)
        seen = [raw.expect(m.PUBLISH), raw.expect(m.PUBLISH)]
        raw.silent()
        pub.publish(name, b"qos0", 0)  # exempt from the window
        seen.append(raw.expect(m.PUBLISH))
        assert seen[2].publish_parts()[3] == b"qos0" and seen[2].qos == 0
        pids = [p.publish_parts()[1] for p in seen[:2]]
        assert len(set(pids)) == 2 and 0 not in pids
        order = [p.publish_parts()[3] for p in seen[:2]]
        while len(order) < 6:
            raw.send(ack(m.PUBACK, pids.pop(0)))
            _, pid, _, body = raw.expect(m.PUBLISH).publish_parts()
            pids.append(pid)
            order.append(body)
        assert order == [b"%d" % i for i in range(6)]


def test_maximum_packet_size_of_the_client(node, name):
    with opened(node, name, props=prop_u32(PACKET_MAX, 200)) as raw, Client(node.mqtt) as pub:
        raw.send(subscribe(name, 1))
        raw.expect(m.SUBACK)
        pub.publish(name, b"x" * 300, 1)  # as if it had been delivered
        pub.publish(name, b"small", 1)
        assert raw.expect(m.PUBLISH).publish_parts()[3] == b"small"


def test_a_packet_over_the_servers_maximum(make_node, name):
    node = make_node({"message.bytes_max": "10000"})
    with Client(node.mqtt) as other:
        with opened(node, name) as raw:
            raw.send(publish(name, b"x" * 20000, 1))
            assert raw.expect_closed() == 0x95
        other.subscribe(name, 1)
        other.publish(name, b"x" * 9000, 1)
        assert len(other.get().payload) == 9000


def test_topic_aliases_of_the_client(node, name):
    with Client(node.mqtt) as sub, opened(node, name) as raw:
        sub.subscribe(name + "/#", 0)
        alias = prop_u16(ALIAS, 1)
        raw.send(publish(name + "/a", b"1", props=alias), publish("", b"2", props=alias),
                 publish(name + "/b", b"3", props=alias), publish("", b"4", props=alias))
        got = [(x.topic[-1], x.payload) for x in sub.take(4)]
        assert sorted(got) == [("a", b"1"), ("a", b"2"), ("b", b"3"), ("b", b"4")]


def test_topic_aliases_of_the_server(node, name):
    topic = name + "/a-long-name-that-is-worth-an-alias"
    with opened(node, name, props=prop_u16(ALIAS_MAX, 5)) as raw, Client(node.mqtt) as pub:
        raw.send(subscribe(topic, 0))
        raw.expect(m.SUBACK)
        known, bodies = {}, []
        for i in range(4):
            pub.publish(topic, b"%d" % i, 0)
        for _ in range(4):
            got, _, props, body = raw.expect(m.PUBLISH).publish_parts()
            if props[:1] == bytes([ALIAS]):
                number = struct.unpack(">H", props[1:3])[0]
                assert 1 <= number <= 5
                if got:
                    known[number] = got
                got = known[number]
            assert got == topic
            bodies.append(body)
        assert bodies == [b"0", b"1", b"2", b"3"]


def test_keep_alive(node, name):
    """Half as much again may pass: three seconds."""
    with opened(node, name, keepalive=2) as raw:
        for _ in range(4):
            time.sleep(1)
            began = time.monotonic()
            raw.send(packet(m.PINGREQ))
            raw.expect(m.PINGRESP)
        raw.expect_closed(0x8D)
        assert time.monotonic() - began > 2.5


def test_keep_alive_in_the_middle_of_a_long_packet(node, name):
    """While its bytes come nobody is silent; half of one and then nothing is silence."""
    long = publish(name, bytes(1000000), 1, 7)
    with opened(node, name, keepalive=2) as raw:
        for at in range(0, len(long), 60000):
            raw.send(long[at:at + 60000])
            time.sleep(0.5)
        raw.expect(m.PUBACK)
        raw.send(long[:500000])
        raw.expect_closed(0x8D)


def over_high(node, name, will):
    """A client that has asked something while more is queued for it than it has read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.connect(("127.0.0.1", node.mqtt))
    raw = Raw(node.mqtt, connect(name, flags=0x06, keepalive=2, rest=b"\0" + text(will) + text("w")),
              sock=sock)
    raw.expect(m.CONNACK)
    raw.send(subscribe(name, 0))
    raw.expect(m.SUBACK)
    with opened(node) as pub:
        for i in range(200):
            pub.send(publish(name, bytes(100000), 1, i + 1))
            pub.expect(m.PUBACK)
    raw.send(packet(m.PINGREQ))
    return raw


def test_keep_alive_of_one_that_does_not_read(node, name):
    """What it sent waits for it to read, so what it has taken says whether it is there."""
    with Client(node.mqtt) as watch:
        watch.subscribe(name + "/will", 0)
        with over_high(node, name, name + "/will"):
            assert watch.get().payload == b"w"


def test_keep_alive_of_one_that_reads_slowly(node, name):
    with Client(node.mqtt) as watch:
        watch.subscribe(name + "/will", 0)
        with over_high(node, name, name + "/will") as raw:
            for _ in range(20):
                raw._exactly(60000)
                watch.quiet(0.5)


def test_no_keep_alive(node, name):
    with opened(node, name, keepalive=0) as raw:
        raw.silent(2.5)


def test_qos_2_in_is_taken_once(node, name):
    with Client(node.mqtt) as sub, opened(node, name, props=prop_u32(EXPIRY, 100)) as raw:
        sub.subscribe(name, 2)
        raw.send(publish(name, b"once", 2, 7))
        raw.expect(m.PUBREC)
        raw.send(publish(name, b"once", 2, 7, dup=1))
        raw.expect(m.PUBREC)
        assert sub.get().payload == b"once"
        sub.quiet()
        raw.close()
        with Raw(node.mqtt, connect(name, flags=0, props=prop_u32(EXPIRY, 100))) as again:
            assert again.expect(m.CONNACK).body[0] == 1
            again.send(publish(name, b"once", 2, 7, dup=1))
            again.expect(m.PUBREC)
            again.send(ack(m.PUBREL, 7))
            again.expect(m.PUBCOMP)
            sub.quiet()
            again.send(publish(name, b"twice", 2, 7))  # the id is free again
            again.expect(m.PUBREC)
            assert sub.get().payload == b"twice"


def test_qos_2_in_is_taken_once_over_kill_9(own_node, name):
    keep = {"props": prop_u32(EXPIRY, 100)}
    watch = Client(own_node.mqtt, name + "w", clean=False, expiry=100)
    watch.subscribe(name, 2)
    watch.close()
    with opened(own_node, name, flags=0, **keep) as raw:
        raw.send(publish(name, b"once", 2, 7))
        raw.expect(m.PUBREC)
    own_node.restart()
    with opened(own_node, name, flags=0, **keep) as raw:
        raw.send(publish(name, b"once", 2, 7, dup=1))
        raw.expect(m.PUBREC)
        raw.send(ack(m.PUBREL, 7))
        raw.expect(m.PUBCOMP)
    with Client(own_node.mqtt, name + "w", clean=False, expiry=100) as watch:
        assert watch.get().payload == b"once"
        watch.quiet()


def test_qos_2_out_goes_on_where_it_was(node, name):
    keep = {"props": prop_u32(EXPIRY, 100)}
    with opened(node, name, flags=0, **keep) as raw, Client(node.mqtt) as pub:
        raw.send(subscribe(name, 2))
        raw.expect(m.SUBACK)
        pub.publish(name, b"a", 2)
        _, first, _, _ = raw.expect(m.PUBLISH).publish_parts()
        pub.publish(name, b"b", 2)
        _, second, _, _ = raw.expect(m.PUBLISH).publish_parts()
        raw.send(ack(m.PUBREC, first))
        raw.expect(m.PUBREL)
    with Raw(node.mqtt, connect(name, flags=0, **keep)) as raw:
        assert raw.expect(m.CONNACK).body[0] == 1
        got = {p.kind: p for p in (raw.read(), raw.read())}
        assert set(got) == {m.PUBREL, m.PUBLISH}
        assert struct.unpack(">H", got[m.PUBREL].body[:2])[0] == first
        assert got[m.PUBLISH].dup and got[m.PUBLISH].publish_parts()[1] == second
        raw.send(ack(m.PUBCOMP, first), ack(m.PUBREC, second))
        raw.expect(m.PUBREL)
        raw.send(ack(m.PUBCOMP, second))
        raw.silent()


def test_a_refusing_pubrec_ends_the_flow(node, name):
    with opened(node, name, props=prop_u16(RECEIVE_MAX, 1)) as raw, Client(node.mqtt) as pub:
        raw.send(subscribe(name, 2))
        raw.expect(m.SUBACK)
        pub.publish(name, b"a", 2)
        pub.publish(name, b"b", 2)
        pid = raw.expect(m.PUBLISH).publish_parts()[1]
        raw.silent()
        raw.send(ack(m.PUBREC, pid, 0x97))
        got = raw.read()
        assert got.kind == m.PUBLISH and got.publish_parts()[3] == b"b"


def test_expiry_counts_down_while_the_window_is_full(node, name):
    """MQTT-3.3.2-5, -6: what expired meanwhile is not sent, what is says how long it has left."""
    def expires(seconds):
        return prop_u32(2, seconds)
    more = b"\x26" + text("k") + text("v")
    with opened(node, name, props=prop_u16(RECEIVE_MAX, 1)) as raw, opened(node) as pub:
        raw.send(subscribe(name, 1, props=b"\x0b\x07"))
        raw.expect(m.SUBACK)
        for i, props in enumerate((b"", expires(1), expires(100), b"\x01\x01" + expires(100) + more,
                                   expires(1), more)):
            pub.send(publish(name, b"%d" % i, 1, i + 1, props=props))
            pub.expect(m.PUBACK)
        got = [raw.expect(m.PUBLISH).publish_parts()]
        time.sleep(2.1)
        while len(got) < 4:
            raw.send(ack(m.PUBACK, got[-1][1]))
            got.append(raw.expect(m.PUBLISH).publish_parts())
        assert [body for _, _, _, body in got] == [b"0", b"2", b"3", b"5"]
        shown = [props for _, _, props, _ in got]
        assert [shown[0], shown[3]] == [b"\x0b\x07", b"\x0b\x07" + more]
        left = [struct.unpack_from(">I", shown[1], 3)[0], struct.unpack_from(">I", shown[2], 5)[0]]
        assert shown[1] == b"\x0b\x07" + expires(left[0])
        assert shown[2] == b"\x0b\x07\x01\x01" + expires(left[1]) + more
        assert 0 < min(left) and max(left) <= 98


def test_qos_1_out_is_sent_again_in_order(node, name):
    keep = {"flags": 0, "props": prop_u32(EXPIRY, 100)}
    with opened(node, name, **keep) as raw, Client(node.mqtt) as pub:
        raw.send(subscribe(name, 1))
        raw.expect(m.SUBACK)
        for i in range(5):
            pub.publish(name, b"%d" % i, 1)
        sent = [raw.expect(m.PUBLISH).publish_parts() for _ in range(5)]
        raw.send(ack(m.PUBACK, sent[0][1]), ack(m.PUBACK, sent[2][1]), packet(m.PINGREQ))
        raw.expect(m.PINGRESP)
    with Raw(node.mqtt, connect(name, **keep)) as raw:
        raw.expect(m.CONNACK)
        again = [raw.expect(m.PUBLISH) for _ in range(3)]
        assert [p.publish_parts()[3] for p in again] == [b"1", b"3", b"4"]
        assert all(p.dup for p in again)
        assert [p.publish_parts()[1] for p in again] == [sent[i][1] for i in (1, 3, 4)]


def test_unknown_acknowledgements_do_no_harm(node, name):
    with opened(node, name) as raw:
        raw.send(ack(m.PUBREL, 99))
        got = raw.expect(m.PUBCOMP)
        assert got.body[:2] == u16(99) and got.body[2:3] in (b"", b"\x92")
        raw.send(ack(m.PUBACK, 98), packet(m.PINGREQ))
        raw.expect(m.PINGRESP)


def test_acknowledgements_come_in_order(node, name):
    with opened(node, name) as raw:
        raw.send(b"".join(publish("%s/%d" % (name, i % 9), b"x", 1, i + 1) for i in range(200)))
        pids = [struct.unpack(">H", raw.expect(m.PUBACK).body[:2])[0] for _ in range(200)]
        assert pids == list(range(1, 201))


def test_unsuback_codes(node, name):
    with opened(node, name) as raw:
        raw.send(subscribe(name, 0))
        raw.expect(m.SUBACK)
        body = u16(5) + b"\x00" + text(name) + text(name + "/never")
        raw.send(packet(10, body, 2))
        got = raw.expect(11)
        assert got.body == u16(5) + b"\x00" + b"\x00\x11"
