"""The HTTP door's own pages and the command line, which speaks nothing but HTTP."""
import json
import re
import socket
import subprocess

import pytest

from kafka_clients import kcat_consume
from mqtt_client import Client
from node import SLUICE, SLUICED, Node, environment, eventually, free_port


def test_health(node):
    assert node.get("/livez")[0] == 200
    assert node.get("/readyz")[0] == 200
    assert node.get("/no/such/page")[0] == 404


def test_ready_within_five_seconds_also_after_kill_9(own_node, name):
    assert own_node.ready_after_s < 5
    with Client(own_node.mqtt) as c:
        for i in range(500):
            c.publish(name, b"x" * 1000, 1, wait=i % 100 == 99)
    own_node.restart()
    assert own_node.ready_after_s < 5


def test_metrics(node, name):
    with Client(node.mqtt) as c:
        c.publish(name, b"x", 1)
    status, body = node.get("/metrics")
    assert status == 200
    lines = [line for line in body.decode().splitlines() if line]
    sample = re.compile(r'[a-zA-Z_:][\w:]*(\{([a-z_]\w*="([^"\\\n]|\\.)*",?)*\})? '
                        r'[-+]?(\d[\d.e+-]*|Inf|NaN)$')
    values = [line for line in lines if not line.startswith("#")]
    assert len(values) > 20
    for line in values:
        assert sample.match(line), line
    assert len(values) == len({line.rsplit(" ", 1)[0] for line in values}), "a series twice"
    assert name not in body.decode()  # neither topics nor clients are labels


def test_api_lists_streams(node, name):
    with Client(node.mqtt) as c:
        c.publish(name, b"x", 1)
    status, body, headers = node.request("GET", "/api/v1/streams")
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert "mqtt" in json.dumps(json.loads(body))
    assert node.get("/api/v1/streams/" + name)[0] == 404
    body = json.dumps({"name": "acme/" + name}).encode()  # how a tenant's are called inside
    assert node.request("POST", "/api/v1/streams", body)[0] == 400
    assert node.get("/api/v1/streams/acme%2F" + name)[0] == 404


@pytest.mark.parametrize("request_bytes", [
    b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n"],
    ids=["no request", "no host", "folded header", "two lengths", "huge header"])
def test_bad_requests(node, request_bytes):
    with socket.create_connection(("127.0.0.1", node.ports["http"]), timeout=10) as s:
        try:
            s.sendall(request_bytes)
            got = s.recv(4096)
        except (ConnectionResetError, BrokenPipeError):
            got = b""
        assert got == b"" or re.match(rb"HTTP/1\.[01] 4\d\d ", got), got[:60]
    assert node.get("/livez")[0] == 200


def test_keep_alive_and_pipelining(node):
    one = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    with socket.create_connection(("127.0.0.1", node.ports["http"]), timeout=10) as s:
        s.sendall(one * 5)
        got = b""
        while got.count(b"HTTP/1.1 200") < 5:
            more = s.recv(4096)
            assert more, got
            got += more


# ---- the command line ----

def test_streams_by_hand(node, name):
    assert node.cli("stream", "create", name, "--partitions", "3").returncode == 0
    assert name in node.cli("stream", "list").stdout
    assert name in json.dumps(node.cli_json("stream", "list"))
    found = json.dumps(node.cli_json("stream", "describe", name))
    assert name in found and "3" in found
    assert node.cli("stream", "create", name).returncode == 5
    assert node.cli("stream", "delete", name, "--yes").returncode == 0
    assert node.cli("stream", "describe", name).returncode == 3
    assert name not in node.cli("stream", "list").stdout


def test_exit_codes(node):
    assert node.cli("stream", "describe", "no-such-stream").returncode == 3
    assert node.cli("stream", "frobnicate").returncode == 2
    assert node.cli("frobnicate").returncode == 2
    done = node.cli("stream", "list", server="http://127.0.0.1:%d" % free_port())
    assert done.returncode == 6
    assert done.stdout == "" and done.stderr != ""


def test_flags_may_stand_anywhere(node):
    done = subprocess.run([SLUICE, "--server", node.url, "stream", "-o", "json", "list"],
                          capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0
    json.loads(done.stdout)
    done = node.cli("stream", "list", "-o", "ndjson")
    for line in done.stdout.splitlines():
        json.loads(line)


def test_node_and_config(node):
    assert node.cli("node", "status").returncode == 0
    shown = node.cli("config", "show")
    assert "listen.mqtt" in shown.stdout and str(node.mqtt) in shown.stdout


def test_pub_is_seen_by_every_door(node, name):
    topic = name + "/cli"
    with Client(node.mqtt) as c:
        c.subscribe(topic, 1)
        done = node.cli("pub", topic, "hello")
        assert done.returncode == 0, done.stderr
        assert c.get().payload == b"hello"
    assert (topic.encode(), b"hello") in kcat_consume(node.kafka, "mqtt", 1)


@pytest.mark.parametrize("more", [[], ["-o", "json"], ["-o", "ndjson", "--follow"]],
                         ids=["table", "json", "followed"])
def test_output_that_cannot_be_written_is_a_failure(node, name, more):
    assert node.cli("stream", "create", name, "--partitions", "1").returncode == 0
    assert node.cli("pub", "--stream", name, "x").returncode == 0
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([SLUICE, "sub", name, "--offset", "earliest", *more, "--server",
                               node.url], stdout=full, stderr=subprocess.PIPE, text=True,
                              timeout=60, check=False)
    assert done.returncode == 1 and "output" in done.stderr


# ---- the daemon's own command line ----

def sluiced(*words):
    return subprocess.run([SLUICED, *words], capture_output=True, text=True, timeout=20,
                          env=environment(),
                          check=False)


def test_version_and_help():
    for word in ("--version", "--help"):
        done = sluiced(word)
        assert done.returncode == 0 and done.stdout.strip()


@pytest.mark.parametrize("key, value", [
    ("no.such.key", "1"), ("node.id", "0"), ("node.id", "many"), ("message.bytes_max", "-3"),
    ("listen.mqtt", "nowhere"), ("listen.mqtt", "127.0.0.1:70000"), ("log.level", "shout")])
def test_a_bad_key_or_value_is_named_and_ends_with_2(tmp_path, key, value):
    done = sluiced("--set", "data.dir=%s" % tmp_path, "--set", "%s=%s" % (key, value))
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and key in lines[0], done.stderr


def test_a_configuration_file(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("# ours\nnode.id = 7\nlisten.mqtt = off\n")
    bad.write_text("node.id = 7\nnode.idd = 8\n")
    assert sluiced("--check-config", "--config", str(good)).returncode == 0
    done = sluiced("--check-config", "--config", str(bad))
    assert done.returncode == 2 and "node.idd" in done.stderr and "2" in done.stderr
    assert sluiced("--check-config", "--config", str(tmp_path / "none")).returncode == 2


def test_a_port_or_a_folder_in_use_ends_with_1(own_node, tmp_path):
    other = Node({"listen.mqtt": "127.0.0.1:%d" % own_node.mqtt})
    try:
        other.start(wait=False)
        assert other.process.wait(10) == 1
        assert str(own_node.mqtt) in other.log()
    finally:
        other.close()
    other = Node({"data.dir": own_node.data})
    try:
        other.start(wait=False)
        assert other.process.wait(10) == 1
    finally:
        other.close()
    assert own_node.is_running() and own_node.is_ready()


def test_all_keys_are_accepted_from_the_first_day(make_node):
    node = make_node({
        "node.name": "n", "node.rack": "r", "cluster.name": "c", "conn.max": "1000",
        "stream.replicas": "1", "retention.ms": "7d", "retention.bytes": "1GiB",
        "mqtt.connect_rate": "1000", "http.echo": "true", "log.format": "json",
        "advertise.kafka": "127.0.0.1:9092", "tls.client": "none", "auth.anonymous": "auto"})
    assert node.is_ready()


def test_open_doors_follow_the_environment(make_node):
    port = free_port()
    node = make_node(start=False)
    del node.settings["listen.mqtt"]
    node.environment["SLUICE_LISTEN_MQTT"] = "127.0.0.1:%d" % port
    node.start()
    assert eventually(lambda: node.is_open(port))
