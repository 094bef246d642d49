"""Nodes that come back alone, all at once, elsewhere, after a while."""
import concurrent.futures
import signal
import time

import history as h
from load import Producer, Publisher, read_back, twice
from node import eventually, free_port
from test_failover import STREAM, prepared, settle


def test_who_comes_back_alone_knows_that_it_does_not_know(cluster):
    """Without a majority a node that starts anew cannot tell which streams there are: what it does
    not find may be there."""
    cluster.create("new", 1, 3)
    for n in cluster.nodes:
        n.kill()
    lone = cluster[2].start(wait=False)
    assert eventually(lambda: lone.is_open(lone.ports["http"]))
    for stream in ("new", "nobody-made-it"):
        assert lone.request("GET", "/api/v1/streams/" + stream)[0] in (200, 503)
        assert lone.request("POST", "/streams/%s/records" % stream, b"v", timeout=30)[0] == 503
    for number in (1, 3):
        cluster[number].start(wait=False)
    cluster.wait_ready()
    assert lone.request("GET", "/api/v1/streams/new")[0] == 200
    assert lone.request("GET", "/api/v1/streams/nobody-made-it")[0] == 404


def test_all_are_killed_and_come_back_elsewhere(cluster):
    """All at once, each time with other addresses for peers; nothing acknowledged is lost."""
    x = prepared(cluster, 2)
    publisher = Publisher(cluster, x, "m", "t/1")
    producer = Producer(cluster, x, "k", STREAM, rate=200)
    assert eventually(lambda: len(x.acked()) > 200)
    for _ in range(2):
        for n in cluster.nodes:
            n.process.send_signal(signal.SIGKILL)
        for n in cluster.nodes:
            n.process.wait(10)
            n.ports["peer"] = free_port()
            n.settings["listen.peer"] = n.peer
        for n in cluster.nodes:
            n.settings["cluster.seeds"] = ",".join(m.peer for m in cluster.nodes)
            n.start(wait=False)
        settle(cluster)
        acked = len(x.acked())
        assert eventually(lambda: len(x.acked()) > acked + 100)
    publisher.close()
    producer.close()
    read_back(cluster, x, STREAM)
    assert h.check(x, exactly_once=False, in_order=False) == {}
    assert twice(x, [producer]) == []


def post_many(node, stream, values):
    def post(value):
        return node.request("POST", "/streams/%s/records" % stream, value)[0]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(post, values)) == {200}


def test_who_was_away_fetches_what_it_lacks(cluster):
    """A log may be long; what was missed while a node was away is not, and is more than the others
    hold for it in memory."""
    cluster.create("big", 1, 3)
    leader = cluster.leader("big")
    away = cluster.any([leader])
    post_many(leader, "big", [b"%08d" % i + 500000 * b"x" for i in range(60)])
    assert eventually(lambda: cluster.replicated("big", 3))
    time.sleep(3)  # what was applied is noted once a second
    away.kill()
    post_many(leader, "big", [b"%08d" % i + 500000 * b"y" for i in range(60, 70)])
    for i in range(70, 600):
        assert leader.request("POST", "/streams/big/records", b"%08d" % i)[0] == 200
    away.start()
    assert eventually(lambda: away.metric("sluice_catchup_fetched_total") > 0, 60)
    assert eventually(lambda: cluster.replicated("big", 3), 60)
    assert 5e6 < away.metric("sluice_catchup_in_bytes_total") < 15e6
    leader.kill()  # those that are left have all of it
    cluster.wait_new_leader("big", 0, leader)
    records = away.records("big", "bytes=4000000")
    assert [r["offset"] for r in records] == list(range(600))
    values = [r["value"] for r in records]
    assert sorted(int(v[:8]) for v in values) == list(range(600))
    assert sum(len(v) for v in values) == 600 * 8 + 70 * 500000
