"""One set of rights behind every door; the command line as somebody new uses it."""
import base64
import json
import os
import socket
import stat
import struct
import subprocess
import threading
import time

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

from kafka_raw import Raw as KafkaRaw, string
from mqtt_client import CONNACK, PUBACK, SUBACK, V5, Client, Raw, connect, publish, subscribe, text
from node import SLUICE, Node, eventually

WAIT_S = 20


def http(node, user, method, path, body=None, more=None):
    headers = dict(more or {})
    if user:
        token = base64.b64encode(("%s:pw-%s" % (user, user)).encode()).decode()
        headers["Authorization"] = "Basic " + token
    return node.request(method, path, body, headers)


def kafka(node, user, **more):
    return {"bootstrap.servers": node.kafka, "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "SCRAM-SHA-256", "sasl.username": user,
            "sasl.password": "pw-" + user, "log_level": 0, **more}


class Secured(Node):
    """The command line speaks to it as its administrator."""

    def as_admin(self, *words, data=None, code=0):
        done = self.cli(*words, "--login", "admin:pw-admin", data=data)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def add_user(self, name, *words):
        self.as_admin("user", "add", name, "--password-stdin", *words, data="pw-%s\n" % name)


@pytest.fixture(scope="module")
def secured():
    node = Secured({"auth.bootstrap": "admin:pw-admin", "auth.fail_delay": "100ms",
                    "group.initial_rebalance_delay": "0"}).start()
    assert eventually(lambda: http(node, "admin", "GET", "/api/v1/users")[0] == 200)
    yield node
    node.close()


@pytest.fixture
def own_node(secured):
    """So that a failure shows its log."""
    return secured


@pytest.fixture
def user(own_node, name):
    own_node.add_user(name)
    return name


# Each door as a function: does the thing, and says whether it was allowed.

def http_publish(node, user, thing):
    return http(node, user, "POST", "/topics/" + thing, b"x")[0] != 403


def http_retained(node, user, thing):
    return http(node, user, "GET", "/topics/" + thing)[0] != 403


def http_produce(node, user, thing):
    return http(node, user, "POST", "/streams/%s/records" % thing, b"x")[0] != 403


def http_read(node, user, thing):
    return http(node, user, "GET", "/streams/%s/records" % thing)[0] != 403


def http_describe(node, user, thing):
    return http(node, user, "GET", "/api/v1/streams/" + thing)[0] != 403


def http_group(node, user, thing):
    return http(node, user, "GET", "/api/v1/groups/" + thing)[0] != 403


def mqtt(node, user):
    raw = Raw(node.mqtt, connect("id-" + user, flags=0xc2,
                                 rest=text(user) + text("pw-" + user)))
    assert raw.expect(CONNACK).body[1] == 0
    return raw


def mqtt_publish(node, user, thing):
    with mqtt(node, user) as raw:
        raw.send(publish(thing, b"x", qos=1, pid=7))
        body = raw.expect(PUBACK).body
        return len(body) < 3 or body[2] < 0x80


def mqtt_subscribe(node, user, thing):
    with mqtt(node, user) as raw:
        raw.send(subscribe(thing))
        return raw.expect(SUBACK).body[-1] < 0x80


def kafka_produce(node, user, thing):
    errors = []
    p = confluent_kafka.Producer(kafka(node, user, **{"message.timeout.ms": 20000}))
    p.produce(thing, b"x", on_delivery=lambda e, _: errors.append(e and e.code()))
    p.flush(30)
    return errors == [None]


def kafka_fetch(node, user, thing):
    with KafkaRaw(node.ports["kafka"]) as raw:
        assert raw.login(user, "pw-" + user) == 0
        answer = raw.ask(1, 4, struct.pack(">iiiibi", -1, 100, 1, 1 << 20, 0, 1) + string(thing) +
                         struct.pack(">iiqi", 1, 0, 0, 1 << 20))
        error = struct.unpack_from(">h", answer, 8 + 2 + len(thing) + 4 + 4)[0]
        assert error in (0, 29)
        return error == 0


def kafka_group(node, user, thing):
    """FindCoordinator"""
    with KafkaRaw(node.ports["kafka"]) as raw:
        assert raw.login(user, "pw-" + user) == 0
        error = struct.unpack_from(">h", raw.ask(10, 1, string(thing) + b"\0"), 4)[0]
        assert error in (0, 30)
        return error == 0


# door, resource, the action that allows it, one that does not
TABLE = [
    (http_publish, "topic", "write", "read"),
    (http_retained, "topic", "read", "write"),
    (mqtt_publish, "topic", "write", "read"),
    (mqtt_subscribe, "topic", "read", "write"),
    (http_produce, "stream", "write", "read"),
    (http_read, "stream", "read", "write"),
    (http_describe, "stream", "describe", "create"),
    (kafka_produce, "stream", "write", "read"),
    (kafka_fetch, "stream", "read", "write"),
    (http_group, "group", "describe", None),
    (kafka_group, "group", "describe", None),
]


@pytest.mark.parametrize("door,resource,action,other", TABLE, ids=lambda v: getattr(
    v, "__name__", None))
def test_door_action_right(own_node, user, door, resource, action, other):
    """Nothing; another action; the action; everything, by role; a deny above it; another thing."""
    thing = {"topic": "t/" + user, "stream": "s-" + user, "group": "g-" + user}[resource]
    if resource == "stream":
        own_node.as_admin("stream", "create", thing, "--partitions", "1", "--wait")
        assert http(own_node, "admin", "POST", "/streams/%s/records" % thing, b"first")[0] == 200
    who, what = ("--user", user), ("--" + resource, thing)
    assert not door(own_node, user, thing)
    if other:
        own_node.as_admin("acl", "add", *who, "--allow", other, *what)
        assert door(own_node, user, thing) == (other == "read" and action == "describe")
    own_node.as_admin("acl", "add", *who, "--allow", action, *what)
    assert door(own_node, user, thing)
    own_node.as_admin("acl", "add", *who, "--deny", "all", *what)
    assert not door(own_node, user, thing)
    own_node.as_admin("acl", "delete", *who, *what, "--yes")
    assert not door(own_node, user, thing)
    own_node.as_admin("acl", "add", "--role", "all-of-" + resource, "--allow", "all",
                      "--" + resource, "*" if resource != "topic" else "#")
    own_node.as_admin("user", "alter", user, "--role", "all-of-" + resource)
    assert door(own_node, user, thing)
    own_node.as_admin("user", "disable", user)
    assert http(own_node, user, "GET", "/api/v1")[0] == 401
    own_node.as_admin("user", "delete", user, "--yes")


def test_nobody_reaches_another_device(own_node, name):
    """A fleet by one rule."""
    own_node.as_admin("acl", "add", "--role", "fleet", "--allow", "read,write", "--topic",
                      "devices/%u/#")
    for device in ("a", "b"):
        own_node.add_user(device + name, "--role", "fleet")
    with Client(own_node.mqtt, "x" + name, login=("a" + name, "pw-a" + name)) as a:
        a.subscribe("devices/a%s/#" % name)
        assert not mqtt_subscribe(own_node, "a" + name, "devices/#")
        assert not mqtt_subscribe(own_node, "a" + name, "devices/b%s/#" % name)
        assert not http_publish(own_node, "b" + name, "devices/a%s/t" % name)
        assert not mqtt_publish(own_node, "b" + name, "devices/a%s/t" % name)
        assert http_publish(own_node, "a" + name, "devices/a%s/t" % name)
        assert a.get().payload == b"x"
        a.quiet()


def test_tenants_with_equal_names(own_node, name):
    """The same stream, topic, group and client id on every door; nobody meets."""
    tenants = {}
    for letter in "xy":
        tenants[letter] = "t%s-%s" % (letter, name.lower().replace("_", "-")[:40])
        own_node.add_user(letter + name, "--tenant", tenants[letter], "--role", "admin")
    listeners = {t: Client(own_node.mqtt, "same", login=(t + name, "pw-%s%s" % (t, name)))
                 for t in "xy"}
    try:
        for t, client in listeners.items():
            client.subscribe("news/#")
            status, body, _ = http(own_node, t + name, "POST", "/api/v1/streams",
                                   json.dumps({"name": "orders", "partitions": 1}))
            assert status == 201, body
        for t in "xy":
            assert http(own_node, t + name, "POST", "/topics/news/1?retain",
                        b"of " + t.encode())[0] == 200
            assert kafka_produce(own_node, t + name, "orders")
            http(own_node, t + name, "POST", "/api/v1/groups/g/reset",
                 json.dumps({"stream": "orders", "to": "latest"}))
        for t, client in listeners.items():
            assert client.get().payload == b"of " + t.encode()
            client.quiet()
            assert http(own_node, t + name, "GET", "/topics/news/1")[1] == b"of " + t.encode()
            group = json.loads(http(own_node, t + name, "GET", "/api/v1/groups/g")[1])
            assert [(o["stream"], o["offset"]) for o in group["offsets"]] == [("orders", 1)]
        names = json.loads(http(own_node, "x" + name, "GET", "/api/v1/streams")[1])
        assert {s["name"] for s in names["streams"]} == {"mqtt", "orders"}
        out = own_node.as_admin("tenant", "list", "-o", "json")
        assert {"name": tenants["x"], "users": 1, "streams": 2, "partitions": 9, "rules": 0,
                "routes": 0, "limits": {}} in json.loads(out)["tenants"]
        out = own_node.as_admin("stream", "list", "--tenant", tenants["y"], "-o", "json")
        assert {s["name"] for s in json.loads(out)["streams"]} == {"mqtt", "orders"}
        own_node.as_admin("stream", "list", "--tenant", "none-such", code=3)
    finally:
        for client in listeners.values():
            client.close()


def test_refused_logins_are_slow_alike_and_told(make_node, name):
    own_node = make_node({"auth.bootstrap": "admin:pw-admin", "loops": "1"})
    assert http(own_node, "admin", "GET", "/api/v1/users")[0] == 200  # ready: it is there
    user, took = name, []
    done = own_node.cli("user", "add", user, "--password", "pw-" + user, "--login",
                        "admin:pw-admin")
    assert done.returncode == 0, done.stderr
    for who in (user, "nobody-" + user):
        token = base64.b64encode(("%s:wrong" % who).encode()).decode()
        for _ in range(2):
            began = time.monotonic()
            status, body, headers = own_node.request(
                "GET", "/api/v1", headers={"Authorization": "Basic " + token})
            took.append(time.monotonic() - began)
            assert status == 401 and b"wrong user or password" in body
            assert headers["WWW-Authenticate"].startswith("Basic realm=")
    # Later with each one from the address.
    assert all(t >= 0.09 * 2 ** i for i, t in enumerate(took)), took
    done = own_node.cli("stream", "list", "--login", user + ":wrong")
    assert done.returncode == 4
    began = time.monotonic()
    assert http(own_node, user, "GET", "/api/v1")[0] == 200
    assert time.monotonic() - began < 0.09 * 2 ** 5  # only refusals wait

    def refused():
        lines = own_node.cli("sub", "__audit", "--offset", "earliest", "-o", "ndjson", "--login",
                             "admin:pw-admin").stdout
        records = [json.loads(json.loads(line)["value"]) for line in lines.splitlines()]
        return [r for r in records if r["what"] == "login-refused" and r["user"] == user]
    assert eventually(refused)
    assert refused()[0]["door"] == "http"
    assert refused()[0]["peer"].startswith("127.0.0.1:")


def test_the_audit_tells_what_was_changed(own_node, user):
    stream = "made-" + user
    own_node.as_admin("stream", "create", stream)
    own_node.as_admin("acl", "add", "--user", user, "--allow", "read", "--stream", stream)
    own_node.as_admin("quota", "set", "--user", user, "bytes-in=10MiB", "connections=100")
    own_node.as_admin("stream", "delete", stream, "--yes")
    own_node.as_admin("user", "delete", user, "--yes")

    def told():
        lines = own_node.as_admin("sub", "__audit", "--offset", "earliest", "-o", "ndjson")
        records = [json.loads(json.loads(line)["value"]) for line in lines.splitlines()]
        return [r["what"] for r in records
                if user in r.get("object", "") and r["user"] == "admin"]
    expected = ["user-add", "stream-create", "rule-add", "quota-set", "stream-delete",
                "user-delete"]
    assert eventually(lambda: told() == expected), told()
    lines = own_node.as_admin("sub", "__audit", "--offset", "earliest", "-o", "ndjson")
    assert "pw-" not in lines
    # It is for administrators of the cluster only.
    own_node.add_user("r" + user)
    own_node.as_admin("acl", "add", "--user", "r" + user, "--allow", "all", "--stream", "*")
    assert not http_read(own_node, "r" + user, "__audit")
    assert http_read(own_node, "r" + user, "mqtt")


def audited(node, about):
    """(what, door, user, result, detail) of what is told of names with that in them."""
    lines = node.as_admin("sub", "__audit", "--offset", "earliest", "-o", "ndjson")
    records = [json.loads(json.loads(line)["value"]) for line in lines.splitlines()]
    return [(r["what"], r["door"], r["user"], r["result"], r.get("detail", "")) for r in records
            if about in r.get("object", "")]


def test_the_audit_tells_what_came_by_kafka(own_node, name):
    admin = AdminClient(kafka(own_node, "admin"))

    def done(futures):
        return [f.result(30) for f in futures.values()]
    done(admin.create_topics([NewTopic(name, 2, 1, config={"retention.ms": "1000"})]))
    done(admin.create_topics([NewTopic(name + "tried", 1, 1)], validate_only=True))
    done(admin.create_partitions([NewPartitions(name, 3)]))
    change = ConfigResource("topic", name)
    change.set_config("retention.ms", "2000")
    done(admin.alter_configs([change]))
    assert kafka_produce(own_node, "admin", name)
    with KafkaRaw(own_node.ports["kafka"]) as raw:
        assert raw.login("admin", "pw-admin") == 0
        raw.ask(21, 0, struct.pack(">i", 1) + string(name) +
                struct.pack(">iiqiqi", 2, 0, -1, 1, -1, 10000))  # DeleteRecords, v0
        commit = (string("g" + name) + struct.pack(">i", -1) + string("") +
                  struct.pack(">qi", -1, 1) + string(name) + struct.pack(">iiq", 1, 0, 0) +
                  string(""))
        assert raw.ask(8, 2, commit)[-2:] == b"\0\0"
        forget = string("g" + name) + struct.pack(">i", 1) + string(name) + struct.pack(
            ">ii", 1, 0)
        assert raw.ask(47, 0, forget)[:2] == b"\0\0"
        raw.ask(42, 0, struct.pack(">i", 1) + string("g" + name))
        raw.ask(3, 4, struct.pack(">i", 1) + string(name + "auto") + b"\1")
    done(admin.delete_topics([name]))
    expected = [("stream-create", "partitions=2 replicas=1 retention.ms=1000 "),
                ("stream-alter", "partitions=3 "), ("stream-alter", "retention.ms=2000 "),
                ("stream-trim", "partitions=2"), ("group-offsets-delete", ""),
                ("group-delete", ""), ("stream-create", "partitions=8 replicas=3 "),
                ("stream-delete", "")]

    def told():
        return [(what, detail) for what, door, user, result, detail in audited(own_node, name)
                if (door, user, result) == ("kafka", "admin", "ok")]
    assert eventually(lambda: sorted(told()) == sorted(expected)), told()


def test_who_comes_by_the_nodes_own_socket_is_named(own_node, name):
    done = own_node.cli("stream", "create", name, server="unix:" + os.path.join(own_node.data, "sluice.sock"))
    assert done.returncode == 0, done.stderr
    me = "uid:%d" % os.getuid()
    assert eventually(lambda: [a[:4] for a in audited(own_node, name)] ==
                      [("stream-create", "http", me, "ok")]), audited(own_node, name)


def test_a_tenant_has_no_more_than_it_may(own_node, name):
    """The same at every door: what would be too much is refused, as each says it."""
    tenant, user = "q-" + name.lower().replace("_", "-")[:40], "q" + name
    own_node.add_user(user, "--tenant", tenant, "--role", "admin")
    own_node.as_admin("quota", "set", "--tenant", tenant, "streams=1", "partitions=8", "users=2",
                      "rules=1", "routes=1")

    def streams(many):
        return http(own_node, user, "POST", "/api/v1/streams", json.dumps(many))
    status, body, _ = streams({"name": "a", "partitions": 9})
    assert status == 403 and b'"quota"' in body and b"may have 8 partitions, and has 0" in body
    assert streams({"name": "a", "partitions": 2})[0] == 201
    assert streams({"name": "b", "partitions": 1})[0] == 403
    admin = AdminClient(kafka(own_node, user))
    future, = admin.create_topics([NewTopic("b", 1, 1)]).values()
    with pytest.raises(confluent_kafka.KafkaException) as raised:
        future.result(30)
    assert raised.value.args[0].code() == confluent_kafka.KafkaError.POLICY_VIOLATION
    assert "may have 1 streams" in raised.value.args[0].str()
    with KafkaRaw(own_node.ports["kafka"]) as raw:
        assert raw.login(user, "pw-" + user) == 0
        answer = raw.ask(3, 4, struct.pack(">i", 1) + string("auto") + b"\1")
        assert struct.pack(">h", 44) + string("auto") in answer
    # The stream of its route can't be made: QoS 1 is told, QoS 0 dropped, neither waits.
    with mqtt(own_node, user) as raw:
        began = time.monotonic()
        raw.send(publish("news", b"x", qos=1, pid=7))
        body = raw.expect(PUBACK).body
        assert body[2] == 0x97 and time.monotonic() - began < 5
    status, body, _ = http(own_node, user, "POST", "/topics/news", b"x")
    assert status == 403 and b'"quota"' in body
    # Room: it goes on by itself.
    assert http(own_node, user, "DELETE", "/api/v1/streams/a")[0] == 204
    assert eventually(lambda: mqtt_publish(own_node, user, "news"))
    own_node.as_admin("user", "add", "q2" + name, "--tenant", tenant, "--no-password")
    own_node.as_admin("user", "add", "q3" + name, "--tenant", tenant, "--no-password", code=4)
    status, body, _ = http(own_node, user, "PUT", "/api/v1/routes/r", b'{"route": "r -> mqtt"}')
    assert status in (200, 204), body
    assert http(own_node, user, "PUT", "/api/v1/routes/s", b'{"route": "s -> mqtt"}')[0] == 403
    assert http(own_node, user, "PUT", "/api/v1/routes/r", b'{"route": "q -> mqtt"}')[0] != 403
    found = json.loads(own_node.as_admin("tenant", "list", "-o", "json"))["tenants"]
    mine = next(t for t in found if t["name"] == tenant)
    assert mine["limits"] == {"streams": 1, "partitions": 8, "users": 2, "rules": 1, "routes": 1}
    assert (mine["streams"], mine["users"], mine["routes"]) == (1, 2, 1)


def test_a_right_taken_away_ends_a_wait(own_node, user):
    stream = "w-" + user
    own_node.as_admin("stream", "create", stream, "--partitions", "1", "--wait")
    own_node.as_admin("acl", "add", "--user", user, "--allow", "read", "--stream", stream)
    got = []
    waiting = threading.Thread(target=lambda: got.append(
        http(own_node, user, "GET", "/streams/%s/records?wait=8s" % stream)))
    waiting.start()
    time.sleep(0.5)
    own_node.as_admin("acl", "delete", "--user", user, "--yes")
    assert http(own_node, "admin", "POST", "/streams/%s/records" % stream, b"secret")[0] == 200
    waiting.join()
    assert got[0][0] == 403 and b"secret" not in got[0][1]


def test_a_new_user_by_the_socket(make_node):
    """auth.anonymous off, nothing set: the socket is the way in."""
    node = make_node({"auth.anonymous": "off"})
    path = os.path.join(node.data, "sluice.sock")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    def sluice(*words, code=0, data="", server="unix:" + path):
        done = node.cli(*words, server=server, data=data)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done
    assert "log in first" in sluice("stream", "list", code=4, server=node.url).stderr
    assert "--password-stdin" in subprocess.run(
        [SLUICE, "user", "add", "root", "--server", "unix:" + path], capture_output=True,
        text=True, stdin=subprocess.DEVNULL, start_new_session=True, check=False).stderr
    sluice("user", "add", "root", "--role", "admin", "--password-stdin", data="p:w\n")
    url = node.url.replace("http://", "http://root:p%3Aw@")
    assert sluice("user", "list", server=url).stdout.split()[-4:] == [
        "root", "default", "admin", "no"]
    sluice("user", "add", "root", "--password", "x", code=5)
    sluice("user", "describe", "nobody", code=3)
    sluice("user", "delete", "nobody", "--yes", code=3)
    sluice("user", "add", "a:b", "--password", "x", code=1)
    sluice("user", "add", "bob", "--password-stdin", "--dry-run", data="x\n")
    sluice("user", "describe", "bob", code=3)
    sluice("user", "add", "bob", "--password-stdin", "--role", "a", "--role", "b", data="x\n")
    assert json.loads(sluice("user", "describe", "bob", "-o", "json").stdout)["roles"] == ["a", "b"]
    assert "would" not in sluice("acl", "list").stdout
    sluice("acl", "add", "--user", "bob", "--allow", "read", code=2)
    sluice("acl", "add", "--user", "bob", "--stream", "s", code=2)
    sluice("acl", "add", "--user", "bob", "--allow", "fly", "--stream", "s", code=1)
    sluice("acl", "add", "--user", "bob", "--allow", "read,write", "--stream", "s", "--prefixed")
    sluice("acl", "delete", "--user", "bob", code=2)  # nobody to ask
    assert len(sluice("acl", "list", "--user", "bob", "-o", "ndjson").stdout.splitlines()) == 2
    sluice("acl", "delete", "--user", "bob", "--allow", "write", "--yes")
    sluice("acl", "delete", "--user", "bob", "--allow", "write", "--yes", code=3)
    sluice("quota", "set", "--user", "bob", "bytes-in=lots", code=1)
    sluice("quota", "set", "bytes-in=1", code=2)
    sluice("quota", "set", "--user", "bob", "bytes-in=64KiB")
    assert "64 KiB" in sluice("quota", "list").stdout
    sluice("quota", "delete", "--user", "bob", "--yes")
    sluice("quota", "delete", "--user", "bob", "--yes", code=3)
    sluice("user", "delete", "root", "--yes", code=5)  # who would administer then?
    sluice("user", "passwd", "root", "--password-stdin", data="new\n")
    sluice("stream", "list", "--login", "root:p:w", code=4, server=node.url)
    sluice("stream", "list", "--login", "root:new", server=node.url)
    # Killed: what is left of the socket is replaced. Stopped in order it goes.
    node.restart()
    sluice("user", "list")
    assert node.stop() == 0
    assert not os.path.exists(path)
    sluice("user", "list", code=6)


def test_a_second_node_leaves_the_socket_alone(make_node):
    node = make_node()
    path = os.path.join(node.data, "sluice.sock")
    second = Node({"data.dir": node.data})
    second.start(wait=False)
    assert second.process.wait(10) == 1
    second.close()
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(b"GET /api/v1/node HTTP/1.1\r\nHost: a\r\n\r\n")
        assert s.recv(100).startswith(b"HTTP/1.1 200")


def test_quota_slows_kafka_mqtt_and_http_together(own_node, user):
    """One bucket for all doors: what one has used the others miss."""
    own_node.as_admin("acl", "add", "--user", user, "--allow", "all", "--topic", "#")
    own_node.as_admin("quota", "set", "--user", user, "messages-in=20")
    began = time.monotonic()
    with Client(own_node.mqtt, "q" + user, V5, login=(user, "pw-" + user)) as c:
        for _ in range(30):
            c.publish("q/" + user, b"x", 1)
        for _ in range(30):
            assert http(own_node, user, "POST", "/topics/q/" + user, b"x")[0] == 200
    assert time.monotonic() - began > 1.5
