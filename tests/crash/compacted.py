"""A compacted stream under load: what was produced where, and what a reader must find of it."""
import itertools
import json
import random
import threading
import time

import confluent_kafka

EAGER = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01",
         "delete.retention.ms": "600000"}


def make_stream(node, name, replicas=1, settings=None):
    body = {"name": name, "partitions": 1, "replicas": replicas,
            "settings": {**EAGER, **(settings or {})}}
    status, answer, _ = node.request("POST", "/api/v1/streams", json.dumps(body))
    assert status in (200, 201), answer


class Updates:
    """Puts and deletes keys until closed. acked: offset -> (key, value); sent: all that may be
    there."""

    def __init__(self, broker, stream, name, keys=200, size=1500):
        self.stream, self.name, self.keys, self.size = stream, name, keys, size
        self.acked, self.sent, self.ending = {}, set(), False
        self.producer = confluent_kafka.Producer({
            "bootstrap.servers": broker, "acks": "all", "linger.ms": 0, "log_level": 0,
            "batch.num.messages": 6, "max.in.flight": 2, "message.timeout.ms": 10000,
            # Few that wait: on a slow machine they would all wait too long, and be sent in vain.
            "queue.buffering.max.messages": 60, "enable.idempotence": True})
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def delivered(self, record, error, message):
        if error is None:
            assert message.offset() not in self.acked
            self.acked[message.offset()] = record

    def run(self):
        draw = random.Random(self.name)
        for number in itertools.count():
            if self.ending:
                return
            key = b"k%d" % draw.randrange(self.keys)
            value = None if draw.randrange(12) == 0 else \
                (b"%s-%d " % (self.name.encode(), number)).ljust(self.size, b"x")
            self.sent.add((key, value))
            try:
                self.producer.produce(
                    self.stream, value, key,
                    on_delivery=lambda e, m, r=(key, value): self.delivered(r, e, m))
            except BufferError:
                self.producer.poll(0.05)
            self.producer.poll(0)
            if number % 20 == 0:  # no faster than it is compacted, whatever the machine
                time.sleep(0.01)

    def close(self):
        self.ending = True
        self.thread.join()
        self.producer.flush(5)


def read_all(broker, stream):
    """[(offset, key, value)] from the start to the end."""
    c = confluent_kafka.Consumer({"bootstrap.servers": broker, "group.id": "none",
                                  "enable.auto.commit": False, "log_level": 0})
    part = confluent_kafka.TopicPartition(stream, 0, 0)
    first, end = c.get_watermark_offsets(part, 30)
    assert first == 0
    c.assign([part])
    got, limit = [], time.monotonic() + 90
    while c.position([part])[0].offset < end:
        assert time.monotonic() < limit, "read to %s of %d" % (c.position([part]), end)
        for m in c.consume(1000, 0.5):
            assert not m.error(), m.error()
            got.append((m.offset(), m.key(), m.value()))
    c.close()
    return got


def check(got, acked, sent):
    """acked: of all loads, offset -> (key, value). Gives how many records are there."""
    newest, found, last = {}, {}, -1
    for offset in sorted(acked):
        newest[acked[offset][0]] = offset
    for offset, key, value in got:
        assert offset > last, "%d after %d" % (offset, last)
        last = offset
        assert acked.get(offset, (key, value)) == (key, value), offset
        assert (key, value) in sent, "offset %d was never sent" % offset
        found[key] = offset
    for key, offset in newest.items():
        # A newer one that was not acknowledged may have replaced it.
        assert found.get(key, -1) >= offset, "%s: newest is %s, acknowledged %d" % (
            key, found.get(key), offset)
    return len(got)


def metric(node, name):
    for line in node.get("/metrics")[1].decode().splitlines():
        if line.startswith("sluice_compaction_" + name + " "):
            return int(float(line.split()[1]))
    raise AssertionError(name)
