"""An idempotent Kafka producer made by hand, as strict as one can be: one id and one epoch for
ever, up to five batches in flight, each sent again as it was until it is acknowledged, in order.
Whatever becomes of the nodes, the log then holds each of its records once and in order; what a
client's library makes of errors and epochs has no part in it."""
import random
import struct
import threading
import time

from cluster import told_leader
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka_raw import Raw, string
from node import eventually

OUT_OF_ORDER = 45
RETRIABLE = {5, 6, 7, 19, 20}
WINDOW = 5  # of batches: as many as a partition remembers of each producer


class Batch:
    def __init__(self, number, sequence, values):
        self.number, self.sequence, self.values, self.data = number, sequence, values, None

    def encode(self, producer_id):
        builder = DefaultRecordBatchBuilder(2, 0, 0, producer_id, 0, self.sequence, 1 << 16)
        for offset, value in enumerate(self.values):
            builder.append(offset, None, None, value.encode(), [])
        self.data = bytes(builder.build())


class Exact:
    """Writes "NAME N" into one partition until it is closed. refusals counts the answers that were
    errors, by code; 0 is a connection that ended or did not answer in time."""

    def __init__(self, cluster, history, name, stream, partition, pause_s=0.01):
        self.cluster, self.history, self.name = cluster, history, name
        self.stream, self.partition, self.pause_s = stream, partition, pause_s
        self.random = random.Random(name)
        self.unacked, self.batches, self.records = [], 0, 0
        self.refusals, self.ending, self.error = {}, False, None
        self.id = None
        assert eventually(self._take_id), "no producer id"
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _take_id(self):
        node = self.cluster.any()
        with Raw(node.ports["kafka"], node.host) as raw:
            answer = raw.ask(22, 0, struct.pack(">hi", -1, 1000))
        code, self.id = struct.unpack_from(">hq", answer, 4)
        return code == 0

    def _make(self):
        count = self.random.randint(1, 3)
        values = ["%s %d" % (self.name, self.records + n) for n in range(count)]
        batch = Batch(self.batches, self.records, values)
        batch.encode(self.id)
        for v in values:
            self.history.send(self.name, v, self.partition)
        self.batches += 1
        self.records += count
        self.unacked.append(batch)

    def _may_make(self):
        return not self.ending and (not self.unacked or
                                    self.batches - self.unacked[0].number < WINDOW)

    def _send(self, link, batch):
        link.send(struct.pack(">hhih", 0, 7, batch.number, -1) +
                  struct.pack(">hhii", -1, -1, self.random.choice((500, 30000)), 1) +
                  string(self.stream) + struct.pack(">iii", 1, self.partition, len(batch.data)) +
                  batch.data)

    def _answer(self, link, batch):
        """The code."""
        answer = link.receive()
        if answer is None:
            raise OSError("closed")
        number, _, size = struct.unpack_from(">iih", answer)
        assert number == batch.number, "answers in another order"
        index, code, offset = struct.unpack_from(">ihq", answer, 10 + size + 4)
        assert index == self.partition
        if code == 0:
            self.unacked.remove(batch)
            for n, value in enumerate(batch.values):
                self.history.ack(self.name, value, self.partition, offset + n)
        else:
            self.refusals[code] = self.refusals.get(code, 0) + 1
        return code

    def _talk(self, link):
        """Until an answer is not what it should be: then the rest of the answers are awaited, or
        not; what is without one is sent again on another connection, while the first may still be
        under way."""
        waiting, failed = [], False
        again = list(self.unacked)
        while waiting or not failed:
            while not failed and len(waiting) < WINDOW and (again or self._may_make()):
                if not again:
                    self._make()
                    again.append(self.unacked[-1])
                self._send(link, again[0])
                waiting.append(again.pop(0))
                if self.random.random() < 0.3:
                    break
            if not waiting:
                return
            code = self._answer(link, waiting.pop(0))
            if code == 0:
                if not failed:
                    time.sleep(self.pause_s)
                continue
            # What comes behind one that was refused is out of order; nothing else ever is.
            assert code in RETRIABLE or (code == OUT_OF_ORDER and failed), code
            if not failed and self.random.random() < 0.5:
                return
            failed = True

    def _once(self):
        leader = told_leader(self.random.choice(self.cluster.nodes), self.stream, self.partition)
        if leader is None or leader <= 0:
            return
        node = self.cluster[leader]
        with Raw(node.ports["kafka"], node.host, self.random.choice((0.3, 1, 3))) as link:
            self._talk(link)

    def _run(self):
        try:
            while self.unacked or not self.ending:
                try:
                    self._once()
                except (OSError, struct.error):
                    self.refusals[0] = self.refusals.get(0, 0) + 1
                time.sleep(0.02)
        except Exception as e:  # told by close
            self.error = e

    def close(self, within=60):
        self.ending = True
        self.thread.join(within)
        assert self.error is None, "%s: %r" % (self.name, self.error)
        assert not self.thread.is_alive(), "%d batches are not acknowledged, answers: %s" % (
            len(self.unacked), self.refusals)
