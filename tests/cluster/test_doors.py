"""What clients are told about the cluster, by each door, and what they do with it."""
import os

import confluent_kafka
import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from node import eventually


@pytest.fixture
def cluster(shared):
    return shared


def fetched(node):
    text = node.get("/metrics")[1].decode()
    return sum(float(line.split()[-1]) for line in text.splitlines()
               if line.startswith("sluice_kafka_fetched_bytes_total"))


def consume(cluster, stream, count, **more):
    c = confluent_kafka.Consumer({
        "bootstrap.servers": cluster.bootstrap(), "group.id": "g", "enable.auto.commit": False,
        "log_level": 0, "topic.metadata.refresh.interval.ms": 500, **more})
    got = []
    try:
        c.assign([TopicPartition(stream, 0, OFFSET_BEGINNING)])
        assert eventually(lambda: got.extend(
            m.value() for m in c.consume(1000, 0.3) if m.error() is None) or len(got) >= count, 20)
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
    assert p.flush(20) == 0
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
    assert p.flush(30) == 0
    near.start(wait=False)
    near.wait_ready(20)
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
