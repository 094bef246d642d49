"""Producing and consuming with each Kafka client of Debian, in one form: lists of (key, value)."""
import subprocess
import time
import uuid

import confluent_kafka
import kafka

WAIT_S = 60


def kcat(broker, *words, data=b""):
    done = subprocess.run(["kcat", "-b", broker, *words], input=data, capture_output=True,
                          timeout=WAIT_S, check=False)
    assert done.returncode == 0, (words, done.stderr.decode())
    return done.stdout


def kcat_produce(broker, topic, records, codec="none", **_):
    lines = b"".join(k + b"\t" + v + b"\n" for k, v in records)
    kcat(broker, "-P", "-t", topic, "-K", "\t", "-z", codec, "-X", "acks=all", data=lines)


def kcat_consume(broker, topic, count):
    out = kcat(broker, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%k\\t%s\\n")
    return [tuple(line.split(b"\t")) for line in out.splitlines()]


def confluent_produce(broker, topic, records, codec="none", **more):
    errors, offsets = [], []

    def delivered(error, message):
        errors.append(error) if error else offsets.append((message.partition(), message.offset()))
    p = confluent_kafka.Producer({"bootstrap.servers": broker, "compression.type": codec,
                                  "acks": "all", "linger.ms": 5, **more})
    for key, value in records:
        p.produce(topic, value, key, on_delivery=delivered)
        p.poll(0)
    assert p.flush(WAIT_S) == 0 and not errors, errors[:3]
    assert len(set(offsets)) == len(records)
    return offsets


def confluent_consumer(broker, topics, group=None, **more):
    c = confluent_kafka.Consumer({
        "bootstrap.servers": broker, "group.id": group or "g" + uuid.uuid4().hex,
        "auto.offset.reset": "earliest", "enable.auto.commit": False, **more})
    c.subscribe(topics)
    return c


def poll(consumer, count, within=WAIT_S):
    """count messages of a confluent consumer, fewer when time is up"""
    got, until = [], time.monotonic() + within
    while len(got) < count and time.monotonic() < until:
        for m in consumer.consume(count - len(got), 0.3):
            assert not m.error(), m.error()
            got.append(m)
    return got


def confluent_consume(broker, topic, count):
    c = confluent_consumer(broker, [topic])
    got = poll(c, count)
    c.close()
    return [(m.key(), m.value()) for m in got]


def python_produce(broker, topic, records, codec="none", **_):
    p = kafka.KafkaProducer(bootstrap_servers=broker, acks="all", max_block_ms=30000,
                            compression_type=None if codec == "none" else codec)
    sent = [p.send(topic, value, key) for key, value in records]
    for s in sent:
        s.get(WAIT_S)
    p.close(5)


def python_consume(broker, topic, count):
    c = kafka.KafkaConsumer(topic, bootstrap_servers=broker, group_id="g" + uuid.uuid4().hex,
                            auto_offset_reset="earliest", consumer_timeout_ms=WAIT_S * 1000)
    got = []
    for m in c:
        got.append((m.key, m.value))
        if len(got) == count:
            break
    c.close()
    return got


PRODUCERS = {"kcat": kcat_produce, "confluent": confluent_produce, "kafka-python": python_produce}
CONSUMERS = {"kcat": kcat_consume, "confluent": confluent_consume, "kafka-python": python_consume}
