"""A cluster for a test, its nodes' logs beside a failure."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
for folder in ("crash", "faults"):
    sys.path.append(os.path.join(os.path.dirname(HERE), folder))

from cluster import Cluster, Network  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for name in ("make_cluster", "shared", "linked"):
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


class Shared:
    """One cluster for the tests of a process that leave it whole; one that a test has broken for
    good is replaced."""

    def __init__(self, settings=None, linked=False):
        self.settings, self.linked, self.one = settings, linked, None

    def get(self):
        if self.one is None:
            network = Network() if self.linked else None
            self.one = Cluster(3, self.settings, network=network,
                               node_settings=lambda n: {"node.rack": "rack-%d" % n})
            self.one.start()
        return self.one

    def mend(self):
        try:
            self.one.mend()
        except BaseException:
            self.close()
            raise

    def close(self):
        if self.one is not None:
            self.one.close()
            if self.linked:
                self.one.network.close()
        self.one = None


def lend(lender):
    yield lender.get()
    lender.mend()


@pytest.fixture(scope="module")
def lender():
    one = Shared({"session.lease": "2s"})
    yield one
    one.close()


@pytest.fixture(scope="module")
def linked_lender():
    if not Network.usable():
        pytest.skip("needs root, ip and nft")
    one = Shared({"session.lease": "2s"}, linked=True)
    yield one
    one.close()


@pytest.fixture
def shared(lender):
    """A whole cluster that others use after this test: whatever was killed, paused or made is put
    right after it."""
    yield from lend(lender)


@pytest.fixture
def linked(linked_lender):
    """The same, each node in a namespace of its own: linked.network cuts links."""
    yield from lend(linked_lender)


@pytest.fixture
def network():
    """Nodes in namespaces whose links can be cut."""
    if not Network.usable():
        pytest.skip("needs root, ip and nft")
    net = Network()
    yield net
    net.close()
