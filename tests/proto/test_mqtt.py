"""MQTT 3.1.1 and 5 through paho: what an application sees."""
import time

import pytest

from mqtt_client import V5, V311, Client
from node import eventually

BOTH = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


@BOTH
@pytest.mark.parametrize("pub_qos", [0, 1, 2])
@pytest.mark.parametrize("sub_qos", [0, 1, 2])
def test_delivers_at_the_lower_qos(node, name, version, pub_qos, sub_qos):
    with Client(node.mqtt, version=version) as sub, Client(node.mqtt, version=version) as pub:
        sub.subscribe(name + "/#", sub_qos)
        for i in range(20):
            pub.publish("%s/%d" % (name, i % 3), b"m%d" % i, pub_qos)
        got = sub.take(20)
        assert {m.qos for m in got} == {min(pub_qos, sub_qos)}
        assert not any(m.retain for m in got)
        for t in range(3):  # order holds per topic
            topic = "%s/%d" % (name, t)
            assert [m.payload for m in got if m.topic == topic] == \
                [b"m%d" % i for i in range(20) if i % 3 == t]
        sub.quiet()


def test_versions_meet(node, name):
    with Client(node.mqtt, version=V311) as old, Client(node.mqtt, version=V5) as new:
        old.subscribe(name, 1)
        new.subscribe(name, 1)
        old.publish(name, b"old", 1)
        new.publish(name, b"new", 1, UserProperty=[("a", "b")])
        for client in (old, new):
            assert sorted(m.payload for m in client.take(2)) == [b"new", b"old"]


@pytest.mark.parametrize("size", [0, 1, 127, 16384, 100_000, 1_500_000])
def test_payload_sizes(node, name, size):
    body = bytes(i * 7 % 251 for i in range(1000)) * (size // 1000 + 1)
    with Client(node.mqtt) as c:
        c.subscribe(name, 1)
        c.publish(name, body[:size], 1)
        assert c.get().payload == body[:size]


def test_filters(node, name):
    cases = [("a/b/c", True), ("+/b/c", True), ("a/+/c", True), ("a/b/+", True), ("a/#", True),
             ("a/b/c/#", True), ("+/+/+", True), ("a/b", False), ("a/+", False),
             ("a/b/c/+", False), ("b/#", False), ("a/b/c/d", False)]
    with Client(node.mqtt) as pub:
        clients = []
        for pattern, _ in cases:
            c = Client(node.mqtt)
            c.subscribe(name + "/" + pattern, 0)
            clients.append(c)
        pub.publish(name + "/a/b/c", b"x", 1)
        for c, (pattern, matches) in zip(clients, cases):
            if matches:
                assert c.get().topic == name + "/a/b/c", pattern
        for c, (pattern, _) in zip(clients, cases):
            c.quiet(0.05)
            c.close()


def test_overlapping_filters_deliver_once_with_all_ids(node, name):
    with Client(node.mqtt) as c:
        c.subscribe(name + "/#", 0, subscription_id=3)
        c.subscribe(name + "/+", 2, subscription_id=7)
        c.subscribe(name + "/x", 1, subscription_id=11)
        c.publish(name + "/x", b"once", 2)
        m = c.get()
        assert m.qos == 2
        assert sorted(m.properties.SubscriptionIdentifier) == [3, 7, 11]
        c.quiet()


def test_a_leading_wildcard_does_not_match_dollar_topics(node, name):
    with Client(node.mqtt) as c:
        c.subscribe("#", 0)
        c.subscribe("+/" + name, 0)
        c.publish("$x/" + name, b"hidden", 0)
        c.publish(name, b"seen", 1)
        while (m := c.get()).topic != name:
            assert not m.topic.startswith("$")
        c.unsubscribe("#")


def test_unsubscribe(node, name):
    with Client(node.mqtt) as c:
        c.subscribe(name, 1)
        c.publish(name, b"1", 1)
        c.get()
        c.unsubscribe(name)
        c.publish(name, b"2", 1)
        c.quiet()


def test_subscribing_again_replaces(node, name):
    with Client(node.mqtt) as c:
        c.subscribe(name, 2)
        c.subscribe(name, 0)
        c.publish(name, b"x", 2)
        assert c.get().qos == 0
        c.quiet()


@BOTH
def test_retained(node, name, version):
    def seen(pattern, count=1, qos=1):
        with Client(node.mqtt, version=version) as c:
            c.subscribe(pattern, qos)
            found = c.take(count)
            c.quiet()
            return {m.topic: (m.payload, m.qos, m.retain) for m in found}

    with Client(node.mqtt, version=version) as pub:
        pub.publish(name + "/a", b"1", 1, retain=True)
        pub.publish(name + "/b", b"2", 2, retain=True)
        pub.publish(name + "/c/d", b"3", 0, retain=True)
        pub.publish(name + "/e", b"not kept", 1)
        assert seen(name + "/a") == {name + "/a": (b"1", 1, True)}
        assert seen(name + "/+", 2, 0) == {name + "/a": (b"1", 0, True), name + "/b": (b"2", 0, True)}
        assert set(seen(name + "/#", 3)) == {name + "/a", name + "/b", name + "/c/d"}
        pub.publish(name + "/a", b"1b", 1, retain=True)
        assert seen(name + "/a")[name + "/a"][0] == b"1b"
        pub.publish(name + "/a", b"", 1, retain=True)
        assert set(seen(name + "/#", 2)) == {name + "/b", name + "/c/d"}


def test_retain_handling_and_retain_as_published(node, name):
    with Client(node.mqtt) as c:
        c.publish(name, b"kept", 1, retain=True)
        c.subscribe(name, 1, retainHandling=2)
        c.quiet()
        c.subscribe(name, 1, retainHandling=1)  # exists already: nothing
        c.quiet()
        c.subscribe(name, 1, retainHandling=0)
        assert c.get().retain
        c.unsubscribe(name)
        c.subscribe(name, 1, retainHandling=1)  # new now
        assert c.get().payload == b"kept"
        c.subscribe(name, 1, retainHandling=2, retainAsPublished=True)
        c.publish(name, b"live", 1, retain=True)
        assert c.get().retain
        c.subscribe(name, 1, retainHandling=2)
        c.publish(name, b"live", 1, retain=True)
        assert not c.get().retain


def test_no_local(node, name):
    with Client(node.mqtt) as c, Client(node.mqtt) as other:
        c.subscribe(name, 1, noLocal=True)
        c.publish(name, b"mine", 1)
        other.publish(name, b"theirs", 1)
        assert c.get().payload == b"theirs"
        c.quiet()


def test_no_local_of_a_session_that_goes_on(node, name):
    kept = {"clean": False, "expiry": 100}
    with Client(node.mqtt, name, **kept) as c:
        c.subscribe(name, 1, noLocal=True)
        c.subscribe(name + "/other", 1)
    with Client(node.mqtt, name, **kept) as c, Client(node.mqtt) as other:
        assert c.connack["session"]
        c.publish(name, b"mine", 1)
        other.publish(name, b"theirs", 1)
        assert c.get().payload == b"theirs"
        c.subscribe(name, 1)
        c.publish(name, b"mine", 1)
        assert c.get().payload == b"mine"
        c.quiet()


@BOTH
def test_will_after_a_broken_connection_only(node, name, version):
    will = {"topic": name, "payload": b"gone", "qos": 1}
    with Client(node.mqtt, version=version) as sub:
        sub.subscribe(name, 1)
        Client(node.mqtt, name + "a", version=version, will=will).close()
        sub.quiet()
        Client(node.mqtt, name + "b", version=version, will=will).drop()
        m = sub.get()
        assert (m.payload, m.qos, m.retain) == (b"gone", 1, False)
        sub.quiet()


def test_will_is_retained_and_carries_properties(node, name):
    from mqtt_client import properties
    will = {"topic": name, "payload": b"gone", "qos": 1, "retain": True,
            "properties": properties("willmessage", ContentType="text/plain",
                                     UserProperty=[("a", "1"), ("a", "2")])}
    Client(node.mqtt, will=will).drop()
    assert eventually(lambda: node.get("/topics/" + name)[0] == 200)  # it is kept
    with Client(node.mqtt) as sub:
        sub.subscribe(name, 1)
        m = sub.get()
        assert m.retain and m.payload == b"gone"
        assert m.properties.ContentType == "text/plain"
        assert m.properties.UserProperty == [("a", "1"), ("a", "2")]


def test_will_delay_ends_with_the_session_or_a_return(node, name):
    from mqtt_client import properties

    def will(delay):
        return {"topic": name, "payload": b"late", "qos": 1,
                "properties": properties("willmessage", WillDelayInterval=delay)}
    with Client(node.mqtt) as sub:
        sub.subscribe(name, 1)
        c = Client(node.mqtt, name, expiry=60, will=will(4))
        c.drop()
        back = Client(node.mqtt, name, clean=False, expiry=60)  # in time: no will
        sub.quiet(4.5)
        back.close()
        c = Client(node.mqtt, name, expiry=60, will=will(1))
        began = time.monotonic()
        c.drop()
        assert sub.get().payload == b"late"
        assert time.monotonic() - began > 0.8


def test_disconnect_with_will(node, name):
    with Client(node.mqtt) as sub:
        sub.subscribe(name, 1)
        c = Client(node.mqtt, will={"topic": name, "payload": b"w", "qos": 1})
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.reasoncodes import ReasonCodes
        c.paho.disconnect(ReasonCodes(PacketTypes.DISCONNECT, identifier=4))
        c.paho.loop_stop()
        assert sub.get().payload == b"w"


def test_properties_pass_unaltered_and_in_order(node, name):
    users = [("b", "1"), ("a", "2"), ("b", "1"), ("", "empty"), ("größe", "ü")]
    with Client(node.mqtt) as c:
        c.subscribe(name, 1)
        c.publish(name, b"{}", 1, ContentType="application/json", ResponseTopic="re/ply",
                  CorrelationData=b"\x00\xff", PayloadFormatIndicator=1, UserProperty=users)
        p = c.get().properties
        assert p.ContentType == "application/json"
        assert p.ResponseTopic == "re/ply"
        assert p.CorrelationData == b"\x00\xff"
        assert p.PayloadFormatIndicator == 1
        assert p.UserProperty == users


def test_message_expiry(node, name):
    with Client(node.mqtt, name, expiry=60) as c:
        c.subscribe(name, 1)
    with Client(node.mqtt) as pub:
        pub.publish(name, b"short", 1, MessageExpiryInterval=1)
        pub.publish(name, b"long", 1, MessageExpiryInterval=100)
        pub.publish(name, b"kept", 1, retain=True, MessageExpiryInterval=1)
    time.sleep(2.2)
    with Client(node.mqtt, name, clean=False, expiry=60) as c:
        m = c.get()
        assert m.payload == b"long"
        assert 90 <= m.properties.MessageExpiryInterval <= 99
        c.quiet()
    with Client(node.mqtt) as c:
        c.subscribe(name, 1)
        c.quiet()


@pytest.mark.parametrize("version, refusal", [(V311, 0x80), (V5, 0x9E)])
def test_shared_subscriptions_are_refused_by_name(node, name, version, refusal):
    """Work groups are not there yet: a client is told, and goes on."""
    with Client(node.mqtt, version=version) as c:
        assert c.subscribe("$share/g/" + name, 1, expect_ok=False) == refusal
        c.subscribe(name, 1)
        c.publish(name, b"x", 1)
        assert c.get().payload == b"x"


def test_fan_out(node, name):
    subs = [Client(node.mqtt) for _ in range(20)]
    for s in subs:
        s.subscribe(name, 0)
    with Client(node.mqtt) as pub:
        for i in range(50):
            pub.publish(name, b"%d" % i, 1)
    for s in subs:
        assert [int(m.payload) for m in s.take(50)] == list(range(50))
        s.close()


def test_many_in_flight(node, name):
    with Client(node.mqtt) as sub, Client(node.mqtt) as pub:
        sub.subscribe(name, 1)
        infos = [pub.publish(name, b"%d" % i, 1, wait=False) for i in range(3000)]
        for info in infos:
            info.wait_for_publish(60)
            assert info.is_published()
        assert [int(m.payload) for m in sub.take(3000, 60)] == list(range(3000))


def test_assigned_client_id(node):
    with Client(node.mqtt) as a, Client(node.mqtt) as b:
        one = a.connack["properties"].AssignedClientIdentifier
        two = b.connack["properties"].AssignedClientIdentifier
        assert one and two and one != two
