"""Logins, rights and quotas as Kafka's own clients meet them."""
import struct
import threading
import time

import confluent_kafka
import kafka
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from kafka.admin import (ACL, ACLFilter, ACLOperation, ACLPermissionType, KafkaAdminClient,
                         NewTopic, ResourcePattern, ResourcePatternFilter, ResourceType)
from kafka.admin.acl_resource import ACLResourcePatternType
from kafka.errors import ClusterAuthorizationFailedError, KafkaError as PythonError

from certificates import Authority
from kafka_clients import poll
from kafka_raw import Raw
from node import PLAIN_DOORS, Node, eventually

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
WAIT_S = 20
EVERYTHING = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)


@pytest.fixture(scope="module")
def secured():
    node = Node({"auth.bootstrap": "admin:secret", "auth.anonymous": "off",
                 "auth.fail_delay": "20ms", "group.initial_rebalance_delay": "0"}).start()
    yield node
    node.close()


@pytest.fixture
def own_node(secured):
    """So that a failure shows its log."""
    return secured


def admin_of(node):
    """A connection of the administrator, who comes to be a moment after the start."""
    def tried():
        raw = Raw(node.ports["kafka"])
        try:
            if raw.login("admin", "secret") == 0:
                return raw
        except AssertionError:
            pass
        raw.close()
        return None
    raw = eventually(tried)
    assert raw
    return raw


@pytest.fixture
def admin(own_node):
    with admin_of(own_node) as raw:
        yield raw


@pytest.fixture
def user(admin, name):
    admin.put_user(name, "pw-" + name)
    return name


def librdkafka(node, user, mechanism="PLAIN", password=None, **more):
    return {"bootstrap.servers": node.kafka, "security.protocol": "sasl_plaintext",
            "sasl.mechanism": mechanism, "sasl.username": user,
            "sasl.password": password or ("secret" if user == "admin" else "pw-" + user), **more}


def python(node, user, mechanism="PLAIN", password=None, **more):
    return {"bootstrap_servers": node.kafka, "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": mechanism, "sasl_plain_username": user,
            "sasl_plain_password": password or ("secret" if user == "admin" else "pw-" + user),
            **more}


@pytest.fixture
def rules(own_node, admin):
    """Adds rules; they go when the test is over."""
    client = KafkaAdminClient(**python(own_node, "admin"))
    made = []

    def add(user, kind, name, operation, permission="ALLOW", prefixed=False):
        pattern = ResourcePattern(ResourceType[kind], name) if not prefixed else ResourcePattern(
            ResourceType[kind], name, ACLResourcePatternType.PREFIXED)
        acl = ACL("User:" + user, "*", ACLOperation[operation], ACLPermissionType[permission],
                  pattern)
        done = client.create_acls([acl])
        assert done["succeeded"] == [acl], done
        made.append(acl)
    add.client = client
    yield add
    if made:
        client.delete_acls([ACLFilter(a.principal, "*", ACLOperation.ANY, ACLPermissionType.ANY,
                                      EVERYTHING)
                            for a in made])
    client.close()


def produce(config, topic, values, within=WAIT_S):
    """The errors of all that was produced."""
    errors = []
    p = confluent_kafka.Producer({**config, "message.timeout.ms": within * 1000})
    for v in values:
        p.produce(topic, v, on_delivery=lambda e, _: errors.append(e and e.code()))
    assert p.flush(within + 5) == 0
    return errors


def consume(config, topic, group, count, within=WAIT_S):
    c = confluent_kafka.Consumer({**config, "group.id": group, "auto.offset.reset": "earliest"})
    c.subscribe([topic])
    try:
        return [m.value() for m in poll(c, count, within)]
    finally:
        c.close()


def error_of(config, topic, group, within=WAIT_S):
    """The code of the first error a consumer is told."""
    c = confluent_kafka.Consumer({**config, "group.id": group, "auto.offset.reset": "earliest"})
    c.subscribe([topic])
    until = time.monotonic() + within
    try:
        while time.monotonic() < until:
            m = c.poll(0.3)
            if m is not None and m.error():
                return m.error().code()
        return None
    except KafkaException as e:
        return e.args[0].code()
    finally:
        c.close()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_librdkafka_logs_in(own_node, user, rules, mechanism):
    config = librdkafka(own_node, user, mechanism)
    rules(user, "TOPIC", user, "ALL")
    rules(user, "GROUP", user, "READ")
    assert produce(config, user, [b"a", b"b"]) == [None, None]
    assert sorted(consume(config, user, user, 2)) == [b"a", b"b"]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kafka_python_logs_in(own_node, user, rules, mechanism):
    config = python(own_node, user, mechanism)
    rules(user, "TOPIC", user, "ALL")
    rules(user, "GROUP", user, "READ")
    p = kafka.KafkaProducer(**config, max_block_ms=30000)
    p.send(user, b"a").get(WAIT_S)
    p.close(5)
    c = kafka.KafkaConsumer(user, group_id=user, auto_offset_reset="earliest",
                            consumer_timeout_ms=WAIT_S * 1000, **config)
    assert next(c).value == b"a"
    c.close()


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("who", ("user", "nobody"))
def test_a_wrong_password_is_refused(own_node, user, mechanism, who):
    name = user if who == "user" else "nobody"
    told = threading.Event()

    def on_error(error):
        if error.code() == KafkaError._AUTHENTICATION:
            told.set()
    client = AdminClient({**librdkafka(own_node, name, mechanism, "wrong"), "error_cb": on_error})
    assert eventually(lambda: client.poll(0.1) and False or told.is_set())
    with pytest.raises(KafkaException):
        client.list_topics(timeout=1)
    with pytest.raises(PythonError):
        kafka.KafkaConsumer(**python(own_node, name, mechanism, "wrong"),
                            api_version_auto_timeout_ms=1500)


def test_without_a_login_nothing_is_told(own_node):
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": own_node.kafka}).list_topics(timeout=1.5)


def test_unknown_mechanisms_and_orders(own_node, admin):
    port = own_node.ports["kafka"]
    with Raw(port) as raw:
        assert raw.handshake("GSSAPI") == (33, list(MECHANISMS))
        assert raw.handshake("OAUTHBEARER", 0)[0] == 33
        answer = raw.ask(36, 1, struct.pack(">i", 3) + b"abc")
        assert struct.unpack_from(">h", answer)[0] == 34
        assert raw.login("admin", "secret") == 0
    with Raw(port) as raw:  # produce before a login
        raw.send(struct.pack(">hhih", 0, 3, 1, -1) + b"\0" * 20)
        assert raw.receive() is None
    with Raw(port) as raw:  # a frame too large for somebody unknown
        raw.socket.sendall(struct.pack(">i", 1 << 20) + b"\0" * 1000)
        assert raw.receive() is None
    with Raw(port) as raw:
        assert raw.handshake("SCRAM-SHA-256", 0)[0] == 0
        raw.send(b"n,,n=nobody,r=abcdefgh")  # an unknown user goes on as a known one does
        first = raw.receive()
        assert first.startswith(b"r=abcdefgh") and b",i=" in first
        raw.send(b"c=biws," + first.split(b",")[0] + b",p=AAAA")
        assert not (raw.receive() or b"").startswith(b"v=")
        assert raw.receive() is None


def test_rights_as_librdkafka_is_told_of_them(own_node, user, rules):
    rules.client.create_topics([NewTopic(user, 1, 1)])
    config = librdkafka(own_node, user)
    assert produce(config, user, [b"x"]) == [KafkaError.TOPIC_AUTHORIZATION_FAILED]
    assert error_of(config, user, user) in (KafkaError.GROUP_AUTHORIZATION_FAILED,
                                            KafkaError.TOPIC_AUTHORIZATION_FAILED)
    rules(user, "TOPIC", user, "READ")
    assert error_of(config, user, user) == KafkaError.GROUP_AUTHORIZATION_FAILED
    assert produce(config, user, [b"x"]) == [KafkaError.TOPIC_AUTHORIZATION_FAILED]
    rules(user, "GROUP", user[:3], "READ", prefixed=True)
    rules(user, "TOPIC", user, "WRITE")
    assert produce({**config, "enable.idempotence": True}, user, [b"x"]) == [None]
    assert consume(config, user, user, 1) == [b"x"]
    rules(user, "TOPIC", user, "WRITE", "DENY")
    assert produce(config, user, [b"y"]) == [KafkaError.TOPIC_AUTHORIZATION_FAILED]
    listed = AdminClient(config).list_topics(timeout=10).topics
    assert list(listed) == [user]


def test_acls_of_kafka_python(own_node, user, rules):
    rules(user, "TOPIC", user, "READ")
    rules(user, "TOPIC", user, "WRITE", "DENY")
    found, error = rules.client.describe_acls(
        ACLFilter("User:" + user, None, ACLOperation.ANY, ACLPermissionType.ANY,
                  ResourcePatternFilter(ResourceType.TOPIC, user, ACLResourcePatternType.ANY)))
    assert error.errno == 0
    assert {(a.operation.name, a.permission_type.name) for a in found} == {
        ("READ", "ALLOW"), ("WRITE", "DENY")}
    client = KafkaAdminClient(**python(own_node, user))
    with pytest.raises(ClusterAuthorizationFailedError):
        client.describe_acls(ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY,
                                       EVERYTHING))
    client.close()


def test_a_quota_slows_a_producer_down(own_node, admin, user, rules):
    rules(user, "TOPIC", user, "ALL")
    told = []  # how long it was told to wait
    config = librdkafka(own_node, user, throttle_cb=lambda e: told.append(e.throttle_time),
                        **{"compression.type": "none", "linger.ms": 5, "batch.size": 50000})
    assert produce(config, user, [b"first"]) == [None]
    assert not any(told)
    admin.set_quota(user, "producer_byte_rate", 100000)
    began = time.monotonic()
    assert produce(config, user, [b"x" * 10000] * 40, 60) == [None] * 40
    assert time.monotonic() - began > 2  # four seconds' worth, of which one is free
    assert any(told)
    admin.set_quota(user, "producer_byte_rate", None)
    told.clear()
    assert produce(config, user, [b"x" * 10000] * 40) == [None] * 40
    assert not any(told)


def test_a_new_password_ends_what_had_the_old_one(own_node, admin, user):
    with Raw(own_node.ports["kafka"]) as raw:
        assert raw.login(user, "pw-" + user) == 0
        admin.put_user(user, "another")
        assert raw.receive() is None
    with Raw(own_node.ports["kafka"]) as raw:
        assert raw.login(user, "pw-" + user) == 58
    with Raw(own_node.ports["kafka"]) as raw:
        assert raw.login(user, "another") == 0


def test_certificates_and_logins_over_tls(make_node, tmp_path, name):
    authority = Authority(tmp_path, "authority")
    cert, key = authority.issue("server")
    node = make_node({"auth.bootstrap": "admin:secret", "auth.anonymous": "off",
                      "auth.fail_delay": "20ms", "tls.cert": cert, "tls.key": key,
                      "tls.ca": authority.cert, "tls.client": "optional"},
                     doors=PLAIN_DOORS + ("kafkas",))
    tls = {"bootstrap.servers": "127.0.0.1:%d" % node.ports["kafkas"], "security.protocol": "ssl",
           "ssl.ca.location": str(authority.cert), "log_level": 0}
    with admin_of(node) as admin:
        admin.put_user("robot", "pw")
    client = KafkaAdminClient(**python(node, "admin"))
    client.create_topics([NewTopic(name, 1, 1)])
    client.create_acls([ACL("User:robot", "*", ACLOperation.WRITE, ACLPermissionType.ALLOW,
                            ResourcePattern(ResourceType.TOPIC, name))])
    client.close()

    def with_certificate_of(who):
        cert, key = authority.issue(who)
        return {**tls, "ssl.certificate.location": str(cert), "ssl.key.location": str(key)}
    assert produce(with_certificate_of("robot"), name, [b"x"]) == [None]
    # A certificate of nobody's lets nobody in, and takes no login from who has one.
    assert produce(with_certificate_of("stranger"), name, [b"x"], 3) != [None]
    assert produce({**librdkafka(node, "admin"), **with_certificate_of("stranger"),
                    "security.protocol": "sasl_ssl"}, name, [b"x"]) == [None]
    for mechanism in MECHANISMS:
        assert produce({**librdkafka(node, "admin", mechanism), **tls,
                        "security.protocol": "sasl_ssl"}, name, [b"x"]) == [None]
