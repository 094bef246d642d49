"""Sessions and groups know no node: taken over anywhere, resumed after the loss of their own, wills
once, coordinators that fail over with their state."""
import socket
import struct
import time

import history as h
import mqtt_client as mqtt
import pytest
from load import Link, Producer, Publisher, Reader, Subscriber, read_back, twice
from mqtt_client import Client
from node import eventually
from test_failover import STREAM, prepared, settle

TAKEN_OVER = 0x8e


@pytest.fixture
def cluster(shared):
    return shared


def client(node, name, **more):
    return Client(node.mqtt, name, host=node.host, **more)


def test_the_later_claim_wins_on_any_node(cluster, name):
    first = Link(cluster[1], name, clean=False, expiry=600)
    for number in (2, 3, 1, 1):
        second = Link(cluster[number], name, clean=False, expiry=600)
        assert second.present
        assert first.raw.expect_closed() == TAKEN_OVER
        first = second
    first.close()


def test_a_session_resumes_on_any_node_after_the_loss_of_its_own(cluster, name):
    x = prepared(cluster)
    subscriber = Subscriber(cluster, name, "t/#", qos=1)
    publisher = Publisher(cluster, x, "p", "t/1", pause_s=0.002)
    publisher.at = 1
    assert eventually(lambda: len(subscriber.given) > 50)
    victim = subscriber.link.node
    victim.kill()
    seen = len(subscriber.given)
    assert eventually(lambda: len(subscriber.given) > seen + 100)
    assert subscriber.link.node is not victim
    victim.start(wait=False)
    settle(cluster)
    publisher.close()
    assert eventually(lambda: x.acked() <= set(subscriber.given))
    subscriber.close()
    assert h.check_delivered(x.acked(), subscriber.given, 1) == {}


def test_wills_fire_once_when_their_node_dies(cluster, name):
    watch = client(cluster[2], "watch" + name)
    watch.subscribe("wills/#", 1)
    for number, more in enumerate(({"clean": True}, {"clean": False, "expiry": 600})):
        client(cluster[1], "%s-%d" % (name, number), keepalive=0,
               will={"topic": "wills/%d" % number, "payload": b"gone", "qos": 1}, **more)
    cluster[1].kill()
    got = sorted(m.topic for m in watch.take(2))
    assert got == ["wills/0", "wills/1"]
    watch.quiet(1)
    cluster[1].start(wait=False)
    cluster.wait_ready()
    watch.quiet(2)
    watch.close()


def test_memory_routes_reach_subscribers_of_all_nodes(cluster, name):
    route = '{"route": "fast/# -> mqtt durability=memory"}'
    assert cluster[1].request("PUT", "/api/v1/routes/fast", route)[0] in (200, 204)
    assert eventually(lambda: all(
        any(r["name"] == "fast" for r in n.ask("/api/v1/routes")["routes"])
        for n in cluster.nodes))
    watch = [client(n, "%s-%d" % (name, n.number)) for n in cluster.nodes]
    for w in watch:
        w.subscribe("fast/#", 1)
    for n in cluster.nodes:
        from_there = client(n, "%s-p%d" % (name, n.number))
        for number in range(50):
            from_there.publish("fast/%d" % n.number, b"%d" % number, 1)
        from_there.close()
    for w in watch:
        got = [(m.topic, int(m.payload)) for m in w.take(150)]
        for n in cluster.nodes:
            assert [v for t, v in got if t == "fast/%d" % n.number] == list(range(50))
        w.close()


def coordinator(cluster, group, but=()):
    """Awaited while there is none."""
    return eventually(lambda: ask_coordinator(cluster, group, but))


def ask_coordinator(cluster, group, but=()):
    """FindCoordinator v0, asked of any node; None: there is none at the moment."""
    node = cluster.any(but)
    body = struct.pack(">hhih", 10, 0, 1, -1) + mqtt.text(group)
    with socket.create_connection((node.host, node.ports["kafka"]), timeout=5) as link:
        link.sendall(struct.pack(">i", len(body)) + body)
        answer = link.makefile("rb").read(14)
    error, number = struct.unpack_from(">hi", answer, 8)
    return cluster[number] if error == 0 else None


def test_a_coordinator_fails_over_with_its_members(cluster, name):
    """Nobody has to join again, the group is listed as what it is, nothing is passed over: what was
    acknowledged is read by somebody, in order."""
    x = prepared(cluster, 4)
    producer = Producer(cluster, x, "k", STREAM, rate=300)
    # Nobody waits for a session to end here, and none is to end for a machine that is slow.
    readers = [Reader(cluster, x, "r%d" % n, STREAM, group=name, **{"session.timeout.ms": 45000})
               for n in (1, 2)]

    def shared_out():
        return sum(len(r.rebalances[-1][1]) for r in readers if r.rebalances) == 4 and \
            all(r.rebalances and len(r.rebalances[-1][1]) == 2 for r in readers)
    assert eventually(shared_out, 60, 0.1)
    time.sleep(1)
    counts = [r.assignments for r in readers]
    for _ in range(2):
        victim = coordinator(cluster, name)
        victim.kill()
        found = eventually(lambda: new_coordinator(cluster, name, victim), 30, 0.1)
        assert found
        assert eventually(lambda: group_state(found, name) == "Stable", 20, 0.1), \
            group_state(found, name)
        time.sleep(3)
        assert [r.assignments for r in readers] == counts, "the members had to join again"
        victim.start(wait=False)
        settle(cluster)
    producer.close()
    acked = x.acked()

    def polled():
        return {v for _, _, _, pairs, _ in x.of("poll") for _, v in pairs}
    assert eventually(lambda: acked <= polled(), 30, 0.2), len(acked - polled())
    assert [r.assignments for r in readers] == counts
    for r in readers:  # the second may be given what the first had
        r.close()
    read_back(cluster, x, STREAM)
    assert h.check(x, exactly_once=False, in_order=False) == {}
    assert twice(x, [producer]) == []


def new_coordinator(cluster, group, old):
    try:
        found = ask_coordinator(cluster, group, [old])
    except (OSError, struct.error):
        return None
    return found if found is not None and found is not old else None


def group_state(node, group):
    """As that node lists it (ListGroups v4); None: not at all."""
    body = struct.pack(">hhih", 16, 4, 1, -1) + b"\0\1\0"
    with socket.create_connection((node.host, node.ports["kafka"]), timeout=5) as link:
        link.sendall(struct.pack(">i", len(body)) + body)
        file = link.makefile("rb")
        answer = file.read(struct.unpack(">i", file.read(4))[0])
    at = answer.find(mqtt.text(group)[2:])
    if at < 0:
        return None
    at += len(group)
    at += answer[at]  # the protocol's type, its length and one
    return answer[at + 1:at + answer[at]].decode()


def test_qos_2_reaches_named_clean_sessions(cluster, name):
    """Such a session has a row that says where its client is; what is in flight is not in it."""
    reader = client(cluster[2], name)
    reader.subscribe(name + "/#", 2)
    writer = client(cluster[1], name + "-p")
    for number in range(20):
        writer.publish(name + "/x", b"%d" % number, 2)
    assert [int(m.payload) for m in reader.take(20)] == list(range(20))
    writer.close()
    reader.close()
