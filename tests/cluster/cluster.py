"""Several sluiced processes that form one cluster: on loopback, or each in a network namespace of
its own where links can be cut. Started, killed, paused, wiped and ended by their own process
ids."""
import json
import itertools
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

from node import Node, eventually

FORM_S = 40  # a cluster founds itself within, also on a machine that does much else
DOORS = ("mqtt", "kafka", "http", "peer")


def told_leader(node, stream, partition):
    """The leader's id as Kafka's Metadata v1 of that node tells it: what it knows itself, without
    waiting for a leader that may not answer."""
    body = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">ih", 1, len(stream)) + stream.encode()
    with socket.create_connection((node.host, node.ports["kafka"]), timeout=2) as link:
        link.sendall(struct.pack(">i", len(body)) + body)
        file = link.makefile("rb")
        answer = file.read(struct.unpack(">i", file.read(4))[0])
    at = 8
    for _ in range(struct.unpack_from(">i", answer, 4)[0]):
        at += 6 + struct.unpack_from(">h", answer, at + 4)[0] + 4
        at += 2 + max(0, struct.unpack_from(">h", answer, at)[0])
    at += 4 + 4 + 2
    at += 2 + struct.unpack_from(">h", answer, at)[0] + 1
    count, at = struct.unpack_from(">i", answer, at)[0], at + 4
    for _ in range(count):
        _, index, leader, replicas = struct.unpack_from(">hiii", answer, at)
        at += 14 + 4 * replicas
        at += 4 + 4 * struct.unpack_from(">i", answer, at)[0]
        if index == partition:
            return leader
    return None


class Member(Node):
    """One node of a cluster. space: the network namespace it lives in, or None."""

    def __init__(self, cluster, number, settings=None, space=None):
        super().__init__(settings, doors=DOORS, folder=os.path.join(cluster.folder, str(number)))
        os.makedirs(self.folder, exist_ok=True)
        self.number, self.space, self.host = number, space, "127.0.0.1"
        if space:
            self.host = space.address
            self.settings["auth.anonymous"] = "on"
            for door in DOORS:
                self.settings["listen." + door] = "%s:%d" % (self.host, self.ports[door])
        self.settings.update({"node.id": number, "node.name": "n%d" % number,
                              "data.dir": self.data})
        self.paused = False

    peer = property(lambda self: "%s:%d" % (self.host, self.ports["peer"]))
    kafka = property(lambda self: "%s:%d" % (self.host, self.ports["kafka"]))
    url = property(lambda self: "http://%s:%d" % (self.host, self.ports["http"]))

    def command(self):
        words = super().command()
        return ["ip", "netns", "exec", self.space.name] + words if self.space else words

    def request(self, method, path, body=None, headers=None, timeout=30):
        import http.client
        link = http.client.HTTPConnection(self.host, self.ports["http"], timeout=timeout)
        try:
            link.request(method, path, body=body, headers=headers or {})
            answer = link.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            link.close()

    def ask(self, path, timeout=20):
        status, body = self.get(path, timeout=timeout)
        assert status == 200, (path, status, body[:300])
        return json.loads(body)

    def metric(self, name):
        """Over all labels."""
        text = self.get("/metrics")[1].decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def records(self, stream, options):
        """Of its first partition, by HTTP, as far as they can be read here."""
        got, at = [], 0
        while True:
            page = self.ask("/streams/%s/records?partition=0&offset=%d&%s" % (stream, at, options))
            got += page["records"]
            if page["next_offset"] >= page["end_offset"]:
                return got
            assert page["next_offset"] > at
            at = page["next_offset"]

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)
        self.paused = True

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)
        self.paused = False

    def wipe(self):
        assert not self.is_running()
        shutil.rmtree(self.data)

    def close(self):
        if self.paused and self.is_running():
            self.go_on()
        super().close()


class Cluster:
    """count nodes with ids from 1. settings are given to all; node_settings(number) to each."""

    def __init__(self, count=3, settings=None, node_settings=None, network=None):
        self.folder = tempfile.mkdtemp(prefix="sluice-cluster-")
        self.network, self.nodes, self.count = network, [], count
        self.settings = {"stream.partitions": 4, "tables": 4, "loops": 2, "disk.reserve": "64MiB",
                         "group.initial_rebalance_delay": "100ms"}
        self.settings.update(settings or {})
        self.node_settings = node_settings or (lambda number: {})
        for number in range(1, count + 1):
            self.add(number)

    def add(self, number, seeds=None):
        """A node that is not started yet. Seeds: all that are there, itself included."""
        space = self.network.space(number) if self.network else None
        more = dict(self.settings)
        more.update(self.node_settings(number))
        node = Member(self, number, more, space)
        self.nodes.append(node)
        for each in [node] if seeds else self.nodes:
            if not each.is_running():
                each.settings["cluster.seeds"] = seeds or ",".join(n.peer for n in self.nodes)
        return node

    def __getitem__(self, number):
        return next(n for n in self.nodes if n.number == number)

    def start(self, within=FORM_S):
        for n in self.nodes:
            n.start(wait=False)
        self.wait_ready(within)
        self.wait_spread(within)
        return self

    def wait_spread(self, within=FORM_S):
        """Until every group has its copies: before that the founder's loss would be everybody's."""
        wanted = min(3, len(self.running()))

        def spread():
            try:
                groups = self.any().ask("/api/v1/partitions?internal=true")["partitions"]
            except (OSError, AssertionError):
                return False
            return all(len(g["in_sync"]) >= wanted and not g["moving"] for g in groups)
        assert eventually(spread, within, 0.1), self.any().cli("partition", "list",
                                                               "--internal").stdout

    def wait_ready(self, within=FORM_S, nodes=None):
        until = time.monotonic() + within
        for n in nodes or self.running():
            n.wait_ready(max(0.5, until - time.monotonic()))

    def running(self):
        return [n for n in self.nodes if n.is_running() and not n.paused]

    def any(self, but=()):
        return next(n for n in self.running() if n not in but)

    # ---- what it is like

    def partitions(self, stream, through=None):
        return (through or self.any()).ask("/api/v1/streams/" + stream)["partition_list"]

    def leader(self, stream, partition=0, through=None):
        """The node that leads it, awaited while nobody does; None: nobody for long."""
        def led():
            for p in self.partitions(stream, through):
                if p["partition"] == partition and p["leader"] is not None:
                    return self[p["leader"]]
            return None
        return eventually(led)

    def replicated(self, stream, replicas):
        """Whether all partitions are led and have so many replicas, all in sync."""
        try:
            parts = self.partitions(stream)
        except (OSError, AssertionError):
            return False
        return bool(parts) and all(
            p["leader"] is not None and len(p.get("in_sync", [])) >= replicas for p in parts)

    def create(self, stream, partitions=1, replicas=3, within=FORM_S):
        body = json.dumps({"name": stream, "partitions": partitions, "replicas": replicas})
        status, answer, _ = self.any().request("POST", "/api/v1/streams", body)
        assert status == 201, answer
        assert eventually(lambda: self.replicated(stream, min(replicas, len(self.running()))),
                          within, 0.1), self.partitions(stream)

    def wait_new_leader(self, stream, partition, old, within=20):
        """Seconds until another node than old leads and others know; fails when none does."""
        began = time.monotonic()

        def led():
            try:
                found = told_leader(self.any([old]), stream, partition)
            except (OSError, struct.error):
                return None
            return found is not None and found > 0 and self[found] is not old
        assert eventually(led, within), "no new leader within %s s" % within
        return time.monotonic() - began

    def bootstrap(self):
        return ",".join(n.kafka for n in self.nodes)

    def logs(self):
        return "\n".join("---- node %d (%s)\n%s" % (
            n.number, "runs" if n.is_running() else "is down", n.log(4000)) for n in self.nodes)

    def mend(self):
        """As it was after start, for the next test: all run, nothing is cut, and what the test made
        (streams, routes, nodes) is gone."""
        if self.network:
            self.network.heal()
        for n in self.nodes:
            if n.paused:
                n.go_on()
            if not n.is_running():
                n.start(wait=False)
        self.wait_ready()
        self.wait_spread()
        assert len(self.nodes) == self.count
        for kind, key, keep in (("routes", "routes", "default"), ("streams", "streams", "mqtt")):
            for one in self.any().ask("/api/v1/" + kind)[key]:
                if one["name"] != keep and not one["name"].startswith("__"):
                    path = "/api/v1/%s/%s" % (kind, one["name"])
                    assert self.any().request("DELETE", path)[0] in (200, 204), path

    def close(self):
        """All at once: one that is told alone looks for another to hand its leaderships to."""
        for n in self.nodes:
            if n.is_running():
                n.go_on()
                n.process.terminate()
        for n in self.nodes:
            n.close()
        shutil.rmtree(self.folder, ignore_errors=True)


# ---- links that can be cut

class Space:
    def __init__(self, network, number):
        self.number, self.network = number, network
        self.name = "%s%d" % (network.prefix, number)
        self.link = "%sv%d" % (network.prefix, number)
        self.address = "10.%d.%d.%d" % (network.net[0], network.net[1], number + 1)


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


class Network:
    """A bridge and a namespace per node; a cut is a rule of nftables that drops. Needs root, ip and
    nft: usable() says whether they are there."""

    numbers = itertools.count()  # what a closed one leaves takes a moment to go

    def __init__(self):
        self.prefix = "sl%d%s" % (os.getpid() % 100000, chr(97 + next(self.numbers) % 26))
        self.net = self._take_net()
        self.spaces = {}
        run("ip", "link", "add", self.prefix, "type", "bridge")
        run("ip", "address", "add", "10.%d.%d.1/24" % self.net, "dev", self.prefix)
        run("ip", "link", "set", self.prefix, "up")

    def _take_net(self):
        """A subnet that nobody else has: held by a name that the system lends to one socket at a
        time, as tests that run side by side would not see each other's bridges in time."""
        self.held = socket.socket(socket.AF_UNIX)
        while True:
            net = (77, random.randrange(250))
            try:
                self.held.bind("\0sluice-test-net-%d.%d" % net)
            except OSError:
                continue
            # One that was killed may have left its bridge.
            if not run("ip", "-4", "address", "show", "to", "10.%d.%d.0/24" % net):
                return net
            self.held.close()
            self.held = socket.socket(socket.AF_UNIX)

    @staticmethod
    def usable():
        if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nft"):
            return False
        name = "sltry%d" % os.getpid()
        tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
        if tried.returncode == 0:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        return tried.returncode == 0

    def space(self, number):
        s = self.spaces[number] = Space(self, number)
        run("ip", "netns", "add", s.name)
        run("ip", "link", "add", s.link, "type", "veth", "peer", "name", "eth0", "netns", s.name)
        run("ip", "link", "set", s.link, "master", self.prefix, "up")
        inside = ["ip", "-n", s.name]
        run(*inside, "address", "add", s.address + "/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "link", "set", "lo", "up")
        self.nft(s, "add table inet cut; add chain inet cut in "
                    "{ type filter hook input priority 0; }; add chain inet cut out "
                    "{ type filter hook output priority 0; }")
        return s

    @staticmethod
    def nft(space, rules):
        run("ip", "netns", "exec", space.name, "nft", rules)

    def cut(self, node, others, one_way=False):
        """Nothing passes from the others to node, nor (unless one_way) back."""
        for other in others:
            self.nft(node.space, "add rule inet cut in ip saddr %s drop" % other.space.address)
            if not one_way:
                self.nft(node.space,
                         "add rule inet cut out ip daddr %s drop" % other.space.address)

    def heal(self):
        for s in self.spaces.values():
            self.nft(s, "flush chain inet cut in; flush chain inet cut out")

    def close(self):
        for s in self.spaces.values():
            subprocess.run(["ip", "netns", "del", s.name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.prefix], capture_output=True, check=False)
        self.held.close()
