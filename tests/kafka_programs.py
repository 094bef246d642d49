"""Kafka clients that are no Python modules: kafkajs from npm, sarama and kafka-go from Debian's Go
packages. Each is a small program of proto/clients, made ready once below the build folder, and spoken to in one way:

    produce TOPIC COUNT PREFIX     records PREFIX0 ... with keys and a header; "done COUNT"
    consume TOPIC COUNT GROUP      from the start; "record PARTITION OFFSET VALUE" each
    group TOPIC GROUP              a member, until SIGTERM, upon which it leaves: "record ..." and
                                   "assigned PARTITION ..."; commits each 200 ms, session 10 s
    what fails: "error WORD TEXT", where WORD is Kafka's code or the library's name of it

KAFKA_BROKER, KAFKA_USER, KAFKA_PASSWORD, KAFKA_MECHANISM, KAFKA_CODEC, KAFKA_IDEMPOTENT=1."""
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from node import BIN

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "proto", "clients")
MADE = os.path.join(os.path.dirname(BIN), "clients")
GO_CODE = "/usr/share/gocode"
# What a machine without the npm registry is told; there these tests are skipped.
UNREACHED = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH", "ECONNRESET")


def need(*words):
    for word in words:
        if shutil.which(word) is None:
            pytest.skip("no %s on this machine" % word)


def is_made(target, source):
    return os.path.exists(target) and os.path.getmtime(target) >= os.path.getmtime(source)


def make_kafkajs():
    """The command, and what its environment needs."""
    need("node", "npm")
    folder = os.path.join(MADE, "kafkajs")
    lock = os.path.join(HERE, "package-lock.json")
    stamp = os.path.join(folder, "installed")
    if not is_made(stamp, lock):
        os.makedirs(folder, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(os.path.join(HERE, name), os.path.join(folder, name))
        # It would try for minutes to reach a registry that is not there.
        done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund",
                               "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"],
                              cwd=folder, capture_output=True, text=True, timeout=120,
                              stdin=subprocess.DEVNULL, check=False)
        if done.returncode and any(word in done.stderr for word in UNREACHED):
            pytest.skip("the npm registry is not to be reached")
        assert done.returncode == 0, done.stderr
        with open(stamp, "w", encoding="ascii"):
            pass
    return (["node", os.path.join(HERE, "kafkajs_client.js")],
            {"NODE_PATH": os.path.join(folder, "node_modules")})


def make_go(program, package, debian):
    need("go")
    if not os.path.isdir("%s/src/github.com/%s" % (GO_CODE, package)):
        pytest.skip("%s is not installed" % debian)
    source, target = os.path.join(HERE, program + ".go"), os.path.join(MADE, program)
    if not is_made(target, source):
        os.makedirs(MADE, exist_ok=True)
        # Of Debian's packages alone: no modules, nothing is fetched, no other toolchain.
        env = {**os.environ, "GO111MODULE": "off", "GOPATH": GO_CODE, "GOFLAGS": "",
               "GOTOOLCHAIN": "local", "GOCACHE": os.path.join(MADE, "go-cache")}
        done = subprocess.run(["go", "build", "-o", target + ".new", source], env=env, text=True,
                              capture_output=True, timeout=240, stdin=subprocess.DEVNULL,
                              check=False)
        assert done.returncode == 0, done.stderr
        os.rename(target + ".new", target)
    return [target], {}


MAKERS = {
    "kafkajs": make_kafkajs,
    "sarama": lambda: make_go("sarama_client", "Shopify/sarama",
                              "golang-github-shopify-sarama-dev"),
    "kafka-go": lambda: make_go("kafka_go_client", "segmentio/kafka-go",
                                "golang-github-segmentio-kafka-go-dev"),
}


class Failed(AssertionError):
    def __init__(self, line):
        super().__init__(line)
        self.word = line.split(" ", 2)[1]


class Library:
    def __init__(self, name):
        self.name = name
        self.command, self.env = MAKERS[name]()

    def start(self, node, *words, user=None, mechanism="PLAIN", password=None, codec="none",
              idempotent=False):
        env = {**os.environ, **self.env, "KAFKA_BROKER": node.kafka, "KAFKA_CODEC": codec,
               "KAFKA_IDEMPOTENT": "1" if idempotent else ""}
        if user:
            env.update(KAFKA_USER=user, KAFKA_PASSWORD=password or "pw-" + user,
                       KAFKA_MECHANISM=mechanism)
        return subprocess.Popen(self.command + [str(w) for w in words], env=env, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def run(self, node, *words, within=90, **more):
        """Its lines but for errors, which are raised."""
        process = self.start(node, *words, **more)
        try:
            out, _ = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            raise AssertionError("not done within %d s: %s" % (within, out[-2000:])) from None
        lines = out.splitlines()
        for line in lines:
            if line.startswith("error "):
                raise Failed(line)
        assert process.returncode == 0, out[-2000:]
        return lines

    def produce(self, node, topic, count, prefix, **more):
        assert self.run(node, "produce", topic, count, prefix, **more)[-1] == "done %d" % count

    def consume(self, node, topic, count, group, **more):
        """[(partition, offset, value)]"""
        return records_of(self.run(node, "consume", topic, count, group, **more))

    def join(self, node, topic, group, **more):
        return Member(self.start(node, "group", topic, group, **more))


def records_of(lines):
    return [(int(p), int(o), value) for _, p, o, value in
            (line.split(" ", 3) for line in lines if line.startswith("record "))]


class Member:
    """A member of a group, in a process of its own; its lines are read as they come."""

    def __init__(self, process):
        self.process, self.lines, self.parts = process, [], []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            if not line.endswith("\n"):  # the last one of who was killed
                break
            line = line.rstrip("\n")
            self.lines.append(line)
            if line.startswith("assigned"):
                self.parts = sorted(int(word) for word in line.split()[1:])

    @property
    def records(self):
        return records_of(list(self.lines))

    def leave(self, within=40):
        """With a word; the seconds it took."""
        began = time.monotonic()
        self.process.terminate()
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)  # Python and Go say then where they are
            self.reader.join(5)
            raise AssertionError("does not go: %s" % "\n".join(self.lines[-60:])) from None
        self.reader.join(5)
        assert status == 0, self.lines[-5:]
        return time.monotonic() - began

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.reader.join(5)
