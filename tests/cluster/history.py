"""What clients of a cluster did and saw, and what is wrong with it: in the manner of Jepsen's Kafka
workload. A history is a list of events in the order in which the test's process saw them; the
checkers are pure functions over it, tested with planted mistakes in test_history.py.

  send   a value was to be written; it may have been, whatever came of it
  ack    it was acknowledged, at that offset if the client was told one
  fail   it was refused for certain: it must not be there
  poll   a reader was given (offset, value) pairs of one partition, in this order
  log    the whole of a partition, read back at the end: (offset, value) pairs
"""
from collections import Counter, defaultdict


class History:
    """Threads append; list.append is one step for all of them."""

    def __init__(self):
        self.events = []

    def send(self, writer, value, partition=None):
        self.events.append(("send", writer, partition, value, None))

    def ack(self, writer, value, partition=None, offset=None):
        self.events.append(("ack", writer, partition, value, offset))

    def fail(self, writer, value):
        self.events.append(("fail", writer, None, value, None))

    def poll(self, reader, partition, pairs):
        self.events.append(("poll", reader, partition, list(pairs), None))

    def assigned(self, reader, partition):
        """The reader starts anew at some position of its own choice: what follows may repeat."""
        self.events.append(("assigned", reader, partition, None, None))

    def log(self, partition, pairs):
        self.events.append(("log", None, partition, list(pairs), None))

    def of(self, kind):
        return [e for e in self.events if e[0] == kind]

    def acked(self):
        return {e[3] for e in self.of("ack")}


def logs(history):
    found = defaultdict(list)
    for _, _, partition, pairs, _ in history.of("log"):
        found[partition].extend(pairs)
    return found


def lost(history, within=None):
    """Acknowledged, and not in the log (or not among the values given)."""
    there = within if within is not None else \
        {v for pairs in logs(history).values() for _, v in pairs}
    return sorted(history.acked() - set(there))


def duplicates(history):
    """A value at two offsets. Only a mistake where writers are idempotent or never retry."""
    seen = Counter(v for pairs in logs(history).values() for _, v in pairs)
    return sorted(v for v, n in seen.items() if n > 1)


def unasked(history):
    """In the log, and never sent; or refused for certain."""
    sent = {e[3] for e in history.of("send")}
    refused = {e[3] for e in history.of("fail")}
    there = {v for pairs in logs(history).values() for _, v in pairs}
    return sorted((there - sent) | (there & refused))


def inconsistent_offsets(history):
    """(partition, offset) where two values were seen, by whoever: acknowledgement, poll or log."""
    at = defaultdict(set)
    for kind, _, partition, what, offset in history.events:
        if kind == "ack" and offset is not None:
            at[partition, offset].add(what)
        elif kind in ("poll", "log"):
            for found, value in what:
                at[partition, found].add(value)
    return sorted((key, sorted(values)) for key, values in at.items() if len(values) > 1)


def gaps(history):
    """Offsets missing between the first and the last of a log: they are dense."""
    wrong = []
    for partition, pairs in logs(history).items():
        offsets = sorted({o for o, _ in pairs})
        if offsets and len(offsets) != offsets[-1] - offsets[0] + 1:
            have = set(offsets)
            wrong += [(partition, o) for o in range(offsets[0], offsets[-1]) if o not in have]
    return wrong


def non_monotonic_polls(history):
    """(reader, partition, before, then): offsets that do not grow, though nothing was assigned
    anew in between."""
    last, wrong = {}, []
    for kind, reader, partition, pairs, _ in history.events:
        if kind == "assigned":
            last.pop((reader, partition), None)
        if kind != "poll":
            continue
        for offset, _ in pairs:
            before = last.get((reader, partition))
            if before is not None and offset <= before:
                wrong.append((reader, partition, before, offset))
            last[reader, partition] = offset
    return wrong


def skipped_polls(history):
    """(reader, partition, offset): passed over by a reader, and in the log."""
    present = {p: {o for o, _ in pairs} for p, pairs in logs(history).items()}
    last, wrong = {}, []
    for kind, reader, partition, pairs, _ in history.events:
        if kind == "assigned":
            last.pop((reader, partition), None)
        if kind != "poll":
            continue
        for offset, _ in pairs:
            before = last.get((reader, partition))
            if before is not None:
                wrong += [(reader, partition, o) for o in range(before + 1, offset)
                          if o in present.get(partition, ())]
            last[reader, partition] = offset
    return wrong


def non_monotonic_sends(history):
    """(writer, partition, value): offsets told to one writer that fall, for values it sent one
    after the other. Values are compared in the order of their sending."""
    order = {e[3]: n for n, e in enumerate(history.of("send"))}
    by_writer, wrong = defaultdict(list), []
    for _, writer, partition, value, offset in history.of("ack"):
        if offset is not None:
            by_writer[writer, partition].append((order.get(value, -1), offset, value))
    for (writer, partition), acks in by_writer.items():
        highest = -1
        for _, offset, value in sorted(acks):
            if offset <= highest:
                wrong.append((writer, partition, value))
            highest = max(highest, offset)
    return wrong


def check(history, exactly_once=True, in_order=True):
    """All of it: {name: what is wrong}, empty when nothing is."""
    found = {
        "lost": lost(history),
        "unasked": unasked(history),
        "inconsistent offsets": inconsistent_offsets(history),
        "gaps": gaps(history),
        "non-monotonic polls": non_monotonic_polls(history),
        "skipped polls": skipped_polls(history),
    }
    if exactly_once:
        found["duplicates"] = duplicates(history)
    if in_order:
        found["non-monotonic sends"] = non_monotonic_sends(history)
    return {name: wrong[:10] for name, wrong in found.items() if wrong}


# ---- MQTT: what one subscriber was given

def check_delivered(acked, given, qos):
    """acked: values whose publish was acknowledged; given: values as they came to one subscriber,
    in order. QoS 1: all of them, some perhaps twice; QoS 2: each once. Values are "WRITER N": the
    first copies of one writer's come in order."""
    seen = Counter(given)
    found = {}
    missing = sorted(set(acked) - set(seen))
    if missing:
        found["lost"] = missing[:10]
    twice = sorted(v for v, n in seen.items() if n > 1)
    if qos == 2 and twice:
        found["duplicates"] = twice[:10]
    last, first = {}, set()
    for value in given:
        if value in first:
            continue
        first.add(value)
        writer, number = value.rsplit(" ", 1)
        if int(number) < last.get(writer, -1):
            found.setdefault("disorder", []).append(value)
        last[writer] = max(last.get(writer, -1), int(number))
    return found


# ---- claims: one client id, many connections

def check_claims(claims):
    """claims: (client id, asked, accepted, sent, answered) of each connection that was accepted, on
    the clock of the test: it owned the session at some time between asked and accepted, and again
    between sending its last acknowledged publish and the answer. Nobody else may have owned it in
    between: {} or what is wrong."""
    by_id, wrong = defaultdict(list), []
    for client, *times in claims:
        by_id[client].append(times)
    for client, all_of in by_id.items():
        all_of.sort()
        for at, (asked, accepted, _, _) in enumerate(all_of):
            wrong += [(client, one, all_of[at]) for one in all_of[max(0, at - 50):at]
                      if asked > one[1] and accepted < one[2]]
    return {"answered after a later claim": wrong[:10]} if wrong else {}
