"""docs/ says what a node does: tables, names, links, and the commands of the quick start."""
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import socket
import struct
import subprocess

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

from node import BIN, ROOT, environment

DOCS = pathlib.Path(ROOT) / "docs"
PAGES = sorted(DOCS.glob("*.md")) + [pathlib.Path(ROOT) / "README.md"]


def text(name):
    return (DOCS / name).read_text(encoding="utf-8")


def rows(page):
    """The cells of each line of a table."""
    return [[c.strip() for c in line.strip("|\n").split("|")]
            for line in page.splitlines() if line.startswith("|")]


def test_kafka_apis(node):
    with socket.create_connection(("127.0.0.1", node.ports["kafka"]), timeout=10) as s:
        s.sendall(struct.pack(">ihhihc", 11, 18, 0, 1, 1, b"x"))
        with s.makefile("rb") as f:
            body = f.read(struct.unpack(">i", f.read(4))[0])
    count = struct.unpack_from(">i", body, 6)[0]
    served = {struct.unpack_from(">hhh", body, 10 + 6 * i) for i in range(count)}
    told = {(int(r[1]), *map(int, r[2].split("-"))) for r in rows(text("kafka.md"))
            if len(r) == 3 and re.fullmatch(r"\d+-\d+", r[2])}
    assert told == served


def test_http_paths(node):
    served = {(method.upper(), path)
              for path, methods in json.loads(node.get("/openapi.json")[1])["paths"].items()
              for method in methods}
    told = {(method, r[1].strip("`")) for r in rows(text("http.md")) if r[1].startswith("`/")
            for method in r[0].split(", ")}
    assert told == served


def test_what_paths_need(node):
    served = {(method.upper(), path, what["x-needs"])
              for path, methods in json.loads(node.get("/openapi.json")[1])["paths"].items()
              for method, what in methods.items()}
    told = {(method, r[1].strip("`"), r[2]) for r in rows(text("rights.md"))
            if r[1].startswith("`/") for method in r[0].split(", ")}
    assert told == served


def test_commands_of_the_page_of_rights(make_node, tmp_path):
    """One after the other on a new node, by its socket."""
    node = make_node({"auth.anonymous": "off"})
    (tmp_path / "password-file").write_text("secret\n")
    lines = re.findall(r"^    (sluice .+)$", text("rights.md"), re.M)
    assert len(lines) > 15
    done = subprocess.run(["bash", "-c", "\n".join(["set -e"] + lines)], capture_output=True,
                          text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
                          cwd=tmp_path,
                          env={**environment(), "SLUICE_SERVER": "unix:%s/sluice.sock" % node.data,
                               "PATH": BIN + ":" + os.environ["PATH"]})
    assert done.returncode == 0, done.stderr
    for expected in ("devices/%c/up/#", "acme", "64 KiB", "user-add"):
        assert expected in done.stdout, done.stdout
    assert "secret" not in done.stdout


def test_metrics_page(node):
    loader = importlib.machinery.SourceFileLoader("page", os.path.join(ROOT, "tools/metrics-page"))
    tool = importlib.util.module_from_spec(importlib.util.spec_from_loader("page", loader))
    loader.exec_module(tool)
    # Labels show up with what they count: a node that has served has the same or more.
    plain = [r[:2] + r[3:] for r in rows(tool.page(node.get("/metrics")[1].decode()))]
    assert [r[:2] + r[3:] for r in rows(text("metrics.md"))] == plain


@pytest.fixture
def stream_settings(node):
    """What a Kafka client is told: name -> value in force."""
    assert node.cli("stream", "create", "settings").returncode in (0, 5)
    asked = ConfigResource(ConfigResource.Type.TOPIC, "settings")
    admin = AdminClient({"bootstrap.servers": node.kafka})
    answer = admin.describe_configs([asked])[asked].result(20)
    return {name: entry.value for name, entry in answer.items()}


def test_stream_settings(stream_settings):
    """The page's table of them names what Kafka's clients are shown, with its defaults."""
    page = text("streams.md")
    table = rows(page[page.index("## Settings of a stream"):page.index("## Compaction")])
    told = {name: row[1].strip("`") for row in table
            for name in re.findall(r"`([a-z.]+)`", row[0]) if name in stream_settings}
    assert {"cleanup.policy", "retention.ms", "min.insync.replicas"} <= set(told)
    for name in ("cleanup.policy", "min.insync.replicas", "min.cleanable.dirty.ratio"):
        assert stream_settings[name] == told[name]


def test_names_exist(node, stream_settings):
    keys = {c["key"] for c in json.loads(node.get("/api/v1/config")[1])["settings"]}
    keys |= set(re.findall(r"^\| `([a-z0-9_.]+)`", text("configuration.md"), re.M))
    families = {k.split(".")[0] for k in keys if "." in k}
    metrics = set(re.findall(r"^# HELP (\S+)", node.get("/metrics")[1].decode(), re.M))
    own = {"mqtt.topic", "mqtt.qos", "mqtt.retain"} | set(stream_settings)
    for page in PAGES:
        for name in re.findall(r"`([a-z0-9_.]+)`", page.read_text(encoding="utf-8")):
            if name.startswith(("sluice_", "process_")):
                assert name in metrics, (page.name, name)
            elif "." in name and name.split(".")[0] in families and name not in own:
                assert name in keys, (page.name, name)


def test_defaults(node, stream_settings):
    """Tables of limits: | `key` | default ..."""
    default = {c["key"]: c["default"]
               for c in json.loads(node.get("/api/v1/config")[1])["settings"]}
    checked = 0
    for page in PAGES:
        if page.name == "configuration.md":
            continue
        for cells in rows(page.read_text(encoding="utf-8")):
            keys = re.findall(r"`([a-z0-9_.]+)`", cells[0])
            told = [w.split()[0] for w in cells[1].split(", ")] if cells[1:2] != [""] else []
            if set(keys) & set(stream_settings):
                continue
            if len(keys) == len(told) and all(re.match(r"\d", w) for w in told):
                checked += len(keys)
                assert [default[k] for k in keys] == told, page.name
    assert checked > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links(page):
    for to in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / to).exists(), to


def test_quick_start(node):
    """The commands of its two middle sections, with this node's ports, one after the other."""
    page = text("quick-start.md")
    middle = page[page.index("## One message"):page.index("## On a machine")]
    script = ["set -e"]
    subscribed = "curl -s %s/metrics | grep -q '^sluice_subscriptions [1-9]'" % node.url
    for line in re.findall(r"^    (.+)$", middle, re.M):
        if re.match(r"\d+/\d+ ", line):
            continue  # what a command prints
        line = re.sub(r"mosquitto_(pub|sub) ", r"mosquitto_\1 -p %d " % node.mqtt, line)
        line = line.replace("mosquitto_sub", "mosquitto_sub -C 3 -W 30")
        line = line.replace("127.0.0.1:9092", node.kafka).replace("http://127.0.0.1:8080", node.url)
        script.append(line)
        if line.endswith("&"):
            script.append("until %s; do sleep 0.1; done" % subscribed)
    done = subprocess.run(["bash", "-c", "\n".join(script)], capture_output=True, text=True,
                          timeout=60, check=False, stdin=subprocess.DEVNULL,
                          env={**environment(), "SLUICE_SERVER": node.url,
                               "PATH": BIN + ":" + os.environ["PATH"]})
    assert done.returncode == 0, done.stderr
    for expected in ("plant/7/temp 21.5", "plant/7/temp 21.6", "plant/7/temp 22.0", '{"n":1}',
                     '{"n":2}'):
        assert expected in done.stdout, done.stdout
