"""Load for the stress tests: workloads of sluice-bench, and clients that behave badly by hand.
What a sanitizer found is in the node's log, and in its exit status."""
import re
import socket
import subprocess
import threading

import mqtt_client
from node import BIN

BENCH = BIN + "/sluice-bench"
FOUND = re.compile(r"^.*(?:ERROR: AddressSanitizer|ERROR: LeakSanitizer|runtime error:"
                   r"|WARNING: ThreadSanitizer|assert|panic).*$", re.M)
# What happened to a load whose server ended under it is the server's test to judge.
LOADS = {
    "qos0": "mqtt --qos 0 --clients 4",
    "qos1": "mqtt --qos 1 --clients 4",
    "qos2": "mqtt --qos 2 --clients 4 --version 5",
    "old": "mqtt --qos 1 --version 4 --window 10",
    "durable": "mqtt --qos 1 --clients 2 --session-expiry 60",
    "durable2": "mqtt --qos 2 --clients 2 --session-expiry 60",
    "fanout": "mqtt-fanout --qos 0 --subscribers 20",
    "steady": "mqtt-latency --qos 1 --rate 1000",
    "memory": "mqtt --qos 1 --clients 2 --topic volatile/",
    "memory0": "mqtt-fanout --qos 0 --subscribers 20 --topic volatile/",
    "large": "mqtt --qos 1 --clients 2 --size 200000 --window 8",
    "produce": "kafka-produce --partitions 4 --verify",
    "small_produce": "kafka-produce --partitions 2 --batch-bytes 1000 --topic small",
}
SETTINGS = {"route.memory": "volatile/# -> volatile durability=memory", "stream.partitions": "4",
            "loops": "2", "mqtt.connect_rate": "10000"}


def command(node, load, seconds, *more):
    words = load.split()
    port = node.kafka.split(":")[1] if words[0].startswith("kafka") else str(node.mqtt)
    return [BENCH, *words, "--port", port, "--seconds", str(seconds), "--allow-loss",
            *map(str, more)]


def begin(node, name, seconds, *more):
    return subprocess.Popen(command(node, LOADS[name], seconds, *more),
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def finish(process, within):
    """What it said and its status; killed when it lasts too long."""
    try:
        said, _ = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        return "lasted over %d s\n%s" % (within, said), -1
    return said, process.returncode


def findings(node):
    return FOUND.findall(node.log(bytes_max=50_000_000))


def end_clean(node, within=30, number=None):
    """Stops the node: its status must be 0, and no sanitizer may have complained."""
    if number is None:
        node.process.terminate()
    else:
        node.process.send_signal(number)
    status = node.process.wait(within)
    assert not findings(node), node.log(20_000)
    assert status == 0, (status, node.log(20_000))


def slow_reader(node, topic, qos=0):
    """Subscribes, and never reads again."""
    s = socket.create_connection(("127.0.0.1", node.mqtt), timeout=10)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.sendall(mqtt_client.connect("") + mqtt_client.subscribe(topic, qos))
    return s


def long_poll(node, stream):
    """Asks for records that do not come."""
    s = socket.create_connection(("127.0.0.1", node.ports["http"]), timeout=10)
    s.sendall(("GET /streams/%s/records?partition=0&offset=latest&wait=30s HTTP/1.1\r\n"
               "Host: x\r\n\r\n" % stream).encode())
    return s


def event_stream(node, topic):
    s = socket.create_connection(("127.0.0.1", node.ports["http"]), timeout=10)
    s.sendall(("GET /topics/%s HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
               % topic).encode())
    return s


def kafka_long_poll(node, partition=0, topic=b"mqtt"):
    """A fetch (version 4) at the end of a partition, with a minute to wait."""
    topic_part = (len(topic).to_bytes(2, "big") + topic + (1).to_bytes(4, "big")
                  + partition.to_bytes(4, "big") + (1 << 40).to_bytes(8, "big")
                  + (1 << 20).to_bytes(4, "big"))
    body = ((1).to_bytes(2, "big") + (4).to_bytes(2, "big") + (7).to_bytes(4, "big")
            + (1).to_bytes(2, "big") + b"s"
            + b"\xff\xff\xff\xff" + (60_000).to_bytes(4, "big") + (1 << 20).to_bytes(4, "big")
            + (1 << 20).to_bytes(4, "big") + b"\0" + (1).to_bytes(4, "big") + topic_part)
    host, port = node.kafka.split(":")
    s = socket.create_connection((host, int(port)), timeout=10)
    s.sendall(len(body).to_bytes(4, "big") + body)
    return s


def heartbeats(node, group, count):
    """Heartbeats (version 0) of a member that is none, answered as fast as they come; the number
    of answers read."""
    def text(t):
        return len(t).to_bytes(2, "big") + t
    body = (bytes.fromhex("000c 0000 00000007") + text(b"s") + text(group)
            + (1).to_bytes(4, "big") + text(b"nobody"))
    host, port = node.kafka.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as s:
        s.sendall((len(body).to_bytes(4, "big") + body) * count)
        left = count * (4 + 4 + 2)  # size, correlation, error
        while left > 0:
            got = s.recv(min(left, 65536))
            if not got:
                break
            left -= len(got)
    return count - (left + 9) // 10


def half_handshake(port):
    """The head of a client hello, and no more."""
    s = socket.create_connection(("127.0.0.1", port), timeout=10)
    s.sendall(bytes.fromhex("1603010200010001fc0303") + b"x" * 20)
    return s


class Churn:
    """Connects, subscribes, publishes and drops the connection, again and again."""

    def __init__(self, node, name):
        self.node, self.name, self.ending, self.rounds = node, name, False, 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.ending:
            try:
                self._round()
            except (OSError, AssertionError):
                if not self.node.is_running():
                    return
            self.rounds += 1

    def _round(self):
        expiry = b"\x11\x00\x00\x00\x3c" if self.rounds % 2 else b""
        with mqtt_client.Raw(self.node.mqtt) as raw:
            raw.send(mqtt_client.connect("%s%d" % (self.name, self.rounds % 4), flags=0,
                                         props=expiry),
                     mqtt_client.subscribe("bench/#", self.rounds % 3),
                     mqtt_client.publish("bench/churn", b"x" * 300, self.rounds % 3, retain=1))
            raw.read(2)
            raw.read(2)

    def stop(self):
        self.ending = True
        self.thread.join(10)
