"""The whole server under load, made for the sanitizer builds (SLUICED=build/asan/sluiced): what
counts is that nothing is reported, nothing leaks at a clean stop, and that a stop is always clean,
whatever goes on: exit status 0 within 10 s.

    STRESS_ROUNDS=n changes the number of stops; STRESS_SECONDS the length of a workload."""
import os
import random
import signal
import ssl
import subprocess
import time

import confluent_kafka
import confluent_kafka.admin
import pytest

import burden
from mqtt_client import Client
from node import PLAIN_DOORS, Node, eventually

ROUNDS = int(os.environ.get("STRESS_ROUNDS", "6"))
SECONDS = int(os.environ.get("STRESS_SECONDS", "2"))
SEED = int(os.environ.get("STRESS_SEED", "0")) or random.randrange(1, 1 << 32)
STOP_S = 10
PATIENT = {"drain.ms": "60s", "conn.linger_ms": "60s"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert,
                    "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                   check=True, capture_output=True, timeout=30)
    return cert, key


@pytest.fixture
def busy_node(make_node, pair):
    return make_node({**burden.SETTINGS, "tls.cert": pair[0], "tls.key": pair[1]},
                     doors=PLAIN_DOORS + ("mqtts", "kafkas"))


def run(node, name, seconds=SECONDS, *more):
    said, status = burden.finish(burden.begin(node, name, seconds, *more), seconds + 90)
    assert status == 0, "%s: %d\n%s\n%s" % (name, status, said, node.log(20_000))


@pytest.mark.parametrize("group", [("qos0", "qos1", "qos2", "old", "large"),
                                   ("durable", "durable2", "fanout", "steady"),
                                   ("memory", "memory0"), ("produce", "small_produce")],
                         ids=lambda g: g[0])
def test_workloads(busy_node, group):
    for name in group:
        run(busy_node, name)
    burden.end_clean(busy_node)


def test_fetch(busy_node):
    run(busy_node, "produce", SECONDS, "--topic", "stress")
    said, status = burden.finish(subprocess.Popen(
        burden.command(busy_node, "kafka-fetch --partitions 4 --topic stress", 10), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True), 90)
    assert status == 0, said
    burden.end_clean(busy_node)


def test_idle(busy_node):
    said, status = burden.finish(subprocess.Popen(
        burden.command(busy_node, "mqtt-idle --idle 2000 --hold 1", 1), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True), 90)
    assert status == 0, said
    burden.end_clean(busy_node)


def test_all_at_once(busy_node):
    """Every kind of client, slow readers, clients that come and go, and reloads all the while."""
    node = busy_node
    slow = [burden.slow_reader(node, f, q) for f in ("bench/#", "volatile/#") for q in (0, 1)]
    churn = [burden.Churn(node, "churn%d-" % i) for i in range(3)]
    groups = [group_member(node) for _ in range(3)]
    loads = [burden.begin(node, name, 2 * SECONDS)
             for name in ("qos1", "durable2", "memory0", "produce")]
    while any(p.poll() is None for p in loads):
        node.reload()
        for c in groups:
            c.poll(0.02)
            assert burden.heartbeats(node, b"stress", 300) == 300
        assert node.get("/metrics", timeout=30)[0] == 200
        assert node.get("/api/v1/streams", timeout=30)[0] == 200
    for p in loads:
        said, status = burden.finish(p, 60)
        assert status == 0, said + node.log(20_000)
    for c in groups:
        c.close()
    assert eventually(lambda: all(c.rounds > 5 for c in churn))
    for c in churn:
        c.stop()
    assert node.is_running(), node.log(20_000)
    burden.end_clean(node)
    assert len(slow) == 4


def group_member(node):
    c = confluent_kafka.Consumer({"bootstrap.servers": node.kafka, "group.id": "stress",
                                  "auto.offset.reset": "earliest", "log_level": 0,
                                  "session.timeout.ms": 6000, "heartbeat.interval.ms": 100,
                                  "auto.commit.interval.ms": 100})
    c.subscribe(["mqtt", "bench"])
    return c


def test_tls(busy_node, pair):
    node = busy_node
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        made = ssl.create_default_context(cafile=str(pair[0]))
        made.minimum_version = made.maximum_version = version
        for i in range(10):
            with Client(node.ports["mqtts"], tls=made) as c:
                c.subscribe("tls/#", 1)
                c.publish("tls/%d" % i, b"x" * 100_000, 1)
                assert len(c.get().payload) == 100_000
            node.reload()
    p = confluent_kafka.Producer({
        "bootstrap.servers": "127.0.0.1:%d" % node.ports["kafkas"], "security.protocol": "ssl",
        "ssl.ca.location": str(pair[0]), "log_level": 0})
    for i in range(2000):
        p.produce("tls", b"x" * 1000)
    assert p.flush(30) == 0
    burden.end_clean(node)


def test_kill_and_start(busy_node):
    """kill -9 under load; the next start finds a log that nobody closed."""
    node = busy_node
    for _ in range(2):
        loads = [burden.begin(node, name, 30) for name in ("qos1", "durable2", "produce")]
        time.sleep(SECONDS)
        node.kill()
        for p in loads:
            burden.finish(p, 60)
        node.start()
    burden.end_clean(node)


def clients_that_wait(node, draw):
    """Slow readers, long polls, handshakes half done: some of each."""
    make = [lambda: burden.slow_reader(node, "bench/#", draw.randrange(3)),
            lambda: burden.slow_reader(node, "volatile/#"),
            lambda: burden.long_poll(node, "mqtt"),
            lambda: burden.event_stream(node, "bench/x"),
            lambda: burden.kafka_long_poll(node, draw.randrange(4)),
            lambda: burden.half_handshake(node.ports["mqtts"]),
            lambda: burden.half_handshake(node.ports["kafkas"])]
    return [one() for one in make for _ in range(draw.randrange(4))]


@pytest.mark.parametrize("number", range(ROUNDS))
def test_stops_in_order_whatever_goes_on(pair, number):
    draw = random.Random(SEED + number)
    node = Node({**burden.SETTINGS, "tls.cert": pair[0], "tls.key": pair[1]},
                doors=PLAIN_DOORS + ("mqtts", "kafkas")).start()
    chosen = draw.sample(sorted(burden.LOADS), draw.randrange(1, 4))
    print("STRESS_SEED=%d" % SEED, chosen)
    churn, loads = None, [burden.begin(node, name, 60) for name in chosen]
    try:
        waiting = clients_that_wait(node, draw)
        churn = burden.Churn(node, "churn") if draw.random() < 0.5 else None
        time.sleep(draw.random() * 1.5)
        began = time.monotonic()
        burden.end_clean(node, STOP_S, draw.choice((signal.SIGTERM, signal.SIGINT)))
        print("%d waited; stopped in %.2f s" % (len(waiting), time.monotonic() - began))
    finally:
        for p in loads:
            p.kill()
            p.communicate()
        if churn:
            churn.stop()
        node.close()


@pytest.mark.parametrize("wait_s", [0.005, 0.015, 0.03, 0.045])
def test_stops_while_streams_are_made(busy_node, wait_s):
    """Their makers wait until all partitions lead, which takes a while for so many."""
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": busy_node.kafka,
                                               "log_level": 0})
    admin.list_topics(timeout=30)
    admin.create_topics([confluent_kafka.admin.NewTopic("made%d" % i, 200) for i in range(4)])
    time.sleep(wait_s)
    burden.end_clean(busy_node, STOP_S)


def test_a_second_signal_forces(make_node):
    """A slow reader keeps the drain waiting; who asks twice does not want to wait."""
    node = make_node({**burden.SETTINGS, **PATIENT})
    readers = [burden.slow_reader(node, "bench/#") for _ in range(3)]
    run(node, "large", 1)
    node.process.terminate()
    time.sleep(1)
    assert node.is_running(), "nothing to wait for: " + node.log()
    node.process.terminate()
    assert node.process.wait(20) == -signal.SIGTERM
    assert not burden.findings(node)
    for one in readers:
        one.close()
