"""One node of three dies, stands still, is cut off or loses its disk while clients write and read:
nothing acknowledged is lost, the rest goes on. FAILOVER_ROUNDS repeats the kills."""
import os
import time

import confluent_kafka
import history as h
import mqtt_client as mqtt
import pytest
from load import Link, Producer, Publisher, Reader, Subscriber, read_back, twice
from node import eventually

ROUNDS = int(os.environ.get("FAILOVER_ROUNDS", "2"))
LONG_S = 10  # that it goes on; how soon is measured by tools/bench
STREAM = "s"
ROUTE = '{"route": "t/# -> %s"}' % STREAM


@pytest.fixture
def cluster(shared):
    return shared


def prepared(cluster, partitions=2):
    cluster.create(STREAM, partitions, 3)
    assert cluster[1].request("PUT", "/api/v1/routes/t", ROUTE)[0] in (200, 204)
    assert eventually(lambda: all(
        any(r["name"] == "t" for r in n.ask("/api/v1/routes")["routes"])
        for n in cluster.nodes))
    return h.History()


class Only:
    """Some nodes of a cluster, for clients that know no others."""

    def __init__(self, *nodes):
        self.nodes = list(nodes)


def settle(cluster, within=60):
    cluster.wait_ready()
    assert eventually(lambda: cluster.replicated(STREAM, 3), within, 0.2), \
        cluster.partitions(STREAM)


def longest_wait(began, publishers):
    return max([took for p in publishers for at, took in p.waits if at + took >= began] or [0])


def test_leaders_killed_under_load(cluster):
    x = prepared(cluster)
    producers = [Producer(cluster, x, "k%d" % n, STREAM) for n in (1, 2)]
    publishers = [Publisher(cluster, x, "m%d" % n, "t/%d" % n) for n in (1, 2)]
    reader = Reader(cluster, x, "r", STREAM)
    assert eventually(lambda: reader.assignments)
    gone = []
    for number in range(ROUNDS):
        victim = cluster.leader(STREAM, number % 2)
        for p in publishers:  # the survivors are known to those who publish
            p.at = next(i for i, n in enumerate(cluster.nodes) if n is not victim)
        time.sleep(0.5)
        acked = len(x.acked())
        began = time.monotonic()
        victim.kill()
        cluster.wait_new_leader(STREAM, number % 2, victim)
        assert eventually(lambda: len(x.acked()) > acked + 20)
        time.sleep(1)
        gone.append(longest_wait(began, publishers))
        victim.start(wait=False)
        settle(cluster)
    for one in producers + publishers + [reader]:
        one.close()
    read_back(cluster, x, STREAM)
    print("leader killed to next acknowledged publish: %s s" % ["%.2f" % s for s in gone])
    # Publishers at QoS 1 may write twice; Kafka's idempotent producers never do.
    assert h.check(x, exactly_once=False, in_order=False) == {}
    assert twice(x, producers) == []
    assert max(gone) < LONG_S, gone


def test_a_leader_that_stands_still(cluster):
    x = prepared(cluster, 1)
    publisher = Publisher(cluster, x, "m", "t/1", answer_s=0.7)
    producer = Producer(cluster, x, "k", STREAM)
    assert eventually(lambda: len(x.acked()) > 100)
    victim = cluster.leader(STREAM)
    publisher.at = next(i for i, n in enumerate(cluster.nodes) if n is not victim)
    began = time.monotonic()
    victim.pause()
    try:
        cluster.wait_new_leader(STREAM, 0, victim, LONG_S)
        acked = len(x.acked())
        assert eventually(lambda: len(x.acked()) > acked + 50)
    finally:
        victim.go_on()
    settle(cluster)
    publisher.close()
    producer.close()
    read_back(cluster, x, STREAM)
    assert h.check(x, exactly_once=False, in_order=False) == {}
    assert longest_wait(began, [publisher]) < LONG_S
    assert twice(x, [producer]) == []


def test_a_leader_that_is_cut_off(linked):
    cluster, network = linked, linked.network
    x = prepared(cluster, 1)
    victim = cluster.leader(STREAM)
    others = [n for n in cluster.nodes if n is not victim]
    # One client stays with the node that is cut off: what it is told must be true.
    stays = Publisher(Only(victim), x, "stays", "t/1")
    moves = Publisher(Only(*others), x, "moves", "t/2")
    assert eventually(lambda: len(x.acked()) > 50)
    network.cut(victim, others)
    cluster.wait_new_leader(STREAM, 0, victim, LONG_S)
    moved = moves.count
    assert eventually(lambda: moves.count > moved + 50)
    stood = stays.count
    time.sleep(1)
    assert stays.count <= stood + 1, "acknowledged without a majority"
    network.heal()
    settle(cluster)
    assert eventually(lambda: stays.count > stood + 50)
    stays.close()
    moves.close()
    read_back(cluster, x, STREAM)
    assert h.check(x, exactly_once=False, in_order=False) == {}


# Of brokers: not the leader, leader not available, timed out, too few replicas; of the library: timed
# out, transport.
RETRIABLE = {5, 6, 7, 19, 20, -192, -195, -185}


def kafka_errors(node, stream, within=4):
    """Codes of one record that is not sent again."""
    errors = []
    producer = confluent_kafka.Producer({
        "bootstrap.servers": node.kafka, "acks": "all", "retries": 0, "log_level": 0,
        "message.timeout.ms": within * 1000, "request.timeout.ms": within * 500})
    producer.produce(stream, b"kafka without a majority", on_delivery=lambda e, _: errors.append(
        e.code() if e else 0))
    producer.flush(within + 2)
    return errors or [-192]


def mqtt_answer(node, topic, within=4):
    """None: refused with a reason, closed, or not answered; else the PUBACK that said yes. Who has
    no session yet may be refused before."""
    try:
        link = Link(node, "nobody-" + topic, within=within)
    except (OSError, EOFError):
        return None
    try:
        link.raw.send(mqtt.publish(topic, b"mqtt without a majority", 1, 1))
        got = link.read(within)
        return got if got.kind == mqtt.PUBACK and (len(got.body) < 3 or got.body[2] < 0x80) \
            else None
    except (OSError, EOFError):
        return None
    finally:
        link.close()


def test_without_a_majority_nothing_is_accepted_and_it_heals(cluster):
    x = prepared(cluster, 1)
    publisher = Publisher(cluster, x, "m", "t/1")
    assert eventually(lambda: len(x.acked()) > 50)
    down = cluster.nodes[:2]
    left = cluster.nodes[2]
    there = Link(left, "there-before")
    for n in down:
        n.kill()
    time.sleep(1.5)
    before = len(x.acked())
    status, body, _ = left.request("POST", "/streams/%s/records" % STREAM, b"v", timeout=15)
    assert status in (503, 504), (status, body)
    assert set(kafka_errors(left, STREAM)) <= RETRIABLE, kafka_errors(left, STREAM)
    assert mqtt_answer(left, "t/9") is None, "acknowledged without a majority"
    there.raw.send(mqtt.publish("t/8", b"mqtt without a majority", 1, 1))
    got = there.read(20)
    assert got.kind == mqtt.PUBACK and got.body[2:3] == b"\x83", got  # publish again
    there.close()
    assert len(x.acked()) == before, "acknowledged without a majority"
    assert left.request("GET", "/livez")[0] == 200
    for n in down:
        n.start(wait=False)
    settle(cluster)
    assert eventually(lambda: len(x.acked()) > before + 50)
    publisher.close()
    read_back(cluster, x, STREAM)
    assert h.lost(x) == []
    assert h.gaps(x) == []


def test_qos_2_is_exactly_once_through_kills(cluster):
    """Publishers whose sessions last go on at another node. One whose session ends with its
    connection stays with a node that lives: what its leaders do is not its business."""
    x = prepared(cluster, 2)
    subscriber = Subscriber(cluster, "sub2", "t/#", qos=2)
    publishers = [Publisher(cluster, x, "q%d" % n, "t/%d" % n, qos=2) for n in (1, 2)]
    for number in range(2):
        # Whoever leads by then: leaderships go back to the preferred by themselves.
        victim = cluster.leader(STREAM, number)
        stays = next(n for n in cluster.nodes if n is not victim)
        clean = Publisher(Only(stays), x, "c%d" % number, "t/%d" % (3 + number), qos=2, clean=True,
                          answer_s=30)
        publishers.append(clean)
        time.sleep(0.7)
        victim.kill()
        cluster.wait_new_leader(STREAM, number, victim)
        acked = len(x.acked())
        assert eventually(lambda: len(x.acked()) > acked + 50)
        clean.close()
        assert clean.most_retries == 0, "its connection was closed"
        victim.start(wait=False)
        settle(cluster)
    for p in publishers:
        p.close()
    acked = x.acked()
    eventually(lambda: acked <= set(subscriber.given))
    subscriber.close()
    read_back(cluster, x, STREAM)
    assert h.check(x, in_order=False) == {}
    assert h.check_delivered(acked, subscriber.given, 2) == {}


def test_sync_means_a_majority_has_synced(cluster):
    """One publish at a time while two of three nodes live: each must have made both sync, or it was
    acknowledged early."""
    x = prepared(cluster, 1)
    leader = cluster.leader(STREAM)
    next(n for n in cluster.nodes if n is not leader).kill()
    two = cluster.running()

    def syncs(n):
        return n.metric("sluice_storage_syncs_total")
    before = [syncs(n) for n in two]
    publisher = Publisher(Only(leader), x, "m", "t/1")
    eventually(lambda: len(x.acked()) >= 100, 30)
    publisher.close()
    acked = len(x.acked())
    assert acked >= 100
    grown = [syncs(n) - b for n, b in zip(two, before)]
    assert min(grown) >= acked, (acked, grown)
