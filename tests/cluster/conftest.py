"""A cluster for a test, its nodes' logs beside a failure."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "crash"))

from cluster import Cluster, Network  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for name in ("make_cluster",):
            value = item.funcargs.get(name)
            for one in getattr(value, "made", [value] if value else []):
                report.sections.append(("logs of the nodes", one.logs()))


@pytest.fixture
def make_cluster():
    """make_cluster(count, settings, ...) starts a cluster for this test alone."""
    made = []

    def make(count=3, settings=None, start=True, **more):
        one = Cluster(count, settings, **more)
        made.append(one)
        return one.start() if start else one
    make.made = made
    yield make
    for one in made:
        one.close()


@pytest.fixture
def cluster(make_cluster):
    return make_cluster()


@pytest.fixture
def network():
    """Nodes in namespaces whose links can be cut."""
    if not Network.usable():
        pytest.skip("needs root, ip and nft")
    net = Network()
    yield net
    net.close()
