"""Sessions that outlive connections: over a reconnect, a takeover, a kill -9 of the server."""
import time

import pytest

from mqtt_client import CONNACK, V5, V311, Client, Raw, connect
from node import eventually

BOTH = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


def durable(node, name, version=V5, clean=False, **more):
    expiry = {"expiry": 3600} if version == V5 else {}
    return Client(node.mqtt, name, version=version, clean=clean, **expiry, **more)


@BOTH
def test_messages_wait_for_the_session(node, name, version):
    c = durable(node, name, version)
    assert not c.connack["session"]
    c.subscribe(name + "/+", 2)
    c.close()
    with Client(node.mqtt) as pub:
        for i in range(100):
            pub.publish("%s/%d" % (name, i % 4), b"%d" % i, 1 + i % 2)
    c = durable(node, name, version)
    assert c.connack["session"]
    got = c.take(100)
    assert sorted(int(m.payload) for m in got) == list(range(100))
    assert all(m.qos == 1 + int(m.payload) % 2 for m in got)
    for t in range(4):
        mine = [int(m.payload) for m in got if m.topic.endswith("/%d" % t)]
        assert mine == sorted(mine)
    c.quiet()
    c.close()


@BOTH
def test_clean_start_forgets(node, name, version):
    c = durable(node, name, version)
    c.subscribe(name, 1)
    c.close()
    with Client(node.mqtt) as pub:
        pub.publish(name, b"x", 1)
    fresh = Client(node.mqtt, name, version=version, clean=True)
    assert not fresh.connack["session"]
    fresh.quiet()
    with Client(node.mqtt) as pub:
        pub.publish(name, b"y", 1)
    fresh.quiet()
    fresh.close()


def test_expiry(node, name):
    c = Client(node.mqtt, name, clean=False, expiry=1)
    c.subscribe(name, 1)
    c.close()
    time.sleep(2.2)
    c = Client(node.mqtt, name, clean=False, expiry=1)
    assert not c.connack["session"]
    c.close()


def test_expiry_zero_ends_with_the_connection(node, name):
    c = Client(node.mqtt, name, clean=False)
    c.subscribe(name, 1)
    c.close()
    c = Client(node.mqtt, name, clean=False)
    assert not c.connack["session"]
    c.close()


def test_disconnect_changes_the_expiry(node, name):
    c = Client(node.mqtt, name, clean=False, expiry=3600)
    c.close(SessionExpiryInterval=0)
    c = Client(node.mqtt, name, clean=False, expiry=3600)
    assert not c.connack["session"]
    c.close()


@BOTH
def test_takeover(node, name, version):
    first = durable(node, name, version)
    first.subscribe(name, 1)
    second = durable(node, name, version)
    assert second.connack["session"]
    first.wait_gone()
    with Client(node.mqtt) as pub:
        pub.publish(name, b"x", 1)
    assert second.get().payload == b"x"
    second.close()


def test_takeover_says_why(node, name):
    with Raw(node.mqtt, connect(name)) as first:
        first.expect(CONNACK)
        with Client(node.mqtt, name):
            first.expect_closed(0x8E)


def test_will_on_takeover(node, name):
    with Client(node.mqtt) as watch:
        watch.subscribe(name + "/will", 1)
        first = Client(node.mqtt, name, will={"topic": name + "/will", "payload": b"w", "qos": 1})
        with Client(node.mqtt, name):
            first.wait_gone()
            assert watch.get().payload == b"w"


@BOTH
def test_sessions_outlive_kill_9(own_node, name, version):
    c = durable(own_node, name, version)
    c.subscribe(name + "/#", 2)
    c.close()
    with Client(own_node.mqtt, version=version) as pub:
        pub.publish(name + "/r", b"kept", 1, retain=True)
        for i in range(200):
            pub.publish("%s/%d" % (name, i % 5), b"%d" % i, 1 + i % 2)
    own_node.restart()
    c = durable(own_node, name, version)
    assert c.connack["session"]
    got = c.take(201)
    assert sorted(int(m.payload) for m in got if m.topic != name + "/r") == list(range(200))
    with Client(own_node.mqtt, version=version) as pub:
        pub.publish(name + "/after", b"after", 2)
    assert c.get().payload == b"after"
    c.close()
    with Client(own_node.mqtt, version=version) as c:
        c.subscribe(name + "/r", 1)
        assert c.get().payload == b"kept"


def test_acknowledged_is_not_delivered_again_after_a_clean_stop(own_node, name):
    c = durable(own_node, name)
    c.subscribe(name, 1)
    with Client(own_node.mqtt) as pub:
        for i in range(20):
            pub.publish(name, b"%d" % i, 1)
    c.take(20)
    c.close()
    assert own_node.stop() == 0
    own_node.start()
    c = durable(own_node, name)
    assert c.connack["session"]
    c.quiet(1)
    c.close()


def test_unsubscribed_stays_so_after_kill_9(own_node, name):
    c = durable(own_node, name)
    c.subscribe(name + "/a", 1)
    c.subscribe(name + "/b", 1)
    c.unsubscribe(name + "/a")
    c.close()
    own_node.restart()
    with Client(own_node.mqtt) as pub:
        pub.publish(name + "/a", b"a", 1)
        pub.publish(name + "/b", b"b", 1)
    c = durable(own_node, name)
    assert c.get().payload == b"b"
    c.quiet()
    c.close()


def test_a_retained_value_cleared_stays_cleared(own_node, name):
    with Client(own_node.mqtt) as pub:
        pub.publish(name + "/a", b"1", 1, retain=True)
        pub.publish(name + "/b", b"2", 1, retain=True)
        pub.publish(name + "/a", b"", 1, retain=True)
    own_node.restart()
    with Client(own_node.mqtt) as c:
        c.subscribe(name + "/#", 1)
        assert c.get().topic == name + "/b"
        c.quiet()


def test_sigterm_drains_and_ends_with_0(own_node, name):
    c = Raw(own_node.mqtt, connect("c"))
    c.expect(CONNACK)
    began = time.monotonic()
    assert own_node.stop() == 0
    assert time.monotonic() - began < 10
    c.expect_closed(0x8B)  # MQTT 5 §3.14.2.1: server shutting down
    assert eventually(lambda: not own_node.is_open(own_node.mqtt))
