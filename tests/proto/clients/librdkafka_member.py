"""A member of a group, in a process of its own so that it can be killed: librdkafka, committing
each 20 records and before it gives partitions back. Lines are those of kafka_programs.py, and

    began TIME PARTITION OFFSET      its first record there since it was assigned the partition at TIME
    committed TIME PARTITION OFFSET  the group has said so by TIME

where TIME is the machine's monotonic clock, the same in all processes."""
import faulthandler
import os
import signal
import sys
import time

import confluent_kafka
from confluent_kafka import KafkaException, TopicPartition


def say(*words):
    print(*words, flush=True)


class Member:
    def __init__(self, topic, group, strategy):
        self.topic, self.over = topic, False
        self.assigned, self.seen = {}, {}  # partition -> time; partition -> next offset to commit
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": os.environ["KAFKA_BROKER"], "group.id": group, "log_level": 0,
            "session.timeout.ms": 6000, "heartbeat.interval.ms": 300, "max.poll.interval.ms": 20000,
            "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "partition.assignment.strategy": strategy})
        signal.signal(signal.SIGTERM, self.on_term)
        self.consumer.subscribe([topic], on_assign=self.on_assign, on_revoke=self.on_revoke,
                                on_lost=self.on_lost)

    def on_term(self, *_):
        self.over = True

    def on_assign(self, _, parts):
        now = time.monotonic()
        self.assigned.update({p.partition: now for p in parts})
        say("assigned", *sorted(self.assigned))

    def on_revoke(self, _, parts):
        self.commit()
        self.on_lost(_, parts)

    def on_lost(self, _, parts):
        for p in parts:
            self.assigned.pop(p.partition, None)
            self.seen.pop(p.partition, None)
        say("assigned", *sorted(self.assigned))

    def commit(self):
        if not self.seen:
            return
        offsets = [TopicPartition(self.topic, p, o) for p, o in self.seen.items()]
        try:
            done = self.consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as e:  # of a generation that is over: they come again
            say("trouble", e.args[0].str())
            return
        for p in done:
            if p.error is None:
                say("committed", time.monotonic(), p.partition, p.offset)

    def run(self):
        count, began = 0, set()
        while not self.over:
            m = self.consumer.poll(0.1)
            if m is None:
                continue
            if m.error():
                say("trouble", m.error().str())
                continue
            at = self.assigned.get(m.partition())
            if (m.partition(), at) not in began:
                began.add((m.partition(), at))
                say("began", at, m.partition(), m.offset())
            say("record", m.partition(), m.offset(), m.value().decode())
            self.seen[m.partition()] = m.offset() + 1
            count += 1
            if count % 20 == 0:
                self.commit()
        self.commit()
        # Amid a rebalance librdkafka 2.0 may wait for ever in it: confluent_kafka asks for the
        # rebalance protocol of a group that it has ended already, and keeps Python's lock.
        signal.alarm(5)
        self.consumer.close()


faulthandler.register(signal.SIGQUIT, sys.stdout)
Member(*sys.argv[2:5]).run()
