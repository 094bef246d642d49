"""Random clients against one node, with and without kill -9 (torture.py).

    TORTURE_S=n sets how long each test plays; TORTURE_SEED repeats the choices of a run."""
import os
import random

from torture import Torture

SECONDS = float(os.environ.get("TORTURE_S", "8"))


def play(node, kill_every):
    seed = int(os.environ.get("TORTURE_SEED", random.randrange(1 << 30)))
    print("TORTURE_SEED=%d" % seed)
    torture = Torture(node, seed)
    least = 50 * SECONDS
    torture.go(SECONDS, least, kill_every)
    print(torture.text())
    assert torture.published() > least
    if kill_every:
        assert torture.kills > 0


def test_connections_that_come_and_go(own_node):
    play(own_node, None)


def test_connections_that_come_and_go_and_kill_9(own_node):
    play(own_node, 2.0)
