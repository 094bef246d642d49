"""Static members (KIP-345) and cooperative rebalances (KIP-429) with librdkafka."""
import time

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from kafka_clients import confluent_produce
from node import eventually

PARTITIONS = 6


@pytest.fixture
def own_node(make_node):
    return make_node({"group.initial_rebalance_delay": "0"})


@pytest.fixture
def topic(own_node, name):
    admin = AdminClient({"bootstrap.servers": own_node.kafka})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1)]).values():
        future.result(10)
    return name


class Member:
    """A consumer that notes each change of what it is assigned."""

    def __init__(self, node, topic, **more):
        self.changes, self.fatal = [], None
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": node.kafka, "group.id": "g-" + topic, "session.timeout.ms": 30000,
            "heartbeat.interval.ms": 500, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "error_cb": self.on_error, **more})
        self.consumer.subscribe(
            [topic], on_assign=lambda _c, parts: self.changes.append(len(parts)),
            on_revoke=lambda _c, parts: self.changes.append(-len(parts)),
            on_lost=lambda _c, parts: self.changes.append(-len(parts)))

    def on_error(self, error):
        if error.fatal() or error.code() == KafkaError._FATAL:
            self.fatal = error.str()

    def poll(self):
        try:
            m = self.consumer.poll(0.05)
        except KafkaException as e:
            self.on_error(e.args[0])
            return None
        if m is not None and m.error():
            self.on_error(m.error())
            return None
        return m

    @property
    def parts(self):
        return sorted(p.partition for p in self.consumer.assignment())

    def crash(self):
        """It goes without a word, as far as librdkafka can: a static member never leaves."""
        self.consumer.close()


def until_shared(members, counts, within=40):
    def shared():
        for m in members:
            m.poll()
        return [len(m.parts) for m in members] == counts
    assert eventually(shared, within), [m.parts for m in members]
    assert sorted(p for m in members for p in m.parts) == list(range(PARTITIONS))


def moves(member):
    """A cooperative group is asked once more, with nothing to give, when all have what is theirs."""
    return [c for c in member.changes if c != 0]


def turn(members, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for m in members:
            m.poll()


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_a_static_member_comes_back_to_what_it_had(own_node, topic, strategy):
    more = {"partition.assignment.strategy": strategy}
    one = Member(own_node, topic, **{"group.instance.id": "one"}, **more)
    two = Member(own_node, topic, **{"group.instance.id": "two"}, **more)
    until_shared([one, two], [3, 3])
    turn([one, two], 2)  # a cooperative group is asked once more when all have what is theirs
    had, changes = two.parts, moves(one)
    for _ in range(2):
        two.crash()
        turn([one], 1)
        two = Member(own_node, topic, **{"group.instance.id": "two"}, **more)
        until_shared([one, two], [3, 3])
        assert two.parts == had
    turn([one, two], 2)
    assert moves(one) == changes  # nothing was taken from, or given to, anybody else
    one.consumer.close()
    two.consumer.close()


def test_who_led_comes_back_and_still_nobody_notices(own_node, topic):
    one = Member(own_node, topic, **{"group.instance.id": "one"})
    assert eventually(lambda: one.poll() or len(one.parts) == PARTITIONS, 40)
    two = Member(own_node, topic, **{"group.instance.id": "two"})
    until_shared([one, two], [3, 3])
    had, changes = one.parts, list(two.changes)
    one.crash()
    turn([two], 1)
    one = Member(own_node, topic, **{"group.instance.id": "one"})
    until_shared([one, two], [3, 3])
    turn([one, two], 2)
    assert one.parts == had and two.changes == changes
    one.consumer.close()
    two.consumer.close()


def test_two_of_one_instance(own_node, topic):
    """The one that came first is fenced, for good."""
    first = Member(own_node, topic, **{"group.instance.id": "same"})
    assert eventually(lambda: first.poll() or len(first.parts) == PARTITIONS, 40)
    second = Member(own_node, topic, **{"group.instance.id": "same"})
    assert eventually(lambda: second.poll() or len(second.parts) == PARTITIONS, 40)
    assert eventually(lambda: first.poll() or first.fatal, 40)
    assert "fenced" in first.fatal
    turn([second], 2)
    assert second.fatal is None and len(second.parts) == PARTITIONS
    first.consumer.close()
    second.consumer.close()


def test_a_static_member_that_came_back_outlives_the_node(own_node, topic):
    """Its new id is what the group is stored with: kill -9, and it goes on. A node that needs long
    to start is still back within the session: librdkafka counts its own, and tries a broker that is
    gone more and more seldom."""
    more = {"group.instance.id": "one", "session.timeout.ms": 60000,
            "reconnect.backoff.max.ms": 500}
    one = Member(own_node, topic, **more)
    assert eventually(lambda: one.poll() or len(one.parts) == PARTITIONS, 40)
    one.crash()
    one = Member(own_node, topic, **more)
    assert eventually(lambda: one.poll() or len(one.parts) == PARTITIONS, 40)
    changes = list(one.changes)
    own_node.restart()
    confluent_produce(own_node.kafka, topic, [(b"k%d" % i, b"v") for i in range(20)])
    got = []
    assert eventually(lambda: (got.append(1) if one.poll() else None, len(got) == 20)[1], 40)
    turn([one], 3)
    assert one.fatal is None and one.changes == changes
    one.consumer.close()


def test_cooperative_members_keep_what_they_need_not_give(own_node, topic):
    more = {"partition.assignment.strategy": "cooperative-sticky"}
    one = Member(own_node, topic, **more)
    assert eventually(lambda: one.poll() or len(one.parts) == PARTITIONS, 40)
    two = Member(own_node, topic, **more)
    until_shared([one, two], [3, 3])
    three = Member(own_node, topic, **more)
    until_shared([one, two, three], [2, 2, 2])
    # Never all of it: what was revoked is what had to go.
    assert [c for c in one.changes if c < 0] in ([-3, -1], [-4], [-2, -2])
    assert all(c >= -1 for c in two.changes)
    three.consumer.close()
    until_shared([one, two], [3, 3])
    two.consumer.close()
    assert eventually(lambda: one.poll() or len(one.parts) == PARTITIONS, 40)
    one.consumer.close()
