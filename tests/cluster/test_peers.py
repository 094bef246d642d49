"""The door between nodes, spoken to by who is no node, or is one and has gone mad. Whoever knows the
cluster's id and a node's hello may break what that node may break; nobody may end another node."""
import random
import socket
import struct

import history as h
from load import Publisher, read_back
from node import eventually
from test_failover import STREAM, prepared

HELLO, REFUSAL, RAFT, CALL, KINDS = 0x80, 0x81, 1, 2, 16
OPS = (1, 2, 3, 4, 5, 6, 16, 17, 24, 32, 33, 63, 200)
FRAME_BYTES_MAX = 72 << 20


def frame(kind, group, body, length=None):
    return struct.pack(">IBBHQ", length or 16 + len(body), kind, 0, 0, group) + body


def text(b):
    return struct.pack(">H", len(b)) + b


def hello(node, cluster=bytes(16), instance=b"i" * 16, boot=1, versions=(1, 1), name=b"sluice",
          purpose=0, loop=0, address=b"127.0.0.1:1"):
    return frame(HELLO, 0, b"SLUICE-P" + struct.pack(
        ">HHBBHIQQ", *versions, purpose, 0, loop, node, boot, 0) + cluster + instance +
        text(name) + text(b"mad") + text(b"") + text(address))


def dial(node):
    return socket.create_connection((node.host, node.ports["peer"]), timeout=30)


def read_frame(s):
    got = b""
    while len(got) < 16 or len(got) < struct.unpack_from(">I", got)[0]:
        more = s.recv(65536)
        if not more:
            return None
        got += more
    return got


def said_by(node):
    """(cluster, instance, boot) of a node: a probe may ask."""
    with dial(node) as s:
        s.sendall(hello(77, purpose=1))
        got = read_frame(s)
    assert got[4] == HELLO
    return got[52:68], got[68:84], struct.unpack_from(">Q", got, 36)[0]


def answer_to(node, words):
    with dial(node) as s:
        try:
            s.sendall(words)
            got = read_frame(s)
        except ConnectionError:
            got = None
    return "closed" if got is None else \
        got[20:].decode() if got[4] == REFUSAL else "hello"


def body_of(rnd, kind, group):
    """Half of it looks like something."""
    small = bytes(rnd.choice((0, 0, 1, 2, 255)) for _ in range(rnd.randrange(80)))
    rest = small if rnd.random() < 0.5 else rnd.randbytes(rnd.choice((0, 1, 16, 60, 3000)))
    if kind == CALL:
        return struct.pack(">QH6x", rnd.getrandbits(60), rnd.choice(OPS)) + rest
    if kind == RAFT:
        ids = [node << 32 | rnd.randrange(12) for node in (2, 1)]
        numbers = [rnd.choice((0, 1, 2, 5, 1 << 40, 1 << 62, 2**64 - 1)) for _ in range(5)]
        return struct.pack(">BBHQQQQ", 1, rnd.choice((1, 2, 3, 4, 5, 6, 64, 9)), 0, group, *ids,
                           0) + text(b"%d" % ids[0]) + struct.pack(">5Q", *numbers) + small
    return rest


def test_hellos_that_do_not_please(cluster):
    x = prepared(cluster, 1)
    publisher = Publisher(cluster, x, "m", "t/1")
    one, two = cluster[1], cluster[2]
    ours, _, boot = said_by(two)
    assert "versions 2 to 3" in answer_to(one, hello(9, ours, versions=(2, 3)))
    assert "'other'" in answer_to(one, hello(9, b"x" * 16, name=b"other"))
    assert "two clusters" in answer_to(one, hello(9, b"x" * 16))
    assert "id 1" in answer_to(one, hello(1, ours))
    assert "other data" in answer_to(one, hello(2, ours, boot=boot))
    good = hello(9, ours)
    for n in range(0, len(good), 9):
        with dial(one) as s:
            s.sendall(good[:n])
    for length in (1, 15, 4097, FRAME_BYTES_MAX, 0xffffffff):
        assert answer_to(one, frame(HELLO, 0, b"x" * 100, length)) == "closed"
    flood = [dial(one) for _ in range(300)]
    acked = len(x.acked())
    assert eventually(lambda: len(x.acked()) > acked + 50)
    for s in flood:
        s.close()
    assert one.log(1 << 20).count("peer_refused") < 100  # few lines, whoever knocks
    publisher.close()


def test_a_node_that_has_gone_mad(cluster):
    """As node 2, to the others: every kind of frame and call, for groups of all loops."""
    x = prepared(cluster, 2)
    publisher = Publisher(cluster, x, "m", "t/1")
    cluster_id, instance, boot = said_by(cluster[2])
    rnd = random.Random(3)
    groups = [0, 1, 2, 3, 4, 5, 1024, 1025, 99999, 1 << 63]
    for turn in range(40):
        with dial(cluster[1 + turn % 2 * 2]) as s:
            try:
                s.sendall(hello(2, cluster_id, instance, boot, loop=turn % 3,
                                address=cluster[2].peer.encode()))
                assert read_frame(s)[4] == HELLO
                for _ in range(200):
                    kind, group = rnd.choice((RAFT, CALL, rnd.randrange(KINDS))), rnd.choice(groups)
                    s.sendall(frame(kind, group, body_of(rnd, kind, group)))
            except ConnectionError:
                pass
    assert all(n.is_running() for n in cluster.nodes)
    acked = len(x.acked())
    assert eventually(lambda: len(x.acked()) > acked + 100)
    cluster.wait_ready()
    publisher.close()
    read_back(cluster, x, STREAM)
    assert h.check(x, exactly_once=False, in_order=False) == {}
