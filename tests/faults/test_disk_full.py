"""A full disk: writes are refused in each protocol's own words, reads go on, and it ends by itself
when there is space again, whoever made it. Nothing acknowledged is lost on the way."""
import json
import os
import threading
import time

import confluent_kafka
import mqtt_client
import pytest
import small_disk
from load import MqttPublisher, KafkaProducer, check_log, read_all
from node import Node, NotReady, eventually
from small_disk import MIB

NO = small_disk.missing()
pytestmark = pytest.mark.skipif(NO is not None, reason=str(NO))

RESERVE = 48 * MIB
SETTINGS = {"disk.reserve": str(RESERVE), "storage.wal": "16MiB", "storage.write_buffers": "16MiB",
            "stream.partitions": "2"}
STORAGE_ERROR, MQTT_QUOTA = 56, 0x97


@pytest.fixture
def disk():
    made = small_disk.SmallDisk(256)
    yield made
    made.close()


@pytest.fixture
def small(disk):
    node = Node(SETTINGS)
    node.data = node.settings["data.dir"] = os.path.join(disk.path, "data")
    yield node.start()
    print("log of the node:\n" + node.log())
    node.close()


def is_full(node):
    log = node.log()
    return log.rfind("disk_full") > log.rfind("disk_has_room")


def free_seen(node):
    """What the node last saw of the disk's free bytes."""
    for line in node.get("/metrics")[1].decode().splitlines():
        if line.startswith("sluice_storage_disk_free_bytes"):
            return int(float(line.rsplit(" ", 1)[1]))
    raise AssertionError("no such metric")


class Writer:
    """One record at a time, each with its answer."""

    def __init__(self, node):
        self.node, self.number, self.places = node, 0, {}
        self.kafka = confluent_kafka.Producer({
            "bootstrap.servers": node.kafka, "acks": "all", "retries": 0, "linger.ms": 0,
            "batch.num.messages": 1, "message.timeout.ms": 20000, "log_level": 0})

    def produce(self, stream, size=100, count=1):
        """Errors (codes) of so many records; what is acknowledged is remembered."""
        errors = []

        def delivered(error, message):
            if error is not None:
                errors.append(error.code())
            else:
                self.places[message.value().decode()] = (message.partition(), message.offset())
        for _ in range(count):
            # Bytes that do not compress, each value another one.
            self.number += 1
            value = "%d %s" % (self.number, os.urandom(size // 2).hex())
            self.kafka.produce(stream, value, on_delivery=delivered)
        assert self.kafka.flush(30) == 0
        return errors

    def fill(self, stream):
        """Until the disk counts as full, which is the node's to say. A burst may be refused before:
        what is admitted between two looks at the disk is counted twice."""
        seen = []
        for _ in range(300):
            seen += self.produce(stream, 100_000, 20)
            if is_full(self.node):
                return seen + self.produce(stream, 100_000, 20)
            if seen:
                time.sleep(0.1)
        raise AssertionError("the disk is never full")

    def mqtt_reason(self):
        """The reason in the PUBACK of a QoS 1 publish."""
        with mqtt_client.Raw(self.node.mqtt, mqtt_client.connect("w")) as raw:
            assert raw.expect(mqtt_client.CONNACK).body[1] == 0
            raw.send(mqtt_client.publish("full/x", b"x", qos=1, pid=7))
            body = raw.expect(mqtt_client.PUBACK).body
            return body[2] if len(body) > 2 else 0

    def http_status(self, stream="a"):
        return self.node.request("POST", "/streams/%s/records" % stream, b"x")[0]

    def answers(self):
        """What each door says to one write."""
        return self.produce("a"), self.mqtt_reason(), self.http_status()


REFUSED = [STORAGE_ERROR], MQTT_QUOTA, 507
TAKEN = [], 0, 200


def check_all_there(node, writer, stream):
    got = read_all(node.kafka, stream)
    mine = {p: [(o, v) for o, v in rows] for p, rows in got.items()}
    at = {v: (p, o) for p, rows in mine.items() for o, v in rows}
    missing = [v[:20] for v, place in writer.places.items() if at.get(v) != place]
    assert not missing, "%d of %d acknowledged are lost or moved: %s" % (
        len(missing), len(writer.places), missing[:3])


def refused_everywhere(small, writer):
    """Full and staying so: a log of writes that is dropped may make room for a little more."""
    for _ in range(20):
        errors = writer.fill("a")
        assert set(errors) <= {STORAGE_ERROR}, errors[:5]
        until = time.monotonic() + 1
        while is_full(small) and time.monotonic() < until:
            answers = writer.answers()
            assert answers == REFUSED or not eventually(lambda: is_full(small), 0.3), answers
            time.sleep(0.05)
        if is_full(small):
            break
    assert writer.answers() == REFUSED
    assert small.is_running(), "the node died:\n" + small.log()
    assert small.get("/livez")[0] == 200


def test_refused_and_taken_again_when_the_disk_grows(disk, small):
    writer = Writer(small)
    assert writer.answers() == TAKEN
    refused_everywhere(small, writer)
    assert disk.free > MIB, "the reserve was eaten"
    check_all_there(small, writer, "a")
    disk.resize(400)
    assert eventually(lambda: writer.answers() == TAKEN), writer.answers()
    assert writer.produce("a", 100_000, 200) == []
    check_all_there(small, writer, "a")
    assert eventually(lambda: "disk_has_room" in small.log())
    small.restart(kill=True)
    check_all_there(small, writer, "a")


def test_a_deleted_stream_gives_its_space_back(disk, small):
    writer = Writer(small)
    assert writer.produce("kept", 1000, 100) == []
    refused_everywhere(small, writer)
    before = disk.used
    assert small.request("DELETE", "/api/v1/streams/a")[0] in (200, 204)
    assert eventually(lambda: disk.used < before * 2 / 3, 30), "used %d MiB, was %d" % (
        disk.used // MIB, before // MIB)
    assert eventually(lambda: writer.produce("kept", 1000, 10) == [])
    writer.places = {v: p for v, p in writer.places.items() if 500 < len(v) < 2000}
    check_all_there(small, writer, "kept")


def test_trimming_gives_space_back(disk, small):
    writer = Writer(small)
    refused_everywhere(small, writer)
    before = disk.used
    ends = {}
    for partition, offset in writer.places.values():
        ends[partition] = max(ends.get(partition, 0), offset)
    for partition, offset in ends.items():
        status, answer, _ = small.request("POST", "/api/v1/streams/a/trim", json.dumps(
            {"partition": partition, "before_offset": offset}))
        assert status == 200, answer
    assert eventually(lambda: disk.used < before * 2 / 3, 30), "used %d MiB, was %d" % (
        disk.used // MIB, before // MIB)
    assert eventually(lambda: writer.answers() == TAKEN), writer.answers()
    # The node looks now and then; until it has seen the room, a burst may be more than it knows of.
    assert eventually(lambda: free_seen(small) > RESERVE + 48 * MIB), free_seen(small)
    for _ in range(3):
        assert writer.produce("a", 100_000, 50) == []


def says_why(node):
    """Or the library, as Debian builds it, was faster: a sync that meets a log whose write has just
    failed is an assertion of its own."""
    return "No space left" in node.log() or "writable_file_writer" in node.log()


def taken_again(node):
    """A flush that had failed meanwhile is met by the first write, which ends the process."""
    if not node.is_running():
        assert says_why(node), node.log()
        node.start()
    try:
        return Writer(node).http_status("b") == 200
    except OSError:
        eventually(lambda: not node.is_running(), 20)
        return False


def test_it_starts_where_others_took_all_it_gave_up(disk, small):
    """What a running node gives up of its ballast others take as well. It was killed with a full log
    of writes: the next start has the rest of the ballast, and needs no more."""
    writer = Writer(small)
    store = os.path.join(small.data, "store")
    ballast = os.path.join(small.data, "ballast")

    def logged():
        return sum(os.path.getsize(os.path.join(store, f)) for f in os.listdir(store)
                   if f.endswith(".log"))
    for _ in range(400):
        assert writer.produce("a", 50_000, 6) == []
        if logged() > 13 * MIB:
            break
    assert logged() > 13 * MIB
    whole = os.path.getsize(ballast)
    disk.fill(64 << 10)
    assert eventually(lambda: 0 < os.path.getsize(ballast) < whole)
    small.kill()
    disk.fill(64 << 10)
    small.start()
    assert writer.http_status() == 507
    check_all_there(small, writer, "a")
    disk.unfill()
    assert eventually(lambda: writer.http_status() == 200)
    assert eventually(lambda: os.path.exists(ballast) and os.path.getsize(ballast) == whole)
    check_all_there(small, writer, "a")


def test_space_taken_by_others_in_a_moment(disk, small):
    """Faster than the node looks: what was admitted meets a disk with no byte left. The node may
    end itself then; it starts on the full disk by its ballast, serves what it has, refuses, and
    takes writes again by itself."""
    load = [MqttPublisher(small.mqtt, "m%d" % i, "full/m") for i in range(2)]
    producer = KafkaProducer(small.kafka, "b", "k")
    assert eventually(lambda: producer.acked and all(p.acked for p in load))
    more = Writer(small)
    sender = threading.Thread(target=lambda: [more.produce("c", 50_000, 50) for _ in range(12)
                                              if small.is_running()])
    sender.start()
    assert eventually(lambda: more.places)
    disk.fill(64 << 10)
    assert eventually(lambda: not small.is_running() or "disk_full" in small.log())
    for one in load + [producer]:
        one.close()
    sender.join(70)
    ended = not small.is_running()
    print("ended by itself" if ended else "refused", "free", disk.free)
    if ended:
        assert says_why(small), small.log()
        small.start()
    acked = set().union(*(p.acked for p in load))
    assert eventually(lambda: Writer(small).http_status("b") == 507)
    check_log(read_all(small.kafka, "mqtt"), acked)
    disk.unfill()
    assert eventually(lambda: taken_again(small))
    check_log(read_all(small.kafka, "mqtt"), acked)
    got = read_all(small.kafka, "b")
    got = {p: [(o, v) for o, v in rows if v != "x"] for p, rows in got.items()}
    check_log(got, producer.acked, producer.acked)
    check_all_there(small, more, "c")
