"""One node's disk is full, fails or hangs: the others take over what it led, nothing acknowledged
is lost, and it is whole again afterwards."""
import os
import signal

import forget
import history as h
import pytest
import small_disk
from load import Producer, Publisher, read_back, twice
from node import eventually
from test_failover import STREAM, prepared, settle

VICTIM = 2


def on(make_cluster, path, log_path=None, settings=None):
    """A cluster whose second node has its data there, and leads the stream."""
    cluster = make_cluster(start=False)
    node = cluster[VICTIM]
    node.data = node.settings["data.dir"] = os.path.join(path, "data")
    node.settings.update(settings or {})
    cluster.start()
    x = prepared(cluster, 6)
    assert eventually(lambda: any(p["leader"] == VICTIM for p in cluster.partitions(STREAM)))
    return cluster, node, x


def load(cluster, x):
    clients = [Publisher(cluster, x, "m%d" % n, "t/%d" % n) for n in range(3)]
    clients.append(Producer(cluster, x, "k", STREAM, rate=300))
    return clients


def grows(x, by=100, within=40):
    acked = len(x.acked())
    return eventually(lambda: len(x.acked()) > acked + by, within)


def check(cluster, x, clients):
    read_back(cluster, x, STREAM)
    assert h.check(x, exactly_once=False, in_order=False) == {}
    assert twice(x, clients) == []


@pytest.fixture
def folder():
    why = forget.missing()
    if why:
        pytest.skip(str(why))
    made = forget.ForgetFolder()
    yield made
    made.close()


@pytest.fixture
def disk():
    why = small_disk.missing()
    if why:
        pytest.skip(str(why))
    made = small_disk.SmallDisk(256)
    yield made
    made.close()


def told(node, word):
    return node.log(100_000).count(" %s " % word)


def leads(cluster, number):
    return [p["partition"] for p in cluster.partitions(STREAM, cluster.any([cluster[number]]))
            if p["leader"] == number]


@pytest.mark.parametrize("what", ["write", "fsync"])
def test_a_disk_that_fails(make_cluster, folder, what):
    """The process ends itself: for the others as if it had been killed. What it had not synced is
    gone, and comes back from the others."""
    cluster, node, x = on(make_cluster, folder.path)
    clients = load(cluster, x)
    assert grows(x)
    folder.fault("fail " + what)
    assert eventually(lambda: not node.is_running()), node.log()
    assert node.process.returncode == -signal.SIGABRT
    assert grows(x), "the others do not go on"
    folder.fault("heal")
    folder.forget()
    node.start(wait=False)
    settle(cluster)
    assert grows(x)
    for one in clients:
        one.close()
    check(cluster, x, clients)


def test_a_disk_that_hangs(make_cluster, folder):
    """Longer than disk.stall, shorter than what ends the process: it stops leading, and comes back."""
    cluster, node, x = on(make_cluster, folder.path)
    clients = load(cluster, x)
    assert grows(x)
    recovered = told(node, "disk_recovered")
    folder.fault("hang 8000")
    assert eventually(lambda: " disk_stalled " in node.log(100_000), 8)
    assert eventually(lambda: not leads(cluster, VICTIM), 8), "it still leads"
    assert grows(x, within=8), "nothing is taken while it hangs"
    assert told(node, "disk_recovered") == recovered, "too late to tell"
    assert eventually(lambda: told(node, "disk_recovered") > recovered)
    assert node.is_running()
    settle(cluster)
    for one in clients:
        one.close()
    check(cluster, x, clients)


def test_a_disk_that_is_full(make_cluster, disk):
    """Writes go on where there is room; the node that has none is said to be unwell, and takes
    writes again when there is."""
    cluster, node, x = on(make_cluster, disk.path, settings={
        "disk.reserve": "48MiB", "storage.wal": "16MiB", "storage.write_buffers": "16MiB"})
    clients = load(cluster, x)
    assert grows(x)
    disk.fill(40 << 20)  # below the reserve: it must stop before the disk does
    assert eventually(lambda: " disk_full " in node.log(100_000))
    assert eventually(lambda: cluster[1].cli("cluster", "health").returncode == 10, 30, 0.3)
    assert grows(x), "the cluster stands still for one disk"
    assert node.is_running(), node.log()
    disk.unfill()
    assert eventually(lambda: " disk_has_room " in node.log(100_000))
    settle(cluster)
    assert eventually(lambda: cluster[1].cli("cluster", "health").returncode == 0, 40, 0.3)
    assert grows(x)
    for one in clients:
        one.close()
    check(cluster, x, clients)
