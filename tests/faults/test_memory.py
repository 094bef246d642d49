"""A log much larger than memory may hold: written, found again after kill -9, and read from its
beginning by a consumer that has nothing cached, while the process stays within the sum of its
budgets.

    SLUICE_LOG_GB=1 writes 1 GB instead of 5."""
import json
import os
import shutil
import subprocess
import tempfile

import pytest
from node import BIN

GB = int(os.environ.get("SLUICE_LOG_GB", "5"))
RECORDS = GB * 1_000_000  # of 1 KB
BUDGETS = {"storage.tail_cache": 64, "storage.write_buffers": 96, "storage.block_cache": 32}
# Code and threads, indexes of open files, requests and sets of writes under way (each a few MB),
# and what the allocator holds in between.
MARGIN = 128


def peak_mib(node):
    with open("/proc/%d/status" % node.process.pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) >> 10


def forget_peak(node):
    with open("/proc/%d/clear_refs" % node.process.pid, "w") as f:
        f.write("5")


def bench(node, workload, *words):
    port = node.kafka.split(":")[1]
    done = subprocess.run([os.path.join(BIN, "sluice-bench"), workload, "--port", port, "--topic",
                           "large", "--partitions", "4", "--clients", "4", "--json", *words],
                          capture_output=True, text=True, timeout=120 * GB, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    found = json.loads(done.stdout)
    assert found["records"] == RECORDS
    print("%s: %.0f MB/s, peak %d MiB" % (workload, found["mb_per_s"], peak_mib(node)))


@pytest.mark.skipif(shutil.disk_usage(tempfile.gettempdir()).free < (3 * GB + 2) << 30,
                    reason="not enough free disk space")
def test_a_large_log_in_little_memory(make_node):
    node = make_node({key: "%dMiB" % mib for key, mib in BUDGETS.items()})
    bench(node, "kafka-produce", "--count", str(RECORDS))
    # Buffers being flushed stay beside those being filled: at most twice the budget.
    budget = sum(BUDGETS.values()) + BUDGETS["storage.write_buffers"] + MARGIN
    assert peak_mib(node) < budget, "%d MiB while writing, %d allowed" % (peak_mib(node), budget)

    node.restart(kill=True)
    print("ready %.2f s after kill -9 with %d GB" % (node.ready_after_s, GB))
    forget_peak(node)
    bench(node, "kafka-fetch", "--expect", str(RECORDS), "--verify", "--seconds", str(60 * GB))
    # Nothing is written now, and a cold reader leaves the caches of others alone.
    budget = BUDGETS["storage.block_cache"] + MARGIN
    assert peak_mib(node) < budget, "%d MiB while reading, %d allowed" % (peak_mib(node), budget)
