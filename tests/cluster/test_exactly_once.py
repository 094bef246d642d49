"""Producers that never change their epoch and send again until they are acknowledged: each record
is there once and in order, whatever becomes of who leads."""
import time

import history as h
from exact import Exact
from load import read_back
from node import eventually
from test_disks import VICTIM, folder, leads, on, told  # noqa: F401 (a fixture)
from test_doors import elect
from test_failover import STREAM, settle

PARTITIONS = 6


def all_go_on(producers, within=40):
    """Each partition acknowledges something new."""
    made = [p.batches for p in producers]
    return eventually(lambda: all(p.error or p.batches > n + 10 for p, n in zip(producers, made)),
                      within, 0.1)


def hand_over(cluster):
    """Leadership goes back to the preferred: away from who has it now."""
    settle(cluster)
    elect(cluster.any(), STREAM, list(range(PARTITIONS)))


def test_a_record_is_there_once(make_cluster, folder):  # noqa: F811
    cluster, node, x = on(make_cluster, folder.path)
    producers = [Exact(cluster, x, "e%d" % n, STREAM, n) for n in range(PARTITIONS)]
    assert all_go_on(producers)
    recovered = told(node, "disk_recovered")
    folder.fault("hang 3000")
    assert eventually(lambda: not leads(cluster, VICTIM), 10), "it still leads"
    assert eventually(lambda: told(node, "disk_recovered") > recovered)
    hand_over(cluster)
    other = cluster[VICTIM % cluster.count + 1]
    other.kill()
    assert all_go_on(producers), [p.refusals for p in producers]
    other.start(wait=False)
    hand_over(cluster)
    node.pause()
    time.sleep(2)
    node.go_on()
    assert all_go_on(producers), [p.refusals for p in producers]
    hand_over(cluster)
    assert all_go_on(producers), [p.refusals for p in producers]
    for p in producers:
        p.close()
    read_back(cluster, x, STREAM)
    print("%d records, answers: %s" % (len(x.acked()), [p.refusals for p in producers]))
    assert h.check(x) == {}
    assert x.acked() == {e[3] for e in x.of("send")}
