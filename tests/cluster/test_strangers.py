"""Who a node talks with: certificates between nodes, versions, and nodes that stay away."""
import struct

import pytest
from certificates import Authority
from node import eventually
from test_life import answers, ends, whole
from test_membership import nodes_of
from test_peers import HELLO, REFUSAL, dial, hello, read_frame


def tls(authority, name, **more):
    cert, key = authority.issue(name)
    return {"peer.tls": "on", "tls.cert": cert, "tls.key": key, "tls.ca": authority.cert, **more}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca2"), "other")


def test_nodes_show_each_other_certificates(make_cluster, authority, other):
    cluster = make_cluster(3, node_settings=lambda n: tls(authority, "node%d" % n))
    whole(cluster)
    cluster.create("s", 2, 3)
    # One of another authority, and one that does not speak TLS: kept out, and both sides say so.
    known = sorted(nodes_of(cluster[1]))
    wrong = cluster.add(4, seeds=cluster[1].peer)
    wrong.settings.update(tls(other, "stranger"))
    plain = cluster.add(5, seeds=cluster[1].peer)
    plain.settings["peer.tls"] = "off"
    blind = cluster.add(6, seeds=cluster[1].peer)  # trusts whom it must, but has no name itself
    blind.settings.update(tls(other, "blind"), **{"tls.ca": authority.cert})
    for n in (wrong, plain, blind):
        n.start(wait=False)
    for n in (wrong, plain, blind):
        assert eventually(lambda n=n: "waiting for seed" in n.log()), n.log()
        assert eventually(lambda n=n: b"waiting for seed" in answers(n, "/readyz")[1]), n.log()
        assert answers(n, "/readyz")[0] == 503
    for n, words in ((cluster[1], "the peer does not trust our certificate's authority"),
                     (wrong, "TLS"), (blind, "TLS"), (plain, "peer.tls")):
        assert eventually(lambda n=n, w=words: w in n.log(100000)), n.log()
    assert all(n.log(100000).count("tls_failed") < 60 for n in cluster.nodes)
    assert sorted(nodes_of(cluster[1])) == known
    for n in (wrong, plain, blind):
        n.stop()
        cluster.nodes.remove(n)
    # The right one comes in.
    cluster.add(7, seeds=cluster[1].peer).start(wait=False)
    whole(cluster)
    cluster[2].kill()
    cluster[2].start(wait=False)
    whole(cluster)


def test_a_version_out_of_reach(cluster):
    """A node of a later world: refused by name, with the versions of both."""
    for versions in ((2, 3), (7, 9), (0, 0)):
        with dial(cluster[1]) as s:
            s.sendall(hello(9, versions=versions))
            got = read_frame(s)
        assert got[4] == REFUSAL, (versions, got)
        code, size = struct.unpack_from(">HH", got, 16)
        words = got[20:20 + size].decode()
        assert code == 1 and "versions %d to %d" % versions in words, (code, words)
    assert eventually(lambda: "speaks versions 7 to 9" in cluster[1].log(100000)), cluster[1].log()
    with dial(cluster[1]) as s:  # the next one knows this one's version, too
        s.sendall(hello(9, versions=(1, 2)))
        assert read_frame(s)[4] == HELLO
    whole(cluster)


def test_a_node_that_stays_away_is_replaced_if_so_configured(make_cluster):
    cluster = make_cluster(4, settings={"cluster.replace_after": "3s"})
    whole(cluster)
    cluster.create("s", 4, 3)
    gone = cluster[4]
    gone.kill()
    assert eventually(lambda: all(
        4 not in p["replicas"] and len(p["in_sync"]) == 3 for p in cluster.partitions("s")),
        60, 0.3), cluster.partitions("s")
    # It comes back with what it had: what was replaced is let go.
    gone.start(wait=False)
    whole(cluster)


def test_a_node_that_stays_away_is_waited_for_by_default(make_cluster):
    cluster = make_cluster(4)
    whole(cluster)
    cluster.create("s", 4, 3)
    cluster[4].kill()
    before = [p["replicas"] for p in cluster.partitions("s", cluster[1])]
    assert any(4 in r for r in before)
    assert not eventually(
        lambda: [p["replicas"] for p in cluster.partitions("s", cluster[1])] != before, 6, 0.5)
    cluster[4].start(wait=False)
    whole(cluster)


def test_data_of_another_cluster_ends_the_node(cluster, make_cluster):
    lone = make_cluster(1, start=False)[1]
    lone.settings.pop("cluster.seeds", None)
    lone.start()
    lone.stop()
    lone.settings.update({"node.id": 1, "cluster.seeds": cluster[2].peer})
    lone.start(wait=False)
    ends(lone, "data.dir is of another cluster")
    assert eventually(lambda: "two clusters" in cluster[2].log(100000)), cluster[2].log()
    # One without data, that is told another name.
    named = make_cluster(1, settings={"cluster.name": "other"}, start=False)[1]
    named.settings.update({"node.id": 7, "cluster.seeds": cluster[2].peer})
    named.start(wait=False)
    assert eventually(lambda: b"of cluster 'sluice', this node of 'other'" in answers(
        named, "/readyz")[1]), named.log()
    assert eventually(lambda: "node 7 is of cluster 'other'" in cluster[2].log(100000))
    whole(cluster)
