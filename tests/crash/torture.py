"""Publishers and subscribers that do to their connections whatever a network may: they go without
a word, with one, twice at once, read slowly, acknowledge late; and the server is killed meanwhile.
Each keeps the state MQTT asks of a client and nothing more. One thread, one seed.

What must hold: a durable subscriber gets each QoS 2 message once and each QoS 1 message at least
once; per topic and publisher the order of first arrivals is that of sending (a visitor who came
between two messages may find the first behind the other, if QoS 1 had both sent again); nobody gets what
he did not ask for."""
import random
import selectors
import socket
import struct
import time

from mqtt_client import (CONNACK, DISCONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK,
                         Packet, ack, connect, packet, publish, subscribe)

EXPIRY = b"\x11" + struct.pack(">I", 3600)
TOPICS = 12
CONNACK_S = 30
LAG_MAX = 3000  # publishers wait for durable readers that are further behind


def matches(wanted, topic):
    return wanted == "#" or (wanted.endswith("/#") and topic.startswith(wanted[:-1])) or \
        wanted == topic or (wanted == "t/+/x" and topic.startswith("t/") and topic.endswith("/x"))


class Link:
    """A client's identity and its connection of the moment."""

    def __init__(self, run, name, durable):
        self.run, self.name, self.durable = run, name, durable
        self.sock, self.data, self.out, self.up = None, b"", b"", False
        self.again_at, self.deaf_until, self.first = 0, 0, True
        self.old = []  # connections that were not closed when a new one was made

    def receive_max(self):
        return 65535

    def open(self):
        self.data, self.out, self.up = b"", b"", False
        self.sock = socket.socket()
        self.sock.setblocking(False)
        if self.run.draw.random() < 0.2:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.connect_ex(("127.0.0.1", self.run.node.mqtt))
        self.run.selector.register(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, self)
        props = b"\x21" + struct.pack(">H", self.receive_max())
        clean = 0 if self.durable and not self.first else 2
        self.send(connect(self.name, flags=clean, props=props + (EXPIRY if self.durable else b"")))
        self.opened_at = time.monotonic()

    def send(self, data):
        self.out += data
        self.flush()

    def flush(self):
        try:
            while self.out and self.sock:
                self.out = self.out[self.sock.send(self.out):]
        except BlockingIOError:
            pass
        except OSError:
            self.lost()
        if self.sock:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.out else 0)
            self.run.selector.modify(self.sock, events, self)

    def lost(self, keep=False):
        if not self.sock:
            return
        self.run.selector.unregister(self.sock)
        if keep:
            self.old = self.old[-3:] + [self.sock]
        else:
            self.sock.close()
        self.sock, self.up = None, False
        self.again_at = time.monotonic() + self.run.draw.random() * 0.2

    def leave(self):
        """One of the ways to go."""
        way = self.run.draw.randrange(4)
        if not self.sock:
            return
        if way == 0:
            self.send(packet(DISCONNECT))
        elif way == 1:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.lost(keep=way == 2)
        if way == 2:
            self.again_at = 0  # takes over from itself

    def step(self, now):
        if self.sock is None and now >= self.again_at:
            self.open()
        elif self.sock is not None and not self.up and now > self.opened_at + CONNACK_S:
            self.run.fail("%s: no CONNACK within %d s" % (self.name, CONNACK_S))
        elif self.up:
            self.work(now)

    def readable(self, now):
        if now < self.deaf_until:
            return
        try:
            more = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        if not more:
            self.lost()
            return
        self.data += more
        for one in self.packets():
            if self.sock is None:
                return
            self.take(one)

    def packets(self):
        while len(self.data) >= 2:
            size, shift, at = 0, 0, 1
            while at < len(self.data) and shift < 28:
                byte = self.data[at]
                size, shift, at = size | (byte & 127) << shift, shift + 7, at + 1
                if byte < 128:
                    break
            else:
                return
            if len(self.data) < at + size:
                return
            one = Packet(self.data[0] >> 4, self.data[0] & 15, self.data[at:at + size])
            self.data = self.data[at + size:]
            yield one

    def take(self, one):
        if one.kind == CONNACK:
            if one.body[1] != 0:
                self.lost()
                self.again_at = time.monotonic() + 0.1
                return
            present = bool(one.body[0])
            if self.durable and present == self.first and not (self.first and present):
                self.run.fail("%s: session present %s" % (self.name, present))
            self.up = True
            self.connected(present)
        elif one.kind == DISCONNECT:
            self.lost()
        else:
            self.on_packet(one)


class Publisher(Link):
    """Durable ones send at all QoS, the others at 0 and 1."""

    def __init__(self, run, name, durable):
        super().__init__(run, name, durable)
        self.flights, self.pid, self.numbers = {}, 0, {}
        self.again = set()  # sent so, at QoS 1
        self.sent = {0: [], 1: [], 2: []}

    def connected(self, present):
        self.first = False
        for pid, (state, topic, payload, qos) in list(self.flights.items()):
            if state == "rel":
                self.send(ack(PUBREL, pid))
            else:
                if qos == 1:
                    self.again.add(payload.split(b".")[0])
                self.send(publish(topic, payload, qos, pid, dup=1))

    def work(self, now):
        if self.run.ending or len(self.out) > 100000 or self.run.lag() > LAG_MAX:
            return
        for _ in range(self.run.draw.choice((0, 0, 0, 1, 2, 3))):
            if len(self.flights) >= 40:
                return
            qos = self.run.draw.choice((0, 1, 1, 2, 2, 2) if self.durable else (0, 1))
            topic = "t/%d/%s" % (self.run.draw.randrange(TOPICS), self.run.draw.choice("xy"))
            number = self.numbers[topic] = self.numbers.get(topic, 0) + 1
            payload = b"%s %s %d %d " % (self.name.encode(), topic.encode(), number, qos)
            if self.run.draw.random() < 0.02:
                payload += b"." * self.run.draw.randrange(40000)
            pid = 0
            if qos:
                pid = self.pid = self.free_pid()
                self.flights[pid] = ("pub", topic, payload, qos)
            self.sent[qos].append(payload.split(b".")[0])
            for one in self.run.readers if qos else ():
                one.owed += matches(one.wanted, topic)
            self.send(publish(topic, payload, qos, pid))
            if self.sock is None:
                return

    def free_pid(self):
        pid = self.pid
        while True:
            pid = pid % 200 + 1  # ids come again soon
            if pid not in self.flights:
                return pid

    def on_packet(self, one):
        pid = struct.unpack_from(">H", one.body)[0]
        reason = one.body[2] if len(one.body) > 2 else 0
        flight = self.flights.get(pid)
        if one.kind in (PUBACK, PUBREC) and reason >= 0x80:
            self.run.fail("%s: refused with %#x" % (self.name, reason))
        elif one.kind == PUBACK and flight and flight[3] == 1:
            del self.flights[pid]
        elif one.kind == PUBREC and flight:
            self.flights[pid] = ("rel",) + flight[1:]
            self.send(ack(PUBREL, pid))
        elif one.kind == PUBCOMP and flight:
            del self.flights[pid]


class Subscriber(Link):
    def __init__(self, run, name, durable, wanted, qos):
        super().__init__(run, name, durable)
        self.wanted, self.qos = wanted, qos
        self.in_force = False
        self.owed, self.seen = 0, set()  # sent at QoS 1 and 2; what has come of these
        self.got = {0: [], 1: [], 2: []}
        self.pending, self.later, self.limit = {}, [], 65535

    def receive_max(self):
        self.limit = 65535 if self.run.ending else self.run.draw.choice((1, 2, 10, 100, 65535))
        return self.limit

    def connected(self, present):
        self.later = []
        if not self.durable:
            self.pending = {}
        if self.first or not self.durable:
            self.send(subscribe(self.wanted, self.qos))

    def on_packet(self, one):
        if one.kind == SUBACK:
            self.in_force, self.first = True, False
        elif one.kind == PUBLISH:
            topic, pid, _, payload = one.publish_parts()
            if not matches(self.wanted, topic) or payload.split()[1] != topic.encode():
                self.run.fail("%s got %s: %r" % (self.name, topic, payload[:60]))
            word = payload.split(b".")[0]
            if word.split()[3] != b"0":
                self.seen.add(word)
            if one.qos < 2:
                self.got[one.qos].append(word)
                if one.qos == 1:
                    self.answer(ack(PUBACK, pid))
                return
            if pid not in self.pending:
                self.got[2].append(word)
                self.pending[pid] = word
            elif self.pending[pid] != word:
                self.run.fail("%s: id %d is %r and %r" % (self.name, pid, self.pending[pid], word))
            self.answer(ack(PUBREC, pid))
        elif one.kind == PUBREL:
            pid = struct.unpack_from(">H", one.body)[0]
            self.pending.pop(pid, None)
            self.answer(ack(PUBCOMP, pid))

    def answer(self, data):
        if self.run.draw.random() < 0.1 and not self.run.ending:
            self.later.append(data)
        else:
            self.send(data)

    def work(self, now):
        if self.later and (self.run.draw.random() < 0.1 or self.run.ending):
            held, self.later = self.later, []
            for one in held:
                if self.sock:
                    self.send(one)
        if self.run.ending:
            if self.limit < 65535:
                self.lost()  # comes again with a window in which it can catch up in time
        elif self.run.draw.random() < 0.002:
            self.deaf_until = now + self.run.draw.random() * 0.6


class Torture:
    def __init__(self, node, seed, publishers=4, durable=5, clean=3):
        self.node, self.draw, self.selector = node, random.Random(seed), selectors.DefaultSelector()
        self.ending, self.failed, self.kills = False, [], 0
        self.readers = [Subscriber(self, "d%d" % i, True, w, q) for i, (w, q) in enumerate(
            [("t/#", 2), ("t/#", 1), ("t/+/x", 2), ("t/3/x", 2), ("#", 2), ("t/+/x", 1)][:durable])]
        self.visitors = [Subscriber(self, "c%d" % i, False, w, q) for i, (w, q) in enumerate(
            [("t/#", 2), ("t/+/x", 1), ("#", 0), ("t/5/y", 2)][:clean])]
        self.publishers = [Publisher(self, "p%d" % i, i % 4 != 3) for i in range(publishers)]

    def fail(self, why):
        self.failed.append(why)

    def turn(self, links):
        for key, events in self.selector.select(0.002):
            link = key.data
            if link.sock is not key.fileobj:
                continue
            if events & selectors.EVENT_WRITE:
                link.flush()
            if events & selectors.EVENT_READ and link.sock:
                link.readable(time.monotonic())
        now = time.monotonic()
        for link in links:
            link.step(now)
        assert not self.failed, self.failed[:3]

    def until(self, links, done, within, what):
        limit = time.monotonic() + within
        while not done():
            self.turn(links)
            assert time.monotonic() < limit, "not within %s s: %s" % (within, what())

    def published(self):
        """Of the quality of service of which it was fewer."""
        return min(sum(len(p.sent[qos]) for p in self.publishers) for qos in (1, 2))

    def go(self, seconds, least, kill_every=None):
        """So long, and on until so many were published, on a machine that does much else."""
        readers = self.readers + self.visitors
        everyone = readers + self.publishers
        self.until(readers, lambda: all(r.in_force for r in readers), 30, lambda: "SUBACK")
        end = time.monotonic() + seconds
        kill_at = time.monotonic() + (kill_every or 1e9) * self.draw.random()
        while time.monotonic() < end or (self.published() <= least and
                                         time.monotonic() < end + 9 * seconds):
            self.turn(everyone)
            if self.draw.random() < 0.01:
                self.draw.choice(everyone).leave()
            if time.monotonic() > kill_at:
                assert self.node.is_running(), "died by itself:\n" + self.node.log()
                self.node.kill()
                self.kills += 1
                self.node.start()
                kill_at = time.monotonic() + kill_every * (0.5 + self.draw.random())
        self.ending = True
        self.until(everyone, lambda: not any(p.flights for p in self.publishers), 60, lambda: [
            (p.name, p.up, list(p.flights.items())[:3]) for p in self.publishers if p.flights])
        self.until(everyone, lambda: self.lag() == 0, 60, lambda: [
            (r.name, r.up, r.limit, len(r.pending), len(self.missing(r)), self.missing(r)[:3])
            for r in self.readers if r.owed > len(r.seen)])
        for _ in range(100):
            self.turn(everyone)
        for r in readers:
            self.check(r)
        for link in everyone:
            link.lost()

    def lag(self):
        return max(r.owed - len(r.seen) for r in self.readers)

    def missing(self, r):
        """What a durable reader was promised and has not got."""
        return [w for p in self.publishers for q in (1, 2) for w in p.sent[q]
                if w not in r.seen and matches(r.wanted, w.split()[1].decode())]

    def check(self, r):
        again = set().union(*(p.again for p in self.publishers))
        for qos, words in r.got.items():
            seen, last, repeats = set(), {}, 0
            for word in words:
                if word in seen:
                    repeats += 1
                    assert qos != 2 or not r.durable, "%s got %r twice" % (r.name, word)
                    continue
                seen.add(word)
                if not r.durable and word in again:
                    continue
                who, topic, number, sent = word.split()
                flow = (who, topic, sent)
                assert int(number) > last.get(flow, 0), "%s got %r after number %d" % (
                    r.name, word, last[flow])
                last[flow] = int(number)
            r.summary = getattr(r, "summary", "") + " qos%d %d+%d" % (qos, len(seen), repeats)

    def text(self):
        return "%d kills, sent %s\n" % (
            self.kills, [sum(len(p.sent[q]) for p in self.publishers) for q in (0, 1, 2)]) + \
            "\n".join("%s %s:%s" % (r.name, r.wanted, r.summary)
                      for r in self.readers + self.visitors)
