"""kill -9 while a log is being compacted, slowly, so that it is always in the middle of it: each
entry is the old or the new one, and what is newest of each key is there, also when all that was
never synced is lost."""
import os
import random
import time

import forget
import pytest
from compacted import Updates, check, make_stream, metric, read_all
from node import Node, eventually

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "3"))
NO_FORGET = forget.missing()
SLOW = {"compaction.rate": "6MiB", "storage.tail_cache": "1MiB"}


def rounds(node, after_kill):
    draw = random.Random(int(os.environ.get("CRASH_SEED", random.randrange(1 << 30))))
    acked, sent, removed = {}, set(), 0
    make_stream(node, "c")
    for number in range(ROUNDS):
        load = Updates(node.kafka, "c", "r%d" % number)
        assert eventually(lambda: len(load.acked) > 4000, 100)
        assert eventually(lambda: metric(node, "removed_records_total") > 500, 100)
        time.sleep(draw.random())
        removed += metric(node, "removed_records_total")
        node.kill()
        load.close()
        acked.update(load.acked)
        sent |= load.sent
        after_kill()
        node.start()
        check(read_all(node.kafka, "c"), acked, sent)
    assert metric(node, "unreadable_total") == 0
    assert removed > 500 * ROUNDS
    # Left alone it gets as far as it may.
    before = len(read_all(node.kafka, "c"))
    assert eventually(lambda: check(read_all(node.kafka, "c"), acked, sent) < before * 0.8, 60, 2)


def test_kill_9_while_compacting(make_node):
    rounds(make_node(SLOW), lambda: None)


@pytest.mark.skipif(NO_FORGET is not None, reason=str(NO_FORGET))
def test_unsynced_writes_dropped_while_compacting():
    folder = forget.ForgetFolder()
    node = Node(SLOW, folder=folder.path)
    node.log_path = os.path.join(folder.top, "node.log")
    try:
        rounds(node.start(), folder.forget)
    finally:
        node.close()
        folder.close()
