"""Users and rules made at one node are in force at all, within a second."""
import struct
import time

from kafka_raw import Raw, string
from node import eventually

GROUP, DESCRIBE = 3, 8
# One secret, so one change: a second one is another change of who has logged in by the first.
ONE = ("SCRAM-SHA-256",)
SOON_S = 1.0


def dial(node, user, password):
    """A connection that is logged in; None: it is refused, or can't be had yet."""
    try:
        raw = Raw(node.ports["kafka"], node.host)
    except OSError:
        return None
    try:
        if raw.login(user, password) == 0:
            return raw
    except AssertionError:
        pass
    raw.close()
    return None


def may_describe(raw, group):
    """FindCoordinator: 30 without the right."""
    return struct.unpack_from(">h", raw.ask(10, 0, string(group)))[0] != 30


def in_force_soon(tell, holds, tries=5):
    """tell(n) makes a change, which holds(n) at all nodes in the end; within a second, unless the
    machine does much else, and that not each time."""
    took = []
    for n in range(tries):
        tell(n)
        told = time.monotonic()
        assert eventually(lambda n=n: holds(n)), n
        took.append(time.monotonic() - told)
        if took[-1] < SOON_S:
            return
    raise AssertionError(took)


def test_what_one_node_is_told_holds_at_all(make_cluster):
    cluster = make_cluster(3, {"auth.bootstrap": "admin:secret", "auth.anonymous": "off"},
                           start=False)
    for node in cluster.nodes:
        node.start(wait=False)
    admin = eventually(lambda: dial(cluster[1], "admin", "secret"))
    assert admin

    def all_let_in(user, password):
        links = [dial(n, user, password) for n in cluster.nodes]
        for link in links:
            if link:
                link.close()
        return all(links)
    in_force_soon(lambda n: admin.put_user("user%d" % n, "one", ONE),
                  lambda n: all_let_in("user%d" % n, "one"))
    admin.put_user("ann", "pw", ONE)
    anns = [eventually(lambda n=n: dial(n, "ann", "pw")) for n in cluster.nodes]
    assert all(anns)
    assert not any(may_describe(a, "g0") for a in anns)
    in_force_soon(lambda n: admin.allow("ann", GROUP, "g%d" % n, DESCRIBE),
                  lambda n: all(may_describe(a, "g%d" % n) for a in anns))
    # Taken by another node, which has the same administrator.
    other = eventually(lambda: dial(cluster[3], "admin", "secret"))

    def change(number):
        for link in anns:
            link.close()
        password = "pw%d" % (number - 1) if number else "pw"
        anns[:] = [eventually(lambda n=n: dial(n, "ann", password)) for n in cluster.nodes]
        other.put_user("ann", "pw%d" % number, ONE)
    in_force_soon(change, lambda _: [a.receive() for a in anns] == [None] * 3)
    assert dial(cluster[2], "ann", "pw") is None
    assert any(dial(cluster[2], "ann", "pw%d" % n) for n in range(5))
