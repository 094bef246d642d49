"""What a cluster does, and what it does not do: questions between nodes are counted, not timed."""
import time

import confluent_kafka.admin
import mqtt_client as mqtt
import pytest
from load import SUBACK, Link
from node import eventually


@pytest.fixture
def cluster(shared):
    return shared


def calls(cluster):
    return sum(n.metric("sluice_peer_calls_total") for n in cluster.nodes)


def test_a_subscription_asks_for_its_beginning_once(cluster):
    """The leaders' points are asked for when one subscribes, not for as long as one listens."""
    links = []
    for n in cluster.nodes:
        link = Link(n, "c%d" % n.number)
        link.raw.send(mqtt.subscribe("t/#", 1))
        assert link.read(10).kind == SUBACK
        link.raw.send(mqtt.publish("t/%d" % n.number, b"x", 0, 0))
        links.append(link)
    time.sleep(1)
    before = calls(cluster)
    time.sleep(1)
    grown = calls(cluster) - before
    for link in links:
        link.close()
    assert grown < 200, "%d calls a second, though nobody asks for anything" % grown


def test_kafka_topics_have_as_many_replicas_as_there_are_nodes(cluster):
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": cluster.bootstrap()})
    topics = [confluent_kafka.admin.NewTopic("fits", 2, 3),
              confluent_kafka.admin.NewTopic("more", 2, 4)]
    made = admin.create_topics(topics)
    made["fits"].result(15)
    with pytest.raises(confluent_kafka.KafkaException) as refused:
        made["more"].result(15)
    assert refused.value.args[0].code() == confluent_kafka.KafkaError.INVALID_REPLICATION_FACTOR
    assert eventually(lambda: cluster.replicated("fits", 3), 20)
