"""Compaction by key, seen by clients: what is left are the newest values, at their offsets; whoever
reads gets over the gaps. Small entries, many of them: the newest some hundred stay as they were."""
import json
import struct
import time

import confluent_kafka
import paho.mqtt.client
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from kafka_clients import confluent_consumer, kcat
from kafka_raw import Raw, string

WAIT_S = 90
KEYS = 20
EAGER = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01",
         "delete.retention.ms": "100"}


def create(broker, name, settings=None, partitions=1):
    admin = AdminClient({"bootstrap.servers": broker})  # to be held until there is a result
    made = admin.create_topics(
        [NewTopic(name, partitions, 1, config={**EAGER, **(settings or {})})])
    made[name].result(30)


def reader(broker):
    return confluent_kafka.Consumer({"bootstrap.servers": broker, "group.id": "none",
                                     "enable.auto.commit": False})


def metric(node, name):
    for line in node.get("/metrics")[1].decode().splitlines():
        if line.startswith("sluice_compaction_" + name + " "):
            return int(float(line.split()[1]))
    raise AssertionError(name)


def until(condition, within=WAIT_S):
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "not within %d s" % within
        time.sleep(0.2)


def produce(broker, name, records, **more):
    """Four records each to an entry of their own."""
    errors = []
    p = confluent_kafka.Producer({"bootstrap.servers": broker, "acks": "all", "linger.ms": 0,
                                  "batch.num.messages": 4, "max.in.flight": 1, **more})
    for key, value in records:
        p.produce(name, value, key, on_delivery=lambda e, m: e and errors.append(e))
        p.poll(0)
    assert p.flush(WAIT_S) == 0 and not errors, errors[:3]


def read_all(broker, name, start=0):
    """{offset: (key, value)} from an offset to the end, in order."""
    c = reader(broker)
    part = confluent_kafka.TopicPartition(name, 0, start)
    end = c.get_watermark_offsets(part, 10)[1]
    c.assign([part])
    got, limit = {}, time.monotonic() + WAIT_S
    while c.position([part])[0].offset < end and time.monotonic() < limit:
        for m in c.consume(500, 0.3):
            assert not m.error(), m.error()
            assert not got or m.offset() > max(got)
            got[m.offset()] = (m.key(), m.value())
    assert c.position([part])[0].offset == end
    c.close()
    return got


def values(got):
    """What applying all of it leaves."""
    state = {}
    for offset in sorted(got):
        key, value = got[offset]
        state[key] = value
    return {k: v for k, v in state.items() if v is not None}


def updates(count, tag="v"):
    return [(b"k%d" % (i % KEYS), b"%s-%d" % (tag.encode(), i)) for i in range(count)]


def compacted(node, name, removed):
    """Until so many records of it are gone (tombstones go later); more may go after that."""
    def gone():
        _, end = reader(node.kafka).get_watermark_offsets(
            confluent_kafka.TopicPartition(name, 0), 10)
        return end - len(read_all(node.kafka, name))

    until(lambda: gone() >= removed)


def read_between(offsets, start, before, after):
    """These were read from start, in order, while compaction may have gone on: all that was left
    afterwards, nothing that was gone before."""
    assert offsets == sorted(offsets) and (not offsets or offsets[0] >= start)
    assert {o for o in after if o >= start} <= set(offsets) <= set(before)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_last_values_are_left(node, name, codec):
    create(node.kafka, name)
    sent = updates(4000)
    produce(node.kafka, name, sent, **{"compression.type": codec})
    compacted(node, name, 1200)
    got = read_all(node.kafka, name)
    assert len(got) < 2900
    assert values(got) == dict(sent)
    for offset, record in got.items():
        assert record == sent[offset]  # the very record at the very offset
    low, high = reader(node.kafka).get_watermark_offsets(
        confluent_kafka.TopicPartition(name, 0), 10)
    assert (low, high) == (0, 4000)


def test_from_every_offset(own_node, name):
    """In the middle of what is gone, too."""
    create(own_node.kafka, name)
    sent = updates(4000)
    produce(own_node.kafka, name, sent)
    compacted(own_node, name, 1200)
    whole = read_all(own_node.kafka, name)
    parts = {start: read_all(own_node.kafka, name, start) for start in range(0, 4000, 397)}
    out = kcat(own_node.kafka, "-C", "-t", name, "-o", "7", "-e", "-q", "-f", "%o %k %s\n")
    # HTTP goes over the gaps as well.
    at, seen = 0, []
    while at < 4000:
        page = json.loads(own_node.get("/streams/%s/records?partition=0&offset=%d&max=100" % (name, at))[1])
        seen += [r["offset"] for r in page["records"]]
        assert page["next_offset"] > at
        at = page["next_offset"]
    left = read_all(own_node.kafka, name)
    for start, got in parts.items():
        read_between(list(got), start, whole, left)
        assert all(record == sent[offset] for offset, record in got.items())
    read_between([int(line.split()[0]) for line in out.splitlines()], 7, whole, left)
    read_between(seen, 0, whole, left)


def first_message(raw, name, offset):
    """The offset of what Fetch 2 gives to a client that wants next to nothing; None: nothing."""
    answer = raw.ask(1, 2, struct.pack(">iiii", -1, 1000, 1, 1) + string(name) +
                     struct.pack(">iiqi", 1, 0, offset, 1))
    code, size = struct.unpack_from(">h8xi", answer, 4 + 4 + len(string(name)) + 4 + 4)
    assert code == 0
    return struct.unpack_from(">q", answer, len(answer) - size)[0] if size else None


@pytest.mark.parametrize("codec, bound", [("none", 0), ("gzip", 1024)])
def test_old_readers_get_over_what_a_batch_has_lost(make_node, name, codec, bound):
    """They are given messages from where they ask; a batch may have none from there on, and take
    more than an answer's bound to unpack."""
    node = make_node({"kafka.fetch_bytes_max": str(bound)} if bound else None)
    create(node.kafka, name)
    sent = [(b"only-%d" % i if i % 5 == 0 else b"k%d" % (i % KEYS), b"%d" % i + bytes(2 * bound))
            for i in range(4000)]
    produce(node.kafka, name, sent, **{"compression.type": codec})
    compacted(node, name, 1200)
    before, seen, at = read_all(node.kafka, name), set(), 0
    with Raw(node.ports["kafka"]) as raw:
        while at < 4000:
            found = first_message(raw, name, at)
            assert found is not None and found >= at, at
            seen.add(found)
            at = found + 1
    read_between(sorted(seen), 0, before, read_all(node.kafka, name))


def test_tombstones_go_after_a_while(own_node, name):
    create(own_node.kafka, name)
    sent = updates(4000)
    gone = [(b"k%d" % i, None) for i in range(0, KEYS, 2)]
    rest = [(b"other%d" % (i % 7), b"x%d" % i) for i in range(3000)]
    produce(own_node.kafka, name, sent + gone + rest)
    until(lambda: metric(own_node, "removed_tombstones_total") >= len(gone))
    got = read_all(own_node.kafka, name)
    keys = {key for key, _ in got.values()}
    assert not keys & {key for key, _ in gone}
    assert values(got) == {k: v for k, v in dict(sent + gone + rest).items() if v is not None}


def test_groups_and_lag(own_node, name):
    """A group whose offset lies in what is gone goes on behind it."""
    create(own_node.kafka, name)
    sent = updates(4000)
    produce(own_node.kafka, name, sent)
    # By who has not asked to join: that would be under way.
    c = confluent_kafka.Consumer({"bootstrap.servers": own_node.kafka, "group.id": "g"})
    c.commit(offsets=[confluent_kafka.TopicPartition(name, 0, 123)], asynchronous=False)
    c.close()
    c = confluent_consumer(own_node.kafka, [name], "g")
    compacted(own_node, name, 1200)
    whole = read_all(own_node.kafka, name)
    assert 123 not in whole
    got, end = [], time.monotonic() + WAIT_S
    while (not got or got[-1] != 3999) and time.monotonic() < end:
        got += [m.offset() for m in c.consume(500, 0.5)]
    read_between(got, 123, whole, read_all(own_node.kafka, name))
    c.commit(asynchronous=False)
    assert c.committed([confluent_kafka.TopicPartition(name, 0)], 10)[0].offset == 4000
    c.close()


def test_restart_keeps_what_was_done(own_node, name):
    create(own_node.kafka, name)
    sent = updates(4000)
    produce(own_node.kafka, name, sent)
    compacted(own_node, name, 1200)
    before = read_all(own_node.kafka, name)
    own_node.restart()
    after = read_all(own_node.kafka, name)
    assert set(after) <= set(before) and values(after) == dict(sent)
    more = updates(4000, "w")
    produce(own_node.kafka, name, more)
    compacted(own_node, name, 4200)
    assert values(read_all(own_node.kafka, name)) == dict(more)


def test_idempotent_producer_goes_on(own_node, name):
    """Its state are rows: records that are gone do not count against it."""
    create(own_node.kafka, name)
    p = confluent_kafka.Producer({"bootstrap.servers": own_node.kafka,
                                  "enable.idempotence": True, "batch.num.messages": 4,
                                  "max.in.flight": 1})
    offsets = []
    for part in range(3):
        for key, value in updates(4000, "p%d" % part):
            p.produce(name, value, key, on_delivery=lambda e, m: offsets.append(m.offset()))
            p.poll(0)
        assert p.flush(WAIT_S) == 0
        compacted(own_node, name, 1200 * (part + 1))
    assert sorted(offsets) == list(range(12000))
    assert values(read_all(own_node.kafka, name)) == dict(updates(4000, "p2"))


def test_records_without_key_are_refused(node, name):
    create(node.kafka, name)
    errors = []
    p = confluent_kafka.Producer({"bootstrap.servers": node.kafka})
    p.produce(name, b"no key", on_delivery=lambda e, m: errors.append(e))
    p.flush(40)
    assert errors[0].code() == confluent_kafka.KafkaError.INVALID_RECORD
    status, body, _ = node.request("POST", "/streams/%s/records" % name, b"no key")
    assert status == 400, body
    p.produce(name, b"a value", b"a key", on_delivery=lambda e, m: errors.append(e))
    p.flush(40)
    assert errors[1] is None


def test_policy_may_change(own_node, name):
    create(own_node.kafka, name, {"cleanup.policy": "delete"})
    sent = updates(4000)
    produce(own_node.kafka, name, sent)
    time.sleep(2.5)
    assert len(read_all(own_node.kafka, name)) == 4000
    admin = AdminClient({"bootstrap.servers": own_node.kafka})
    resource = ConfigResource("topic", name)
    for key, value in {**EAGER, "cleanup.policy": "delete,compact"}.items():
        resource.set_config(key, value)
    admin.alter_configs([resource])[resource].result(30)
    found = admin.describe_configs([resource])[resource].result(30)
    assert found["cleanup.policy"].value == "delete,compact"
    assert found["min.cleanable.dirty.ratio"].value == "0.01"
    assert found["max.compaction.lag.ms"].value == str(2 ** 63 - 1)
    assert found["max.compaction.lag.ms"].is_default
    compacted(own_node, name, 1200)
    assert values(read_all(own_node.kafka, name)) == dict(sent)


def test_lag_is_kept(own_node, name):
    """min.compaction.lag.ms: what is younger stays."""
    create(own_node.kafka, name, {"min.compaction.lag.ms": "3600000"})
    produce(own_node.kafka, name, updates(4000))
    time.sleep(4)
    assert metric(own_node, "runs_total") == 0
    assert len(read_all(own_node.kafka, name)) == 4000


def test_mqtt_topics_are_keys(own_node, name):
    """What devices publish is compacted by topic; a retained message that is deleted leaves a
    tombstone; subscribers that were away get over the gaps."""
    admin = AdminClient({"bootstrap.servers": own_node.kafka})
    assert own_node.cli("stream", "alter", "mqtt", "--set", "cleanup.policy=compact",
                        "--set", "min.cleanable.dirty.ratio=0.01").returncode == 0
    c = paho.mqtt.client.Client(client_id="away", clean_session=False)
    c.connect("127.0.0.1", own_node.mqtt)
    c.loop_start()
    until(c.is_connected)
    subscribed = []
    c.on_subscribe = lambda *_: subscribed.append(1)
    c.subscribe("d/#", 1)
    until(lambda: subscribed)
    c.disconnect()
    c.loop_stop()
    p = paho.mqtt.client.Client(client_id="publisher")
    p.max_inflight_messages_set(1)
    p.connect("127.0.0.1", own_node.mqtt)
    p.loop_start()
    until(p.is_connected)
    for i in range(3000):
        last = p.publish("d/%d" % (i % KEYS), b"v%d" % i, 1, retain=i % KEYS == 0)
    last.wait_for_publish(WAIT_S)
    p.publish("d/0", b"", 1, retain=True).wait_for_publish(10)
    partitions = len(admin.list_topics("mqtt", 10).topics["mqtt"].partitions)
    until(lambda: metric(own_node, "removed_records_total") > 500)
    found = {}
    for part in range(partitions):
        r = reader(own_node.kafka)
        at = confluent_kafka.TopicPartition("mqtt", part, 0)
        low, high = r.get_watermark_offsets(at, 10)
        r.assign([at])
        while r.position([at])[0].offset < high:
            for m in r.consume(500, 0.3):
                found[m.key()] = m.value()
        r.close()
    assert found[b"d/0"] is None
    for k in range(1, KEYS):
        assert found[b"d/%d" % k] == b"v%d" % (2980 + k)
    got = {}
    c = paho.mqtt.client.Client(client_id="away", clean_session=False)
    c.on_message = lambda client, data, m: got.__setitem__(m.topic, m.payload)
    c.connect("127.0.0.1", own_node.mqtt)
    c.loop_start()
    until(lambda: len(got) == KEYS and all(
        got["d/%d" % k] == b"v%d" % (2980 + k) for k in range(1, KEYS)))
    until(lambda: got["d/0"] == b"")
    c.loop_stop()
    p.loop_stop()
