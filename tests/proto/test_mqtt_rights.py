"""Logins, rights, tenants and quotas as MQTT's own clients meet them."""
import base64
import hashlib
import hmac
import json
import re
import ssl
import struct
import subprocess
import time

import pytest

from certificates import Authority
from mqtt_client import (AUTH, CONNACK, DISCONNECT, PUBACK, V311, V5, Client, Raw, connect, packet,
                         properties, publish, text, varint)
from node import PLAIN_DOORS, Node, eventually

ADMIN = ("admin", "secret")
VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


class Secured(Node):
    def ask(self, method, path, body=None):
        """What an administrator asks over HTTP."""
        status, answer, _ = self.request(
            method, "/api/v1" + path, json.dumps(body) if body is not None else None,
            {**self.login(), "Content-Type": "application/json"})
        return status, answer

    def done(self, *words):
        status, answer = self.ask(*words)
        assert status in (200, 201, 204), (words, status, answer)

    def kept(self, topic):
        """What is retained there; None: nothing."""
        status, body, _ = self.request("GET", "/topics/" + topic, None, self.login())
        assert status in (200, 404), (status, body)
        return body if status == 200 else None

    @staticmethod
    def login():
        return {"Authorization": "Basic " + base64.b64encode(b"admin:secret").decode()}

    def metric(self, name):
        return int(re.search(r"^%s (\d+)$" % name, self.ask_metrics(), re.M)[1])

    def ask_metrics(self):
        return self.request("GET", "/metrics", None, self.login())[1].decode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@pytest.fixture(scope="module")
def secured(authority):
    cert, key = authority.issue("server")
    node = Secured({"auth.bootstrap": "admin:secret", "auth.anonymous": "off",
                    "auth.fail_delay": "20ms", "tls.cert": cert, "tls.key": key,
                    "tls.ca": authority.cert, "tls.client": "optional",
                    "route.memory": "memory/# -> memory durability=memory"},
                   doors=PLAIN_DOORS + ("mqtts",)).start()
    assert eventually(lambda: node.ask("GET", "/users")[0] == 200)
    yield node
    node.close()


@pytest.fixture
def own_node(secured):
    """So that a failure shows its log."""
    assert secured.is_running()
    yield secured
    assert secured.is_running(), "the node died:\n" + secured.log()


@pytest.fixture
def user(own_node, name):
    own_node.done("POST", "/users", {"name": name, "password": "pw-" + name})
    return name


def login(user):
    return user, "pw-" + user


@pytest.fixture
def rule(own_node):
    def add(user, action, topic, permission="allow"):
        own_node.done("POST", "/acls", {"rules": [
            {"user": user, "permission": permission, "action": action, "resource": "topic",
             "name": topic}]})

    def remove(user, **more):
        query = "&".join("%s=%s" % pair for pair in {"user": user, **more}.items())
        own_node.done("DELETE", "/acls?" + query)
    add.remove = remove
    return add


@pytest.fixture
def admin(own_node):
    with Client(own_node.mqtt, login=ADMIN) as client:
        yield client


def mosquitto(node, tool, *words, port=None, within=60):
    return subprocess.run([tool, "-h", "127.0.0.1", "-p", str(port or node.mqtt), *map(str, words)],
                          capture_output=True, text=True, timeout=within, check=False)


@VERSIONS
def test_logins(own_node, user, version):
    bad_login, denied = (0x86, 0x87) if version == V5 else (4, 5)
    with Client(own_node.mqtt, version=version, login=login(user)):
        pass
    for who, code in (((user, "wrong"), bad_login), (("nobody-" + user, "x"), bad_login),
                      (None, denied)):
        client = Client(own_node.mqtt, version=version, login=who, connect=False)
        assert client.connect(expect=None)["code"] == code
        client.paho.loop_stop()


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto(own_node, user, rule, version):
    mine, other = user + "/mine", user + "/other"
    rule(user, "write", mine)
    rule(user, "read", user + "/#")
    who = ("-V", version, "-u", user, "-P", "pw-" + user)
    assert mosquitto(own_node, "mosquitto_pub", *who, "-t", mine, "-m", "v", "-q", 1,
                     "-r").returncode == 0
    done = mosquitto(own_node, "mosquitto_pub", *who, "-t", other, "-m", "v", "-q", 1, "-r")
    if version == "mqttv5":
        assert "Not authorized" in done.stderr, done
    got = mosquitto(own_node, "mosquitto_sub", *who, "-t", user + "/#", "-q", 1, "-v", "-C", 1,
                    "-W", 30)
    assert got.stdout == mine + " v\n", got
    assert own_node.kept(mine) == b"v" and own_node.kept(other) is None
    got = mosquitto(own_node, "mosquitto_sub", *who, "-t", "#", "-W", 30)
    assert got.stdout == "" and "denied" in (got.stderr + got.stdout).lower(), got
    done = mosquitto(own_node, "mosquitto_pub", "-V", version, "-u", user, "-P", "x", "-t", mine,
                     "-m", "v")
    assert done.returncode != 0


@VERSIONS
def test_a_certificate_is_a_login(own_node, authority, user, rule, admin, version):
    pair = authority.issue(user)  # its common name
    context = ssl.create_default_context(cafile=str(authority.cert))
    context.load_cert_chain(*map(str, pair))
    rule(user, "write", user)
    admin.subscribe(user + "/#")
    with Client(own_node.ports["mqtts"], version=version, tls=context) as client:
        client.publish(user + "/no", b"n", 1, wait=False)
        client.publish(user, b"x", 1)
        assert admin.get().payload == b"x"
    stranger = ssl.create_default_context(cafile=str(authority.cert))
    stranger.load_cert_chain(*map(str, authority.issue(user + "-unknown")))
    client = Client(own_node.ports["mqtts"], version=version, tls=stranger, connect=False)
    assert client.connect(expect=None)["code"] == (0x87 if version == V5 else 5)
    client.paho.loop_stop()


def test_mosquitto_with_a_certificate(own_node, authority, user, rule):
    cert, key = authority.issue(user)
    rule(user, "all", user)
    who = ("--cafile", authority.cert, "--cert", cert, "--key", key)
    port = own_node.ports["mqtts"]
    assert mosquitto(own_node, "mosquitto_pub", *who, "-t", user, "-m", "v", "-r", "-q", 1,
                     port=port).returncode == 0
    got = mosquitto(own_node, "mosquitto_sub", *who, "-t", user, "-C", 1, "-W", 30, port=port)
    assert got.stdout == "v\n", got


@VERSIONS
def test_publishing(own_node, user, rule, admin, version):
    """By name, by client id; a deny under an allow; what may not be is told, counted and gone."""
    rule(user, "write", user + "/%c/#")
    rule(user, "write", "%u/by/name")
    rule(user, "write", user + "/%c/closed/#", "deny")
    admin.subscribe(user + "/#", 1)
    before = own_node.metric("sluice_mqtt_publish_denied_total")
    with Client(own_node.mqtt, "c-" + user, version=version, login=login(user)) as client:
        allowed = [user + "/c-" + user + "/open", user + "/by/name"]
        denied = [user + "/other/open", user + "/c-" + user + "/closed/x"]
        for qos in (0, 1, 2):
            for topic in denied + allowed:
                client.publish(topic, topic, qos)
    got = sorted(m.payload.decode() for m in admin.take(6))
    assert got == sorted(allowed * 3)
    admin.quiet()
    assert own_node.metric("sluice_mqtt_publish_denied_total") == before + 6


def test_publishing_tells_why(own_node, user, rule):
    rule(user, "write", user)
    flags = 0xc2
    with Raw(own_node.mqtt, connect(user, flags=flags, rest=text(user) + text("pw-" + user))) as raw:
        assert raw.expect(CONNACK).body[1] == 0
        raw.send(publish(user, qos=1, pid=1), publish("x" + user, qos=1, pid=2))
        assert raw.expect(PUBACK).body == b"\0\1"
        assert raw.expect(PUBACK).body[:3] == b"\0\2\x87"


def test_user_id_is_not_forged(own_node, user, rule, admin):
    rule(user, "write", user)
    admin.subscribe(user)
    with Client(own_node.mqtt, login=login(user)) as client:
        client.publish(user, b"", 1, UserProperty=[("user-id", "admin"), ("a", "b"),
                                                   ("user-id", user)])
    assert admin.get().properties.UserProperty == [("a", "b"), ("user-id", user)]


@VERSIONS
def test_a_will_needs_the_right(own_node, user, rule, version):
    will = {"topic": user + "/will", "payload": "x"}
    client = Client(own_node.mqtt, version=version, login=login(user), will=will, connect=False)
    assert client.connect(expect=None)["code"] == (0x87 if version == V5 else 5)
    client.paho.loop_stop()
    rule(user, "write", user + "/will")
    Client(own_node.mqtt, version=version, login=login(user), will=will).close()


@pytest.mark.parametrize("expiry", [60, 0], ids=["session", "clean"])
@pytest.mark.parametrize("what", ["rule", "user"])
def test_a_will_that_waits_needs_the_right_when_it_leaves(own_node, user, rule, admin, what,
                                                          expiry):
    """expiry 0: it leaves at once, and with a right."""
    def leave(delay):
        will = {"topic": user + "/will", "payload": "x",
                "properties": properties("willmessage", WillDelayInterval=delay)}
        Client(own_node.mqtt, "c-" + user, login=login(user), will=will, expiry=expiry).drop()
    rule(user, "write", user + "/will")
    admin.subscribe(user + "/#")
    leave(1)
    assert admin.get().payload == b"x"
    if expiry == 0:
        return
    leave(4)  # while it waits its right is taken away
    if what == "rule":
        rule.remove(user)
    else:
        own_node.done("DELETE", "/users/" + user)
    admin.quiet(5.5)


@VERSIONS
def test_subscribing(own_node, user, rule, admin, version):
    no = 0x87 if version == V5 else 0x80
    rule(user, "read", user + "/%c/#")
    rule(user, "read", user + "/%c/closed", "deny")
    with Client(own_node.mqtt, "c-" + user, version=version, login=login(user)) as client:
        own = user + "/c-" + user
        assert client.subscribe(user + "/#", expect_ok=False) == no
        assert client.subscribe(user + "/c-another/#", expect_ok=False) == no
        assert client.subscribe(own + "/closed", expect_ok=False) == no
        client.subscribe(own + "/#", 1)
        for last in ("a", "closed", "b"):
            admin.publish(own + "/" + last, last, 1)
        assert sorted(m.payload for m in client.take(2)) == [b"a", b"b"]
        client.quiet()


@VERSIONS
def test_a_right_taken_away_stops_within_a_second(own_node, user, rule, admin, version):
    rule(user, "read", user + "/a")
    rule(user, "read", user + "/b")
    with Client(own_node.mqtt, user, version=version, login=login(user)) as client:
        client.subscribe(user + "/a", 1)
        client.subscribe(user + "/b", 1)
        for topic in "ab":
            admin.publish(user + "/" + topic, topic, 1)
        client.take(2)
        rule.remove(user, name=user + "/a")
        time.sleep(1)
        for topic in "ab":
            admin.publish(user + "/" + topic, topic, 1)
        assert client.get().payload == b"b"
        client.quiet()


@VERSIONS
def test_a_session_comes_back_with_fewer_rights(own_node, user, rule, admin, version):
    rule(user, "read", user + "/#")
    more = {"expiry": 600} if version == V5 else {}
    own = {"version": version, "login": login(user), "clean": False, **more}
    client = Client(own_node.mqtt, user, **own)
    client.subscribe(user + "/#", 1)
    client.subscribe(user + "/b", 1)
    client.drop()
    for topic in "ab":
        admin.publish(user + "/" + topic, topic, 1)
    rule(user, "read", user + "/b")
    rule.remove(user, name=user + "/%23")
    with Client(own_node.mqtt, user, **own) as client:
        assert client.connack["session"]
        assert client.get().payload == b"b"
        client.quiet()


def test_who_is_deleted_is_sent_away(own_node, user, rule):
    with Raw(own_node.mqtt,
             connect(user, flags=0xc2, rest=text(user) + text("pw-" + user))) as raw:
        assert raw.expect(CONNACK).body[1] == 0
        own_node.done("DELETE", "/users/" + user)
        raw.expect_closed(0x87, within=1)
    client = Client(own_node.mqtt, login=login(user), connect=False)
    assert client.connect(expect=None)["code"] == 0x86
    client.paho.loop_stop()


def test_a_new_password_ends_connections(own_node, user):
    with Raw(own_node.mqtt,
             connect(user, flags=0xc2, rest=text(user) + text("pw-" + user))) as raw:
        assert raw.expect(CONNACK).body[1] == 0
        own_node.done("PATCH", "/users/" + user, {"password": "new"})
        raw.expect_closed(0x87, within=1)
    Client(own_node.mqtt, login=(user, "new")).close()


@VERSIONS
def test_tenants_have_equal_names(own_node, name, version):
    clients = {}
    kept = {"version": version, "clean": False, **({"expiry": 600} if version == V5 else {})}
    for tenant in ("a" + name, "b" + name):
        own_node.done("POST", "/users", {"name": "u" + tenant, "password": "pw-u" + tenant,
                                         "tenant": tenant, "roles": ["admin"]})
        clients[tenant] = Client(own_node.mqtt, "one-id", login=login("u" + tenant), **kept)
    for client in clients.values():
        client.subscribe("#", 1)
    for tenant, client in clients.items():
        client.publish("one/topic", tenant, 1, retain=True)
    for tenant, client in clients.items():
        got = client.get()
        assert (got.topic, got.payload) == ("one/topic", tenant.encode())
        client.quiet()
    for tenant, client in clients.items():
        client.drop()
        with Client(own_node.mqtt, "one-id", login=login("u" + tenant), **kept) as again:
            assert again.connack["session"]
            again.subscribe("one/+")
            assert again.get().payload == tenant.encode()


def connack_code(node, user):
    client = Client(node.mqtt, login=login(user), connect=False)
    code = client.connect(expect=None)["code"]
    client.paho.loop_stop() if code else client.close()
    return code


def test_a_quota_slows_down(own_node, user, rule, admin):
    rule(user, "all", user)
    own_node.done("PUT", "/quotas/user/" + user, {"messages-in": 50})
    admin.subscribe(user, 1)
    with Client(own_node.mqtt, login=login(user)) as client:
        began = time.monotonic()
        for i in range(150):
            client.publish(user, b"%d" % i, 1, wait=False)
        assert [int(m.payload) for m in admin.take(150)] == list(range(150))
        assert time.monotonic() - began > 1.5
        own_node.done("PUT", "/quotas/user/" + user, {"bytes-out": 20000})
        client.subscribe(user, 1)
        began = time.monotonic()
        for i in range(60):
            admin.publish(user, b"x" * 1000, 1, wait=False)
        client.take(60)
        assert time.monotonic() - began > 1.5
        own_node.done("PUT", "/quotas/user/" + user, {"connections": 1})
        assert eventually(lambda: connack_code(own_node, user) == 0x97)
        client.publish(user, b"", 1)


def is_read(raw):
    """Sends PINGREQ; whether the answer comes soon."""
    raw.send(packet(12))
    try:
        raw.expect(13, within=0.5)
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("limit", [None, 10 ** 9], ids=["taken away", "raised"])
def test_a_change_of_a_quota_ends_the_wait(own_node, user, rule, limit):
    rule(user, "all", user)
    name, password = login(user)
    hello = connect(user, flags=0xC2, rest=text(name) + text(password))
    with Raw(own_node.mqtt, hello) as raw, Client(own_node.mqtt, login=login(user)) as reader:
        raw.expect(CONNACK)
        reader.subscribe(user)
        own_node.done("PUT", "/quotas/user/" + user, {"bytes-in": 1, "bytes-out": 1})

        def waits():
            raw.send(publish(user, b"x" * 100, 1))
            raw.expect(PUBACK)
            return not is_read(raw)

        assert eventually(waits)  # for a minute, unless the quota changes
        reader.get()
        if limit is None:
            own_node.done("DELETE", "/quotas/user/" + user)
        else:
            own_node.done("PUT", "/quotas/user/" + user,
                          {"bytes-in": limit, "bytes-out": limit})
        raw.expect(13, within=30)
        for i in range(200):
            raw.send(publish(user, b"y" * 100, 1))
            raw.expect(PUBACK, within=30)
        while reader.get(within=30).payload[:1] != b"y":
            pass
        reader.take(199, within=30)


def test_nobody_waits_for_who_is_over_a_quota_on_a_memory_route(own_node, user, rule, admin):
    """What it is not sent is dropped at once: nothing is kept for it, and nobody held up."""
    topic = "memory/" + user
    rule(user, "read", topic)
    own_node.done("PUT", "/quotas/user/" + user, {"messages-out": 5})
    admin.subscribe(topic, 0)
    with Client(own_node.mqtt, login=login(user)) as slow:
        slow.subscribe(topic, 0)
        for i in range(100):
            admin.publish(topic, b"%d" % i, 1)
        assert [int(m.payload) for m in admin.take(100)] == list(range(100))

        def dropped():
            return own_node.metric(r'sluice_mqtt_dropped_total\{why="quota"\}')
        assert eventually(lambda: dropped() + slow.messages.qsize() == 100)
        assert 0 < slow.messages.qsize() < 100

        def hears_again():
            admin.publish(topic, b"again", 1)
            return slow.messages.queue[-1].payload == b"again"
        assert eventually(hears_again, every=1)


# ---- enhanced authentication

def auth_properties(method, data):
    return b"\x15" + text(method) + b"\x16" + text(data)


def parse_auth(body, at):
    """(reason, data) of an AUTH or CONNACK whose properties begin at."""
    reason, found = body[at - 1], re.search(rb"\x16(..)", body[at:], re.S)
    size = struct.unpack(">H", found[1])[0]
    return reason, body[at + found.end():at + found.end() + size].decode()


class Scram:
    def __init__(self, method, user, password):
        self.digest = "sha" + method.rsplit("-")[-1]
        self.password = password.encode()
        self.bare = "n=%s,r=%s" % (user, base64.b64encode(user.encode()).decode())
        self.first = "n,," + self.bare

    def mac(self, key, data):
        return hmac.new(key, data, self.digest).digest()

    def last(self, server_first):
        parts = dict(p.split("=", 1) for p in server_first.split(","))
        salted = hashlib.pbkdf2_hmac(self.digest, self.password, base64.b64decode(parts["s"]),
                                     int(parts["i"]))
        key = self.mac(salted, b"Client Key")
        start = "c=biws,r=" + parts["r"]
        said = ",".join((self.bare, server_first, start)).encode()
        signature = self.mac(hashlib.new(self.digest, key).digest(), said)
        self.want = "v=" + base64.b64encode(self.mac(self.mac(salted, b"Server Key"),
                                                     said)).decode()
        proof = bytes(a ^ b for a, b in zip(key, signature))
        return start + ",p=" + base64.b64encode(proof).decode()


def send_auth(raw, reason, method, data):
    props = auth_properties(method, data)
    raw.send(packet(AUTH, bytes([reason]) + varint(len(props)) + props))


@pytest.mark.parametrize("method", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_enhanced_authentication(own_node, user, rule, method):
    rule(user, "write", user)
    scram = Scram(method, user, "pw-" + user)
    with Raw(own_node.mqtt, connect(props=auth_properties(method, scram.first))) as raw:
        reason, first = parse_auth(raw.expect(AUTH).body, 1)
        assert reason == 0x18
        send_auth(raw, 0x18, method, scram.last(first))
        assert parse_auth(raw.expect(CONNACK).body, 2) == (0, scram.want)
        raw.send(publish(user, qos=1, pid=1), publish("x" + user, qos=1, pid=2))
        assert raw.expect(PUBACK).body == b"\0\1"
        assert raw.expect(PUBACK).body[:3] == b"\0\2\x87"
        send_auth(raw, 0x19, method, scram.first)
        reason, first = parse_auth(raw.expect(AUTH).body, 1)
        send_auth(raw, 0x18, method, scram.last(first))
        assert parse_auth(raw.expect(AUTH).body, 1) == (0, scram.want)
        scram.password = b"wrong"
        send_auth(raw, 0x19, method, scram.first)
        _, first = parse_auth(raw.expect(AUTH).body, 1)
        send_auth(raw, 0x18, method, scram.last(first))
        assert raw.expect(DISCONNECT).body[0] == 0x87
        raw.expect_closed()
    with Raw(own_node.mqtt, connect(props=auth_properties(method, scram.first))) as raw:
        _, first = parse_auth(raw.expect(AUTH).body, 1)
        send_auth(raw, 0x18, method, scram.last(first))
        raw.expect_closed(0x86)
