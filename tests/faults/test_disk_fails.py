"""Disks that hang and disks that fail: the process says so, ends itself rather than guess what was
written, and the next one starts clean with everything that was acknowledged."""
import os
import signal
import time

import forget
import pytest
from load import KafkaProducer, MqttPublisher, check_log, read_all
from node import Node, eventually

NO = forget.missing()
pytestmark = pytest.mark.skipif(NO is not None, reason=str(NO))
ABORT_S = 10  # from the beginning of a write or sync that hangs


class Load:
    def __init__(self, node):
        self.node = node
        self.mqtt = [MqttPublisher(node.mqtt, "m%d" % i, "fault/m") for i in range(2)]
        self.kafka = KafkaProducer(node.kafka, "fault", "k")
        assert eventually(lambda: self.kafka.acked and all(p.acked for p in self.mqtt))

    def acknowledged(self):
        return len(self.kafka.acked) + sum(len(p.acked) for p in self.mqtt)

    def close(self):
        for one in self.mqtt + [self.kafka]:
            one.close()

    def check(self):
        assert self.acknowledged() > 0
        check_log(read_all(self.node.kafka, "mqtt"), set().union(*(p.acked for p in self.mqtt)))
        check_log(read_all(self.node.kafka, "fault"), self.kafka.acked, self.kafka.acked)


@pytest.fixture
def folder():
    made = forget.ForgetFolder()
    yield made
    made.close()


@pytest.fixture
def node(folder):
    made = Node(folder=folder.path)
    made.log_path = os.path.join(folder.top, "node.log")  # not on the disk that fails
    yield made.start()
    print("log of the node:\n" + made.log())
    made.close()


def ended_by_itself(node, within):
    assert eventually(lambda: not node.is_running(), within), "it runs on:\n" + node.log()
    assert node.process.returncode == -signal.SIGABRT, node.process.returncode


def lines(node, word):
    return [line for line in node.log(100_000).splitlines() if " %s " % word in line]


def test_a_short_hang_is_told_and_survived(folder, node):
    load = Load(node)
    folder.fault("hang 2000")
    assert eventually(lambda: lines(node, "disk_stalled"))
    assert eventually(lambda: lines(node, "disk_recovered"))
    before = load.acknowledged()
    assert eventually(lambda: load.acknowledged() > before + 100), "writes do not go on"
    assert node.is_running()
    load.close()
    load.check()
    assert node.stop() == 0


def test_a_long_hang_ends_the_process(folder, node):
    load = Load(node)
    before, began = len(lines(node, "disk_stalled")), time.monotonic()
    # A thread inside of a system call ends with the call: the disk stands a little longer.
    folder.fault("hang %d" % ((ABORT_S + 5) * 1000))
    assert eventually(lambda: lines(node, "disk_hangs"), ABORT_S + 5)
    assert time.monotonic() - began > ABORT_S - 1
    assert len(lines(node, "disk_stalled")) == before + 1
    ended_by_itself(node, 30)
    load.close()
    folder.forget()
    node.start()
    load.check()


@pytest.mark.parametrize("what", ["write", "fsync"])
def test_an_io_error_ends_the_process(folder, node, what):
    load = Load(node)
    folder.fault("fail " + what)
    ended_by_itself(node, 30)
    load.close()
    # Debian's RocksDB is built with assertions: another thread's may come before our word.
    said = lines(node, "store_error") + lines(node, "store_failed") + lines(
        node, "rocksdb::WritableFileWriter::AssertFalseAndGetStatusForPrevError():")
    assert said and ("error" in said[0] or "PrevError" in said[0]), node.log()
    # A disk that still fails: one clear line, no start, and again, and no harm done.
    for _ in range(2):
        node.start(wait=False)
        assert node.process.wait(20) == 1
        last = node.log().splitlines()[-1]
        assert "data.dir" in last and "takes no writes: Input/output error" in last, last
    folder.fault("heal")
    folder.forget()
    node.start()
    load.check()
