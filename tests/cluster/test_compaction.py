"""Compaction on three nodes: each replica by itself. Whoever reads from any of them finds the newest
of each key, also from one that was wiped and fetched a compacted log, and after another leads."""
import base64

from compacted import Updates, check, make_stream, metric
from node import eventually

STREAM = "c"


def read_from(node):
    """Of the replica there."""
    got = []
    for r in node.records(STREAM, "max=1000&encoding=base64"):
        value = r.get("value_base64")
        got.append((r["offset"], base64.b64decode(r["key_base64"]),
                    base64.b64decode(value) if value is not None else None))
    return got


def check_all(cluster, acked, sent):
    end = max(acked) + 1
    assert eventually(lambda: all(
        n.ask("/streams/%s/records?partition=0&offset=0&max=1" % STREAM)["end_offset"] >= end
        for n in cluster.running()), 20)
    return [check(read_from(n), acked, sent) for n in cluster.running()]


def test_each_replica_by_itself(make_cluster):
    cluster = make_cluster(3, {"storage.tail_cache": "1MiB"})
    acked, sent = {}, set()
    make_stream(cluster.any(), STREAM, 3)
    assert eventually(lambda: cluster.replicated(STREAM, 3), 30, 0.2)

    def load(name, count):
        one = Updates(cluster.bootstrap(), STREAM, name)
        assert eventually(lambda: len(one.acked) > count, 60)
        one.close()
        acked.update(one.acked)
        sent.update(one.sent)

    load("a", 6000)
    assert eventually(lambda: all(
        metric(n, "removed_records_total") > 1000 for n in cluster.nodes), 40)
    check_all(cluster, acked, sent)
    victim = cluster.leader(STREAM)
    victim.kill()
    victim.wipe()
    load("b", 3000)
    victim.start(wait=False)
    cluster.wait_ready(60)
    assert eventually(lambda: cluster.replicated(STREAM, 3), 60, 0.3), cluster.partitions(STREAM)
    check_all(cluster, acked, sent)
    load("c", 4000)
    # What it fetched is compacted again, from the start.
    assert eventually(lambda: metric(victim, "removed_records_total") > 1000, 40)
    counts = check_all(cluster, acked, sent)
    assert max(counts) < len(acked) * 0.8, counts
