"""The cluster's own life, over real processes: addresses and seeds that change, starts in any order,
who shows which certificate, nodes that were removed or run twice, and nodes that are killed while
the cluster founds itself, grows, moves and drains. LIFE_ROUNDS repeats the kills."""
import os
import random
import shutil
import time

from load import Producer, read_back, wrong
from node import eventually, free_port
from test_failover import STREAM, prepared
from test_membership import nodes_of

ROUNDS = int(os.environ.get("LIFE_ROUNDS", "3"))


def whole(cluster, wanted=3, nodes=None, within=90):
    """Every group is led and has its replicas, all in sync; nobody has anything left over."""
    nodes = nodes or cluster.running()
    cluster.wait_ready(within, nodes)
    last = [None]

    def look():
        try:
            seen = nodes[0].ask("/api/v1/cluster")
            groups = nodes[0].ask("/api/v1/partitions?internal=true")["partitions"]
        except (OSError, AssertionError) as e:
            last[0] = e
            return False
        bad = [g for g in groups if g["leader"] is None or g["moving"] or
               len(g["in_sync"]) < min(wanted, len(nodes)) or
               sorted(g["in_sync"]) != sorted(g["replicas"])]
        here = {n["id"]: n for n in seen["nodes"]}
        if not all(n["answers"] for n in here.values()):
            last[0] = here
            return False
        replicas = sum(n["replicas"] for n in here.values())
        named = sum(len(g["replicas"]) for g in groups)
        last[0] = (bad, [(i, n["replicas"], sum(i in g["replicas"] for g in groups))
                         for i, n in here.items()], replicas, named)
        catalogue = next(g for g in groups if g["group"] == 1)
        follow = [n for n in here if n not in catalogue["replicas"]]  # without a vote
        clean = replicas == named + len(follow)
        return not bad and clean and all(here.get(n.number, {}).get("ready") for n in nodes)
    assert eventually(look, within, 0.2), last[0]


def answers(node, path):
    try:
        return node.get(path)
    except OSError:
        return 0, b""


def ends(node, words, within=40):
    """It ends by itself with status 1 and says why."""
    assert eventually(lambda: not node.is_running(), within), node.log()
    assert node.process.wait() == 1 and words in node.log(), node.log()


def move_door(node, door="peer"):
    node.ports[door] = free_port()
    node.settings["listen." + door] = "%s:%d" % (node.host, node.ports[door])


def test_a_node_comes_back_at_another_address(cluster):
    for door in ("peer", "kafka"):
        cluster[2].stop()
        move_door(cluster[2], door)
        cluster[2].start(wait=False)
        whole(cluster)
        assert eventually(lambda: nodes_of(cluster[1])[2]["address"] == cluster[2].peer)


def test_all_nodes_come_back_at_other_addresses(cluster):
    """What the catalogue says of addresses is of no use then: seeds are."""
    x = prepared(cluster)
    producer = Producer(cluster, x, "k", STREAM)
    assert eventually(lambda: len(x.acked()) > 50)
    producer.close()
    for n in cluster.nodes:
        n.stop()
        move_door(n)
    for n in cluster.nodes:
        n.settings["cluster.seeds"] = ",".join(m.peer for m in cluster.nodes)
        n.start(wait=False)
    whole(cluster)
    read_back(cluster, x, STREAM)
    assert wrong(x, [producer]) == {}


def test_all_nodes_or_most_of_them_restart_at_once(cluster):
    x = prepared(cluster)
    producer = Producer(cluster, x, "k", STREAM)
    for victims in (cluster.nodes, cluster.nodes[1:], cluster.nodes):
        acked = len(x.acked())
        assert eventually(lambda: len(x.acked()) > acked + 50)
        for n in victims:
            n.kill()
        for n in victims:
            n.start(wait=False)
        whole(cluster)
    producer.close()
    read_back(cluster, x, STREAM)
    assert wrong(x, [producer]) == {}


def test_seeds_in_any_order_and_starts_in_any_order(make_cluster):
    cluster = make_cluster(3, start=False)
    seeds = [n.peer for n in cluster.nodes]
    for n, order in zip(cluster.nodes, ([2, 1, 0], [0, 2, 1], [1, 0, 2])):
        n.settings["cluster.seeds"] = " , ".join(seeds[i] for i in order)
    cluster[3].start(wait=False)
    time.sleep(0.7)
    cluster[1].start(wait=False)
    for number in (1, 3):  # one is silent: a cluster may be behind it
        node = cluster[number]
        assert eventually(lambda n=node: b"waiting for seed" in answers(n, "/readyz")[1]), node.log()
        assert (answers(node, "/livez")[0], answers(node, "/readyz")[0]) == (200, 503)
    cluster[2].start(wait=False)
    whole(cluster)
    assert len({n.ask("/api/v1/node")["cluster_id"] for n in cluster.nodes}) == 1
    # Founded once: who comes later finds it, though one of the seeds has no name.
    late = cluster.add(4, seeds="no-such-host.invalid:7400," + seeds[1])
    late.start(wait=False)
    whole(cluster)
    assert 4 in nodes_of(cluster[1])


def test_seeds_that_differ_found_one_cluster_or_none(make_cluster):
    """Each of two nodes is the lowest it knows of: only the one that is content with itself founds.
    Three of whom none can know all the others wait, and say why."""
    cluster = make_cluster(2, start=False)
    first, second = cluster.nodes
    second.settings["cluster.seeds"] = second.peer  # the first names both
    for n in cluster.nodes:
        n.start(wait=False)
    cluster.wait_ready()
    assert len({n.ask("/api/v1/node")["cluster_id"] for n in cluster.nodes}) == 1
    assert sorted(nodes_of(first)) == sorted(nodes_of(second)) == [1, 2]

    ring = make_cluster(3, start=False)
    peers = [n.peer for n in ring.nodes]
    for i, n in enumerate(ring.nodes):
        n.settings["cluster.seeds"] = peers[i] + "," + peers[(i + 1) % 3]
        n.start(wait=False)
    for n in ring.nodes:
        assert eventually(lambda n=n: b"other seeds" in answers(n, "/readyz")[1]), n.log()
        assert answers(n, "/readyz")[0] == 503
    for n in ring.nodes:  # put right
        n.stop()
        n.settings["cluster.seeds"] = ",".join(peers)
        n.start(wait=False)
    whole(ring)


def test_seeds_that_cannot_be_found_are_told(make_cluster):
    cluster = make_cluster(1, start=False)
    node = cluster[1]
    node.settings["cluster.seeds"] = "no-such-host.invalid:7400," + node.peer
    node.start(wait=False)
    assert eventually(lambda: "no-such-host.invalid" in node.log()), node.log()
    assert eventually(lambda: answers(node, "/livez")[0] == 200)
    assert eventually(lambda: b"no-such-host.invalid" in answers(node, "/readyz")[1])
    assert answers(node, "/readyz")[0] == 503
    node.stop()


def test_nodes_of_one_id_are_told_apart_before_there_is_a_cluster(make_cluster):
    cluster = make_cluster(2, start=False)
    cluster[2].settings["node.id"] = 1
    for n in cluster.nodes:
        n.start(wait=False)
    assert eventually(lambda: sum(n.is_running() for n in cluster.nodes) == 1)
    gone = next(n for n in cluster.nodes if not n.is_running())
    assert gone.process.wait(10) == 1 and "node.id 1 is in use" in gone.log(), gone.log()


def test_a_removed_node_ends_and_stays_out(cluster):
    """Drained and removed while it runs; started again; and when all others have been restarted
    since. With empty data it comes back."""
    cluster.add(4, seeds=cluster[1].peer).start(wait=False)
    whole(cluster)
    done = cluster[2].cli("cluster", "drain", "4", "--yes", "--wait", "--timeout", "60s",
                          timeout=70)
    assert done.returncode == 0, done.stdout + done.stderr
    done = cluster[2].cli("cluster", "remove", "4", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    ends(cluster[4], "was removed")
    cluster[4].start(wait=False)
    ends(cluster[4], "was removed")
    for number in (1, 2, 3):
        cluster[number].stop()
        cluster[number].start(wait=False)
        whole(cluster)
    cluster[4].start(wait=False)
    ends(cluster[4], "was removed")
    whole(cluster)
    assert sorted(nodes_of(cluster[1])) == [1, 2, 3]
    cluster[4].wipe()
    cluster[4].start(wait=False)
    whole(cluster)
    assert sorted(nodes_of(cluster[1])) == [1, 2, 3, 4]


def test_records_are_posted_to_any_node(cluster):
    """A client of HTTP knows one node: what belongs to another one's partitions is passed on."""
    cluster.create("posted", 6, 1)
    assert len({p["leader"] for p in cluster.partitions("posted")}) > 1
    for n in cluster.nodes:
        for p in range(6):
            status, body, _ = n.request("POST", "/streams/posted/records?partition=%d" % p, b"v")
            assert status in (200, 201), (n.number, p, status, body)


def test_what_is_still_moving_keeps_its_node(make_cluster):
    """A node is not removed while the only copy of something is still on it, and one that lives
    is not removed by force while it has copies."""
    cluster = make_cluster(2, settings={"catchup.rate": "256KiB"}, start=False)
    cluster[1].settings["cluster.seeds"] = cluster[2].settings["cluster.seeds"] = ",".join(
        n.peer for n in cluster.nodes)
    for n in cluster.nodes:
        n.start(wait=False)
    whole(cluster)
    cluster.create("one", 4, 1)
    for i in range(40):
        status, body, _ = cluster[1].request("POST", "/streams/one/records", os.urandom(60000))
        assert status in (200, 201, 204), (i, status, body)
    cluster[1].cli("cluster", "drain", "2", "--yes")
    told = cluster[1].cli("cluster", "remove", "2", "--yes")
    assert told.returncode == 5, told.stdout + told.stderr
    told = cluster[1].cli("cluster", "remove", "2", "--yes", "--force")
    assert told.returncode == 5, told.stdout + told.stderr
    done = cluster[1].cli("cluster", "drain", "2", "--yes", "--wait", "--timeout", "60s",
                          timeout=70)
    assert done.returncode == 0, done.stdout + done.stderr
    assert eventually(lambda: cluster[1].cli("cluster", "remove", "2", "--yes").returncode == 0,
                      15, 0.3)
    ends(cluster[2], "was removed")
    whole(cluster, 1, [cluster[1]])


def test_a_copied_folder_runs_once(cluster):
    twin = cluster.add(9, seeds=cluster[1].peer)
    cluster.nodes.remove(twin)
    cluster[2].stop()
    shutil.copytree(cluster[2].data, twin.data, ignore=shutil.ignore_patterns("*.sock"))
    cluster[2].start(wait=False)
    whole(cluster)
    twin.settings["node.id"] = 2
    twin.start(wait=False)
    try:
        ends(twin, "another process with the data of node 2")
    finally:
        twin.close()
    whole(cluster)
    assert nodes_of(cluster[1])[2]["address"] == cluster[2].peer


def test_more_than_five_nodes(make_cluster):
    """Five of the seven vote on the catalogue, the others follow it; racks are spread over."""
    racks = {1: "a", 2: "a", 3: "a", 4: "b", 5: "b", 6: "c", 7: "c"}
    cluster = make_cluster(7, settings={"loops": 1}, node_settings=lambda n: {
        "node.rack": racks[n]}, start=False)
    for n in cluster.nodes:
        n.start(wait=False)
    whole(cluster)

    def catalogue():
        seen = cluster.any().ask("/api/v1/partitions?internal=true")["partitions"]
        return next(g for g in seen if g["group"] == 1)

    def five_in_all_racks():
        votes = catalogue()["in_sync"]
        return len(votes) == 5 and len({racks[n] for n in votes}) == 3
    assert eventually(five_in_all_racks, 40, 0.3), catalogue()
    cluster.create("spread", 6, 3)
    for p in cluster.partitions("spread"):
        assert len({racks[n] for n in p["replicas"]}) == 3, p
    # One that votes goes for good: another one votes in its place.
    victim = next(n for n in cluster.nodes if n.number in catalogue()["in_sync"] and
                  n.number != catalogue()["leader"])
    victim.kill()
    rest = [n for n in cluster.nodes if n is not victim]
    said = []

    def removed():  # it is refused as long as it counts as alive
        done = rest[0].cli("cluster", "remove", str(victim.number), "--yes", "--force")
        said.append(done.stdout + done.stderr)
        return done.returncode == 0
    assert eventually(removed, 40, 0.5), said[-1]
    whole(cluster, 3, rest)
    assert eventually(lambda: len(catalogue()["in_sync"]) == 5, 30, 0.3), catalogue()


def test_replicas_and_balance_by_command(make_cluster):
    cluster = make_cluster(4)
    whole(cluster)
    cluster.create("grows", 4, 2)
    for wanted in (4, 1, 3):
        done = cluster[2].cli("stream", "alter", "grows", "--replicas", str(wanted))
        assert done.returncode == 0, done.stdout + done.stderr
        assert eventually(lambda w=wanted: all(
            len(p["replicas"]) == len(p["in_sync"]) == w for p in cluster.partitions("grows")),
            30, 0.2), cluster.partitions("grows")
    done = cluster[3].cli("cluster", "balance", "--yes", "--wait", "--timeout", "60s", timeout=70)
    assert done.returncode == 0, done.stdout + done.stderr
    whole(cluster, 3)
    counts = [n["replicas"] for n in cluster[1].ask("/api/v1/cluster")["nodes"]]
    assert max(counts) - min(counts) <= 2, counts


def struck(cluster, dice, within_s):
    """One of those that run is killed after a random while, and started again a random while
    later."""
    time.sleep(dice.random() * within_s)
    victim = dice.choice([n for n in cluster.nodes if n.is_running()])
    victim.kill()
    time.sleep(dice.choice((0, 0.1, 1.0)))
    victim.start(wait=False)
    return victim.number


def test_killed_at_any_moment(make_cluster):
    """kill -9 of whoever, while the cluster is founded, joined by a fourth node, while replicas are
    raised, lowered and balanced, and while the fourth is drained: the end is always whole, nothing
    is left over, nothing acknowledged is lost."""
    seed = int(os.environ.get("LIFE_SEED", random.randrange(1 << 30)))
    print("LIFE_SEED=%d" % seed)
    dice = random.Random(seed)
    for number in range(ROUNDS):
        cluster = make_cluster(3, start=False)
        for n in cluster.nodes:
            n.start(wait=False)
        hit = ["found %d" % struck(cluster, dice, 1.2)]
        whole(cluster)
        x = prepared(cluster, 4)
        producer = Producer(cluster, x, "k", STREAM, rate=200)
        cluster.add(4, seeds=cluster[dice.choice((1, 2, 3))].peer).start(wait=False)
        hit.append("join %d" % struck(cluster, dice, 1.2))
        whole(cluster)
        for what, words in (("raise", ("stream", "alter", STREAM, "--replicas", "4")),
                            ("lower", ("stream", "alter", STREAM, "--replicas", "2")),
                            ("again", ("stream", "alter", STREAM, "--replicas", "3")),
                            ("balance", ("cluster", "balance", "--yes")),
                            ("drain", ("cluster", "drain", "4", "--yes"))):
            done = cluster[2].cli(*words)
            assert done.returncode == 0, (hit, what, done.stdout + done.stderr)
            hit.append("%s %d" % (what, struck(cluster, dice, 0.8)))
            whole(cluster, {"lower": 2}.get(what, 3))
        assert eventually(lambda: nodes_of(cluster[2])[4]["replicas"] <= 1, 30, 0.2), hit
        cluster[4].stop()
        assert eventually(lambda: cluster[2].cli("cluster", "remove", "4", "--yes").returncode
                          == 0, 20, 0.3), hit
        producer.close()
        whole(cluster, nodes=[cluster[i] for i in (1, 2, 3)])
        read_back(cluster, x, STREAM)
        assert wrong(x, [producer]) == {}, hit
        print("round %d: %s; %d acknowledged" % (number, ", ".join(hit), len(x.acked())))
        cluster.close()


def test_changes_and_kills_all_at_once(make_cluster):
    """Nothing waits for anything: replicas, leaders, streams and drains are asked for while nodes
    are killed, also two of four at a time. LIFE_SECONDS of it, then all must come to rest."""
    seed = int(os.environ.get("LIFE_SEED", random.randrange(1 << 30)))
    print("LIFE_SEED=%d" % seed)
    dice = random.Random(seed)
    cluster = make_cluster(4)
    whole(cluster)
    x = prepared(cluster, 4)
    producer = Producer(cluster, x, "k", STREAM, rate=200)
    said = []

    def tell(*words):
        node = dice.choice(cluster.running())
        said.append((node.number, words, node.cli(*words, timeout=60).returncode))

    until = time.monotonic() + float(os.environ.get("LIFE_SECONDS", "12"))
    while time.monotonic() < until:
        what = dice.randrange(8)
        if what < 2:
            down = [n for n in cluster.nodes if n.is_running()]
            for n in dice.sample(down, dice.choice((1, 1, 2))):
                n.kill()
                said.append((n.number, "killed"))
            time.sleep(dice.random())
            for n in cluster.nodes:
                if not n.is_running():
                    n.start(wait=False)
        elif what < 4:
            tell("stream", "alter", STREAM, "--replicas", str(dice.randint(1, 4)))
        elif what == 4:
            tell("cluster", "balance", "--yes")
        elif what == 5:
            tell("cluster", "drain", str(dice.randint(1, 4)), "--yes")
        elif what == 6:
            tell("cluster", "drain", str(dice.randint(1, 4)), "--undo", "--yes")
        else:
            name = "s%d" % dice.randint(1, 3)
            tell("stream", *dice.choice((("create", name, "--partitions", "3"),
                                         ("delete", name, "--yes"))))
        time.sleep(dice.random() * 0.5)
    cluster.wait_ready(30)
    for n in range(1, 5):
        assert eventually(lambda n=n: cluster[1].cli(
            "cluster", "drain", str(n), "--undo", "--yes").returncode == 0, 20, 0.5), said
    assert eventually(lambda: cluster[1].cli(
        "stream", "alter", STREAM, "--replicas", "3").returncode == 0, 20, 0.5), said
    try:
        whole(cluster)
    except AssertionError as e:
        raise AssertionError((e.args, said)) from e
    producer.close()
    read_back(cluster, x, STREAM)
    assert wrong(x, [producer]) == {}, said
    print("%d changes and kills, %d acknowledged" % (len(said), len(x.acked())))
