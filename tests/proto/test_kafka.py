"""Kafka clients of three families, in every direction."""
import time

import confluent_kafka
import kafka
import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, KafkaError, KafkaException, TopicPartition

from kafka_clients import (CONSUMERS, PRODUCERS, confluent_consumer, confluent_produce, kcat,
                           kcat_consume, poll)
from node import eventually


def records(count, keys=7):
    return [(b"k%d" % (i % keys), b"v%d" % i) for i in range(count)]


def same(got, sent):
    assert sorted(got) == sorted(sent)
    for key in {k for k, _ in sent}:  # order holds per key
        assert [v for k, v in got if k == key] == [v for k, v in sent if k == key]


def watermarks(node, topic, partition=0):
    c = confluent_kafka.Consumer({"bootstrap.servers": node.kafka, "group.id": "w"})
    try:
        return c.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
    finally:
        c.close()


def single(node, name, partitions=1):
    """A stream with this many partitions."""
    from confluent_kafka.admin import AdminClient, NewTopic
    admin = AdminClient({"bootstrap.servers": node.kafka})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(30)
    return name


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("producer", PRODUCERS)
def test_every_direction(node, name, producer, consumer):
    sent = records(100)
    PRODUCERS[producer](node.kafka, name, sent)
    same(CONSUMERS[consumer](node.kafka, name, 100), sent)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("producer", ["kcat", "confluent"])
def test_codecs(node, name, producer, codec):
    sent = [(b"k", b"compressible " * 40 + b"%d" % i) for i in range(500)]
    PRODUCERS[producer](node.kafka, name, sent, codec=codec)
    same(kcat_consume(node.kafka, name, 500), sent)


def test_kafka_python_gzip(node, name):
    sent = records(200)
    PRODUCERS["kafka-python"](node.kafka, name, sent, codec="gzip")
    same(CONSUMERS["kafka-python"](node.kafka, name, 200), sent)


def test_null_key_null_value_headers_timestamp(node, name):
    single(node, name)
    p = confluent_kafka.Producer({"bootstrap.servers": node.kafka})
    headers = [("a", b"1"), ("b", None), ("a", b"2"), ("c", b"")]
    p.produce(name, None, b"tombstone", headers=headers, timestamp=1_600_000_000_123)
    p.produce(name, b"", None)
    assert p.flush(40) == 0
    c = confluent_consumer(node.kafka, [name])
    first, second = poll(c, 2)
    c.close()
    assert (first.key(), first.value(), first.headers()) == (b"tombstone", None, headers)
    assert first.timestamp() == (TIMESTAMP_CREATE_TIME, 1_600_000_000_123)
    assert (second.key(), second.value(), second.headers()) == (None, b"", None)


def test_offsets_are_dense(node, name):
    single(node, name)
    offsets = []
    for codec in ("none", "lz4", "none"):
        offsets += confluent_produce(node.kafka, name, records(50), codec=codec)
    assert sorted(o for _, o in offsets) == list(range(150))
    assert watermarks(node, name) == (0, 150)


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acks(node, name, acks):
    p = confluent_kafka.Producer({"bootstrap.servers": node.kafka, "acks": acks})
    for i in range(30):
        p.produce(name, b"%d" % i, b"k")
    assert p.flush(40) == 0
    assert [int(v) for _, v in CONSUMERS["confluent"](node.kafka, name, 30)] == list(range(30))


def test_idempotent_producer(node, name):
    sent = records(2000)
    confluent_produce(node.kafka, name, sent, **{
        "enable.idempotence": True, "batch.num.messages": 20, "linger.ms": 0})
    same(kcat_consume(node.kafka, name, 2000), sent)


def test_large_records(node, name):
    sizes = [1, 1000, 100_000, 900_000]
    sent = [(b"k", bytes([i]) * size) for i, size in enumerate(sizes)]
    confluent_produce(node.kafka, name, sent)
    c = confluent_consumer(node.kafka, [name], **{"max.partition.fetch.bytes": 10_000})
    got = [(m.key(), m.value()) for m in poll(c, len(sizes))]
    c.close()
    assert got == sent  # a first batch larger than the limit is still returned


def test_commit_and_resume(node, name):
    single(node, name)
    group = "g-" + name
    confluent_produce(node.kafka, name, records(30, 1))
    c = confluent_consumer(node.kafka, [name], group)
    assert len(poll(c, 10)) == 10
    c.commit(asynchronous=False)
    c.close()
    c = confluent_consumer(node.kafka, [name], group)
    assert [m.value() for m in poll(c, 20)] == [b"v%d" % i for i in range(10, 30)]
    assert c.committed([TopicPartition(name, 0)], timeout=10)[0].offset == 10
    c.commit(offsets=[TopicPartition(name, 0, 25, )], asynchronous=False)
    assert c.committed([TopicPartition(name, 0)], timeout=10)[0].offset == 25
    c.close()


def test_committed_offsets_and_records_outlive_kill_9(own_node, name):
    single(own_node, name)
    confluent_produce(own_node.kafka, name, records(20, 1))
    # The group comes back with its member, who is missed only after a session.
    session = {"session.timeout.ms": 6000}
    c = confluent_consumer(own_node.kafka, [name], "g", **session)
    poll(c, 7)
    c.commit(asynchronous=False)
    own_node.restart()
    c.close()
    c = confluent_consumer(own_node.kafka, [name], "g", **session)
    assert [m.value() for m in poll(c, 13)] == [b"v%d" % i for i in range(7, 20)]
    c.close()
    assert watermarks(own_node, name) == (0, 20)
    assert confluent_produce(own_node.kafka, name, records(1)) == [(0, 20)]


def test_members_go_on_in_their_generation_after_kill_9(own_node, name):
    single(own_node, name, 2)
    confluent_produce(own_node.kafka, name, records(20, 1))
    rebalances = []
    c = confluent_consumer(own_node.kafka, [name], "g")
    c.subscribe([name], on_assign=lambda _c, parts: rebalances.append(len(parts)),
                on_revoke=lambda _c, parts: rebalances.append(-len(parts)),
                on_lost=lambda _c, parts: rebalances.append(-len(parts)))
    poll(c, 20)
    own_node.restart()
    confluent_produce(own_node.kafka, name, records(5, 1))
    assert len(poll(c, 5)) == 5
    c.commit(asynchronous=False)
    time.sleep(4)  # a heartbeat comes every three seconds
    c.poll(0.1)
    assert rebalances == [2]
    c.close()


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_a_group_shares_the_partitions(node, name, strategy):
    single(node, name, 6)
    more = {"partition.assignment.strategy": strategy, "session.timeout.ms": 6000}
    first = confluent_consumer(node.kafka, [name], "g-" + name, **more)
    assert eventually(lambda: first.poll(0.1) or len(first.assignment()) == 6, 40)
    second = confluent_consumer(node.kafka, [name], "g-" + name, **more)

    def shared():
        first.poll(0.05)
        second.poll(0.05)
        return len(first.assignment()) == 3 and len(second.assignment()) == 3
    assert eventually(shared, 40)
    parts = [p.partition for c in (first, second) for p in c.assignment()]
    assert sorted(parts) == list(range(6))
    second.close()
    assert eventually(lambda: first.poll(0.1) or len(first.assignment()) == 6, 40)
    sent = records(60, 13)
    confluent_produce(node.kafka, name, sent)
    assert len(poll(first, 60)) == 60
    first.close()


def test_a_dead_member_is_replaced(node, name):
    single(node, name, 2)
    silent = kafka.KafkaConsumer(name, bootstrap_servers=node.kafka, group_id=name,
                                 session_timeout_ms=6000, heartbeat_interval_ms=1000)
    assert eventually(lambda: silent.poll(100) is not None and len(silent.assignment()) == 2, 40)
    silent._client.close()  # the connection breaks and no LeaveGroup is sent
    silent._coordinator._heartbeat_thread.disable()
    c = confluent_consumer(node.kafka, [name], name, **{"session.timeout.ms": 6000})
    assert eventually(lambda: c.poll(0.1) or len(c.assignment()) == 2, 60)
    c.close()


def test_offsets_for_times(node, name):
    single(node, name)
    p = confluent_kafka.Producer({"bootstrap.servers": node.kafka, "linger.ms": 0})
    for i in range(10):
        p.produce(name, b"%d" % i, timestamp=1_600_000_000_000 + i * 1000)
        assert p.flush(40) == 0
    c = confluent_kafka.Consumer({"bootstrap.servers": node.kafka, "group.id": name})
    for at, offset in ((0, 0), (1_600_000_000_000, 0), (1_600_000_004_000, 4),
                       (1_600_000_004_001, 5), (1_600_000_009_000, 9)):
        found = c.offsets_for_times([TopicPartition(name, 0, at)], timeout=30)[0]
        assert found.error is None and found.offset == offset, (at, found)
    after = c.offsets_for_times([TopicPartition(name, 0, 1_700_000_000_000)], timeout=30)[0]
    assert after.offset in (-1, 10)
    c.close()
    out = kcat(node.kafka, "-Q", "-t", "%s:0:%d" % (name, 1_600_000_007_000))
    assert out.decode().split()[-1] == "7"


def test_seek_and_out_of_range(node, name):
    single(node, name)
    confluent_produce(node.kafka, name, records(10, 1))
    c = confluent_kafka.Consumer({"bootstrap.servers": node.kafka, "group.id": name,
                                  "auto.offset.reset": "error", "enable.auto.commit": False})
    c.assign([TopicPartition(name, 0, 6)])
    assert [m.offset() for m in poll(c, 4)] == [6, 7, 8, 9]
    c.assign([TopicPartition(name, 0, 5000)])
    m = eventually(lambda: c.poll(0.3))
    # librdkafka reports the broker's error, or that its reset policy forbids to go on.
    assert m.error().code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)
    c.close()


@pytest.mark.parametrize("rack", ["here", "elsewhere"])
def test_consumers_say_their_rack(make_node, name, rack):
    """One node has the only copy: whatever the rack, it is read there (fetch from the nearest of
    several is in tests/cluster)."""
    node = make_node({"node.rack": "here", "group.initial_rebalance_delay": "0"})
    sent = records(500)
    confluent_produce(node.kafka, name, sent)
    c = confluent_consumer(node.kafka, [name], **{"client.rack": rack})
    try:
        same([(m.key(), m.value()) for m in poll(c, len(sent))], sent)
    finally:
        c.close()


def test_a_long_poll_ends_when_a_record_comes(node, name):
    single(node, name)
    c = confluent_consumer(node.kafka, [name], **{"fetch.wait.max.ms": 20000})
    assert eventually(lambda: c.poll(0.1) or len(c.assignment()) == 1, 40)
    time.sleep(0.5)  # the fetch waits at the server now
    sent_at = time.monotonic()
    confluent_produce(node.kafka, name, [(b"k", b"v")], **{"linger.ms": 0})
    assert len(poll(c, 1)) == 1
    assert time.monotonic() - sent_at < 15
    c.close()


def test_an_unknown_topic_is_created_by_producing(node, name):
    confluent_produce(node.kafka, name, records(1))
    from confluent_kafka.admin import AdminClient
    found = AdminClient({"bootstrap.servers": node.kafka}).list_topics(timeout=30)
    assert len(found.topics[name].partitions) == 8  # stream.partitions


def test_topics_are_not_created_when_that_is_off(make_node, name):
    node = make_node({"stream.auto_create": "false"})
    p = confluent_kafka.Producer({"bootstrap.servers": node.kafka, "message.timeout.ms": 4000})
    errors = []
    p.produce(name, b"x", on_delivery=lambda e, m: errors.append(e))
    p.flush(40)
    assert len(errors) == 1 and errors[0] is not None


def test_a_record_over_the_limit_is_refused(make_node, name):
    node = make_node({"message.bytes_max": "10000"})
    errors = []
    p = confluent_kafka.Producer({"bootstrap.servers": node.kafka, "message.timeout.ms": 30000})
    p.produce(name, b"x" * 20_000, on_delivery=lambda e, m: errors.append(e))
    p.flush(40)
    assert [e.code() for e in errors] == [KafkaError.MSG_SIZE_TOO_LARGE]
    confluent_produce(node.kafka, name, [(b"k", b"x" * 9000)])


def test_bytes_that_are_no_request_close_that_connection_only(node, name):
    import socket
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x7f\xff\xff\xff" + b"x" * 64, b"\xff" * 64,
                 b"\x00\x00\x00\x02\x00\x12", b"\x00\x00\x00\x0a\x00\x63\x00\x00\0\0\0\1\xff\xff"):
        with socket.create_connection(("127.0.0.1", node.ports["kafka"]), timeout=10) as s:
            s.sendall(junk)
            try:
                assert s.recv(1000) == b""
            except ConnectionResetError:
                pass
    confluent_produce(node.kafka, name, records(3))


def test_api_versions_of_the_future_are_answered_with_what_there_is(node):
    import socket
    import struct
    with socket.create_connection(("127.0.0.1", node.ports["kafka"]), timeout=10) as s:
        body = struct.pack(">hhih", 18, 99, 77, 1) + b"c" + b"\x00"
        s.sendall(struct.pack(">i", len(body)) + body)
        size = struct.unpack(">i", s.recv(4))[0]
        got = b""
        while len(got) < size:
            got += s.recv(size - len(got))
        correlation, error, count = struct.unpack_from(">ihi", got)
        keys = [struct.unpack_from(">hhh", got, 10 + 6 * i) for i in range(count)]
        assert (correlation, error) == (77, 35)
        assert any(k[0] == 18 and k[2] >= 3 for k in keys)


def test_transactions_are_not_offered_by_half(node, name):
    """Either a transaction works or asking for one fails; nothing aborted may be seen."""
    p = confluent_kafka.Producer({"bootstrap.servers": node.kafka, "transactional.id": name})
    try:
        p.init_transactions(8)
    except KafkaException:
        return
    p.begin_transaction()
    p.produce(name, b"a")
    p.abort_transaction(10)
    p.begin_transaction()
    p.produce(name, b"b")
    p.commit_transaction(10)
    assert kcat_consume(node.kafka, name, 1) == [(b"", b"b")]
