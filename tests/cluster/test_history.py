"""The checkers find what is planted, and nothing in a clean history."""
import history as h
import pytest


def clean():
    """Two writers, two partitions, a reader; one send without an outcome that is there."""
    x = h.History()
    at = {0: [], 1: []}
    for n in range(40):
        writer, partition = "w%d" % (n % 2), n % 2
        value = "%s %d" % (writer, n)
        x.send(writer, value, partition)
        offset = len(at[partition])
        at[partition].append((offset, value))
        if n != 7:
            x.ack(writer, value, partition, offset)
    x.send("w0", "w0 refused", 0)
    x.fail("w0", "w0 refused")
    for partition, pairs in at.items():
        x.assigned("r", partition)
        x.poll("r", partition, pairs[:9])
        x.poll("r", partition, pairs[9:])
    x.assigned("r", 0)
    x.poll("r", 0, at[0][3:])  # after a rebalance, from what was committed
    for partition, pairs in at.items():
        x.log(partition, pairs)
    return x


def event(x, kind, nth=0):
    return [n for n, e in enumerate(x.events) if e[0] == kind][nth]


def change(x, kind, nth=0, **fields):
    names = ("kind", "who", "partition", "what", "offset")
    at = event(x, kind, nth)
    values = dict(zip(names, x.events[at]))
    values.update(fields)
    x.events[at] = tuple(values[n] for n in names)


def test_a_clean_history_is_clean():
    assert h.check(clean()) == {}


def test_a_lost_write_is_found():
    x = clean()
    pairs = x.events[event(x, "log")][3]
    change(x, "log", what=pairs[:-1])
    assert h.check(x).keys() == {"lost"}
    assert h.check(x)["lost"] == [pairs[-1][1]]


def test_a_duplicate_is_found():
    x = clean()
    pairs = x.events[event(x, "log")][3]
    change(x, "log", what=pairs + [(len(pairs), pairs[0][1])])
    assert h.check(x).keys() == {"duplicates"}
    assert h.check(x, exactly_once=False) == {}


@pytest.mark.parametrize("value", ["nobody 1", "w0 refused"])
def test_what_nobody_wrote_is_found(value):
    x = clean()
    pairs = x.events[event(x, "log")][3]
    change(x, "log", what=pairs + [(len(pairs), value)])
    assert h.check(x) == {"unasked": [value]}


def test_two_values_at_one_offset_are_found():
    x = clean()
    change(x, "ack", 1, offset=5)
    assert "inconsistent offsets" in h.check(x)
    x = clean()
    pairs = list(x.events[event(x, "poll")][3])
    pairs[2] = (pairs[2][0], "w0 30")
    change(x, "poll", what=pairs)
    assert "inconsistent offsets" in h.check(x)


def test_a_hole_in_the_log_is_found():
    x = clean()
    pairs = x.events[event(x, "log")][3]
    change(x, "log", what=pairs[:4] + pairs[5:])
    assert h.check(x)["gaps"] == [(0, 4)]


def test_a_poll_that_goes_back_is_found():
    x = clean()
    pairs = x.events[event(x, "poll", 1)][3]
    change(x, "poll", 1, what=[(3, x.events[event(x, "log")][3][3][1])] + pairs)
    found = h.check(x)
    assert ("r", 0, 8, 3) in found["non-monotonic polls"]


def test_a_poll_that_skips_is_found():
    x = clean()
    pairs = x.events[event(x, "poll", 1)][3]
    change(x, "poll", 1, what=pairs[2:])
    assert h.check(x) == {"skipped polls": [("r", 0, 9), ("r", 0, 10)]}


def test_sends_out_of_order_are_found():
    x = clean()
    acks = [n for n, e in enumerate(x.events) if e[0] == "ack" and e[2] == 0]
    a, b = x.events[acks[0]], x.events[acks[1]]
    x.events[acks[0]] = a[:4] + (b[4],)
    x.events[acks[1]] = b[:4] + (a[4],)
    assert "non-monotonic sends" in h.check(x)


def test_delivery():
    acked = ["w %d" % n for n in range(10)]
    assert h.check_delivered(acked, acked, 2) == {}
    assert h.check_delivered(acked, acked[:5] + acked[3:], 1) == {}
    assert h.check_delivered(acked, acked + ["w 99"], 2) == {}  # sent, its answer was lost
    assert h.check_delivered(acked, acked[:5] + acked[3:], 2) == {"duplicates": acked[3:5]}
    assert h.check_delivered(acked, acked[:5] + acked[6:], 1) == {"lost": ["w 5"]}
    mixed = acked[:4] + [acked[5], acked[4]] + acked[6:]
    assert h.check_delivered(acked, mixed, 1) == {"disorder": ["w 4"]}


def test_claims():
    first = ("c", 0, 1, 8, 8.5)
    assert h.check_claims([first, ("c", 8.1, 9, 9.5, 9.6), ("d", 2, 3, 3, 3)]) == {}
    assert h.check_claims([first, ("c", 2, 3, 3, 3)]) != {}
    # Asked before the other was accepted, or accepted after its last answer: it may have been so.
    assert h.check_claims([first, ("c", 0.5, 3, 3, 3)]) == {}
    assert h.check_claims([first, ("c", 2, 8.2, 9, 9)]) == {}
