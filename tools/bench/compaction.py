"""What compaction costs: 50 MB/s of updates to as many keys as make 50 MB, into a stream that is
only trimmed and into a compacted one, in turn. Does compaction keep up, what does it cost the
processor, and what does it do to the time a producer waits."""
import http.client
import json
import shutil
import statistics
import time

CASE = "compaction"
RATE_MB, SIZE, KEYS, ROUNDS, SETTLE_S = 50, 1024, 50000, 3, 10
SPACE_MB, SPACE_S = 50, 30
P99_TIMES = 2.0


def call(port, method, path, body=None):
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        link.request(method, path, body=json.dumps(body) if body else None)
        answer = link.getresponse()
        text = answer.read().decode()
        if answer.status >= 300:
            raise OSError("%s: %d %s" % (path, answer.status, text[:200]))
        return text
    finally:
        link.close()


def metrics(port, prefix="sluice_compaction_"):
    words = (line.split() for line in call(port, "GET", "/metrics").splitlines())
    return {w[0][len(prefix):]: int(float(w[1])) for w in words if w[0].startswith(prefix)}


def wait_for_space(port):
    """Until what was deleted is gone from the disk: the next run is not to pay for it."""
    for _ in range(SPACE_S):
        if metrics(port, "sluice_storage_")["blob_bytes"] < SPACE_MB * 1000000:
            return
        time.sleep(1)


def produce(bench, system, policy, number, seconds):
    name = "%s-%d" % (policy, number)
    call(system.http, "POST", "/api/v1/streams", {
        "name": name, "partitions": 4, "replicas": 1, "settings": {"cleanup.policy": policy}})
    before = metrics(system.http)
    lines = bench.load(CASE, "sluice", [
        "kafka-produce", "--topic", name, "--port", str(system.kafka), "--pid",
        str(system.process.pid), "--size", str(SIZE), "--keys", str(KEYS), "--rate",
        str(RATE_MB * 1000000 // SIZE), "--seconds", str(seconds)])
    result = lines[-1]
    held = json.loads(call(system.http, "GET", "/api/v1/streams/" + name))["bytes"]
    time.sleep(SETTLE_S if policy == "compact" else 1)
    after = metrics(system.http)
    result["held_mb"] = held / 1e6
    result["settled_mb"] = json.loads(
        call(system.http, "GET", "/api/v1/streams/" + name))["bytes"] / 1e6
    result["compaction"] = {k: after[k] - before[k] for k in after}
    call(system.http, "DELETE", "/api/v1/streams/" + name)
    wait_for_space(system.http)
    return result


def run(bench, start, folder):
    system = start(bench, folder, "sluice-compaction")
    runs = {"delete": [], "compact": []}
    try:
        system.start()
        for number in range(ROUNDS):
            for policy, results in runs.items():
                results.append(produce(bench, system, policy, number, bench.options.seconds * 2))
    finally:
        system.stop()
        shutil.rmtree(system.data, ignore_errors=True)
    bench.results[CASE] = {policy: summary(results) for policy, results in runs.items()}


def summary(results):
    out = {key: statistics.median(r[key] for r in results)
           for key in ("mb_per_s", "reply_p50_ms", "reply_p99_ms", "server_cpu_s_per_gb",
                       "held_mb", "settled_mb")}
    out["p99_all_ms"] = [r["reply_p99_ms"] for r in results]
    for key in ("read_bytes_total", "written_bytes_total", "removed_bytes_total", "runs_total"):
        out[key] = sum(r["compaction"][key] for r in results)
    out["bytes"] = sum(r["bytes"] for r in results)
    return out


def table(results):
    if "compact" not in results.get(CASE, {}):
        return [], []
    without, compact = results[CASE]["delete"], results[CASE]["compact"]
    times = compact["reply_p99_ms"] / without["reply_p99_ms"]
    fine = times <= P99_TIMES and compact["mb_per_s"] > RATE_MB * 0.95
    lines = ["", "| %d MB/s of updates, %d keys | trimmed only | compacted | floor | holds |" %
             (RATE_MB, KEYS), "|--|--|--|--|--|"]
    for title, key, form in (
            ("produced", "mb_per_s", "%.1f MB/s"), ("acknowledged, p50", "reply_p50_ms", "%.1f ms"),
            ("server's processor time", "server_cpu_s_per_gb", "%.2f s/GB"),
            ("held at the end", "held_mb", "%.0f MB"),
            ("held %d s later" % SETTLE_S, "settled_mb", "%.0f MB")):
        lines.append("| %s | %s | %s | | |" % (title, form % without[key], form % compact[key]))
    lines.append("| acknowledged, p99 | %.1f ms | %.1f ms (x %.2f) | x %.0f | %s |" % (
        without["reply_p99_ms"], compact["reply_p99_ms"], times, P99_TIMES,
        "yes" if fine else "NO"))
    lines.append("| read, written again by compaction, per byte produced | | %.2f, %.2f | | |" % (
        compact["read_bytes_total"] / compact["bytes"],
        compact["written_bytes_total"] / compact["bytes"]))
    return lines, [] if fine else [CASE]
