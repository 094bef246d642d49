"""One log behind all doors: what goes in through one comes out of the others."""
import confluent_kafka
import pytest
from confluent_kafka import KafkaError, TopicPartition

from kafka_clients import confluent_consumer, confluent_produce, poll
from mqtt_client import V5, V311, Client
from node import eventually

STREAM = "mqtt"


class Tail:
    """A Kafka consumer of the stream's records from here on."""

    def __init__(self, node):
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": node.kafka, "group.id": "tail", "enable.auto.commit": False})
        parts = self.consumer.list_topics(STREAM, timeout=30).topics[STREAM].partitions
        at = [TopicPartition(STREAM, p) for p in parts]
        self.consumer.assign([TopicPartition(STREAM, p.partition, self.consumer.
                                             get_watermark_offsets(p, timeout=30)[1])
                              for p in at])

    def take(self, count, key=None):
        got = []

        def more():
            for m in self.consumer.consume(100, 0.2):
                assert not m.error(), m.error()
                if key is None or m.key() == key:
                    got.append(m)
            return len(got) >= count
        assert eventually(more), "%d of %d records" % (len(got), count)
        return got

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.consumer.close()


@pytest.fixture
def tail(node, name):
    with Client(node.mqtt) as c:
        c.publish(name + "/first", b"x", 1)  # the stream exists from now on
    with Tail(node) as made:
        yield made


def headers_of(message):
    return [(k, v) for k, v in message.headers() or []]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])
def test_mqtt_to_kafka(node, name, tail, version, qos):
    topic = name + "/plant/7"
    with Client(node.mqtt, version=version) as c:
        for i in range(20):
            c.publish(topic, b"%d" % i, qos)
        got = tail.take(20, topic.encode())
    assert [int(m.value()) for m in got] == list(range(20))
    assert len({m.partition() for m in got}) == 1
    offsets = [m.offset() for m in got]
    assert offsets == sorted(set(offsets))
    expected = b"%d" % qos
    assert all(dict(headers_of(m)).get("mqtt.qos", b"0") == expected for m in got)


def test_properties_become_headers(node, name, tail):
    topic = name + "/p"
    with Client(node.mqtt) as c:
        c.publish(topic, b"{}", 1, retain=True, ContentType="application/json",
                  ResponseTopic="re/ply", CorrelationData=b"\x00\x01", PayloadFormatIndicator=1,
                  UserProperty=[("b", "1"), ("a", "2"), ("b", "3")])
    message = tail.take(1, topic.encode())[0]
    headers = headers_of(message)
    found = dict(headers)
    assert found["content-type"] == b"application/json"
    assert found["reply-to"] == b"re/ply"
    assert found["correlation-id"] == b"\x00\x01"
    assert found["mqtt.pfi"] == b"1" and found["mqtt.retain"] == b"1"
    assert [h for h in headers if h[0] in "ab"] == [("b", b"1"), ("a", b"2"), ("b", b"3")]


def test_expiry_becomes_a_moment(node, name, tail):
    topic = name + "/e"
    with Client(node.mqtt) as c:
        c.publish(topic, b"x", 1, MessageExpiryInterval=60)
    m = tail.take(1, topic.encode())[0]
    left = int(dict(headers_of(m))["expires-at"]) - m.timestamp()[1]
    assert 59_000 <= left <= 61_000


def test_kafka_to_mqtt_live(node, name, tail):
    with Client(node.mqtt) as c:
        c.subscribe(name + "/#", 1)
        p = confluent_kafka.Producer({"bootstrap.servers": node.kafka})
        p.produce(STREAM, b"body", name + "/k", headers=[
            ("content-type", b"text/plain"), ("a", b"1"), ("a", b"2"), ("reply-to", b"re/ply")])
        assert p.flush(40) == 0
        m = c.get()
        assert (m.topic, m.payload, m.retain) == (name + "/k", b"body", False)
        assert m.properties.ContentType == "text/plain"
        assert m.properties.ResponseTopic == "re/ply"
        assert [u for u in m.properties.UserProperty if u[0] == "a"] == [("a", "1"), ("a", "2")]


def test_kafka_to_mqtt_from_the_log(node, name, tail):
    with Client(node.mqtt, name, clean=False, expiry=600) as c:
        c.subscribe(name + "/#", 1)
    sent = [("%s/%d" % (name, i % 5), b"%d" % i) for i in range(500)]
    confluent_produce(node.kafka, STREAM, sent, codec="lz4")
    with Client(node.mqtt, name, clean=False, expiry=600) as c:
        got = [(m.topic, m.payload) for m in c.take(500)]
        for t in range(5):
            topic = "%s/%d" % (name, t)
            assert [v for k, v in got if k == topic] == [v for k, v in sent if k == topic]
        c.quiet()


def test_a_header_names_the_topic(node, name, tail):
    with Client(node.mqtt) as c:
        c.subscribe(name + "/#", 1)
        p = confluent_kafka.Producer({"bootstrap.servers": node.kafka})
        p.produce(STREAM, b"x", b"some key", headers=[("mqtt.topic", (name + "/h").encode())])
        assert p.flush(40) == 0
        assert c.get().topic == name + "/h"


def test_one_order_for_all(node, name, tail):
    """Two doors write one topic; everyone sees one order, the order of offsets."""
    topic = name + "/t"
    with Client(node.mqtt) as one, Client(node.mqtt) as two, Client(node.mqtt) as pub:
        one.subscribe(topic, 1)
        two.subscribe(name + "/+", 0)
        # One order needs one partition: Kafka's own partitioner, as MQTT's keys use it.
        p = confluent_kafka.Producer({"bootstrap.servers": node.kafka, "linger.ms": 0,
                                      "partitioner": "murmur2_random"})
        for i in range(100):
            p.produce(STREAM, b"k%d" % i, topic)
            p.poll(0)
            pub.publish(topic, b"m%d" % i, 1)
        assert p.flush(40) == 0
        log = [m.value() for m in sorted(tail.take(200, topic.encode()),
                                         key=lambda m: m.offset())]
        assert [m.payload for m in one.take(200)] == log
        assert [m.payload for m in two.take(200)] == log


def test_a_route_of_its_own(make_node, name):
    node = make_node({"route.plant": "plant/# -> plant"})
    with Client(node.mqtt) as c:
        c.subscribe("plant/+", 1)
        c.publish("plant/1", b"p", 1)
        c.publish("other/1", b"o", 1)
        assert c.get().payload == b"p"
    consumer = confluent_consumer(node.kafka, ["plant"])
    m = poll(consumer, 1)[0]
    assert (m.key(), m.value()) == (b"plant/1", b"p")
    consumer.close()


def test_a_memory_route_leaves_no_log(make_node, name):
    node = make_node({"route.fast": "fast/# -> fast durability=memory"})
    with Client(node.mqtt) as c:
        c.subscribe("fast/#", 1)
        for i in range(50):
            c.publish("fast/1", b"%d" % i, 1)
        assert [int(m.payload) for m in c.take(50)] == list(range(50))
    consumer = confluent_consumer(node.kafka, ["fast"], **{"auto.offset.reset": "earliest"})
    assert poll(consumer, 1, within=3) == []
    consumer.close()


def test_one_size_limit_for_both_doors(make_node, name):
    node = make_node({"message.bytes_max": "20000"})
    with Client(node.mqtt) as c:
        c.subscribe(name, 1)
        c.publish(name, b"x" * 19_000, 1)
        assert len(c.get().payload) == 19_000
        errors = []
        p = confluent_kafka.Producer({"bootstrap.servers": node.kafka})
        p.produce(STREAM, b"x" * 30_000, name, on_delivery=lambda e, m: errors.append(e))
        p.flush(40)
        assert errors[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
        c.quiet()
