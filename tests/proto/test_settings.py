"""Settings of a running node: what the reference says takes effect on reload does, wherever it is
held; what the log says of settings that have no effect here."""
import confluent_kafka
import pytest

from mqtt_client import Client
from node import eventually


@pytest.fixture
def filed_node(make_node):
    """A node that reads a file; node.change(**settings) writes it anew and reloads."""
    def make(**settings):
        node = make_node(start=False)
        file = node.folder + "/sluice.conf"
        plain = node.command

        def write(values):
            with open(file, "w", encoding="utf-8") as f:
                f.writelines("%s = %s\n" % (k.replace("__", "."), v) for k, v in values.items())

        def change(**values):
            done = node.log(1 << 20).count(" reloaded ")
            write(values)
            node.reload()
            assert eventually(lambda: node.log(1 << 20).count(" reloaded ") > done), node.log()

        write(settings)
        node.command = lambda: plain() + ["--config", file]
        node.change = change
        return node.start()
    return make


def produce_error(node, stream, within_ms=20000):
    """within_ms: less for a stream that is not made, for which the library waits."""
    errors = []
    p = confluent_kafka.Producer({"bootstrap.servers": node.kafka, "message.timeout.ms": within_ms,
                                  "log_level": 0, "topic.metadata.propagation.max.ms": within_ms})
    p.produce(stream, b"v", on_delivery=lambda e, m: errors.append(e))
    p.flush(30)
    assert len(errors) == 1
    return errors[0]


def test_streams_made_by_producing(filed_node, name):
    node = filed_node(stream__auto_create="false")
    assert produce_error(node, name, 1000) is not None
    assert node.cli("stream", "describe", name).returncode == 3
    node.change(stream__auto_create="true")
    assert produce_error(node, name) is None
    node.change(stream__auto_create="false")
    assert produce_error(node, name) is None
    assert produce_error(node, name + "2", 1000) is not None


def test_limits_of_clients(filed_node):
    node = filed_node(mqtt__inflight_max="10", mqtt__session_expiry_max="3600")
    with Client(node.mqtt, expiry=9999) as c:
        told = c.connack["properties"]
        assert (told.ReceiveMaximum, told.SessionExpiryInterval) == (10, 3600)
    node.change(mqtt__inflight_max="20", mqtt__session_expiry_max="1800")
    with Client(node.mqtt, expiry=9999) as c:
        told = c.connack["properties"]
        assert (told.ReceiveMaximum, told.SessionExpiryInterval) == (20, 1800)


def test_a_mistake_changes_nothing(filed_node):
    node = filed_node(mqtt__inflight_max="10")
    with open(node.folder + "/sluice.conf", "w", encoding="utf-8") as f:
        f.write("mqtt.inflight_max = 20\nmqtt.login_ms = soon\n")
    node.reload()
    assert eventually(lambda: "reload_refused" in node.log())
    assert "mqtt.login_ms" in node.log()
    with Client(node.mqtt) as c:
        assert c.connack["properties"].ReceiveMaximum == 10


def test_a_door_not_built_is_told_of_when_asked_for(make_node):
    """Those that are open by default only at debug."""
    quiet = make_node({"listen.amqp": "127.0.0.1:5672"})
    assert "door_not_built" not in quiet.log()
    asked = make_node({"listen.amqp": "127.0.0.1:5673", "listen.geo": "127.0.0.1:7401"})
    assert "key=listen.amqp value=127.0.0.1:5673" in asked.log()
    assert "key=listen.geo" in asked.log()
