"""kill -9 under load, again and again: what was acknowledged is there, once, at dense offsets.
The second test also drops every write that was never synced, as a power loss would.

    CRASH_ROUNDS=n changes the number of rounds; CRASH_SEED repeats the moments of a run."""
import os
import random
import time

import pytest

import forget
from load import STREAM, KafkaProducer, MqttPublisher, check_log, read_all
from node import Node

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "8"))
NO_FORGET = forget.missing()


def one_round(node, number, seconds, first):
    """Load until the node is killed. Gives (values acknowledged over MQTT, Kafka's places)."""
    publishers = [MqttPublisher(node.mqtt, "m%d-%d" % (number, i), first) for i in range(3)]
    producer = KafkaProducer(node.kafka, "crash", "k%d" % number, first)
    time.sleep(seconds)
    node.kill()
    for one in publishers + [producer]:
        one.close()
    acked = set().union(*(p.acked for p in publishers))
    return acked, producer.acked


def rounds(node, after_kill):
    seed = int(os.environ.get("CRASH_SEED", random.randrange(1 << 30)))
    draw = random.Random(seed)
    print("CRASH_SEED=%d" % seed)
    acked, places, begin = set(), {}, node.ready_after_s
    for number in range(ROUNDS):
        more, more_places = one_round(node, number, 0.5 + draw.random(), 0)
        assert more and more_places, "nothing was acknowledged in round %d" % number
        acked |= more
        places.update(more_places)
        after_kill()
        node.start()
        begin = max(begin, node.ready_after_s)
        check_log(read_all(node.kafka, STREAM), acked)
        check_log(read_all(node.kafka, "crash"), places, places)
    print("%d + %d acknowledged, slowest start %.2f s" % (len(acked), len(places), begin))


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
    finally:
        node.close()
        folder.close()


def test_a_killed_start_is_no_harm(own_node):
    """Killed while it recovers, at many moments, and then left to finish."""
    publisher = MqttPublisher(own_node.mqtt, "m", 0)
    time.sleep(1)
    own_node.kill()
    publisher.close()
    for i in range(6):
        own_node.start(wait=False)
        time.sleep(0.02 + 0.04 * i)
        own_node.kill()
    own_node.start()
    assert check_log(read_all(own_node.kafka, STREAM), publisher.acked) >= len(publisher.acked) > 0
