"""What a client can do to the server or to itself by being unlucky, careless or hostile: messages
that must not get lost for it, and memory that must not grow."""
import struct

from mqtt_client import (CONNACK, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, SUBSCRIBE, Raw,
                         ack, connect, packet, publish, subscribe, text)

CLEAN = 0x02


def expiry(seconds):
    return b"\x11" + struct.pack(">I", seconds)


def open_raw(node, client_id, flags=CLEAN, props=b""):
    raw = Raw(node.mqtt, connect(client_id, flags=flags, props=props))
    raw.connack = raw.expect(CONNACK)
    return raw


def test_packet_ids_of_a_forgotten_session_are_new_ones(node, name):
    """A session is left while its QoS 2 publish is under way and begun anew: the same packet id
    is then another message, not a repeat of the first."""
    with open_raw(node, name + "-watch") as watch:
        watch.send(subscribe(name, 1))
        watch.expect(SUBACK)
        for round_ in range(5):
            first = open_raw(node, name, props=expiry(3600))
            first.send(publish(name, b"A", 2, 1))
            first.close()
            assert watch.expect(PUBLISH).publish_parts()[3] == b"A"
            with open_raw(node, name, props=expiry(3600)) as second:
                second.send(publish(name, b"B", 2, 1))
                second.expect(PUBREC)
                assert watch.expect(PUBLISH).publish_parts()[3] == b"B", round_
                second.send(ack(PUBREL, 1))
                second.expect(PUBCOMP)


def test_packet_ids_of_a_resumed_session_are_repeats(node, name):
    with open_raw(node, name + "-watch") as watch:
        watch.send(subscribe(name, 1))
        watch.expect(SUBACK)
        first = open_raw(node, name, props=expiry(3600))
        first.send(publish(name, b"A", 2, 1))
        first.close()
        watch.expect(PUBLISH)
        with open_raw(node, name, flags=0, props=expiry(3600)) as second:
            second.send(publish(name, b"A", 2, 1, dup=1))
            second.expect(PUBREC)
            watch.silent()


# ---- subscriptions ----

def subscribe_all(raw, filters, qos=0):
    body = b"".join(text(f) + bytes([qos]) for f in filters)
    raw.send(packet(SUBSCRIBE, struct.pack(">H", 1) + b"\0" + body, 2))
    return raw.expect(SUBACK).body[3:]


def memory_kib(node):
    with open("/proc/%d/status" % node.process.pid) as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_filters_with_very_many_levels_are_refused(node, name):
    with open_raw(node, name) as raw:
        deep = "/".join(["a"] * 256)
        assert subscribe_all(raw, [deep, deep + "/a", "a/" * 30000]) == b"\x00\x8f\x8f"


def test_subscriptions_of_a_session_have_a_bound_in_bytes(own_node, name):
    """Also what they are in the server's memory, which is more than their text."""
    before = memory_kib(own_node)
    with open_raw(own_node, name, props=expiry(3600)) as raw:
        codes = b"".join(subscribe_all(raw, ["%d/%d/" % (i, k) + "x" * 40000 for k in range(50)])
                         for i in range(8))
        assert 40 < codes.count(0) < 60 and set(codes) == {0, 0x97}
    for i in range(3):
        with open_raw(own_node, name + str(i)) as raw:
            for k in range(10):
                codes = subscribe_all(raw, ["%d/%d" % (k, n) + "/a" * 250 for n in range(200)])
            assert set(codes) == {0x97}
            assert memory_kib(own_node) - before < 120 * 1024
    with open_raw(own_node, name, flags=0, props=expiry(3600)) as raw:
        assert raw.connack.body[0] == 1  # and its row can be read again


def test_more_filters_in_a_packet_than_a_session_may_hold(node, name):
    with open_raw(node, name) as raw:
        body = b"".join(text("%d" % i) for i in range(20000))
        raw.send(packet(10, struct.pack(">H", 1) + b"\0" + body, 2))
        raw.expect_closed(0x97)


def test_many_subscriptions_come_and_go(node, name):
    filters = ["%s/%d" % (name, i) for i in range(5000)]
    with open_raw(node, name) as raw, open_raw(node, name + "-p") as pub:
        for _ in range(2):
            assert set(subscribe_all(raw, filters)) == {0}
            assert set(subscribe_all(raw, filters[:100])) == {0}
            pub.send(publish(filters[4999], b"x"), publish(filters[77], b"y"))
            got = {raw.expect(PUBLISH).publish_parts()[3] for _ in range(2)}
            assert got == {b"x", b"y"}
            body = b"".join(text(f) for f in filters + ["no"])
            raw.send(packet(10, struct.pack(">H", 1) + b"\0" + body, 2))
            assert raw.expect(11).body[3:] == bytes(5000) + b"\x11"
        pub.send(publish(filters[77], b"z"))
        raw.silent()


# ---- what is sent again ----

def test_a_small_window_after_a_large_one_holds_little(own_node, name):
    """A session comes back with Receive Maximum 1 and a lot in flight."""
    reader = open_raw(own_node, name, props=expiry(3600))
    reader.send(subscribe(name, 1))
    reader.expect(SUBACK)
    with open_raw(own_node, name + "-p") as pub:
        for i in range(100):
            pub.send(publish(name, b"%4d" % i + bytes(1000000), 1, i + 1))
            reader.expect(PUBLISH)
        for _ in range(100):
            pub.expect(PUBACK)
    reader.close()
    before = memory_kib(own_node)
    with open_raw(own_node, name, flags=0, props=expiry(3600) + b"\x21\x00\x01") as reader:
        assert reader.connack.body[0] == 1
        most = 0
        for i in range(100):
            got = reader.expect(PUBLISH)
            _, pid, _, payload = got.publish_parts()
            assert got.dup and int(payload[:4]) == i
            most = max(most, memory_kib(own_node) - before)
            reader.send(ack(PUBACK, pid))
        print("%d KiB" % most)
        assert most < 40 * 1024, "%d KiB" % most
        reader.silent()


def test_a_flow_whose_message_the_client_refuses_by_size_is_ended(node, name):
    """QoS 2 in flight that fits no more: the id must not be used for something else while the
    client may remember it."""
    reader = open_raw(node, name, props=expiry(3600))
    reader.send(subscribe(name, 2))
    reader.expect(SUBACK)
    with open_raw(node, name + "-p") as pub:
        pub.send(publish(name, bytes(500), 2, 1))
        pub.expect(PUBREC)
    pid = reader.expect(PUBLISH).publish_parts()[1]
    reader.close()
    small = expiry(3600) + b"\x27" + struct.pack(">I", 300)
    with open_raw(node, name, flags=0, props=small) as reader:
        rel = reader.expect(PUBREL)
        assert struct.unpack_from(">H", rel.body)[0] == pid
        reader.send(ack(PUBCOMP, pid, 0x92))
        reader.silent()


# ---- many who are behind ----

def test_many_sessions_return_to_a_trimmed_log(own_node, name):
    """What they had not read is gone: each of them goes on with what comes, at once."""
    names = ["%s-%d" % (name, i) for i in range(24)]
    topics = ["%s/%d" % (name, i) for i in range(40)]  # in all partitions
    for one in names:
        with open_raw(own_node, one, props=expiry(3600)) as raw:
            raw.send(subscribe("#", 1))
            raw.expect(SUBACK)
    with open_raw(own_node, name) as pub:
        for i, topic in enumerate(topics):
            pub.send(publish(topic, b"old", 1, i + 1))
            pub.expect(PUBACK)
    for partition in own_node.cli_json("stream", "describe", "mqtt")["partition_list"]:
        done = own_node.cli("stream", "trim", "mqtt", "--partition", str(partition["partition"]),
                            "--before", str(partition["next_offset"]), "--yes")
        assert done.returncode == 0, done.stderr
    readers = [Raw(own_node.mqtt, connect(one, flags=0, props=expiry(3600))) for one in names]
    for raw in readers:
        raw.expect(CONNACK)
    with open_raw(own_node, name) as pub:
        for i, topic in enumerate(topics):
            pub.send(publish(topic, b"new", 1, i + 1))
            pub.expect(PUBACK)
    for raw in readers:
        got = [raw.expect(PUBLISH).publish_parts() for _ in topics]
        assert sorted(g[0] for g in got) == sorted(topics)
        assert {g[3] for g in got} == {b"new"}
        raw.close()
