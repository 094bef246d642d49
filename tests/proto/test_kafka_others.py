"""Kafka's clients of other languages: kafkajs, Go's sarama and kafka-go (kafka_programs.py)."""
import threading
import time

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from kafka_clients import confluent_consume, confluent_produce
from kafka_programs import MAKERS, Failed, Library
from kafka_raw import Raw
from node import Node, eventually

PARTITIONS = 6
SESSION_S = 10  # of the programs
TOPIC, GROUP = 2, 3          # kinds of resources
READ, WRITE, DESCRIBE = 3, 4, 8
CODECS = [("kafkajs", "none"), ("kafkajs", "gzip")] + [
    (library, codec) for library in ("sarama", "kafka-go")
    for codec in ("none", "gzip", "snappy", "lz4")]
REFUSED = {"kafkajs": {"login": "KafkaJSSASLAuthenticationError",
                       "topic": "TOPIC_AUTHORIZATION_FAILED",
                       "group": "GROUP_AUTHORIZATION_FAILED"},
           "sarama": {"login": "58", "topic": "29", "group": "30"}}
_libraries = {}


@pytest.fixture
def library(request):
    name = request.param
    if name not in _libraries:
        _libraries[name] = Library(name)
    return _libraries[name]


@pytest.fixture(scope="module")
def node():
    node = Node({"group.initial_rebalance_delay": "0"}).start()
    yield node
    node.close()


every_library = pytest.mark.parametrize("library", sorted(MAKERS), indirect=True)
# Debian's kafka-go writes and reads as before Kafka 0.11: without sequences, and without a login.
newer_library = pytest.mark.parametrize("library", sorted(set(MAKERS) - {"kafka-go"}),
                                        indirect=True)


def create(node, topic, config=None):
    admin = AdminClient({"bootstrap.servers": node.kafka, **(config or {})})
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        future.result(10)


@pytest.mark.parametrize("library, codec", CODECS, indirect=["library"])
def test_what_it_writes_is_read(node, name, library, codec):
    """By itself and by librdkafka; and what librdkafka writes, by it."""
    create(node, name)
    library.produce(node, name, 250, "a", codec=codec)
    confluent_produce(node.kafka, name, [(b"k%d" % i, b"b%d" % i) for i in range(50)], codec)
    wanted = sorted(["a%d" % i for i in range(250)] + ["b%d" % i for i in range(50)])
    got = library.consume(node, name, 300, "g-" + name)
    assert sorted(value for _, _, value in got) == wanted
    assert len({(p, o) for p, o, _ in got}) == 300
    assert sorted(v.decode() for _, v in confluent_consume(node.kafka, name, 300)) == wanted


@pytest.mark.parametrize("library", ["sarama"], indirect=True)
def test_zstd(node, name, library):
    """This sarama reads it, but writes it in requests older than zstd, which Kafka refuses too."""
    create(node, name)
    with pytest.raises(Failed) as told:
        library.produce(node, name, 1, "a", codec="zstd")
    assert told.value.word == "76"
    confluent_produce(node.kafka, name, [(b"k%d" % i, b"b%d" % i) for i in range(50)], "zstd")
    got = library.consume(node, name, 50, "g-" + name)
    assert sorted(value for _, _, value in got) == sorted("b%d" % i for i in range(50))


@newer_library
def test_idempotent_producers(node, name, library):
    create(node, name)
    library.produce(node, name, 300, "a", idempotent=True)
    got = library.consume(node, name, 300, "g-" + name)
    for p in range(PARTITIONS):  # in the order in which they were sent
        mine = [int(value[1:]) for part, _, value in sorted(got) if part == p]
        assert mine == sorted(mine)


class Writer(threading.Thread):
    """librdkafka, some hundred records a second, each acknowledged."""

    def __init__(self, node, topic):
        super().__init__(daemon=True)
        self.node, self.topic, self.over, self.written = node, topic, False, 0
        self.start()

    def run(self):
        while not self.over:
            at = self.written
            confluent_produce(self.node.kafka, self.topic,
                              [(b"k%d" % i, b"%d" % i) for i in range(at, at + 20)])
            self.written = at + 20
            time.sleep(0.05)

    def stop(self):
        self.over = True
        self.join(30)
        assert not self.is_alive()
        return self.written


def until_shared(members, counts, within):
    assert eventually(lambda: sorted(len(m.parts) for m in members) == sorted(counts), within), [
        (m.parts, m.lines[-3:]) for m in members]
    assert sorted(p for m in members for p in m.parts) == list(range(PARTITIONS))


@every_library
def test_a_group_whose_members_come_leave_and_are_killed(node, name, library):
    create(node, name)
    writer = Writer(node, name)
    group, members = "g-" + name, []

    def join():
        members.append(library.join(node, name, group))
        return members[-1]
    try:
        one = join()
        until_shared([one], [6], 40)
        two = join()
        until_shared([one, two], [3, 3], 40)
        three = join()
        until_shared([one, two, three], [2, 2, 2], 40)
        two.leave()
        # It said so: nobody waits for its session to end. But kafka-go dials to say it with a
        # context that it has cancelled just before.
        until_shared([one, three], [3, 3], 40 if library.name == "kafka-go" else SESSION_S - 1)
        three.kill()
        began = time.monotonic()
        until_shared([one], [6], 40)
        assert time.monotonic() - began > 2  # it did not say so
        four = join()
        until_shared([one, four], [3, 3], 40)
        wanted = {str(i) for i in range(writer.stop())}
        assert eventually(lambda: {v for m in members for _, _, v in m.records} >= wanted, 60)
        one.leave()
        four.leave()
    finally:
        writer.over = True
        for m in members:
            m.kill()
    seen = [r for m in members for r in m.records]
    assert {value for _, _, value in seen} == wanted
    # Twice only what had not been committed yet when a partition changed hands.
    assert len(seen) < 2 * len(wanted)
    # What was left in peace was seen in order.
    for p in range(PARTITIONS):
        offsets = [o for part, o, _ in four.records if part == p]
        assert offsets == sorted(offsets)


@pytest.mark.parametrize("library", ["kafka-go"], indirect=True)
def test_a_member_goes_on_where_it_left_off(node, name, library):
    create(node, name)
    library.produce(node, name, 100, "a", codec="snappy")
    seen = []
    for first, last in ((0, 100), (100, 150)):
        member = library.join(node, name, "g-" + name)
        try:
            assert eventually(lambda: len(member.records) == last - first, 60), member.lines[-5:]
            seen += member.records
            member.leave()
        finally:
            member.kill()
        if last == 100:
            library.produce(node, name, 50, "b", codec="gzip")
    assert sorted(v for _, _, v in seen) == sorted(
        ["a%d" % i for i in range(100)] + ["b%d" % i for i in range(50)])


@pytest.mark.parametrize("library", ["kafka-go"], indirect=True)
def test_connections_of_before_kafka_0_11(node, name, library):
    """Topics made and deleted, offsets, times, null values, what is too large; Produce and Fetch 2."""
    assert library.run(node, "conn", name) == [
        "partitions 2", "again true", "offsets 0 3", "time 1", "message 0 a=one true",
        "message 1 a= true", "message 2 =three ", "third 2 three", "large 10", "gone true"]


@pytest.fixture(scope="module")
def secured():
    node = Node({"auth.bootstrap": "admin:secret", "auth.anonymous": "off",
                 "auth.fail_delay": "20ms", "group.initial_rebalance_delay": "0"}).start()
    yield node
    node.close()


@pytest.fixture
def own_node(secured):
    return secured


@pytest.fixture
def admin(own_node):
    def tried():
        raw = Raw(own_node.ports["kafka"])
        try:
            if raw.login("admin", "secret") == 0:
                return raw
        except AssertionError:
            pass
        raw.close()
        return None
    raw = eventually(tried)
    assert raw
    with raw:
        yield raw


def create_as_admin(node, topic):
    create(node, topic, {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN",
                         "sasl.username": "admin", "sasl.password": "secret"})


@newer_library
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_logins(own_node, admin, name, library, mechanism):
    create_as_admin(own_node, name)
    admin.put_user(name, "pw-" + name)
    admin.allow(name, TOPIC, name, READ)
    admin.allow(name, TOPIC, name, WRITE)
    admin.allow(name, GROUP, name, READ)
    login = {"user": name, "mechanism": mechanism}
    library.produce(own_node, name, 10, "a", **login)
    assert len(library.consume(own_node, name, 10, name, **login)) == 10
    for who, password in ((name, "wrong"), ("nobody", "pw-" + name)):
        with pytest.raises(Failed) as told:
            library.produce(own_node, name, 1, "b", user=who, mechanism=mechanism,
                            password=password)
        assert told.value.word == REFUSED[library.name]["login"]


@newer_library
def test_what_it_may_not_is_told_as_kafka_does(own_node, admin, name, library):
    words = REFUSED[library.name]
    create_as_admin(own_node, name)
    admin.put_user(name, "pw-" + name)

    def refused(*what):
        with pytest.raises(Failed) as told:
            library.run(own_node, *what, user=name, mechanism="SCRAM-SHA-256")
        return told.value.word
    # Without a right to see the group kafkajs finds no coordinator, and sarama asks for ever.
    admin.allow(name, GROUP, name, DESCRIBE)
    assert refused("produce", name, 1, "a") == words["topic"]
    assert refused("group", name, name) in (words["topic"], words["group"])
    admin.allow(name, TOPIC, name, READ)
    assert refused("produce", name, 1, "a") == words["topic"]
    assert refused("group", name, name) == words["group"]
    admin.allow(name, GROUP, name, READ)
    admin.allow(name, TOPIC, name, WRITE)
    library.produce(own_node, name, 5, "a", user=name, mechanism="SCRAM-SHA-256")
    got = library.consume(own_node, name, 5, name, user=name, mechanism="SCRAM-SHA-256")
    assert sorted(value for _, _, value in got) == ["a%d" % i for i in range(5)]
