"""Damaged files, one at a time: the node either refuses to start, with one line that names the
file and ends with status 1, or serves everything that is whole and says what is not. It never
passes damage on as data, and what was synced and is gone is never taken for "a bit older"."""
import glob
import os
import random
import shutil

import confluent_kafka
import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from node import Node, eventually

RECORDS, SIZE = 1500, 8000  # long enough for files of their own


def flip(path, share):
    at = int(os.path.getsize(path) * share)
    with open(path, "r+b") as f:
        f.seek(at)
        was = f.read(1)[0]
        f.seek(at)
        f.write(bytes([was ^ 0x40]))


def halve(path, _share=None):
    os.truncate(path, os.path.getsize(path) // 2)


def remove(path, _share=None):
    os.unlink(path)


def value_of(i):
    return random.Random(i).randbytes(SIZE)


def wait_side(node):
    """Until the side file tells of all that was written. It is written once a second when something
    has moved: that may have been just now, so something moves once more."""
    side = os.path.join(node.data, "side")

    def modified():
        return os.stat(side).st_mtime_ns if os.path.exists(side) else 0
    before = modified()
    p = confluent_kafka.Producer({"bootstrap.servers": node.kafka, "acks": "all", "log_level": 0})

    def told():
        if modified() == before:
            p.produce("more", b"x")
            assert p.flush(30) == 0
            return False
        return True
    assert eventually(told, 30, 0.3)


class Saved:
    """A node that was filled, as it was left: killed (its records in the log of writes) or
    stopped (in files)."""

    def __init__(self, stopped):
        self.node = Node({"stream.partitions": "2", "loops": "1"}).start()
        try:
            self._fill(stopped)
        except BaseException:
            self.node.close()
            raise

    def _fill(self, stopped):
        p = confluent_kafka.Producer({"bootstrap.servers": self.node.kafka, "acks": "all",
                                      "linger.ms": 2, "log_level": 0})
        for i in range(RECORDS):
            p.produce("a", value_of(i), b"%d" % i)
        assert p.flush(60) == 0
        wait_side(self.node)
        self.node.stop() if stopped else self.node.kill()
        self.copy = self.node.data + ".copy"
        shutil.copytree(self.node.data, self.copy, ignore=shutil.ignore_patterns("*.sock"))

    def restore(self):
        if self.node.is_running():
            self.node.kill()
        shutil.rmtree(self.node.data)
        shutil.copytree(self.copy, self.node.data, ignore=shutil.ignore_patterns("*.sock"))
        open(self.node.log_path, "w").close()
        return self.node

    def file(self, pattern):
        """The largest that fits."""
        return max(glob.glob(os.path.join(self.node.data, pattern)), key=os.path.getsize)

    def refused(self, within=30):
        """The one line of a start that is refused."""
        self.node.start(wait=False)
        assert self.node.process.wait(within) == 1, self.node.log()
        last = self.node.log().splitlines()[-1]
        assert last.startswith("sluiced: "), last
        return last


@pytest.fixture(scope="module")
def killed():
    saved = Saved(stopped=False)
    yield saved
    saved.node.close()


@pytest.fixture(scope="module")
def stopped():
    saved = Saved(stopped=True)
    yield saved
    saved.node.close()


def read(node, within):
    """How many records could be read; each must be what was written."""
    c = confluent_kafka.Consumer({"bootstrap.servers": node.kafka, "group.id": "g",
                                  "log_level": 0})
    count = 0
    try:
        c.assign([TopicPartition("a", p, OFFSET_BEGINNING) for p in range(2)])
        while True:
            some = c.consume(500, within)
            if not some:
                return count
            for m in some:
                if m.error():
                    continue
                assert m.value() == value_of(int(m.key())), "damage was passed on"
                count += 1
    finally:
        c.close()


@pytest.mark.parametrize("damage", [(flip, 0.5), (halve, 0), (flip, 0.999)],
                         ids=["flipped", "half", "flipped at its end"])
def test_synced_writes_are_missing(killed, damage):
    node = killed.restore()
    damage[0](killed.file("store/*.log"), damage[1])
    for _ in range(2):
        line = killed.refused()
        assert "lacks synced writes" in line and "counts as wiped" in line, line
    # What the line says for the only copy: without the side file it is taken as it is.
    os.unlink(os.path.join(node.data, "side"))
    node.start()
    assert read(node, 2) < RECORDS


def test_an_old_copy_of_the_store(killed):
    node = killed.restore()
    side = os.path.join(node.data, "side")
    node.start()
    p = confluent_kafka.Producer({"bootstrap.servers": node.kafka, "acks": "all"})
    p.produce("a", b"newer")
    assert p.flush(30) == 0
    wait_side(node)
    node.kill()
    newer = open(side, "rb").read()
    killed.restore()
    with open(side, "wb") as f:
        f.write(newer)
    assert "counts as wiped" in killed.refused()


def test_the_side_file_is_damaged(killed):
    node = killed.restore()
    flip(os.path.join(node.data, "side"), 0.5)
    assert node.data + "/side" in killed.refused()


@pytest.mark.parametrize("pattern,damage", [
    ("store/MANIFEST-*", flip), ("store/CURRENT", remove), ("store/MANIFEST-*", remove)],
    ids=["manifest flipped", "CURRENT gone", "manifest gone"])
def test_the_store_cannot_be_opened(stopped, pattern, damage):
    node = stopped.restore()
    damage(stopped.file(pattern), 0.5)
    assert node.data + "/store" in stopped.refused()


@pytest.mark.parametrize("damage", [flip, halve, remove], ids=["flipped", "half", "gone"])
def test_records_in_a_damaged_file(stopped, damage):
    """The node serves what it can, says what it cannot, and takes new records."""
    node = stopped.restore()
    damage(stopped.file("store/*.blob"), 0.5)
    node.start()
    assert read(node, 2) < RECORDS
    assert "entry_unreadable" in node.log(20_000), node.log()
    assert node.request("POST", "/streams/a/records", b"new")[0] == 200
    assert node.is_running() and node.get("/readyz")[0] == 200
    assert node.stop() == 0


def test_nothing_damaged_reads_whole(stopped, killed):
    """That the tests above see damage and not themselves."""
    for saved in (stopped, killed):
        node = saved.restore()
        node.start()
        assert read(node, 2) == RECORDS
