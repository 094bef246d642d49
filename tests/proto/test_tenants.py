"""Two tenants that use the same names for everything, over Kafka and MQTT at once: each sees its own
records, groups, topics, retained messages and sessions, and nothing of the other's."""
import base64
import threading

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from kafka_clients import confluent_consumer, confluent_produce, poll
from mqtt_client import Client
from node import Node, eventually

TENANTS = ("acme", "bolt")
STREAM, GROUP, COUNT = "orders", "shop", 300


@pytest.fixture(scope="module")
def own_node():
    """acme and bolt, each with an administrator of the same name as itself."""
    node = Node({"auth.bootstrap": "admin:secret", "auth.anonymous": "off",
                 "group.initial_rebalance_delay": "0"}).start()
    admin = ("--login", "admin:secret")
    assert eventually(lambda: node.cli("user", "list", *admin).returncode == 0)
    for t in TENANTS:
        done = node.cli("user", "add", t, "--password", "pw-" + t, "--tenant", t, "--role",
                        "admin", *admin)
        assert done.returncode == 0, done.stderr
    yield node
    node.close()


def kafka(tenant):
    return {"security.protocol": "sasl_plaintext", "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": tenant, "sasl.password": "pw-" + tenant, "log_level": 0}


def mqtt(node, tenant, client_id, **more):
    return Client(node.mqtt, client_id, login=(tenant, "pw-" + tenant), **more)


class Traffic(threading.Thread):
    """One tenant's, all at once with the other's: Kafka both ways in a group, MQTT both ways."""

    def __init__(self, node, tenant):
        super().__init__(daemon=True)
        self.node, self.tenant, self.wrong = node, tenant, None
        self.records, self.messages, self.retained = [], [], []
        self.start()

    def run(self):
        try:
            self.work()
        except BaseException as e:  # the test's thread tells
            self.wrong = e

    def work(self):
        node, mine = self.node, self.tenant.encode()
        admin = AdminClient({"bootstrap.servers": node.kafka, **kafka(self.tenant)})
        for future in admin.create_topics([NewTopic(STREAM, 4, 1)]).values():
            future.result(20)
        listener = mqtt(node, self.tenant, "one")
        listener.subscribe("plant/#", qos=1)
        sender = mqtt(node, self.tenant, "two")
        for i in range(3):
            confluent_produce(node.kafka, STREAM,
                              [(b"k%d" % k, b"%s %d" % (mine, i * 100 + k)) for k in range(100)],
                              **kafka(self.tenant))
            for k in range(20):
                sender.publish("plant/%d" % k, b"%s %d" % (mine, i * 20 + k), qos=1)
        sender.publish("plant/state", b"of " + mine, qos=1, retain=True)
        consumer = confluent_consumer(node.kafka, [STREAM], GROUP, **kafka(self.tenant))
        self.records = [m.value() for m in poll(consumer, COUNT, 40)]
        self.records += [m.value() for m in poll(consumer, 1, 1)]  # no more than that
        consumer.commit(asynchronous=False)
        consumer.close()
        self.messages = [listener.get(20).payload for _ in range(61)]
        listener.quiet()
        late = mqtt(node, self.tenant, "three")
        late.subscribe("plant/state")
        self.retained = [late.get(20).payload]
        late.quiet()
        for client in (listener, sender, late):
            client.close()


def test_equal_names_over_kafka_and_mqtt(own_node):
    both = {t: Traffic(own_node, t) for t in TENANTS}
    for t, traffic in both.items():
        traffic.join(90)
        assert not traffic.is_alive()
        if traffic.wrong is not None:
            raise traffic.wrong
        mine = t.encode()
        assert sorted(traffic.records) == sorted(b"%s %d" % (mine, i) for i in range(COUNT))
        assert sorted(traffic.messages) == sorted(
            [b"%s %d" % (mine, i) for i in range(60)] + [b"of " + mine])
        assert traffic.retained == [b"of " + mine]


def test_what_is_listed_is_the_tenants_own(own_node):
    only = "only-acme"
    confluent_produce(own_node.kafka, only, [(b"k", b"v")], **kafka("acme"))
    consumer = confluent_consumer(own_node.kafka, [only], only, **kafka("acme"))
    assert len(poll(consumer, 1)) == 1
    consumer.commit(asynchronous=False)
    seen = {}
    for t in TENANTS:
        admin = AdminClient({"bootstrap.servers": own_node.kafka, **kafka(t)})
        topics = set(admin.list_topics(timeout=30).topics)
        groups = {g.id for g in admin.list_groups(timeout=30)}
        seen[t] = topics, groups
        assert not any("/" in name or "\0" in name for name in topics | groups)
    consumer.close()
    assert only in seen["acme"][0] and only in seen["acme"][1]
    assert only not in seen["bolt"][0] and only not in seen["bolt"][1]


def test_the_others_inside_names_lead_nowhere(own_node):
    """Names as they are kept inside are names like any other, or none, to who writes them."""
    for t, other in (TENANTS, TENANTS[::-1]):
        errors = []
        p = confluent_kafka.Producer({"bootstrap.servers": own_node.kafka,
                                      "message.timeout.ms": 3000, **kafka(t)})
        p.produce("%s/%s" % (other, STREAM), b"x", on_delivery=lambda e, _: errors.append(e))
        p.flush(40)
        assert errors and errors[0] is not None
        done = own_node.request(
            "GET", "/api/v1/streams?tenant=" + other,
            headers={"Authorization": "Basic " + basic(t)})
        assert done[0] in (403, 404), done
        mine = mqtt(own_node, t, "four")
        mine.subscribe("%s/#" % other)
        theirs = mqtt(own_node, other, "four")
        theirs.publish("plant/x", b"x", qos=1)
        mine.quiet()
        mine.close()
        theirs.close()


def basic(tenant):
    return base64.b64encode(b"%s:pw-%s" % (tenant.encode(), tenant.encode())).decode()
