"""Sessions and groups know no node: taken over anywhere, resumed after the loss of their own, wills
once, coordinators that fail over with their state."""
import socket
import struct
import threading
import time

import history as h
import mqtt_client as mqtt
from load import Link, Producer, Publisher, Reader, Subscriber, read_back
from mqtt_client import Client
from node import eventually
from test_failover import STREAM, prepared, settle

TAKEN_OVER = 0x8e


def client(node, name, **more):
    return Client(node.mqtt, name, host=node.host, **more)


def test_the_later_claim_wins_on_any_node(cluster, name):
    first = Link(cluster[1], name, clean=False, expiry=600)
    for number in (2, 3, 1, 1):
        second = Link(cluster[number], name, clean=False, expiry=600)
        assert second.present
        assert first.raw.expect_closed(within=3) == TAKEN_OVER
        first = second
    first.close()


def test_claims_from_all_sides_at_once(cluster, name):
    """Three nodes, one client id, a connection each as fast as they come: who was answered after a
    later claim was accepted is an owner too many."""
    claims, ending = [], time.monotonic() + 4

    def claimant(node):
        while time.monotonic() < ending:
            try:
                link = Link(node, name, clean=False, expiry=60, within=3)
            except (OSError, EOFError):
                continue
            began = last = time.monotonic()
            try:
                while time.monotonic() < min(ending, began + 0.3):
                    sent = time.monotonic()
                    link.raw.send(mqtt.publish("claims/" + name, b"x", 1, 1))
                    got = link.read(1)
                    if got.kind != 4:
                        break
                    last = sent  # it owned the session at some time after this
            except (OSError, EOFError):
                pass
            claims.append((name, began, last))
            link.close()
    threads = [threading.Thread(target=claimant, args=(n,)) for n in cluster.nodes]
    for t in threads:
        t.start()
    for t in threads:
        t.join(20)
    assert len(claims) > 20
    assert h.check_claims(claims) == {}


def test_a_session_resumes_on_any_node_after_the_loss_of_its_own(cluster, name):
    x = prepared(cluster)
    subscriber = Subscriber(cluster, name, "t/#", qos=1)
    publisher = Publisher(cluster, x, "p", "t/1", pause_s=0.002)
    publisher.at = 1
    assert eventually(lambda: len(subscriber.given) > 50, 10)
    victim = subscriber.link.node
    victim.kill()
    seen = len(subscriber.given)
    assert eventually(lambda: len(subscriber.given) > seen + 100, 15)
    assert subscriber.link.node is not victim
    victim.start(wait=False)
    settle(cluster)
    publisher.close()
    assert eventually(lambda: x.acked() <= set(subscriber.given), 15)
    subscriber.close()
    assert h.check_delivered(x.acked(), subscriber.given, 1) == {}


def test_wills_fire_once_when_their_node_dies(make_cluster, name):
    cluster = make_cluster(settings={"session.lease": "2s"})
    watch = client(cluster[2], "watch" + name)
    watch.subscribe("wills/#", 1)
    for number, more in enumerate(({"clean": True}, {"clean": False, "expiry": 600})):
        client(cluster[1], "%s-%d" % (name, number), keepalive=0,
               will={"topic": "wills/%d" % number, "payload": b"gone", "qos": 1}, **more)
    cluster[1].kill()
    got = sorted(m.topic for m in watch.take(2, within=15))
    assert got == ["wills/0", "wills/1"]
    watch.quiet(1)
    cluster[1].start(wait=False)
    cluster.wait_ready()
    watch.quiet(2)
    watch.close()


def test_an_owner_that_is_cut_off_stops_to_acknowledge(make_cluster, network, name):
    cluster = make_cluster(network=network, settings={"session.lease": "2s"})
    stays = Link(cluster[1], name, clean=False, expiry=600)
    network.cut(cluster[1], cluster.nodes[1:])
    time.sleep(3)

    def claimed():
        try:
            return Link(cluster[2], name, clean=False, expiry=600, within=5)
        except (OSError, EOFError):
            return None  # told to come again, while the old owner may still be at it
    moved = eventually(claimed, 15, 0.2)
    assert moved and moved.present
    stays.raw.send(mqtt.publish("any/topic", b"x", 1, 1))
    try:
        got = stays.read(2)
        assert got.kind != 4, "two owners were acknowledged"
    except (OSError, EOFError, TimeoutError):
        pass
    network.heal()
    assert stays.raw.expect_closed(within=15) in (TAKEN_OVER, None, 0x88, 0x8b)
    moved.close()


def test_memory_routes_reach_subscribers_of_all_nodes(cluster, name):
    route = '{"route": "fast/# -> mqtt durability=memory"}'
    assert cluster[1].request("PUT", "/api/v1/routes/fast", route)[0] in (200, 204)
    assert eventually(lambda: all(
        any(r["name"] == "fast" for r in n.ask("/api/v1/routes")["routes"])
        for n in cluster.nodes), 10)
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
    """FindCoordinator v0, asked of any node."""
    node = cluster.any(but)
    body = struct.pack(">hhih", 10, 0, 1, -1) + mqtt.text(group)
    with socket.create_connection((node.host, node.ports["kafka"]), timeout=5) as link:
        link.sendall(struct.pack(">i", len(body)) + body)
        answer = link.makefile("rb").read(14)
    error, number = struct.unpack_from(">hi", answer, 8)
    return cluster[number] if error == 0 else None


def test_a_coordinator_fails_over_with_its_members(cluster):
    x = prepared(cluster, 4)
    producer = Producer(cluster, x, "k", STREAM, rate=300)
    readers = [Reader(cluster, x, "r%d" % n, STREAM, group="g") for n in (1, 2)]

    def shared():
        return sum(len(r.rebalances[-1][1]) for r in readers if r.rebalances) == 4 and \
            all(r.rebalances and len(r.rebalances[-1][1]) == 2 for r in readers)
    assert eventually(shared, 25, 0.1)
    time.sleep(1)
    counts = [r.assignments for r in readers]
    victim = coordinator(cluster, "g")
    victim.kill()
    assert eventually(lambda: coordinator(cluster, "g", [victim]) not in (None, victim), 15, 0.3)
    time.sleep(4)
    assert [r.assignments for r in readers] == counts, "the members had to join again"
    victim.start(wait=False)
    settle(cluster)
    producer.close()
    time.sleep(1)
    for r in readers:
        r.close()
    read_back(cluster, x, STREAM)
    assert h.check(x, in_order=False) == {}
