"""One sluiced process for a test: free ports on loopback, its data in a temporary folder, its log
in a file. Started, killed, restarted and ended by its own process id."""
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.abspath(os.environ.get("SLUICE_BIN") or os.path.join(ROOT, "build", "release"))
SLUICED = os.environ.get("SLUICED", os.path.join(BIN, "sluiced"))
SLUICE = os.environ.get("SLUICE", os.path.join(BIN, "sluice"))
READY_S = float(os.environ.get("SLUICE_READY_S", "5"))  # promised for one node
PLAIN_DOORS = ("mqtt", "kafka", "http", "peer")
# Of tests that run side by side each has ports of its own: TEST_PORTS=20000-21000.
PORTS = [int(p) for p in os.environ.get("TEST_PORTS", "20000-32000").split("-")]
_given = set()  # ports handed out by this process, so that no two nodes draw the same


def free_port():
    """A port below the range that outgoing connections draw from, so that none takes it."""
    if len(_given) > (PORTS[1] - PORTS[0]) // 2:
        _given.clear()  # those of long ago are free again, or binding tells
    while True:
        port = random.randrange(*PORTS)
        if port in _given:
            continue
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


class NotReady(AssertionError):
    pass


def environment():
    """What a node is given of ours: every SLUICE_ name would be a setting to it."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}


class Node:
    """settings are configuration keys with '.' written as '__' or given by a dict."""

    def __init__(self, settings=None, doors=PLAIN_DOORS, folder=None):
        self.own_folder = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix="sluice-test-")
        self.data = os.path.join(self.folder, "data")
        self.log_path = os.path.join(self.folder, "log")
        self.ports = {door: free_port() for door in doors}
        self.settings = {"listen.%s" % d: "off" for d in ("mqtt", "kafka", "http", "amqp", "peer")}
        self.settings.update({"listen.%s" % d: "127.0.0.1:%d" % p for d, p in self.ports.items()})
        self.settings["data.dir"] = self.data
        self.settings.update(settings or {})
        self.environment = environment()
        self.process = None
        self.ready_after_s = None

    mqtt = property(lambda self: self.ports["mqtt"])
    kafka = property(lambda self: "127.0.0.1:%d" % self.ports["kafka"])
    url = property(lambda self: "http://127.0.0.1:%d" % self.ports["http"])

    def command(self):
        words = [SLUICED]
        for key, value in self.settings.items():
            words += ["--set", "%s=%s" % (key, value)]
        return words

    def start(self, wait=True):
        assert self.process is None or self.process.poll() is not None, "runs already"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=self.folder,
                                            env=self.environment)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, within=None):
        began = time.monotonic()
        within = within or READY_S
        while time.monotonic() - began < within:
            if self.process.poll() is not None:
                raise NotReady("ended with %d:\n%s" % (self.process.returncode, self.log()))
            if self.is_ready():
                self.ready_after_s = time.monotonic() - began
                return
            time.sleep(0.02)
        raise NotReady("not ready within %.1f s:\n%s" % (within, self.log()))

    def is_ready(self):
        if "http" in self.ports:
            try:
                return self.get("/readyz", timeout=5)[0] == 200
            except OSError:
                return False
        return all(self.is_open(p) for p in self.ports.values())

    @staticmethod
    def is_open(port):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
            return True
        except OSError:
            return False

    def request(self, method, path, body=None, headers=None, timeout=30):
        """(status, body, headers of the answer)"""
        link = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=timeout)
        try:
            link.request(method, path, body=body, headers=headers or {})
            answer = link.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            link.close()

    def get(self, path, timeout=30):
        status, body, _ = self.request("GET", path, timeout=timeout)
        return status, body

    def cli(self, *words, server=None, timeout=60, data=None):
        return subprocess.run([SLUICE, *words, "--server", server or self.url],
                              capture_output=True, text=True, timeout=timeout, input=data or "",
                              check=False)

    def cli_json(self, *words):
        done = self.cli(*words, "-o", "json")
        assert done.returncode == 0, (words, done.returncode, done.stderr)
        return json.loads(done.stdout)

    def kill(self):
        """kill -9: nothing is said goodbye to."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self, within=20):
        """SIGTERM; the status it ended with."""
        self.process.terminate()
        return self.process.wait(within)

    def restart(self, kill=True):
        self.kill() if kill else self.stop()
        return self.start()

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def log(self, bytes_max=6000):
        try:
            with open(self.log_path, "rb") as f:
                return f.read()[-bytes_max:].decode(errors="replace")
        except OSError:
            return ""

    def close(self):
        if self.is_running():
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        if self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def eventually(what, within=30.0, every=0.02):
    """The first true value of what(), asked again and again; the last value when time is up."""
    until = time.monotonic() + within
    while True:
        value = what()
        if value or time.monotonic() > until:
            return value
        time.sleep(every)
