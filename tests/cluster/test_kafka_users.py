"""Users and rules made at one node are in force at all, within a second."""
import struct
import time

from kafka_raw import Raw, string
from node import eventually

GROUP, DESCRIBE = 3, 8
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


def test_what_one_node_is_told_holds_at_all(make_cluster):
    cluster = make_cluster(3, {"auth.bootstrap": "admin:secret", "auth.anonymous": "off"},
                           start=False)
    for node in cluster.nodes:
        node.start(wait=False)
    admin = eventually(lambda: dial(cluster[1], "admin", "secret"), 30)
    assert admin
    admin.put_user("ann", "one")
    told = time.monotonic()
    anns = [eventually(lambda n=n: dial(n, "ann", "one"), 10) for n in cluster.nodes]
    assert all(anns)
    assert time.monotonic() - told < SOON_S + 1  # three logins, each with a slow hash
    assert not any(may_describe(a, "g") for a in anns)
    admin.allow("ann", GROUP, "g", DESCRIBE)
    told = time.monotonic()
    assert eventually(lambda: all(may_describe(a, "g") for a in anns), 10)
    assert time.monotonic() - told < SOON_S
    # Taken by another node, which has the same administrator.
    other = dial(cluster[3], "admin", "secret")
    other.put_user("ann", "two")
    told = time.monotonic()
    assert [a.receive() for a in anns] == [None] * 3
    assert time.monotonic() - told < SOON_S
    assert dial(cluster[2], "ann", "one") is None
    assert dial(cluster[2], "ann", "two")
