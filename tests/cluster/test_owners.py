"""Who owns a session, while nodes die, stand still, come back and are cut off: one owner at a time,
each will once."""
import os
import struct
import threading
import time
from collections import Counter

import history as h
import mqtt_client as mqtt
import pytest
from load import PUBACK, Link
from node import eventually
from test_sessions import client, coordinator

WILL_ROUNDS = int(os.environ.get("WILL_ROUNDS", "3"))
LEASE_S = 2  # of the shared clusters; leaders wait longer by a margin


@pytest.fixture
def cluster(shared):
    return shared


def watcher(node, name):
    watch = client(node, "watch-" + name)
    watch.subscribe("wills/%s/#" % name, 1)
    return watch


def with_will(node, name, number, durable):
    """A session of that name and number; its will says which."""
    return Link(node, "%s-%d" % (name, number), clean=not durable, expiry=600 if durable else 0,
                will=("wills/%s/%d" % (name, number), "gone"))


def check_wills(watch, count, within=40, quiet=1.5):
    """Each of so many wills, once."""
    seen = Counter(m.topic.rsplit("/", 1)[1] for m in watch.take(count, within))
    assert sorted(seen, key=int) == [str(n) for n in range(count)], seen
    watch.quiet(quiet)


def answered(link, topic, pid=1, within=20):
    """Whether a publish at QoS 1 is acknowledged; False: nothing came, or it was closed."""
    try:
        link.raw.send(mqtt.publish(topic, b"x", 1, pid))
        until = time.monotonic() + within
        while time.monotonic() < until:
            got = link.read(within)
            if got.kind == PUBACK and struct.unpack_from(">H", got.body)[0] == pid:
                return len(got.body) < 3 or got.body[2] < 0x80
    except (OSError, EOFError):
        pass
    return False


def table_leaders(cluster, name, wanted=8):
    """A few client ids by the node that leads their table."""
    found = {}
    for n in range(wanted):
        leader = coordinator(cluster, "%s-%d" % (name, n))
        found.setdefault(leader, []).append(n)
    return found


# ---- claims

def claimant(node, client_id, over, claims, clean):
    """Claims, publishes as long as it is answered, again."""
    while not over.is_set():
        asked = time.monotonic()
        try:
            link = Link(node, client_id, clean=clean(len(claims)), expiry=60, within=3)
        except (OSError, EOFError):
            time.sleep(0.01)
            continue
        accepted = time.monotonic()
        last = (asked, accepted)
        try:
            while time.monotonic() < accepted + 0.3 and not over.is_set():
                sent = time.monotonic()
                link.raw.send(mqtt.publish("claims/" + client_id, b"x", 1, 1))
                if link.read(1).kind != PUBACK:
                    break
                last = (sent, time.monotonic())
        except (OSError, EOFError):
            pass
        claims.append((client_id, asked, accepted) + last)
        link.close()


@pytest.mark.parametrize("how", ["durable", "mixed", "leader killed"])
def test_claims_from_all_sides_at_once(cluster, name, how):
    """Three nodes, some client ids, a connection each as fast as they come: who was answered after a
    later claim was accepted is an owner too many. Also while sessions begin and end with their
    connections, and while the leader of their table dies."""
    ids = [name + "-0"] if how != "mixed" else [name + "-0", name + "-1"]
    over, claims = threading.Event(), []
    threads = [threading.Thread(target=claimant, daemon=True, args=(
        n, one, over, claims, lambda at: how == "mixed" and at % 3 == 0))
        for n in cluster.nodes for one in ids]
    for t in threads:
        t.start()
    try:
        if how == "leader killed":
            time.sleep(1)
            coordinator(cluster, ids[0]).kill()
            before = len(claims)
            assert eventually(lambda: len(claims) > before + 10), "claims do not go on"
        time.sleep(2.5)
        assert eventually(lambda: len(claims) > 20)
    finally:
        over.set()
        for t in threads:
            t.join(30)
    assert h.check_claims(claims) == {}


# ---- wills

def test_a_tables_leader_dies_amid_wills(cluster, name):
    """Between a will's publication and its end: who leads next finds out that it was published."""
    count = 60
    victim = coordinator(cluster, name + "-0")
    owner, other = [n for n in cluster.nodes if n is not victim]
    watch = watcher(other, name)
    links = [with_will(owner, name, n, n % 2 == 0) for n in range(count)]
    for link in links:
        link.close()
    first = watch.get()
    victim.kill()
    seen = Counter([first.topic] + [m.topic for m in watch.take(count - 1)])
    assert len(seen) == count and max(seen.values()) == 1, [t for t, n in seen.items() if n > 1]
    watch.quiet(2)
    victim.start(wait=False)
    cluster.wait_ready()
    watch.quiet(2)
    watch.close()


def test_a_node_that_comes_back_has_lost_its_sessions(cluster, name):
    """Another boot is sign enough: nobody waits for a lease. Once, also when it dies again."""
    watch = watcher(cluster[2], name)
    links = [with_will(cluster[1], name, n, n % 2 == 0) for n in range(6)]
    cluster[1].kill()
    cluster[1].start(wait=False)
    cluster.wait_ready()
    check_wills(watch, 6)
    cluster[1].kill()
    watch.quiet(LEASE_S + 2)
    watch.close()
    for link in links:
        link.close()


@pytest.mark.parametrize("count", [6] * WILL_ROUNDS + [120])
def test_a_node_dies_amid_the_wills_of_its_clients(cluster, name, count):
    """They have gone, some of their wills are published, others are on their way: by its death none
    is lost and none comes twice. WILL_ROUNDS repeats it."""
    watch = watcher(cluster[2], name)
    links = [with_will(cluster[1], name, n, n % 2 == 0) for n in range(count)]
    for link in links:
        link.close()
    seen = Counter([watch.get().topic] if count > 6 else [])
    cluster[1].kill()
    cluster[1].start(wait=False)
    seen.update(m.topic for m in watch.take(count - len(seen)))
    assert len(seen) == count, "lost %d" % (count - len(seen))
    watch.quiet(1)
    watch.close()


def test_an_owner_that_stands_still(cluster, name):
    """Longer than its lease, and goes on as if nothing had been: it acknowledges nothing that it
    does not own any more, and its wills are not published again."""
    watch = watcher(cluster[2], name)
    links = [with_will(cluster[1], name, n, durable=True) for n in range(4)]
    clean = with_will(cluster[1], name, 4, durable=False)
    for link in links:
        assert answered(link, "any/" + name)
    cluster[1].pause()
    for link in links:
        link.raw.send(mqtt.publish("any/" + name, b"x", 1, 2))
    check_wills(watch, 5)
    moved = []
    for n in range(2):  # two go elsewhere, two do not
        found = eventually(lambda n=n: try_claim(cluster[3], "%s-%d" % (name, n)), 40, 0.2)
        assert found and found.present
        moved.append(found)
    cluster[1].go_on()
    for link in links[:2]:
        kinds = what_comes(link, 4)
        assert PUBACK not in kinds, "two owners are acknowledged"
    for link in moved:
        assert answered(link, "any/" + name, pid=3)
    for number, link in enumerate(links[2:], 2):
        # Its session is absent: it is closed, or it owns it again.
        if not answered(link, "any/" + name, pid=4, within=5):
            link.close()
            again = eventually(lambda n=number: try_claim(cluster[1], "%s-%d" % (name, n)), 40, 0.2)
            assert again and again.present
            again.raw.send(mqtt.packet(mqtt.DISCONNECT))
            again.close()
        else:
            link.raw.send(mqtt.packet(mqtt.DISCONNECT))
    for link in moved + [clean]:
        link.raw.send(mqtt.packet(mqtt.DISCONNECT))
        link.close()
    watch.quiet(LEASE_S + 2)
    watch.close()


def try_claim(node, client_id):
    try:
        return Link(node, client_id, clean=False, expiry=600, within=5)
    except (OSError, EOFError):
        return None


def what_comes(link, within):
    """Kinds of the packets that come until it is closed or time is up."""
    kinds = []
    try:
        while True:
            kinds.append(link.read(within).kind)
    except (OSError, EOFError, TimeoutError):
        return kinds


# ---- cut off

def test_an_owner_that_is_cut_off_stops_to_acknowledge(linked, name):
    stays = Link(linked[1], name, clean=False, expiry=600)
    linked.network.cut(linked[1], linked.nodes[1:])
    moved = eventually(lambda: try_claim(linked[2], name), 40, 0.2)
    assert moved and moved.present
    assert not answered(stays, "any/topic", within=2), "two owners were acknowledged"
    linked.network.heal()
    assert stays.raw.expect_closed() in (0x8e, None, 0x88, 0x8b)
    assert answered(moved, "any/topic")
    moved.close()


def test_an_owner_cut_off_from_one_tables_leader(linked, name):
    """Sessions of that table stop being acknowledged, those of others go on."""
    tables = table_leaders(linked, name)
    far = next(iter(tables))
    streams = [name + "-%d" % n for n in range(9)]
    for one in streams:  # the messages are to be another leader's business
        linked.create(one, 1, 3)
        stream = linked.leader(one)
        if stream is not far:
            break
    assert stream is not far
    route = '{"route": "t/# -> %s"}' % one
    assert linked[1].request("PUT", "/api/v1/routes/t", route)[0] in (200, 204)
    owner = next(n for n in linked.nodes if n not in (far, stream))
    near = next((n for n in tables if n not in (far, owner)), owner)
    theirs = Link(owner, "%s-%d" % (name, tables[far][0]), clean=False, expiry=600)
    ours = [Link(owner, "%s-%d" % (name, n), clean=False, expiry=600)
            for n in tables.get(near, [])[:1]]
    assert eventually(lambda: answered(theirs, "t/1"))
    linked.network.cut(owner, [far])
    time.sleep(LEASE_S + 1)
    assert not answered(theirs, "t/1", pid=2, within=2), "acknowledged without a lease"
    if coordinator(linked, "%s-%d" % (name, tables[far][0]), [owner]) is far:
        for link in ours:
            assert answered(link, "t/1", pid=2), "a lease of another table was lost"
    linked.network.heal()
    if not answered(theirs, "t/1", pid=3, within=8):
        theirs.close()
        theirs = eventually(
            lambda: try_claim(owner, "%s-%d" % (name, tables[far][0])), 40, 0.2)
        assert theirs and theirs.present
        assert answered(theirs, "t/1", pid=4)
    for link in ours + [theirs]:
        link.close()
