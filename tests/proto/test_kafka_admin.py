"""What administrators do through Kafka's API."""
import struct
import time

import kafka
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic
from kafka.admin import KafkaAdminClient

from kafka_clients import confluent_consumer, confluent_produce, kcat_consume, poll
from kafka_raw import Raw, compact, string
from node import eventually


@pytest.fixture
def admin(node):
    return AdminClient({"bootstrap.servers": node.kafka})


def error_of(futures):
    with pytest.raises(KafkaException) as raised:
        next(iter(futures.values())).result(30)
    return raised.value.args[0].code()


def done(futures):
    return [f.result(30) for f in futures.values()][0]


def partitions(admin, name):
    found = admin.list_topics(timeout=30).topics.get(name)
    return len(found.partitions) if found else 0


def test_create_describe_grow_delete(node, admin, name):
    done(admin.create_topics([NewTopic(name, 3, 1)]))
    assert partitions(admin, name) == 3
    listed = admin.list_topics(timeout=30)
    assert listed.brokers and {p.leader for p in listed.topics[name].partitions.values()} == {1}
    done(admin.create_partitions([NewPartitions(name, 5)]))
    assert partitions(admin, name) == 5
    confluent_produce(node.kafka, name, [(b"k%d" % i, b"v") for i in range(50)])
    done(admin.delete_topics([name]))
    assert eventually(lambda: partitions(admin, name) == 0)


def test_refusals(admin, name):
    done(admin.create_topics([NewTopic(name, 2, 1)]))
    for wrong, code in (
            (NewTopic(name, 2, 1), KafkaError.TOPIC_ALREADY_EXISTS),
            (NewTopic("bad name!", 1, 1), KafkaError.TOPIC_EXCEPTION),
            (NewTopic(name + "r", 1, 3), KafkaError.INVALID_REPLICATION_FACTOR),
            (NewTopic(name + "p", 0, 1), KafkaError.INVALID_PARTITIONS)):
        assert error_of(admin.create_topics([wrong])) == code
    assert error_of(admin.create_partitions([NewPartitions(name, 1)])) == \
        KafkaError.INVALID_PARTITIONS
    assert error_of(admin.delete_topics([name + "x"])) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_a_name_twice_is_found_among_many(node, name):
    """In a time that does not grow by the square of their number, in which others would wait."""
    names = ["!", *("!%d" % i for i in range(300_000)), "!", name, name]
    body = struct.pack(">i", len(names))
    body += b"".join(string(n) + struct.pack(">ihii", 1, 1, 0, 0) for n in names)
    with Raw(node.ports["kafka"], timeout=60) as raw:
        raw.ask(18, 0, b"")  # the first request may not be long
        answer = raw.ask(19, 0, body + struct.pack(">i", 1000))
    at, codes = 4, []
    for n in names:
        at += 2 + len(n)
        codes.append(struct.unpack_from(">h", answer, at)[0])
        at += 2
    assert codes == [42] + [17] * 300_000 + [42] * 3


def test_validate_only_creates_nothing(admin, name):
    done(admin.create_topics([NewTopic(name, 2, 1)], validate_only=True))
    assert partitions(admin, name) == 0


def test_configs(admin, name):
    done(admin.create_topics([NewTopic(name, 1, 1, config={"retention.ms": "123456"})]))

    def value(key):
        return done(admin.describe_configs([ConfigResource("topic", name)]))[key].value
    assert value("retention.ms") == "123456"
    assert value("cleanup.policy") == "delete"
    change = ConfigResource("topic", name)
    change.set_config("retention.ms", "654321")
    done(admin.alter_configs([change]))
    assert value("retention.ms") == "654321"
    wrong = ConfigResource("topic", name)
    wrong.set_config("retention.ms", "soon")
    assert error_of(admin.alter_configs([wrong])) in (KafkaError.INVALID_CONFIG,
                                                      KafkaError.INVALID_REQUEST)
    assert value("retention.ms") == "654321"
    assert done(admin.describe_configs([ConfigResource("broker", "1")]))


def test_what_was_made_outlives_kill_9(own_node, name):
    admin = AdminClient({"bootstrap.servers": own_node.kafka})
    done(admin.create_topics([NewTopic(name, 3, 1, config={"retention.ms": "777000"})]))
    done(admin.create_topics([NewTopic(name + "x", 1, 1)]))
    done(admin.delete_topics([name + "x"]))
    own_node.restart()
    admin = AdminClient({"bootstrap.servers": own_node.kafka})
    assert partitions(admin, name) == 3 and partitions(admin, name + "x") == 0
    found = done(admin.describe_configs([ConfigResource("topic", name)]))
    assert found["retention.ms"].value == "777000"


def test_kafka_python_admin(node, name):
    admin = KafkaAdminClient(bootstrap_servers=node.kafka)
    admin.create_topics([kafka.admin.NewTopic(name, 2, 1)])
    assert name in admin.list_topics()
    assert len(admin.describe_topics([name])[0]["partitions"]) == 2
    admin.create_partitions({name: kafka.admin.NewPartitions(4)})
    assert len(admin.describe_topics([name])[0]["partitions"]) == 4
    admin.delete_topics([name])
    assert eventually(lambda: name not in admin.list_topics())
    admin.close()


def test_groups_are_listed_described_and_deleted(node, name):
    confluent_produce(node.kafka, name, [(b"k", b"v")] * 5)
    c = confluent_consumer(node.kafka, [name], name)
    poll(c, 5)
    c.commit(asynchronous=False)
    admin = KafkaAdminClient(bootstrap_servers=node.kafka)
    assert (name, "consumer") in admin.list_consumer_groups()
    found = admin.describe_consumer_groups([name])[0]
    assert found.state == "Stable" and len(found.members) == 1
    assert sum(o.offset for o in admin.list_consumer_group_offsets(name).values()) == 5
    (_, busy), = admin.delete_consumer_groups([name])
    assert busy.errno == 68  # NON_EMPTY_GROUP
    c.close()
    assert eventually(lambda: admin.describe_consumer_groups([name])[0].state == "Empty")
    (_, fine), = admin.delete_consumer_groups([name])
    assert fine.errno == 0
    assert (name, "consumer") not in admin.list_consumer_groups()
    admin.close()


def test_delete_records(node, admin, name):
    done(admin.create_topics([NewTopic(name, 1, 1)]))
    confluent_produce(node.kafka, name, [(b"k", b"%d" % i) for i in range(20)],
                      **{"batch.num.messages": 1})
    delete_records(node, name, 0, 12)
    values = [v for _, v in kcat_consume(node.kafka, name, 8)]
    assert values == [b"%d" % i for i in range(12, 20)]


def delete_records(node, topic, partition, offset):
    """DeleteRecords version 0 by hand: neither Python client of Debian offers the call."""
    import socket
    import struct
    body = struct.pack(">hhih", 21, 0, 5, 1) + b"c" + struct.pack(">ih", 1, len(topic))
    body += topic.encode() + struct.pack(">iiqi", 1, partition, offset, 10_000)
    with socket.create_connection(("127.0.0.1", node.ports["kafka"]), timeout=15) as s:
        s.sendall(struct.pack(">i", len(body)) + body)
        size = struct.unpack(">i", s.recv(4))[0]
        got = b""
        while len(got) < size:
            got += s.recv(size - len(got))
    at = 4 + 4 + 4 + 2 + len(topic) + 4
    found, low, error = struct.unpack_from(">iqh", got, at)
    assert (found, low, error) == (partition, offset, 0)


def test_producers_of_a_partition_are_described(node, admin, name):
    """DescribeProducers by hand: the last sequence of each idempotent producer."""
    done(admin.create_topics([NewTopic(name, 1, 1)]))
    for count in (3, 5):
        producer = Producer({"bootstrap.servers": node.kafka, "enable.idempotence": True,
                             "log_level": 0})
        for number in range(count):
            producer.produce(name, b"%d" % number)
        assert producer.flush(40) == 0
    confluent_produce(node.kafka, name, [(b"k", b"no id")])
    body = (b"\2" + compact(name.encode()) + b"\3" + struct.pack(">ii", 0, 4) + b"\0\0")
    with Raw(node.ports["kafka"]) as raw:
        answer = raw.ask(61, 0, body, flexible=True)
    at = 4 + 1 + 1 + len(name.encode()) + 1
    assert struct.unpack_from(">ih", answer, at) == (0, 0)
    at += 6 + 1
    assert answer[at] - 1 == 2
    found = [struct.unpack_from(">qiiqiq", answer, at + 1 + 37 * n) for n in range(2)]
    assert sorted(f[2] for f in found) == [2, 4]
    assert len({f[0] for f in found}) == 2
    for _, epoch, _, at_ms, coordinator, transaction in found:
        assert (epoch, coordinator, transaction) == (0, -1, -1)
        assert abs(at_ms / 1000 - time.time()) < 60
    assert answer[at + 1 + 37 * 2 + 1:][:6] == struct.pack(">ih", 4, 3)  # there is no such


def test_offsets_of_a_group_with_members_go_but_for_what_they_read(node, admin, name):
    """OffsetDelete: 86 for topics the group subscribes, the others are deleted."""
    for topic in (name, name + "old"):
        done(admin.create_topics([NewTopic(topic, 1, 1)]))
        confluent_produce(node.kafka, topic, [(b"k", b"v")])
    consumer = confluent_consumer(node.kafka, [name], "g" + name)
    try:
        poll(consumer, 1)
        consumer.commit(asynchronous=False)
        with Raw(node.ports["kafka"]) as raw:
            old = string("g" + name) + struct.pack(">i", 2)
            for topic in (name, name + "old"):
                old += string(topic) + struct.pack(">ii", 1, 0)
            answer = raw.ask(47, 0, old)
        assert struct.unpack_from(">h", answer)[0] == 0
        errors, at = [], 2 + 4 + 4
        for _ in range(2):
            at += 2 + struct.unpack_from(">h", answer, at)[0]
            errors.append(struct.unpack_from(">iih", answer, at)[2])
            at += 10
        assert errors == [86, 0]
        assert [t.offset for t in consumer.committed([TopicPartition(name, 0)], 10)] == [1]
    finally:
        consumer.close()
    with Raw(node.ports["kafka"]) as raw:
        answer = raw.ask(47, 0, string("g" + name) + struct.pack(">i", 1) + string(name) +
                         struct.pack(">ii", 1, 0))
    assert answer[-2:] == b"\0\0"


SET, DELETE, APPEND, SUBTRACT = range(4)


def test_settings_are_changed_one_by_one(node, admin, name):
    """IncrementalAlterConfigs; what would not be done is refused by name and changes nothing."""
    done(admin.create_topics([NewTopic(name, 1, 1, config={"retention.ms": "123456"})]))

    def change(key, how, value):
        body = (struct.pack(">ib", 1, 2) + string(name) + struct.pack(">i", 1) + string(key) +
                bytes([how]) + (b"\xff\xff" if value is None else string(value)) + b"\0")
        with Raw(node.ports["kafka"]) as raw:
            error, size = struct.unpack_from(">hh", answer := raw.ask(44, 0, body), 8)
        return error, answer[12:12 + max(size, 0)].decode()

    def value(key):
        return done(admin.describe_configs([ConfigResource("topic", name)]))[key].value
    assert change("cleanup.policy", APPEND, "compact") == (0, "")
    assert set(value("cleanup.policy").split(",")) == {"compact", "delete"}
    assert change("cleanup.policy", SUBTRACT, "delete") == (0, "")
    assert value("cleanup.policy") == "compact"
    assert change("cleanup.policy", DELETE, None) == (0, "")
    assert value("cleanup.policy") == "delete"
    assert change("max.message.bytes", SET, "100000") == (0, "")
    for key, wrong, code in (("no.such.key", "1", 40), ("segment.bytes", "-4", 40),
                             ("unclean.leader.election.enable", "true", 44)):
        error, why = change(key, SET, wrong)
        assert error == code and key in why
    assert (value("retention.ms"), value("max.message.bytes")) == ("123456", "100000")


def test_what_tools_ask_of_a_cluster(node, admin, name):
    """DescribeCluster, DescribeLogDirs, ListPartitionReassignments."""
    done(admin.create_topics([NewTopic(name, 1, 1)]))
    confluent_produce(node.kafka, name, [(b"k", b"v" * 1000)])
    with Raw(node.ports["kafka"]) as raw:
        cluster = raw.ask(60, 0, b"\1\0", flexible=True)
        folders = raw.ask(35, 1, struct.pack(">i", 1) + string(name) + struct.pack(">ii", 1, 0))
        moves = raw.ask(46, 0, struct.pack(">i", 1000) + b"\0\0", flexible=True)
    assert struct.unpack_from(">ihb", cluster) == (0, 0, 0)
    at = 7 + cluster[7]  # behind the cluster's name
    assert struct.unpack_from(">ib", cluster, at) == (1, 2)  # who controls; one broker
    assert struct.unpack_from(">i", cluster, at + 5) == (1,)
    host = cluster[at + 10:at + 9 + cluster[at + 9]].decode()
    port = struct.unpack_from(">i", cluster, at + 9 + len(host) + 1)[0]
    assert "%s:%d" % (host, port) == node.kafka
    assert struct.unpack_from(">iih", folders) == (0, 1, 0)
    at = 12 + struct.unpack_from(">h", folders, 10)[0]
    assert folders[at:at + 4 + 2 + len(name)] == struct.pack(">i", 1) + string(name)
    count, partition, size, lag, future = struct.unpack_from(">iiqq?", folders,
                                                             at + 6 + len(name))
    assert (count, partition, lag, future) == (1, 0, 0, False) and size >= 1000
    assert moves == bytes(7) + b"\1\0"  # no error, no reason, none under way
