"""Two tenants on two nodes: what one may have is counted for all nodes together, and nothing of one
reaches the other, not even where messages go from node to node without a log."""
import base64
import json
import threading

import pytest

from cluster import Cluster
from mqtt_client import Client
from node import eventually

TENANTS = ("acme", "bolt")


def http(node, user, method, path, body=None):
    token = base64.b64encode(("%s:pw-%s" % (user, user)).encode()).decode()
    status, answer, _ = node.request(method, path, json.dumps(body) if body else None,
                                     {"Authorization": "Basic " + token})
    return status, answer


@pytest.fixture(scope="module")
def tenants():
    """Two nodes; acme and bolt each have an administrator of the same name as itself."""
    cluster = Cluster(2, {"auth.bootstrap": "admin:pw-admin", "auth.anonymous": "off",
                          "stream.partitions": 1})
    try:
        for node in cluster.nodes:
            node.start(wait=False)
        cluster.wait_ready()
        assert eventually(lambda: all(http(n, "admin", "GET", "/api/v1/users")[0] == 200
                                      for n in cluster.nodes))
        for t in TENANTS:
            assert http(cluster[1], "admin", "POST", "/api/v1/users",
                        {"name": t, "password": "pw-" + t, "tenant": t,
                         "roles": ["admin"]})[0] == 201
        assert eventually(lambda: http(cluster[2], "bolt", "GET", "/api/v1")[0] == 200)
        yield cluster
    finally:
        cluster.close()


def has(cluster, tenant):
    found = json.loads(http(cluster[1], "admin", "GET", "/api/v1/tenants")[1])["tenants"]
    return next(t for t in found if t["name"] == tenant)


def at_both(cluster, count, what):
    """what(node, number) by each node at the same time, count times each."""
    statuses = []

    def work(node):
        for number in range(count):
            statuses.append(what(node, number))
    workers = [threading.Thread(target=work, args=(n,)) for n in cluster.nodes]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    return statuses


def test_two_nodes_do_not_pass_a_limit_together(tenants):
    limits = {"streams": 11, "partitions": 15, "users": 6, "rules": 7, "routes": 5}
    assert http(tenants[1], "admin", "PUT", "/api/v1/quotas/tenant/acme", limits)[0] == 200
    assert eventually(lambda: http(tenants[2], "admin", "GET", "/api/v1/quotas")[1] ==
                      http(tenants[1], "admin", "GET", "/api/v1/quotas")[1])
    for what, make in (
            ("streams", lambda n, i: http(n, "acme", "POST", "/api/v1/streams",
                                          {"name": "s%d-%d" % (n.number, i)})),
            ("partitions", lambda n, i: http(n, "acme", "PATCH", "/api/v1/streams/s%d-%d" %
                                             (n.number, i), {"partitions": 2})),
            ("users", lambda n, i: http(n, "acme", "POST", "/api/v1/users",
                                        {"name": "u%d-%d" % (n.number, i)})),
            ("rules", lambda n, i: http(n, "acme", "POST", "/api/v1/acls",
                                        {"user": "acme", "permission": "allow", "action": "read",
                                         "resource": "stream",
                                         "name": "s%d-%d" % (n.number, i)})),
            ("routes", lambda n, i: http(n, "acme", "PUT", "/api/v1/routes/r%d-%d" % (n.number, i),
                                         {"route": "r/%d -> s1-0" % i}))):
        before = has(tenants, "acme")[what]
        answers = at_both(tenants, 10, make)
        taken = [a for a in answers if a[0] in (200, 201, 204)]
        assert before + len(taken) == limits[what], (what, before, answers)
        # What the other node has made last this one hears of a moment later.
        assert eventually(lambda w=what: has(tenants, "acme")[w] == limits[w]), (what, answers)
        refused = [json.loads(a[1])["error"] for a in answers if a[0] == 403]
        assert refused and all(r["code"] == "quota" for r in refused), answers
        assert all("may have %d %s" % (limits[what], what) in r["message"] for r in refused)
        assert {a[0] for a in answers} <= {200, 201, 204, 403, 404}, answers
    assert has(tenants, "acme")["limits"] == limits
    # The other one has its own.
    assert http(tenants[2], "bolt", "POST", "/api/v1/streams", {"name": "s1-0"})[0] == 201


def test_memory_routes_of_tenants_do_not_meet(tenants):
    """The same topics, routes, streams and client ids, at both nodes, both ways at once."""
    assert http(tenants[1], "admin", "DELETE", "/api/v1/quotas/tenant/acme")[0] in (204, 404)
    for t in TENANTS:
        assert http(tenants[1], t, "PUT", "/api/v1/routes/fast",
                    {"route": "fast/# -> fast durability=memory"})[0] in (200, 204)

    def known(node, tenant):
        routes = json.loads(http(node, tenant, "GET", "/api/v1/routes")[1])["routes"]
        return any(r["name"] == "fast" for r in routes)
    assert eventually(lambda: all(known(n, t) for n in tenants.nodes for t in TENANTS))

    def client(node, tenant, name):
        return Client(node.mqtt, name, host=node.host, login=(tenant, "pw-" + tenant))
    watches = {(t, n): client(n, t, "w%d" % n.number) for t in TENANTS for n in tenants.nodes}
    for w in watches.values():
        w.subscribe("fast/#", 1)
    speakers = {(t, n): client(n, t, "p%d" % n.number) for t in TENANTS for n in tenants.nodes}
    for number in range(50):
        for (t, n), s in speakers.items():
            s.publish("fast/%d" % n.number, ("%s %d" % (t, number)).encode(), 1)
    for (t, _), w in watches.items():
        got = [(m.topic, m.payload.decode()) for m in w.take(100)]
        for n in tenants.nodes:
            assert [v for topic, v in got if topic == "fast/%d" % n.number] == \
                ["%s %d" % (t, number) for number in range(50)], (t, got)
    for w in watches.values():
        w.quiet(0.5)
    for c in (*watches.values(), *speakers.values()):
        c.close()
