"""What clients are told about the cluster, by each door, and what they do with it."""
import os
import struct

import confluent_kafka
import mqtt_client as mqtt
import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from kafka_raw import Raw, string
from load import PUBACK, PUBLISH, SUBACK, Link
from node import eventually


@pytest.fixture
def cluster(shared):
    return shared


def fetched(node):
    return node.metric("sluice_kafka_fetched_bytes_total")


def consume(cluster, stream, count, **more):
    c = confluent_kafka.Consumer({
        "bootstrap.servers": cluster.bootstrap(), "group.id": "g", "enable.auto.commit": False,
        "log_level": 0, "topic.metadata.refresh.interval.ms": 500, **more})
    got = []
    try:
        c.assign([TopicPartition(stream, 0, OFFSET_BEGINNING)])
        assert eventually(lambda: got.extend(
            m.value() for m in c.consume(1000, 0.3) if m.error() is None) or len(got) >= count, 60)
    finally:
        c.close()
    return got


def test_consumers_read_from_the_replica_in_their_rack(cluster, name):
    """KIP-392: the leader names the nearest replica, and the client goes there."""
    cluster.create(name, 1, 3)
    leader = cluster.leader(name)
    near = next(n for n in cluster.nodes if n is not leader)
    p = confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap(), "log_level": 0})
    values = [b"%06d" % n + b"x" * 1000 for n in range(8000)]
    for v in values:
        p.produce(name, v)
    assert p.flush(60) == 0
    before = {n: fetched(n) for n in cluster.nodes}
    rack = "rack-%d" % near.number
    got = consume(cluster, name, len(values), **{"client.rack": rack, "fetch.wait.max.ms": 50})
    assert got == values
    grown = {n.number: fetched(n) - before[n] for n in cluster.nodes}
    # The leader serves until it has asked who is in sync: one answer, two perhaps.
    assert grown[near.number] > 0.6 * sum(grown.values()) > 1e6, grown
    # Nobody is near: the leader serves. So it does when the replica is gone.
    before = {n: fetched(n) for n in cluster.nodes}
    assert consume(cluster, name, len(values), **{"client.rack": "elsewhere"}) == values
    assert fetched(leader) - before[leader] > 1e6
    near.kill()
    assert consume(cluster, name, len(values), **{"client.rack": rack}) == values


def test_a_copy_that_is_not_whole_is_nobodys_nearest(make_cluster, name):
    """A node that comes back without its data fetches it slowly: consumers in its rack read from the
    leader meanwhile, instead of waiting for it."""
    cluster = make_cluster(settings={"catchup.rate": "1MiB"}, node_settings=lambda n: {
        "node.rack": "rack-%d" % n})
    cluster.create(name, 1, 3)
    leader = cluster.leader(name)
    near = next(n for n in cluster.nodes if n is not leader)
    p = confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap(), "log_level": 0})
    values = [b"%06d" % n + os.urandom(10000) for n in range(2500)]
    near.kill()
    near.wipe()
    for v in values:
        p.produce(name, v)
        p.poll(0)
    assert p.flush(60) == 0
    near.start(wait=False)
    near.wait_ready(40)
    rack = {"client.rack": "rack-%d" % near.number, "fetch.wait.max.ms": 50}
    assert consume(cluster, name, len(values), **rack) == values


def test_a_leader_that_stands_still_is_described_at_once(cluster, name):
    """By what is known: a page does not take three seconds for each group it led."""
    cluster.create(name, 60, 3)
    victim = cluster.leader(name)
    asked = cluster.any([victim])
    victim.pause()
    try:
        parts = asked.ask("/api/v1/streams/" + name, timeout=8)["partition_list"]
        assert len(parts) == 60
        groups = asked.ask("/api/v1/partitions?internal=true", timeout=8)["partitions"]
        assert len(groups) >= 60
    finally:
        victim.go_on()


def elect(node, stream, partitions, wait_ms=15000):
    """ElectLeaders v1 by hand: [(partition, error)]; stream None: of all."""
    body = b"\0" + (struct.pack(">i", -1) if stream is None else
                    struct.pack(">i", 1) + string(stream) +
                    struct.pack(">i%di" % len(partitions), len(partitions), *partitions))
    with Raw(node.ports["kafka"], node.host) as raw:
        answer = raw.ask(43, 1, body + struct.pack(">i", wait_ms))
    assert struct.unpack_from(">ih", answer) == (0, 0)
    at, found = 10, []
    for _ in range(struct.unpack_from(">i", answer, 6)[0]):
        at += 2 + struct.unpack_from(">h", answer, at)[0]
        count = struct.unpack_from(">i", answer, at)[0]
        at += 4
        for _ in range(count):
            index, error, words = struct.unpack_from(">ihh", answer, at)
            at += 8 + max(words, 0)
            found.append((index, error))
    return found


def test_leadership_goes_to_the_preferred_when_asked(cluster, name):
    """ElectLeaders: asked of any node, at once, and not before the preferred one is in sync."""
    cluster.create(name, 3, 3)
    assert eventually(lambda: elect(cluster[1], name, [0]) == [(0, 84)], 20)
    victim = cluster.leader(name, 0)
    other = cluster.any([victim])
    assert elect(other, name, [0, 7]) == [(0, 84), (7, 3)]  # not needed; there is no such
    victim.kill()
    assert eventually(lambda: cluster.leader(name, 0, other) not in (None, victim), 40)
    assert elect(other, name, [0]) == [(0, 80)]
    victim.start(wait=False)
    cluster.wait_ready()
    cluster.wait_spread()  # of other streams, too: all are asked for in the end
    if cluster.leader(name, 0, other) is not victim:  # it comes back by itself after 10 s
        assert (0, 0) in elect(other, name, [0]) or cluster.leader(name, 0, other) is victim
    assert eventually(lambda: cluster.leader(name, 0, other) is victim, 5)
    assert elect(other, name, [0]) == [(0, 84)]
    assert all(error == 0 for _, error in elect(other, None, []))


def test_a_subscription_begins_where_its_leaders_are(cluster, name):
    """SUBACK waits until the leaders have said from which offset on it holds: what another node has
    acknowledged before is not given as new, its retained value is there, what comes then is given."""
    def publish(link, payload, **more):
        link.raw.send(mqtt.publish(topic, payload, 1, 1, **more))
        assert link.read(10).kind == PUBACK

    for turn in range(60):
        here, there = cluster[1 + turn % 3], cluster[1 + (turn + 1 + turn // 3 % 2) % 3]
        topic, retain = "%s/%d" % (name, turn), turn % 2
        reader, writer = Link(here, "%s-r%d" % (name, turn)), Link(there, "%s-w" % name)
        try:
            publish(writer, b"old", retain=retain)
            reader.raw.send(mqtt.subscribe((topic, "%s/%d/#" % (name, turn))[turn // 6 % 2], 1))
            assert reader.read(10).kind == SUBACK
            publish(writer, b"new")
            for wanted in (b"old", b"new")[not retain:]:
                got = reader.read(10)
                assert got.kind == PUBLISH and got.body.endswith(wanted), (turn, wanted, got)
        finally:
            reader.close()
            writer.close()


def told_partition(node, stream):
    """Metadata v7: ({broker: rack}, leader, leader epoch) of the only partition."""
    with Raw(node.ports["kafka"], node.host) as raw:
        answer = raw.ask(3, 7, struct.pack(">i", 1) + string(stream) + b"\0")
    brokers, at = {}, 8
    for _ in range(struct.unpack_from(">i", answer, 4)[0]):
        number, size = struct.unpack_from(">ih", answer, at)
        at += 6 + size + 4
        size = struct.unpack_from(">h", answer, at)[0]
        brokers[number] = answer[at + 2:at + 2 + max(0, size)].decode()
        at += 2 + max(0, size)
    at += 2 + max(0, struct.unpack_from(">h", answer, at)[0]) + 4 + 4
    assert struct.unpack_from(">h", answer, at)[0] == 0
    at += 2 + 2 + len(stream) + 1 + 4
    return brokers, *struct.unpack_from(">ii", answer, at + 2 + 4)


def end_of(node, stream, now, epoch):
    """OffsetForLeaderEpoch v2: (error, epoch, where it ends)."""
    body = struct.pack(">i", 1) + string(stream) + struct.pack(">iiii", 1, 0, now, epoch)
    with Raw(node.ports["kafka"], node.host) as raw:
        answer = raw.ask(23, 2, body)
    at = 4 + 4 + 2 + len(stream) + 4
    error, _, epoch, end = struct.unpack_from(">hiiq", answer, at)
    return error, epoch, end


def test_brokers_are_nodes_and_the_epoch_is_the_term(cluster, name):
    """The next leader has a higher one, knows where the one before ended, and refuses who is behind."""
    cluster.create(name, 1, 3)
    victim = cluster.leader(name)
    brokers, leader, before = told_partition(cluster.any(), name)
    assert brokers == {n.number: "rack-%d" % n.number for n in cluster.nodes}
    assert leader == victim.number and before == cluster.partitions(name)[0]["epoch"]
    for number in range(5):
        assert cluster.any().request("POST", "/streams/%s/records" % name, b"%d" % number)[0] == 200
    victim.kill()
    cluster.wait_new_leader(name, 0, victim)
    other = cluster.leader(name, 0, cluster.any([victim]))
    _, leader, now = told_partition(other, name)
    assert leader == other.number and now > before
    assert other.request("POST", "/streams/%s/records" % name, b"5")[0] == 200
    assert end_of(other, name, now, before) == (0, before, 5)
    assert end_of(other, name, now, now) == (0, now, 6)
    assert end_of(other, name, before, before)[0] == 74  # FENCED_LEADER_EPOCH
    assert end_of(other, name, now + 1, now)[0] == 75  # UNKNOWN_LEADER_EPOCH


def test_commands_about_the_cluster(cluster, name):
    """What they show, and the status of those that are refused (docs/cluster.md)."""
    cluster.create(name, 2, 3)
    cluster.wait_spread()
    one, two, _ = cluster.nodes
    shown = one.cli_json("partition", "describe", name, "1")
    assert sorted(r["node"] for r in shown["members"]) == [1, 2, 3], shown
    assert len(one.cli_json("partition", "list", name)["partitions"]) == 2
    for words, status, said in (
            (("cluster", "frob"), 2, "one of these must follow"),
            (("cluster", "drain"), 2, "usage"),
            (("cluster", "drain", "2"), 2, "add --yes"),
            (("cluster", "drain", "9", "--yes"), 3, "no node 9"),
            (("cluster", "drain", "nobody", "--yes"), 3, "no node nobody"),
            (("cluster", "remove", "2", "--yes"), 5, "drain it first"),
            (("cluster", "remove", "2", "--yes", "--force"), 5, "node 2 lives"),
            (("partition", "list", "nosuch"), 3, "no such stream"),
            (("partition", "describe", name, "7"), 3, "no such partition"),
            (("partition", "describe", name, "x"), 2, "a partition is a number"),
            (("partition", "describe", name), 2, "usage")):
        done = one.cli(*words)
        assert (done.returncode, done.stderr.count(said)) == (status, 1), (words, done)
    two.kill()
    assert eventually(lambda: one.cli("cluster", "health").returncode == 10)
    assert eventually(lambda: one.cli("cluster", "drain", "3", "--dry-run").returncode == 5)
    done = one.cli("cluster", "drain", "3", "--yes")
    assert done.returncode == 5 and "without a majority" in done.stderr, done
    assert {n["id"]: n["state"] for n in one.ask("/api/v1/cluster")["nodes"]}[3] == "active"


def test_the_catalogue_is_described_as_a_quorum(cluster):
    """DescribeQuorum v0: the same of every node."""
    body = (b"\2" + bytes([len("__cluster_metadata") + 1]) + b"__cluster_metadata" + b"\2" +
            struct.pack(">i", 0) + b"\0\0\0")
    leaders = set()
    for node in cluster.nodes:
        with Raw(node.ports["kafka"], node.host) as raw:
            answer = raw.ask(55, 0, body, flexible=True)
        assert struct.unpack_from(">h", answer)[0] == 0
        at = 2 + 1 + 1 + len("__cluster_metadata") + 1
        index, error, leader, epoch, high = struct.unpack_from(">ihiiq", answer, at)
        assert (index, error) == (0, 0) and epoch > 0 and high > 0
        at += 22
        voters = answer[at] - 1
        at += 1
        ids = [struct.unpack_from(">iq", answer, at + 13 * n) for n in range(voters)]
        assert sorted(i for i, _ in ids) == [1, 2, 3]
        assert all(end > 0 for _, end in ids)
        leaders.add(leader)
    assert len(leaders) == 1 and leaders < {1, 2, 3}
    with Raw(cluster[1].ports["kafka"], cluster[1].host) as raw:
        answer = raw.ask(55, 0, body.replace(b"__cluster", b"__klutter"), flexible=True)
    assert struct.unpack_from(">h", answer)[0] == 3
