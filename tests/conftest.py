"""What the tests with processes share: nodes, names of their own, the log of a node beside a
failure."""
import os
import sys
import uuid

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from node import SLUICED, Node  # noqa: E402


def pytest_collection_modifyitems(items):
    """TEST_PART=1/3: every third test, from the first on: parts run side by side."""
    if not os.path.exists(SLUICED):
        pytest.exit("%s is not built" % SLUICED, returncode=3)
    items.sort(key=lambda item: "own_node" in item.fixturenames)
    part, parts = map(int, os.environ.get("TEST_PART", "1/1").split("/"))
    items[:] = items[part - 1::parts]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for name in ("node", "own_node", "make_node"):
            value = item.funcargs.get(name)
            nodes = value.made if hasattr(value, "made") else [value] if value else []
            for one in nodes:
                report.sections.append(("log of the node", one.log()))


@pytest.fixture(scope="session")
def shared_node():
    node = Node().start()
    yield node
    node.close()


@pytest.fixture
def node(shared_node):
    """A node all tests share: use names of your own in it. One that died is started again, so
    that one test's crash is one test's failure."""
    if not shared_node.is_running():
        shared_node.start()
    yield shared_node
    assert shared_node.is_running(), "the node died:\n" + shared_node.log()


@pytest.fixture
def make_node():
    """make_node(settings, doors=...) starts a node for this test alone."""
    made = []

    def make(settings=None, start=True, **more):
        node = Node(settings, **more)
        made.append(node)
        return node.start() if start else node

    make.made = made
    yield make
    for node in made:
        node.close()


@pytest.fixture
def own_node(make_node):
    """A node for this test alone, to kill and restart."""
    return make_node()


@pytest.fixture
def name(request):
    """A name no other test uses: for streams, topics, client ids."""
    return "t" + uuid.uuid4().hex[:12]
