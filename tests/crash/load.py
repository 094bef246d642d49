"""Load for the crash tests: publishers that remember what was acknowledged to them, and a reader
that takes everything out of the log again."""
import threading
import time

import confluent_kafka
import mqtt_client
import paho.mqtt.client as paho
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

STREAM = "mqtt"  # where MQTT messages go by default
ACKED = object()


class MqttPublisher:
    """Publishes numbered messages at QoS 1 with a window; acked holds what got its PUBACK."""

    def __init__(self, port, name, topic, window=50):
        self.name, self.topic, self.number, self.acked = name, topic, 0, set()
        self.by_id, self.window = {}, threading.Semaphore(window)
        self.ending = False
        # 3.1.1: there a refusal is no PUBACK, and the library would take one with a reason for success.
        self.paho = paho.Client(client_id=name, protocol=paho.MQTTv311)
        self.paho.max_inflight_messages_set(window)
        self.paho.on_publish = self._on_publish
        self.paho.on_disconnect = lambda *_: self.stop()
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _on_publish(self, _c, _u, mid):
        # May come before publish() has told us the id; setdefault is one step for both threads.
        body = self.by_id.setdefault(mid, ACKED)
        if body is not ACKED:
            del self.by_id[mid]
            self.acked.add(body)
        self.window.release()

    def _run(self):
        while not self.ending:
            if not self.window.acquire(timeout=0.1):
                continue
            body = "%s %d" % (self.name, self.number)
            self.number += 1
            info = self.paho.publish(self.topic, body, 1)
            if info.rc != 0:
                return
            if self.by_id.setdefault(info.mid, body) is ACKED:
                del self.by_id[info.mid]
                self.acked.add(body)

    def stop(self):
        self.ending = True

    def close(self):
        self.stop()
        self.thread.join(5)
        self.paho.loop_stop()


class KafkaProducer:
    """Produces numbered records with acks=all; acked maps what was acknowledged to its place.
    A steady one is idempotent and lives through crashes: it sends again until it is answered."""

    def __init__(self, broker, stream, name, steady=False, rate=None):
        self.name, self.number, self.stream, self.acked = name, 0, stream, {}
        self.errors, self.pause_s = [], 1 / rate if rate else 0
        self.ending = False
        more = {"enable.idempotence": True, "message.timeout.ms": 60000,
                "socket.timeout.ms": 3000, "reconnect.backoff.max.ms": 200} if steady else {
                    "retries": 0, "message.timeout.ms": 3000}
        self.producer = confluent_kafka.Producer({
            "bootstrap.servers": broker, "acks": "all", "linger.ms": 2, "log_level": 0,
            "queue.buffering.max.messages": 500, **more})
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _delivered(self, error, message):
        if error is not None:
            self.errors.append(error)
        else:
            self.acked[message.value().decode()] = (message.partition(), message.offset())

    def _run(self):
        while not self.ending:
            try:
                self.producer.produce(self.stream, "%s %d" % (self.name, self.number),
                                      "k%d" % (self.number % 31), on_delivery=self._delivered)
                self.number += 1
            except BufferError:
                time.sleep(0.002)
            self.producer.poll(self.pause_s)

    def finish(self, within=70):
        """Ends sending and waits until all of it is answered."""
        self.ending = True
        self.thread.join(5)
        left = self.producer.flush(within)
        assert left == 0, "%d records are not answered" % left

    def close(self):
        self.ending = True
        self.thread.join(5)
        self.producer.purge()
        self.producer.flush(5)


class DurableReader:
    """A persistent session that reads one topic at QoS 1; seen holds each payload it was given."""

    def __init__(self, port, name, topic):
        self.port, self.name, self.topic = port, name, topic
        self.seen, self.client, self.present = set(), None, None
        self.connect()

    def connect(self):
        """Comes (back): its session must be there if it was before. Subscribes the first time."""
        first = self.client is None
        self.client = mqtt_client.Client(self.port, self.name, clean=False, expiry=3600,
                                         connect=False)
        self.client.paho.on_message = lambda _c, _u, m: self.seen.add(m.payload.decode())
        present = self.client.connect()["session"]
        assert present == (not first), "session present: %s" % present
        if first:
            self.client.subscribe(self.topic, 1)

    def close(self):
        self.client.drop()


def read_all(broker, stream, within=60):
    """{partition: [(offset, value)]} from the first offset to the end known when it began."""
    c = confluent_kafka.Consumer({"bootstrap.servers": broker, "group.id": "verify",
                                  "enable.auto.commit": False, "log_level": 0})
    try:
        parts = sorted(c.list_topics(stream, timeout=30).topics[stream].partitions)
        ends = {p: c.get_watermark_offsets(TopicPartition(stream, p), timeout=30) for p in parts}
        got = {p: [] for p in parts}
        left = {p for p in parts if ends[p][1] > ends[p][0]}
        c.assign([TopicPartition(stream, p, OFFSET_BEGINNING) for p in left])
        until = time.monotonic() + within
        while left and time.monotonic() < until:
            for m in c.consume(2000, 0.5):
                assert not m.error(), m.error()
                got[m.partition()].append((m.offset(), m.value().decode()))
                if m.offset() + 1 >= ends[m.partition()][1]:
                    left.discard(m.partition())
        assert not left, "partitions %s were not read to their end" % left
        return got
    finally:
        c.close()


def check_log(got, acked, places=None):
    """Dense offsets, nothing at two offsets, everything acknowledged there and in its place."""
    at = {}
    for partition, rows in got.items():
        offsets = [o for o, _ in rows]
        assert offsets == list(range(len(offsets))), "partition %d has gaps" % partition
        for offset, value in rows:
            assert value not in at, "%r stands at %r and %r" % (
                value, at[value], (partition, offset))
            at[value] = (partition, offset)
    missing = sorted(v for v in acked if v not in at)
    assert not missing, "%d acknowledged and lost, first %s" % (len(missing), missing[:3])
    moved = [(v, p, at[v]) for v, p in (places or {}).items() if at[v] != p]
    assert not moved, "acknowledged at one place, found at another: %s" % moved[:3]
    return len(at)
