"""A node that is of no cluster yet: its seeds are silent, and its doors are open all the same."""
import socket
import struct

import paho.mqtt.client as mqtt
import pytest
from node import eventually


@pytest.fixture
def waiting(make_cluster):
    cluster = make_cluster(1, start=False)
    node = cluster[1]
    node.settings["cluster.seeds"] = node.peer + "," + node.host + ":1"
    node.start(wait=False)
    assert eventually(lambda: "door=kafka" in node.log()), node.log()
    return node


def text(s):
    return struct.pack(">h", len(s)) + s.encode()


def kafka(node, key, version, body):
    """The response's length; b"" : the node has gone away."""
    with socket.create_connection((node.host, node.ports["kafka"]), timeout=30) as s:
        request = struct.pack(">hhi", key, version, 1) + text("c") + body
        s.sendall(struct.pack(">i", len(request)) + request)
        return s.recv(4)


def test_kafka_clients_are_to_come_later(waiting):
    """Whether there are users is not known yet: nobody can be let in."""
    assert len(kafka(waiting, 18, 0, b"")) == 4
    topics = struct.pack(">i", 1) + text("s") + struct.pack(">ii", 1, 0)
    asks = {"Metadata": (3, 1, struct.pack(">i", -1)),
            "FindCoordinator": (10, 0, text("g")),
            "OffsetFetch": (9, 1, text("g") + topics),
            "Heartbeat": (12, 0, text("g") + struct.pack(">i", 1) + text("m")),
            "DescribeGroups": (15, 0, struct.pack(">i", 1) + text("g")),
            "ListGroups": (16, 0, b""),
            "InitProducerId": (22, 0, struct.pack(">hi", -1, 1000))}
    for name, ask in asks.items():
        assert kafka(waiting, *ask) == b"", name
        assert waiting.is_running(), name


def test_mqtt_clients_are_told_to_come_later(waiting):
    for version, clean, code in ((mqtt.MQTTv311, True, 3), (mqtt.MQTTv311, False, 3),
                                 (mqtt.MQTTv5, None, 0x88)):
        got = []
        client = mqtt.Client("c", protocol=version, **({} if clean is None else
                                                       {"clean_session": clean}))
        client.on_connect = lambda c, u, f, rc, *more: got.append(getattr(rc, "value", rc))
        client.connect(waiting.host, waiting.ports["mqtt"])
        eventually(lambda c=client, g=got: c.loop(0.1) != 0 or g)
        assert got == [code], (version, got)
        assert waiting.is_running()


def test_pages_say_why(waiting):
    status, why = waiting.get("/readyz")
    assert status == 503 and b"waiting for seed" in why, (status, why)
    for path in ("/livez", "/metrics", "/", "/api/v1/node", "/api/v1/cluster",
                 "/api/v1/cluster/health", "/api/v1/partitions", "/api/v1/streams"):
        status, body = waiting.get(path)
        assert status in (200, 404, 503), (path, status, body)
        assert waiting.is_running(), path
    for words in (("cluster", "status"), ("cluster", "nodes"), ("cluster", "moves"),
                  ("partition", "list"), ("stream", "list"), ("group", "list")):
        waiting.cli(*words)
        assert waiting.is_running(), words
