"""The cluster's part of the bench: three nodes on this machine, their leaders killed, paused, cut
off and with a hung disk while clients write; light load, idle partitions, replicated produce, a
rolling restart, and a wiped node that fetches everything anew. Nodes, networks and disks are those
of the cluster tests; the clients are here, with nothing but sockets: one request at a time, sent
again to another node when it is refused, and what each had to wait."""
import json
import os
import shutil
import socket
import statistics
import struct
import sys
import threading
import time

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests")
for part in ("", "cluster", "crash"):
    sys.path.insert(0, os.path.normpath(os.path.join(TESTS, part)))

STREAM = "s"
ANSWER_S = 1.5  # what a client waits before it asks another node
HZ = os.sysconf("SC_CLK_TCK")


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def read_all(link, count):
    data = b""
    while len(data) < count:
        more = link.recv(count - len(data))
        if not more:
            raise OSError("closed")
        data += more
    return data


class Client(threading.Thread):
    """Writes one after the other to the first of nodes that takes it. acks: when each was
    acknowledged; waits: (seconds, retries) of each."""

    pause_s, retry_s = 0.002, 0.005

    def __init__(self, nodes):
        super().__init__(daemon=True)
        self.nodes, self.at, self.link = nodes, 0, None
        self.acks, self.waits, self.ending = [], [], False
        self.start()

    def drop(self):
        if self.link is not None:
            self.link.close()
        self.link = None

    def open(self, node, port):
        link = socket.create_connection((node.host, port), timeout=ANSWER_S)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link

    def run(self):
        while not self.ending:
            began, retries = time.monotonic(), 0
            while not self.ending:
                try:
                    self.once()
                    break
                except OSError:
                    retries += 1
                    self.drop()
                    time.sleep(self.retry_s)
            if not self.ending:
                self.acks.append(time.monotonic())
                self.waits.append((self.acks[-1] - began, retries))
            time.sleep(self.pause_s)
        self.drop()

    def after(self, moment):
        """How long after that moment it took until a write was acknowledged, at the longest."""
        gaps = [b - max(a, moment) for a, b in zip(self.acks, self.acks[1:]) if b > moment]
        return max(gaps) if gaps else float("inf")

    def end(self):
        self.ending = True
        self.join(5)


class Publisher(Client):
    """MQTT 3.1.1, QoS 1."""

    numbers = iter(range(1 << 30))

    def once(self):
        if self.link is None:
            self.client = b"bench-%d" % next(self.numbers)
            node = self.nodes[self.at % len(self.nodes)]
            self.at += 1
            self.link = self.open(node, node.ports["mqtt"])
            hello = b"\0\4MQTT\4\2\0\x3c" + struct.pack(">H", len(self.client)) + self.client
            self.link.sendall(bytes([0x10, len(hello)]) + hello)
            if read_all(self.link, 4)[3] != 0:
                raise OSError("refused")
        body = b"\0\3t/1" + struct.pack(">H", 1 + len(self.acks) % 60000) + b"x"
        self.link.sendall(bytes([0x32, len(body)]) + body)
        if read_all(self.link, 4)[0] != 0x40:
            raise OSError("no acknowledgement")


class Producer(Client):
    """Kafka, acks=all. Goes to the leader that any of nodes names (Metadata v1, Produce v3)."""

    retry_s = 0.05  # half of what Kafka's clients wait

    def call(self, link, api, version, body):
        link.sendall(struct.pack(">ihhih", len(body) + 10, api, version, 7, -1) + body)
        return read_all(link, struct.unpack(">i", read_all(link, 4))[0])[4:]

    def leader(self):
        """Host and port of who leads partition 0, as the next node knows that can be reached."""
        body, answer, at = struct.pack(">ih", 1, len(STREAM)) + STREAM.encode(), b"", 4
        for _ in self.nodes:
            node = self.nodes[self.at % len(self.nodes)]
            self.at += 1
            try:
                with self.open(node, node.ports["kafka"]) as link:
                    answer = self.call(link, 3, 1, body)
                break
            except ConnectionRefusedError:
                continue
        if not answer:
            raise OSError("nobody is there")
        brokers = {}
        for _ in range(struct.unpack_from(">i", answer)[0]):
            number, length = struct.unpack_from(">ih", answer, at)
            host = answer[at + 6:at + 6 + length].decode()
            at += 6 + length
            port, rack = struct.unpack_from(">ih", answer, at)
            at += 6 + max(0, rack)
            brokers[number] = host, port
        at += 4 + 4 + 2
        at += 2 + struct.unpack_from(">h", answer, at)[0] + 1
        if struct.unpack_from(">i", answer, at)[0] < 1:
            raise OSError("no partition")
        found = struct.unpack_from(">i", answer, at + 4 + 2 + 4)[0]
        if found not in brokers:
            raise OSError("no leader")
        return brokers[found]

    def once(self):
        if self.link is None:
            self.link = socket.create_connection(self.leader(), timeout=ANSWER_S)
            self.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        record = b"\0\0\0\1\2x\0"
        tail = struct.pack(">hiqqqhii", 0, 0, 0, 0, -1, -1, -1, 1) + bytes([len(record) * 2])
        tail += record
        batch = struct.pack(">qiibI", 0, 9 + len(tail), -1, 2, crc32c(tail)) + tail
        body = struct.pack(">hhiih", -1, -1, 5000, 1, len(STREAM)) + STREAM.encode()
        body += struct.pack(">iii", 1, 0, len(batch)) + batch
        answer = self.call(self.link, 0, 3, body)
        error, = struct.unpack_from(">h", answer, 4 + 2 + len(STREAM) + 4 + 4)
        if error:
            raise OSError("error %d" % error)


def cpu_s(nodes):
    """Processor time of the processes so far, all threads."""
    total = 0
    for n in nodes:
        with open("/proc/%d/stat" % n.process.pid, encoding="ascii", errors="replace") as f:
            words = f.read().rsplit(")", 1)[1].split()
        total += (int(words[11]) + int(words[12])) / HZ
    return total


def rss_mb(node):
    with open("/proc/%d/status" % node.process.pid, encoding="ascii") as f:
        return next(int(line.split()[1]) / 1000 for line in f if line.startswith("VmRSS"))


class Three:
    """Runs the cases and puts what came of them into bench.results[case]["sluice"]."""

    def __init__(self, bench, folder):
        import tempfile
        os.environ["SLUICE_BIN"] = bench.bin
        tempfile.tempdir = folder  # the nodes' data is where the bench's is
        import cluster
        import node
        self.bench, self.folder, self.lib, self.eventually = bench, folder, cluster, node.eventually
        self.fallen = ""  # last words of nodes that ended by themselves

    def cluster(self, count=3, **more):
        settings = dict(s.split("=", 1) for s in self.bench.options.set)
        one = self.lib.Cluster(count, settings, **more)
        try:
            one.start()
        except BaseException:
            one.close()
            raise
        return one

    def settled(self, c, stream=STREAM):
        return self.eventually(lambda: c.replicated(stream, len(c.nodes)), 30, 0.05)

    def routed(self, c):
        c.create(STREAM, 1, 3)
        status = c[1].request("PUT", "/api/v1/routes/t", '{"route": "t/# -> %s"}' % STREAM)[0]
        if status not in (200, 204) or not self.settled(c):
            raise AssertionError("not replicated")

    # ---- what happens to a leader

    def round(self, c, harm, mend, tail_s):
        """Seconds from the harm to the next acknowledgement: of a publisher, of a producer."""
        victim = c.leader(STREAM)
        rest = [n for n in c.nodes if n is not victim]
        clients = [Publisher(rest), Producer(rest)]
        try:
            time.sleep(0.5)
            began = time.monotonic()
            harm(victim)
            count = [len(x.acks) for x in clients]
            self.eventually(lambda: all(len(x.acks) > n + 20 and x.acks[-1] > began + tail_s
                                        for x, n in zip(clients, count)), 10)
        finally:
            for x in clients:
                x.end()
            mend(victim)
        if not self.settled(c):
            raise AssertionError("did not heal: %s" % c.partitions(STREAM))
        if min(len(x.acks) for x in clients) < 20:
            raise AssertionError("nothing was acknowledged")
        return [x.after(began) for x in clients]

    def harmed(self, case, c, rounds, harm, mend, tail_s=2.0):
        if not self.bench.wanted(case):
            return
        took = [self.round(c, harm, mend, tail_s) for _ in range(rounds)]
        self.give(case, rounds=rounds, mqtt_s=[round(a, 3) for a, _ in took],
                  kafka_s=[round(b, 3) for _, b in took],
                  mqtt_median_s=statistics.median(a for a, _ in took),
                  mqtt_worst_s=max(a for a, _ in took),
                  kafka_median_s=statistics.median(b for _, b in took),
                  kafka_worst_s=max(b for _, b in took))

    def give(self, case, **result):
        self.bench.results.setdefault(case, {})["sluice"] = dict(result, exit=0)
        self.bench.say("  %s: %s" % (case, json.dumps(result)))

    def failover(self):
        if not any(self.bench.wanted("cluster_" + x) for x in ("kill", "pause", "rolling")):
            return
        c = self.cluster()
        try:
            self.routed(c)
            if self.bench.wanted("cluster_rolling"):
                self.rolling(c)
            self.harmed("cluster_kill", c, self.bench.options.rounds, lambda n: n.kill(),
                        lambda n: n.start())
            self.harmed("cluster_pause", c, 3, lambda n: n.pause(), lambda n: n.go_on())
        finally:
            c.close()

    def cut(self):
        if not self.bench.wanted("cluster_cut"):
            return
        if not self.lib.Network.usable():
            self.none("cluster_cut", "needs root, ip and nft")
            return
        net = self.lib.Network()
        try:
            c = self.cluster(network=net)
            try:
                self.routed(c)
                self.harmed("cluster_cut", c, 3, lambda n: net.cut(
                    n, [o for o in c.nodes if o is not n]), lambda n: net.heal(), 3.0)
            finally:
                c.close()
        finally:
            net.close()

    def hung(self):
        """The leader's disk takes 5 s for one sync. It is a file system of the tests, which the
        nodes of this case live on."""
        if not self.bench.wanted("cluster_hung"):
            return
        import forget
        why = forget.missing()
        if why:
            self.none("cluster_hung", why)
            return
        disks = {n: forget.ForgetFolder() for n in (1, 2, 3)}
        try:
            c = self.lib.Cluster(3)
            try:
                for n in c.nodes:
                    n.settings["data.dir"] = os.path.join(disks[n.number].path, "data")
                c.start()
                self.routed(c)
                self.harmed("cluster_hung", c, 2, lambda n: disks[n.number].fault("hang 5000"),
                            lambda n: time.sleep(3), 3.0)
            finally:
                c.close()
        finally:
            for d in disks.values():
                d.close()

    def none(self, case, why):
        self.bench.results.setdefault(case, {})["sluice"] = {"failed": why, "absent": True}
        self.bench.say("  %s: %s" % (case, why))

    # ---- a restart of each node under load

    def rolling(self, c):
        each = [[n] + [o for o in c.nodes if o is not n] for n in c.nodes]
        clients = [kind(nodes) for nodes in each for kind in (Publisher, Producer)]
        try:
            time.sleep(1)
            for n in c.nodes:
                n.stop()
                n.start()
                if not self.settled(c):
                    raise AssertionError("did not heal")
                time.sleep(0.5)
        finally:
            for x in clients:
                x.end()
        waits = [w for x in clients for w in x.waits]
        self.give("cluster_rolling", requests=len(waits), most_retries=max(r for _, r in waits),
                  worst_s=round(max(s for s, _ in waits), 3),
                  retried=sum(r > 0 for _, r in waits))

    # ---- load

    def loads(self, case, argv):
        lines = self.bench.load(case, "sluice", argv)
        if not lines:
            raise AssertionError(self.bench.results[case]["sluice"]["failed"])
        return lines[-1]

    def light(self):
        if not any(self.bench.wanted("cluster_" + x) for x in ("light", "one", "wiped")):
            return
        c = self.cluster()
        try:
            hosts = ["--host", ",".join("127.0.0.1:%d" % n.mqtt for n in c.nodes), "--qos", "1"]
            if self.bench.wanted("cluster_light"):
                self.loads("cluster_light", ["mqtt-latency", *hosts, "--seconds", "4"])
            if self.bench.wanted("cluster_one"):
                self.loads("cluster_one", ["mqtt", *hosts, "--clients", "1", "--window", "1",
                                           "--seconds", "3"])
            if self.bench.wanted("cluster_wiped"):
                self.wiped(c)
        except BaseException:
            self.look(c)
            raise
        finally:
            c.close()

    def look(self, c):
        for n in c.nodes:
            if not n.is_running() and n.process.returncode not in (0, -9, -15):
                self.fallen += "; node %d ended with %s: %s" % (
                    n.number, n.process.returncode, n.log(1500))

    def wiped(self, c):
        """One node loses all while publishers go on at the others; p99 meanwhile, and before and
        after, in pieces of 4 s: what others do with the machine must not decide."""
        size = int(self.bench.options.wiped_gb * 1000 ** 3)
        c.create("big", 4, 3)
        time.sleep(11)  # leaders are where they belong
        self.loads("cluster_wiped", ["kafka-produce", "--topic", "big", "--partitions", "4",
                                     "--replicas", "3", "--port", str(c[1].ports["kafka"]),
                                     "--count", str(size // 1024)])
        hosts = ",".join("127.0.0.1:%d" % n.mqtt for n in c.nodes[:2])
        time.sleep(3)

        def piece():
            r = self.loads("cluster_wiped", ["mqtt-latency", "--qos", "1", "--host", hosts,
                                             "--seconds", "4"])
            return r["ack_p99_ms"]
        c[3].stop()
        time.sleep(2)
        calm = [piece() for _ in range(4)]
        c[3].wipe()
        c[3].start(wait=False)
        began, during = time.monotonic(), []
        while time.monotonic() - began < 180:
            during.append(piece())
            if c.replicated("big", 3):
                break
        took = time.monotonic() - began
        done = c.replicated("big", 3)
        calm += [piece() for _ in range(4)]
        self.give("cluster_wiped", gb=self.bench.options.wiped_gb, seconds=round(took, 1),
                  complete=done, calm_p99_ms=calm, during_p99_ms=during,
                  calm_median_ms=statistics.median(calm),
                  during_median_ms=statistics.median(during))

    def idle(self):
        if not self.bench.wanted("cluster_idle"):
            return
        c = self.cluster()
        try:
            time.sleep(6)  # placing is over

            def used(seconds=5):
                """The lower of two: others on the machine can only make it more."""
                took = []
                for _ in range(2):
                    before = [cpu_s([n]) for n in c.nodes]
                    time.sleep(seconds)
                    took.append([100 * (cpu_s([n]) - b) / seconds
                                 for n, b in zip(c.nodes, before)])
                return min(took, key=sum)
            empty_cpu, empty_mb = used(), [rss_mb(n) for n in c.nodes]
            c.create("idle", 1000, 3, 60)
            time.sleep(13)  # and leaders are where they belong
            cpu, mb = used(), [rss_mb(n) for n in c.nodes]
            self.give("cluster_idle", partitions=1000,
                      cpu_percent=round(max(a - b for a, b in zip(cpu, empty_cpu)), 2),
                      empty_cpu_percent=round(max(empty_cpu), 2),
                      mb=round(max(a - b for a, b in zip(mb, empty_mb)), 1))
        finally:
            c.close()

    def produce_once(self, case, count, more):
        """MB per CPU second and MB/s, after as much was written: write buffers that a node fills
        for the first time take their memory from the kernel, an eighth of the whole."""
        c = self.cluster(count)
        try:
            c.create("p", 6, count)
            time.sleep(1 if count == 1 else 11)  # leaders are where they belong
            argv = ["kafka-produce", "--topic", "p", "--partitions", "6", "--replicas", str(count),
                    "--port", str(c[1].ports["kafka"]), "--count", "1000000"]
            self.loads(case, argv)
            time.sleep(2)
            before = cpu_s(c.nodes)
            r = self.loads(case, argv + more)
            time.sleep(2)  # a replica may have some of it to do yet
            return r["bytes"] / 1e6 / (cpu_s(c.nodes) - before), r["mb_per_s"]
        finally:
            c.close()

    def produce(self):
        """One node and three in turn, twice: the machine is not the same from minute to minute.
        As fast as each goes, and at a load that both carry: what one node does with turns two and
        a half times as large is no measure of what replication costs."""
        for case, more in (("cluster_produce", []), ("cluster_produce_load", ["--rate", "200000"])):
            if not self.bench.wanted(case):
                continue
            rates = {1: [], 3: []}
            for count in (1, 3, 1, 3):
                rates[count].append(self.produce_once(case, count, more))
            one, three = (statistics.mean(x[0] for x in rates[n]) for n in (1, 3))
            self.give(case, mb_per_cpu_s=round(three, 1), one_mb_per_cpu_s=round(one, 1),
                      mb_per_s=statistics.mean(x[1] for x in rates[3]),
                      one_mb_per_s=statistics.mean(x[1] for x in rates[1]), share=three / one)

    def all(self):
        steps = (self.light, self.idle, self.failover, self.hung, self.cut, self.produce)
        self.bench.say("three nodes")
        for step in steps:
            try:
                step()
            except Exception as e:  # one that fails must not take the others along
                self.bench.fail("sluice", [], "%s: %s%s" % (step.__name__, str(e)[-600:],
                                                            self.fallen))
            self.fallen = ""


# ---- the table

def seconds_cell(r):
    return "MQTT %.2f / %.2f, Kafka %.2f / %.2f s" % (
        r["mqtt_median_s"], r["mqtt_worst_s"], r["kafka_median_s"], r["kafka_worst_s"])


def produce_cell(r):
    return "%.2f (%.0f of %.0f), %.0f MB/s (%.0f)" % (
        r["share"], r["mb_per_cpu_s"], r["one_mb_per_cpu_s"], r["mb_per_s"], r["one_mb_per_s"])


def worst(r):
    return max(r["mqtt_worst_s"], r["kafka_worst_s"])


ROWS = [
    ("cluster_kill", "leader killed -> next acknowledged write: median / worst", seconds_cell,
     "1.2 / 2 s", lambda r, sync: worst(r) < 2 and
     max(r["mqtt_median_s"], r["kafka_median_s"]) < 1.2),
    ("cluster_pause", "leader paused (SIGSTOP), the same", seconds_cell, "3 s",
     lambda r, sync: worst(r) < 3),
    ("cluster_cut", "leader cut off, the same", seconds_cell, "3 s",
     lambda r, sync: worst(r) < 3),
    ("cluster_hung", "a sync of the leader's hangs, the same", seconds_cell, "3 s",
     lambda r, sync: worst(r) < 3),
    ("cluster_rolling", "rolling restart under load",
     lambda r: "%d requests, at most %d retries, %.2f s" % (
         r["requests"], r["most_retries"], r["worst_s"]), "1 retry, 2 s",
     lambda r, sync: r["most_retries"] <= 1 and r["worst_s"] <= 2),
    ("cluster_light", "QoS 1 at 2,000/s, publish to deliver",
     lambda r: "p50 %.2f, p99 %.2f ms" % (r["deliver_p50_ms"], r["deliver_p99_ms"]),
     "p50 1.3 sync + 1.5 ms", lambda r, sync: r["deliver_p50_ms"] <= 1.3 * sync + 1.5),
    ("cluster_one", "QoS 1, one at a time",
     lambda r: "p50 %.2f, p99 %.2f ms" % (r["ack_p50_ms"], r["ack_p99_ms"]),
     "p50 1.3 sync + 1.5 ms", lambda r, sync: r["ack_p50_ms"] <= 1.3 * sync + 1.5),
    ("cluster_idle", "1,000 idle partitions, a node, over the empty cluster",
     lambda r: "%.1f %% of a core, %.0f MB" % (r["cpu_percent"], r["mb"]), "3 %, 40 MB",
     lambda r, sync: r["cpu_percent"] <= 3 and r["mb"] <= 40),
    ("cluster_produce", "replicated produce as fast as it goes, MB per CPU second of all (one "
     "node)", produce_cell, "1/3 of one node", lambda r, sync: r["share"] >= 1 / 3),
    ("cluster_produce_load", "the same at a load that both carry", produce_cell,
     "1/3 of one node", lambda r, sync: r["share"] >= 1 / 3),
    ("cluster_wiped", "a wiped node fetches all: publishers' p99 before and after, meanwhile",
     lambda r: "%.1f, %.1f ms; %g GB in %.0f s" % (
         r["calm_median_ms"], r["during_median_ms"], r["gb"], r["seconds"]), "2 x",
     lambda r, sync: r["complete"] and r["during_median_ms"] <= 2 * r["calm_median_ms"]),
]
CASES = [row[0] for row in ROWS]


def table(results, sync):
    lines, missed = [], []
    for case, title, make, floor, holds in ROWS:
        r = results.get(case, {}).get("sluice")
        if r is None:
            continue
        if "failed" in r:
            lines.append("| %s | %s | %s | |" % (
                title, "-" if r.get("absent") else "failed", floor))
            missed += [] if r.get("absent") else [case]
            continue
        fine = holds(r, sync)
        missed += [] if fine else [case]
        lines.append("| %s | %s | %s | %s |" % (title, make(r), floor, "yes" if fine else "NO"))
    head = ["", "| three nodes on one machine | Sluice | floor | holds |", "|--|--|--|--|"]
    return (head + lines if lines else []), missed
