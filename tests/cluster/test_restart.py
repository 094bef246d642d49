"""Nodes that come back alone, all at once, elsewhere."""
import signal

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
