"""kill -9 under load, again and again: what was acknowledged is there, once, at dense offsets;
sessions, positions of groups and idempotent producers go on where they were.
The second test also drops every write that was never synced, as a power loss would.

    CRASH_ROUNDS=n changes the number of rounds; CRASH_SEED repeats the moments of a run."""
import os
import random
import time

import confluent_kafka
import forget
import pytest
from confluent_kafka import TopicPartition
from load import STREAM, DurableReader, KafkaProducer, MqttPublisher, check_log, read_all
from node import Node, eventually

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "3"))
NO_FORGET = forget.missing()


def make_stream(node, stream, partitions=4):
    body = '{"name": "%s", "partitions": %d}' % (stream, partitions)
    status, answer, _ = node.request("POST", "/api/v1/streams", body)
    assert status in (200, 201), (status, answer)


class Group:
    """The position of a group that does not read: committed by hand, and asked for again."""

    def __init__(self, broker, stream):
        self.stream, self.at = stream, 0
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": broker, "group.id": "position", "enable.auto.commit": False,
            "log_level": 0})

    def commit(self):
        self.at += 1
        self.consumer.commit(offsets=[TopicPartition(self.stream, 0, self.at)],
                             asynchronous=False)

    def check(self):
        found = self.consumer.committed([TopicPartition(self.stream, 0)], timeout=30)[0]
        assert not found.error, found.error
        assert found.offset == self.at, "committed %d, found %d" % (self.at, found.offset)


class Rounds:
    def __init__(self, node):
        self.node, self.slowest_s = node, node.ready_after_s
        self.acked, self.followed, self.places = set(), set(), {}
        for stream in ("crash", "steady"):
            make_stream(node, stream)
        self.reader = DurableReader(node.mqtt, "reader", "crash/followed")
        self.group = Group(node.kafka, "crash")
        self.steady = KafkaProducer(node.kafka, "steady", "s", steady=True, rate=500)

    def load_and_kill(self, number, seconds):
        """Load until the node is killed, which is once every client was answered."""
        node = self.node
        publishers = [MqttPublisher(node.mqtt, "m%d-%d" % (number, i),
                                    "crash/followed" if i == 0 else "crash/other")
                      for i in range(3)]
        producer = KafkaProducer(node.kafka, "crash", "k%d" % number)
        steady_before = len(self.steady.acked)
        eventually(lambda: producer.acked and all(p.acked for p in publishers) and
                   len(self.steady.acked) > steady_before, 60)
        self.group.commit()
        time.sleep(seconds)
        assert node.is_running(), "died by itself:\n" + node.log()
        node.kill()
        for one in publishers + [producer]:
            one.close()
        self.reader.close()
        for one in publishers:
            assert one.acked, "nothing was acknowledged to %s in round %d" % (one.name, number)
            self.acked |= one.acked
        assert producer.acked, "nothing was produced in round %d: %s" % (
            number, producer.errors[:3])
        assert len(self.steady.acked) > steady_before, (number, self.steady.errors[:3])
        self.followed |= publishers[0].acked
        self.places.update(producer.acked)

    def check(self):
        node = self.node
        self.slowest_s = max(self.slowest_s, node.ready_after_s)
        check_log(read_all(node.kafka, STREAM), self.acked)
        check_log(read_all(node.kafka, "crash"), self.places, self.places)
        self.group.check()
        self.reader.connect()
        eventually(lambda: self.followed <= self.reader.seen, 60)
        missing = sorted(self.followed - self.reader.seen)
        assert not missing, "the session skipped %d of %d, first %s" % (
            len(missing), len(self.followed), missing[:3])

    def finish(self):
        """Everything the steady producer ever sent is there once."""
        self.steady.finish()
        assert not self.steady.errors, self.steady.errors[:3]
        assert len(self.steady.acked) == self.steady.number
        found = check_log(read_all(self.node.kafka, "steady"), self.steady.acked,
                          self.steady.acked)
        assert found == self.steady.number, "%d records of %d" % (found, self.steady.number)
        print("%d MQTT, %d Kafka, %d idempotent acknowledged, slowest start %.2f s" % (
            len(self.acked), len(self.places), found, self.slowest_s))

    def close(self):
        self.steady.close()
        self.reader.close()
        self.group.consumer.close()


def rounds(node, after_kill):
    seed = int(os.environ.get("CRASH_SEED", random.randrange(1 << 30)))
    draw = random.Random(seed)
    print("CRASH_SEED=%d" % seed)
    run = Rounds(node)
    try:
        for number in range(ROUNDS):
            run.load_and_kill(number, 0.2 + draw.random())
            after_kill()
            node.start()
            run.check()
        run.finish()
    finally:
        run.close()


def test_kill_9_under_load(own_node):
    rounds(own_node, lambda: None)


@pytest.mark.skipif(NO_FORGET is not None, reason=str(NO_FORGET))
def test_kill_9_and_unsynced_writes_dropped():
    folder = forget.ForgetFolder()
    node = Node(folder=folder.path)
    # The log of the node itself is written outside of what forgets.
    node.log_path = os.path.join(folder.top, "node.log")
    try:
        rounds(node.start(), folder.forget)
    except BaseException:
        print("log of the node:\n" + node.log())
        raise
    finally:
        node.close()
        folder.close()


def test_a_killed_start_is_no_harm(own_node):
    """Killed while it recovers, at many moments, and then left to finish."""
    publisher = MqttPublisher(own_node.mqtt, "m", "crash/m")
    assert eventually(lambda: len(publisher.acked) > 1000)
    own_node.kill()
    publisher.close()
    for i in range(6):
        own_node.start(wait=False)
        time.sleep(0.02 + 0.04 * i)
        own_node.kill()
    own_node.start()
    assert check_log(read_all(own_node.kafka, STREAM), publisher.acked) >= len(publisher.acked) > 0
