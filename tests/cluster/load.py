"""Writers and readers of a whole cluster, which write down what they did and saw (history.py). They
find their way when a node goes: MQTT publishers connect to the next node and send again with DUP;
Kafka's client knows by itself."""
import collections
import logging
import socket
import struct
import threading
import time
import uuid

import confluent_kafka
import mqtt_client as mqtt
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from history import check, duplicates
from node import eventually

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, PINGREQ = 2, 3, 4, 5, 6, 7, 9, 12


class Link:
    """One MQTT 5 connection that was accepted."""

    def __init__(self, node, client, clean=True, expiry=0, within=20, will=None):
        sock = socket.create_connection((node.host, node.ports["mqtt"]), timeout=within)
        self.raw = mqtt.Raw(None, sock=sock)
        try:
            props = b"\x11" + struct.pack(">I", expiry) if expiry else b""
            flags, rest = 2 if clean else 0, b""
            if will:  # (topic, payload), at QoS 1
                flags, rest = flags | 0x0c, b"\0" + mqtt.text(will[0]) + mqtt.text(will[1])
            self.raw.send(mqtt.connect(client, flags=flags, keepalive=60, props=props, rest=rest))
            answer = self.raw.read(within)
            if answer is None or answer.kind != CONNACK or answer.body[1] != 0:
                raise OSError("not accepted: %r" % answer)
        except BaseException:
            self.raw.close()
            raise
        self.node, self.present = node, bool(answer.body[0] & 1)

    def read(self, within):
        got = self.raw.read(within)
        if got is None:
            raise OSError("closed")
        return got

    def close(self):
        self.raw.close()


class Publisher:
    """Publishes "NAME N" one after the other at QoS 1 or 2 as one session, until stopped. waits
    holds (when, seconds) of each acknowledgement that took long."""

    LONG_S = 0.3

    def __init__(self, cluster, history, name, topic, qos=1, pause_s=0.0, answer_s=1.5,
                 clean=False):
        self.cluster, self.history, self.name, self.topic = cluster, history, name, topic
        self.client, self.clean = name + "-" + uuid.uuid4().hex[:8], clean
        self.qos, self.pause_s, self.answer_s = qos, pause_s, answer_s
        self.link, self.at, self.count, self.waits, self.retries = None, 0, 0, [], 0
        self.most_retries = 0
        self.ending = False
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _connect(self):
        nodes = self.cluster.nodes
        node = nodes[self.at % len(nodes)]
        self.at += 1
        self.link = Link(node, self.client, clean=self.clean,
                         expiry=0 if self.clean else 600, within=self.answer_s)

    def _step(self, wanted, pid):
        while True:
            got = self.link.read(self.answer_s)
            if got.kind == wanted and struct.unpack_from(">H", got.body)[0] == pid:
                code = got.body[2] if len(got.body) > 2 else 0
                if code not in (0, 0x10, 0x92):
                    raise OSError("refused: %#x" % code)
                return

    def _once(self, value, pid, state):
        """state: 'publish' or 'release'; gives the state it got to."""
        if state == "publish":
            self.link.raw.send(mqtt.publish(self.topic, value.encode(), self.qos, pid,
                                            dup=int(self.retries > 0)))
            self._step(PUBACK if self.qos == 1 else PUBREC, pid)
            if self.qos == 1:
                return "done"
            self.progress = "release"
        self.link.raw.send(mqtt.ack(PUBREL, pid))
        self._step(PUBCOMP, pid)
        return "done"

    def _publish(self, value, pid):
        self.progress, self.retries, began = "publish", 0, time.monotonic()
        while not (self.ending and time.monotonic() - began > 10):
            try:
                if self.link is None:
                    self._connect()
                if self._once(value, pid, self.progress) == "done":
                    took = time.monotonic() - began
                    if took > self.LONG_S:
                        self.waits.append((began, took))
                    self.most_retries = max(self.most_retries, self.retries)
                    return True
            except (OSError, EOFError):
                if self.link is not None:
                    self.link.close()
                    self.link = None
                self.retries += 1
                self.most_retries = max(self.most_retries, self.retries)
                time.sleep(0.02)
        return False

    def _run(self):
        try:
            while not self.ending:
                value, pid = "%s %d" % (self.name, self.count), self.count % 65000 + 1
                self.history.send(self.name, value)
                if self._publish(value, pid):
                    self.history.ack(self.name, value)
                self.count += 1
                if self.pause_s:
                    time.sleep(self.pause_s)
        except Exception as e:  # told by close
            self.error = e

    def close(self):
        self.ending = True
        self.thread.join(15)
        if self.link is not None:
            self.link.close()
        assert self.error is None, self.error


class Subscriber:
    """A persistent session at QoS 1 or 2 that moves on to the next node when its own is lost. given
    holds the payloads in the order they came; at QoS 2 each exchange is finished."""

    def __init__(self, cluster, name, topic, qos=1):
        self.cluster, self.topic, self.qos = cluster, topic, qos
        self.name = name + "-" + uuid.uuid4().hex[:8]
        self.given, self.open, self.at, self.ending, self.error = [], set(), 0, False, None
        self.link = None
        self._connect()
        self.link.raw.send(mqtt.subscribe(topic, qos))
        while self.link.read(10).kind != SUBACK:
            pass
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _connect(self):
        nodes = self.cluster.nodes
        node = nodes[self.at % len(nodes)]
        self.at += 1
        first = not self.given and self.link is None and not hasattr(self, "thread")
        self.link = Link(node, self.name, clean=False, expiry=600, within=20 if first else 2)
        if not first and not self.link.present:
            raise AssertionError("the session was not there on node %d" % node.number)

    def _take(self, got):
        if got.kind == PUBLISH:
            _, pid, _, payload = got.publish_parts()
            if got.qos == 2:
                if pid not in self.open:
                    self.open.add(pid)
                    self.given.append(payload.decode())
                self.link.raw.send(mqtt.ack(PUBREC, pid))
            else:
                self.given.append(payload.decode())
                self.link.raw.send(mqtt.ack(PUBACK, pid))
        elif got.kind == PUBREL:
            pid = struct.unpack_from(">H", got.body)[0]
            self.open.discard(pid)
            self.link.raw.send(mqtt.ack(PUBCOMP, pid))

    def _run(self):
        quiet = 0
        while not self.ending:
            try:
                if self.link is None:
                    self._connect()
                    quiet = 0
                self._take(self.link.read(0.5))
                quiet = 0
            except TimeoutError:
                quiet += 1
                if quiet % 4 == 0 and not self._alive():
                    self.link.close()
                    self.link = None
            except (OSError, EOFError):
                if self.link is not None:
                    self.link.close()
                    self.link = None
                time.sleep(0.05)
            except AssertionError as e:
                self.error = e
                return

    def _alive(self):
        try:
            self.link.raw.send(mqtt.packet(PINGREQ))
            return self.link.read(2).kind is not None
        except (OSError, EOFError):
            return False

    def close(self):
        self.ending = True
        self.thread.join(5)
        if self.link is not None:
            self.link.close()
        assert self.error is None, self.error


class Told(logging.Handler):
    """The last of what a client of librdkafka says of its doings, but for what went well and what it
    is told again and again: for a failure."""

    def __init__(self, count=300):
        super().__init__()
        self.lines, self.fatal = collections.deque(maxlen=count), None
        self.raced = self.over = False
        self.log = logging.Logger("client", logging.DEBUG)
        self.log.addHandler(self)

    def emit(self, record):
        text = record.getMessage()
        self.over = self.over or "Fatal error: Broker: Broker received an out of order" in text
        self.raced = self.raced or self.over or "bumped epoch" in text
        if not any(w in text for w in (" delivered", "METADATA", "Not selecting any broker")):
            self.lines.append("%s.%03d %s" % (time.strftime(
                "%H:%M:%S", time.gmtime(record.created)), record.msecs, text[:300]))

    def error(self, error):
        if error.fatal() or error.code() == confluent_kafka.KafkaError._FATAL:
            self.gave_up(error)

    def gave_up(self, why):
        self.fatal = why
        self.over = self.over or "out_of_order" in str(why).lower().replace(" ", "_")
        self.raced = self.raced or self.over

    def __str__(self):
        return "\n".join(self.lines)


class Producer:
    """An idempotent Kafka producer over the whole cluster, librdkafka's. That one (all releases until
    now) takes a batch off its count of what is in flight before it puts it back into its queue:
    when the partition has moved to another broker's thread meanwhile, that thread may send the next
    batch first. Out of order, it raises its epoch and sends anew what may be there already, or gives
    up for good, not always saying so; and when the first batch of all was the one passed over, it
    takes it for acknowledged by the second, without an offset. raced says that the first or second
    has happened: what is there once is for exact.py to say then. What has no offset was not
    acknowledged by us."""

    def __init__(self, cluster, history, name, stream, rate=500):
        self.history, self.name, self.stream, self.count = history, name, stream, 0
        self.pause_s, self.ending, self.last_ack, self.longest = 1 / rate, False, None, (0, 0)
        self.told = Told()  # knows nothing of this: the client ends with it, and asks no more
        self.producer = confluent_kafka.Producer({
            "bootstrap.servers": cluster.bootstrap(), "enable.idempotence": True,
            "debug": "eos,topic,msg", "error_cb": self.told.error,
            "linger.ms": 2, "message.timeout.ms": 60000, "socket.timeout.ms": 2000,
            "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "retry.backoff.ms": 20,
            "topic.metadata.refresh.fast.interval.ms": 50,
            "topic.metadata.refresh.interval.ms": 1000}, logger=self.told.log)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _delivered(self, error, message):
        now = time.monotonic()
        if error is None and message.offset() is not None:
            self.history.ack(self.name, message.value().decode(), message.partition(),
                             message.offset())
            if self.last_ack is not None:
                self.longest = max(self.longest, (now - self.last_ack, self.last_ack))
            self.last_ack = now

    def _run(self):
        while not self.ending:
            value = "%s %d" % (self.name, self.count)
            try:
                self.history.send(self.name, value)
                self.producer.produce(self.stream, value, "k%d" % (self.count % 31),
                                      on_delivery=self._delivered)
                self.count += 1
            except BufferError:
                self.history.events.pop() if self.history.events[-1][3] == value else None
            except confluent_kafka.KafkaException as e:  # it has given up for good
                self.told.gave_up(e)
                return
            try:
                self.producer.poll(self.pause_s)
            except confluent_kafka.KafkaException as e:
                self.told.gave_up(e)
                return

    def close(self, within=70):  # by then what is not acknowledged has failed
        self.ending = True
        self.thread.join(5)
        left = self.producer.flush(within)
        self.raced = self.told.raced
        # A traceback that keeps this does not keep a client that asks for its stream, and so makes it.
        self.producer = None
        if self.told.over:
            return
        assert self.told.fatal is None, "%s\n%s" % (self.told.fatal, self.told)
        assert left == 0, "%d records are not answered\n%s" % (left, self.told)


def twice(history, clients):
    """Values of librdkafka's producers that are in the log twice, and should not be."""
    names = {c.name for c in clients if isinstance(c, Producer) and not c.raced}
    return [v for v in duplicates(history) if v.split()[0] in names]


def wrong(history, producers):
    """What is wrong where nobody but these has written, each of which is closed: of one that raced,
    what is there twice or in another order is no news of the server."""
    calm = not any(p.raced for p in producers)
    return check(history, exactly_once=calm, in_order=calm)


class Reader:
    """A member of a consumer group that polls, commits now and then, and writes down what it saw.
    assignments counts how often it was given partitions."""

    def __init__(self, cluster, history, name, stream, group=None, **more):
        group = group or "readers-" + uuid.uuid4().hex[:8]
        self.history, self.name, self.ending, self.assignments = history, name, False, 0
        self.rebalances, self.commit_errors = [], []
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": cluster.bootstrap(), "group.id": group, "log_level": 0,
            "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "session.timeout.ms": 10000, "heartbeat.interval.ms": 500, "socket.timeout.ms": 3000,
            "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100,
            "topic.metadata.refresh.interval.ms": 1000, **more})
        self.consumer.subscribe([stream], on_assign=self._assigned)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _assigned(self, _consumer, parts):
        self.assignments += 1
        self.rebalances.append((time.monotonic(), sorted(p.partition for p in parts)))
        for p in parts:
            self.history.assigned(self.name, p.partition)

    def _run(self):
        since = 0
        while not self.ending:
            got = [m for m in self.consumer.consume(100, 0.1) if m.error() is None]
            for m in got:
                self.history.poll(self.name, m.partition(), [(m.offset(), m.value().decode())])
            since += len(got)
            if since >= 200:
                since = 0
                try:
                    self.consumer.commit(asynchronous=False)
                except confluent_kafka.KafkaException as e:
                    self.commit_errors.append(e)

    def close(self):
        self.ending = True
        self.thread.join(10)
        self.consumer.close()


def offsets(consumer, partition):
    """The first and the next; None: its leader has changed since the client has asked for leaders, or
    the client does not know the partition yet, of which it has been told."""
    try:
        return consumer.get_watermark_offsets(partition, timeout=15)
    except confluent_kafka.KafkaException as e:
        if e.args[0].code() not in (confluent_kafka.KafkaError.NOT_LEADER_FOR_PARTITION,
                                    confluent_kafka.KafkaError._UNKNOWN_PARTITION):
            raise
        return None


def read_back(cluster, history, stream, within=90):
    """The whole stream into the history, from offset 0 to the end known when it began."""
    told = Told()
    c = confluent_kafka.Consumer({
        "bootstrap.servers": ",".join(n.kafka for n in cluster.running()),
        "group.id": "verify", "enable.auto.commit": False, "socket.timeout.ms": 5000,
        "topic.metadata.refresh.interval.ms": 1000, "debug": "broker,metadata"}, logger=told.log)
    try:
        parts = sorted(c.list_topics(stream, timeout=30).topics[stream].partitions)
        ends = {p: eventually(lambda p=p: offsets(c, TopicPartition(stream, p)), 20) for p in parts}
        got = {p: [] for p in parts}
        left = {p for p in parts if ends[p][1] > ends[p][0]}
        c.assign([TopicPartition(stream, p, OFFSET_BEGINNING) for p in left])
        until = time.monotonic() + within
        while left and time.monotonic() < until:
            for m in c.consume(1000, 0.2):
                if m.error() is None:
                    got[m.partition()].append((m.offset(), m.value().decode()))
                    if m.offset() + 1 >= ends[m.partition()][1]:
                        left.discard(m.partition())
        assert not left, "not read to the end: partitions %s" % sorted(left)
        for p, pairs in got.items():
            history.log(p, pairs)
        return got
    except (AssertionError, confluent_kafka.KafkaException) as e:
        c.poll(0)  # brings what the client has to say
        raise AssertionError("%s\n%s" % (e, told)) from e
    finally:
        c.close()
