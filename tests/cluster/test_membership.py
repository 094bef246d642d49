"""Founding, growing, shrinking, replacing, restarting one after the other; who must not come in."""
import base64
import os
import time

import history as h
from load import Producer, Publisher, read_back, wrong
from node import eventually
from test_failover import STREAM, prepared, settle


def nodes_of(node):
    return {n["id"]: n for n in node.ask("/api/v1/cluster")["nodes"]}


def test_nodes_started_at_once_found_one_cluster(shared):
    ids = {n.ask("/api/v1/node")["cluster_id"] for n in shared.nodes}
    assert len(ids) == 1
    for n in shared.nodes:
        assert sorted(nodes_of(n)) == [1, 2, 3]
    def health(node, code):
        return eventually(lambda: node.cli("cluster", "health").returncode == code, 40, 0.2)
    assert health(shared[2], 0), shared[2].cli("cluster", "health").stdout
    shared[3].stop()
    assert health(shared[2], 10)
    assert shared[3].start(wait=False)
    shared.wait_ready()
    assert health(shared[1], 0), shared[1].cli("cluster", "health").stdout


def test_a_node_is_added_drained_and_removed(cluster):
    x = prepared(cluster, 4)
    producer = Producer(cluster, x, "k", STREAM, rate=200)
    fourth = cluster.add(4, seeds=cluster[2].peer)
    fourth.start(wait=False)
    fourth.wait_ready(40)
    assert eventually(lambda: 4 in nodes_of(cluster[1]))
    plan = cluster[1].cli("cluster", "drain", "1", "--dry-run")
    assert plan.returncode == 0, plan.stderr
    done = cluster[2].cli("cluster", "drain", "1", "--yes", "--wait", "--timeout", "60s",
                          timeout=70)
    assert done.returncode == 0, done.stdout + done.stderr
    for p in cluster.partitions(STREAM):
        assert 1 not in p["replicas"], p
    assert cluster[2].cli("cluster", "remove", "2", "--yes").returncode == 5  # it is in use
    cluster[1].stop()
    assert cluster[2].cli("cluster", "remove", "1", "--yes").returncode == 0
    assert eventually(lambda: 1 not in nodes_of(cluster[3]))
    producer.close()
    read_back(cluster, x, STREAM)
    assert wrong(x, [producer]) == {}


def test_a_wiped_node_comes_back_as_a_new_one(shared):
    x = prepared(shared, 2)
    publisher = Publisher(shared, x, "m", "t/1")
    assert eventually(lambda: len(x.acked()) > 100)
    victim = shared.leader(STREAM)
    victim.kill()
    victim.wipe()
    shared.wait_new_leader(STREAM, 0, victim)
    victim.start(wait=False)
    settle(shared, 60)
    shared.wait_spread(60)  # the tables' groups, too: the publisher has a session
    # What it has fetched is worth as much as what it lost: another one may die now.
    other = next(n for n in shared.nodes if n is not victim)
    other.kill()
    acked = len(x.acked())
    assert eventually(lambda: len(x.acked()) > acked + 50)
    other.start(wait=False)
    settle(shared)
    publisher.close()
    read_back(shared, x, STREAM)
    assert h.check(x, exactly_once=False, in_order=False) == {}


def test_how_far_a_copy_is_can_be_seen(make_cluster):
    cluster = make_cluster(3, settings={"catchup.rate": "1MiB"})
    cluster.create("s", 1, 3)
    leader = cluster.leader("s")
    for i in range(600):  # the log goes back further than the leader keeps it for who was away
        status, body, _ = leader.request("POST", "/streams/s/records", os.urandom(10000))
        assert status in (200, 201, 204), (i, status, body)
    victim = next(n for n in cluster.nodes if n is not leader)
    other = next(n for n in cluster.nodes if n is not leader and n is not victim)
    victim.kill()
    victim.wipe()
    victim.start(wait=False)

    def fetches():
        return [f for f in other.ask("/api/v1/cluster/moves")["fetches"] if f["stream"] == "s"]
    assert eventually(lambda: any(f["node"] == victim.number and f["bytes"] > 0 and
                                  0 < f["entries"] < f["entries_total"] for f in fetches()), 40, 0.1)
    shown = other.cli("cluster", "moves")
    assert shown.returncode == 0 and "FETCHED" in shown.stdout, shown.stdout + shown.stderr
    cluster.wait_ready(60)
    assert eventually(lambda: cluster.replicated("s", 3) and not fetches(), 60, 0.3), fetches()


def records_of(node, stream):
    """Hashes of the values in partition 0 as this node has them."""
    got, at = [], 0
    while True:
        page = node.ask("/streams/%s/records?partition=0&offset=%d&max=500&encoding=base64"
                        % (stream, at))
        got += [hash(r["value_base64"]) for r in page["records"]]
        at = page["next_offset"]
        if at >= page["end_offset"]:
            return got


def test_a_wiped_node_killed_while_it_fetches_lacks_nothing(make_cluster):
    """So large a log is written past the log of writes: a crash may take what was fetched last."""
    cluster = make_cluster(3, settings={"catchup.rate": "8MiB"})
    cluster.create("s", 1, 3)
    leader = cluster.leader("s")
    sent = []
    for i in range(600):
        value = os.urandom(100000)
        status, body, _ = leader.request("POST", "/streams/s/records", value)
        assert status in (200, 201, 204), (i, status, body)
        sent.append(hash(base64.b64encode(value).decode()))
    victim, other = [n for n in cluster.nodes if n is not leader]
    victim.kill()
    victim.wipe()
    for wanted in (5 << 20, 20 << 20, 40 << 20):  # bytes given when it was killed
        def given():
            return [f for n in (leader, other) for f in n.ask("/api/v1/cluster/moves")["fetches"]
                    if f["stream"] == "s" and f["node"] == victim.number]
        victim.start(wait=False)
        assert eventually(lambda: any(f["entries"] * 100000 > wanted for f in given()), 60, 0.05)
        victim.kill()
    victim.start(wait=False)
    cluster.wait_ready(60)
    assert eventually(lambda: cluster.replicated("s", 3), 60, 0.3)
    assert records_of(victim, "s") == sent
    victim.kill()
    victim.start()
    cluster.wait_ready(60)
    assert records_of(victim, "s") == sent


def test_a_rolling_restart_under_load(shared):
    x = prepared(shared, 2)
    publisher = Publisher(shared, x, "m", "t/1", answer_s=10)
    producer = Producer(shared, x, "k", STREAM, rate=300)
    assert eventually(lambda: len(x.acked()) > 200)
    for n in shared.nodes:
        assert n.stop() == 0
        n.start(wait=False)
        settle(shared)
    publisher.close()
    producer.close()
    read_back(shared, x, STREAM)
    assert h.check(x, exactly_once=False, in_order=False) == {}
    assert publisher.most_retries <= 3
    assert max([took for _, took in publisher.waits] or [0]) < 10
    assert producer.longest[0] < 10, producer.longest


def refusal(node, words, within=30):
    return eventually(lambda: any(w in node.log() for w in words), within)


def test_who_must_not_come_in(cluster, make_cluster):
    """A second node with an id in use, a node with the data of another cluster: refused by name,
    and nobody is harmed."""
    twin = cluster.add(5, seeds=cluster[1].peer)
    twin.settings["node.id"] = 2
    twin.start(wait=False)
    assert refusal(twin, ["node id 2", "id 2 "]), twin.log()
    twin.kill() if twin.is_running() else None
    stranger = make_cluster(1, start=False)
    lone = stranger[1]
    lone.settings.pop("cluster.seeds", None)
    lone.settings["node.id"] = 6
    lone.start()
    lone.stop()
    lone.settings["cluster.seeds"] = cluster[1].peer
    lone.start(wait=False)
    assert refusal(lone, ["another cluster", "other cluster", "cluster id"]), lone.log()
    assert not lone.is_running() or not lone.is_ready()
    cluster.nodes.remove(twin)
    assert sorted(nodes_of(cluster[1])) == [1, 2, 3]
    cluster.wait_ready()


def test_what_is_idle_costs_little(make_cluster):
    """Many partitions that nobody uses: processor time and memory of a node. IDLE_PARTITIONS sets
    their number; 1,000 may take 3 % of a core and 40 MB."""
    import os
    count = int(os.environ.get("IDLE_PARTITIONS", "200"))
    cluster = make_cluster()

    def used():
        return [(n.ask("/api/v1/node")["cpu_s"], n.ask("/api/v1/node")["memory_bytes"])
                for n in cluster.nodes]
    before = used()
    cluster.create(STREAM, count, 3, within=60)
    shares = []

    def share():
        """Of a core, over three seconds: the first ones may have to do with the making."""
        first = used()
        time.sleep(3)
        shares.append(max(b[0] - a[0] for a, b in zip(first, used())) / 3)
        return shares[-1]
    # And what an idle node takes.
    calm = eventually(lambda: share() < 0.03 * max(1, count / 1000) + 0.01, 30)
    memory = max(b[1] - a[1] for a, b in zip(before, used()))
    print("%d idle partitions: %s %% of a core, %.1f MB a node" % (
        count, ["%.1f" % (100 * s) for s in shares], memory / 1e6))
    assert calm, shares
    assert memory < 40e6 * count / 1000 + 16e6
