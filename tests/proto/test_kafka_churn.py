"""Groups whose members come, go and are killed with -9 while others write: nothing is lost, and
nothing comes twice that a member had been told is committed."""
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from kafka_clients import confluent_produce
from kafka_programs import HERE, Member
from node import eventually

PARTITIONS = 6
STEPS = int(os.environ.get("CHURN_STEPS", "9"))
SEED = int(os.environ.get("CHURN_SEED", "6"))


class Writer(threading.Thread):
    """All it has written was acknowledged."""

    def __init__(self, node, topic, name):
        super().__init__(daemon=True)
        self.node, self.topic, self.mark = node, topic, name
        self.over, self.written, self.wrong = False, [], None
        self.start()

    def run(self):
        try:
            while not self.over:
                at = len(self.written)
                new = ["%s%d" % (self.mark, i) for i in range(at, at + 50)]
                confluent_produce(self.node.kafka, self.topic,
                                  [(v.encode(), v.encode()) for v in new])
                self.written += new
                time.sleep(0.05)
        except AssertionError as e:
            self.wrong = e

    def stop(self):
        self.over = True
        self.join(90)
        assert not self.is_alive() and self.wrong is None, self.wrong
        return self.written


def join(node, topic, strategy):
    program = os.path.join(HERE, "librdkafka_member.py")
    return Member(subprocess.Popen(
        [sys.executable, program, "group", topic, "g-" + topic, strategy], text=True,
        env={**os.environ, "KAFKA_BROKER": node.kafka}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT))


def leave(member):
    """Amid a rebalance librdkafka 2.0 aborts at times, or waits for itself for ever (then the member
    ends itself by an alarm): it is one more that was killed."""
    try:
        member.leave()
    except AssertionError:
        if member.process.returncode not in (-signal.SIGABRT, -signal.SIGALRM):
            raise


def history(members):
    """(offsets seen, each with its values; how often; commits; beginnings)"""
    values, times, commits, begins = {}, defaultdict(int), [], []
    for m in members:
        for partition, offset, value in m.records:
            assert values.setdefault((partition, offset), value) == value
            times[partition, offset] += 1
        for line in m.lines:
            words = line.split()
            if words[0] in ("committed", "began"):
                (commits if words[0] == "committed" else begins).append(
                    (float(words[1]), int(words[2]), int(words[3])))
    return values, times, commits, begins


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_members_come_go_and_are_killed_under_load(make_node, name, strategy):
    print("CHURN_SEED=%d" % SEED)
    node = make_node({"group.initial_rebalance_delay": "0"})
    admin = AdminClient({"bootstrap.servers": node.kafka})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1)]).values():
        future.result(10)
    chance = random.Random(SEED)
    writers = [Writer(node, name, mark) for mark in "ab"]
    members = [join(node, name, strategy) for _ in range(2)]
    living, killed = list(members), 0
    try:
        for _ in range(STEPS):
            time.sleep(chance.uniform(0.3, 1.2))
            what = chance.choice("join leave kill".split())
            if what == "join" and len(living) < 4 or len(living) < 2:
                members.append(join(node, name, strategy))
                living.append(members[-1])
            elif what == "leave" and killed:
                leave(living.pop(chance.randrange(len(living))))
            else:  # one that has something to lose, if there is one
                busy = [m for m in living if m.parts] or living
                victim = chance.choice(busy)
                living.remove(victim)
                victim.kill()
                killed += 1
        members.append(join(node, name, strategy))
        living.append(members[-1])
        wanted = {v for w in writers for v in w.stop()}
        assert eventually(lambda: set(history(members)[0].values()) >= wanted, 60, 0.3), (
            "lost: %s" % sorted(wanted - set(history(members)[0].values()))[:10])
        for m in living:
            leave(m)
    finally:
        for w in writers:
            w.over = True
        for m in members:
            m.kill()
    assert killed > 0
    values, times, commits, begins = history(members)
    assert set(values.values()) == wanted
    assert len(values) == len(wanted)  # each at one offset
    # Who was killed may have had nothing yet: then nothing went to others.
    assert commits and len(begins) >= PARTITIONS
    for began, partition, offset in begins:
        done = max((o for t, p, o in commits if p == partition and t < began), default=0)
        assert offset >= done, "partition %d: from %d, but %d was committed" % (
            partition, offset, done)
    print("%d records, %d of them again, %d members, %d killed" % (
        len(values), sum(n - 1 for n in times.values()), len(members), killed))
