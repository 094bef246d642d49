"""The doors with TLS, with authorities made for the test by openssl; and PROXY protocol v2."""
import socket
import ssl
import struct

import confluent_kafka
import pytest

from certificates import Authority
from mqtt_client import CONNACK, V311, V5, Client, Raw, connect
from node import PLAIN_DOORS, eventually


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@pytest.fixture(scope="module")
def server_pair(authority):
    return authority.issue("server")


@pytest.fixture(scope="module")
def client_pair(authority):
    return authority.issue("client")


def context(authority, pair=None, **versions):
    made = ssl.create_default_context(cafile=str(authority.cert))
    if pair:
        made.load_cert_chain(*map(str, pair))
    for key, value in versions.items():
        setattr(made, key, value)
    return made


@pytest.fixture
def tls_node(make_node, authority, server_pair):
    def make(client="none", **more):
        return make_node({"tls.cert": server_pair[0], "tls.key": server_pair[1],
                          "tls.ca": authority.cert, "tls.client": client, **more},
                         doors=PLAIN_DOORS + ("mqtts", "kafkas"))
    return make


def kafka_round_trip(broker, name, authority, pair=None):
    settings = {"bootstrap.servers": broker, "security.protocol": "ssl",
                "ssl.ca.location": str(authority.cert), "message.timeout.ms": 30000,
                "log_level": 0}
    if pair:
        settings.update({"ssl.certificate.location": str(pair[0]),
                         "ssl.key.location": str(pair[1])})
    errors = []
    p = confluent_kafka.Producer(settings)
    p.produce(name, b"v", b"k", on_delivery=lambda e, m: errors.append(e))
    p.flush(40)
    return errors == [None]


@pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])
def test_mqtt(tls_node, authority, name, version):
    node = tls_node()
    with Client(node.ports["mqtts"], version=version, tls=context(authority)) as secure, \
            Client(node.mqtt, version=version) as plain:
        secure.subscribe(name, 1)
        plain.subscribe(name, 1)
        secure.publish(name, b"x" * 200_000, 1)
        assert len(secure.get().payload) == len(plain.get().payload) == 200_000


def test_kafka(tls_node, authority, name):
    node = tls_node()
    assert kafka_round_trip("127.0.0.1:%d" % node.ports["kafkas"], name, authority)


@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(tls_node, authority, tls):
    node = tls_node()
    with Client(node.ports["mqtts"], tls=context(authority, minimum_version=tls,
                                                 maximum_version=tls)):
        pass


def kafka_speaks(node, made):
    """Whether a client with this context gets an answer to ApiVersions."""
    ask = struct.pack(">hhih", 18, 0, 7, -1)
    try:
        plain = socket.create_connection(("127.0.0.1", node.ports["kafkas"]), timeout=10)
        with made.wrap_socket(plain, server_hostname="localhost") as s:
            s.sendall(struct.pack(">i", len(ask)) + ask)
            return s.recv(8)[4:] == struct.pack(">i", 7)
    except (ssl.SSLError, ConnectionError):
        return False


def refused(node, made):
    """Whether a client with this context cannot speak through the secure door."""
    try:
        plain = socket.create_connection(("127.0.0.1", node.ports["mqtts"]), timeout=10)
        with Raw(0, sock=made.wrap_socket(plain, server_hostname="localhost")) as raw:
            raw.send(connect("x"))
            return raw.read() is None
    except (ssl.SSLError, ConnectionError):
        return True


def test_an_old_version_is_refused(tls_node, authority):
    node = tls_node(**{"tls.min_version": "1.3"})
    assert refused(node, context(authority, maximum_version=ssl.TLSVersion.TLSv1_2))
    assert not refused(node, context(authority))


def test_client_certificates(tls_node, authority, client_pair, tmp_path, name):
    node = tls_node("required")
    stranger = Authority(tmp_path, "stranger").issue("intruder")
    assert not refused(node, context(authority, client_pair))
    assert refused(node, context(authority))
    assert refused(node, context(authority, stranger))
    broker = "127.0.0.1:%d" % node.ports["kafkas"]
    assert kafka_round_trip(broker, name, authority, client_pair)
    # Not by a Kafka client: librdkafka's binding is left broken by a broker it never reaches.
    assert kafka_speaks(node, context(authority, client_pair))
    assert not kafka_speaks(node, context(authority))
    assert node.is_running()


def test_optional_client_certificates(tls_node, authority, client_pair, tmp_path):
    node = tls_node("optional")
    stranger = Authority(tmp_path, "stranger").issue("intruder")
    assert not refused(node, context(authority))
    assert not refused(node, context(authority, client_pair))
    assert refused(node, context(authority, stranger))


def test_a_stranger_to_tls_is_refused_and_harms_nobody(tls_node, authority):
    node = tls_node()
    with Raw(node.ports["mqtts"], connect("x")) as raw:
        assert raw.sock.recv(100)[:1] in (b"", b"\x15")  # closed, or an alert
    with socket.create_connection(("127.0.0.1", node.ports["mqtts"])):
        pass
    assert not refused(node, context(authority))


def test_sighup_takes_the_new_certificate(make_node, authority, server_pair, tmp_path):
    cert, key = tmp_path / "cert", tmp_path / "key"
    for target, source in zip((cert, key), server_pair):
        target.write_bytes(source.read_bytes())
    node = make_node({"tls.cert": cert, "tls.key": key}, doors=PLAIN_DOORS + ("mqtts",))
    old = Client(node.ports["mqtts"], tls=context(authority))
    for target, source in zip((cert, key), authority.issue("renewed")):
        target.write_bytes(source.read_bytes())
    node.reload()

    def subject():
        made = context(authority)
        with socket.create_connection(("127.0.0.1", node.ports["mqtts"]), timeout=10) as s, \
                made.wrap_socket(s, server_hostname="localhost") as t:
            return dict(x[0] for x in t.getpeercert()["subject"])["commonName"]
    assert eventually(lambda: subject() == "renewed")
    old.publish("t", b"the old connection goes on", 1)
    old.close()


def test_a_certificate_that_cannot_be_read_keeps_the_old_one(make_node, authority, server_pair,
                                                             tmp_path):
    cert = tmp_path / "cert"
    cert.write_bytes(server_pair[0].read_bytes())
    node = make_node({"tls.cert": cert, "tls.key": server_pair[1]},
                     doors=PLAIN_DOORS + ("mqtts",))
    cert.write_text("not a certificate")
    node.reload()
    with Client(node.mqtt) as c:
        c.publish("t", b"x", 1)
    assert not refused(node, context(authority)) and node.is_running()


# ---- PROXY v2 ----

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def proxy_v2(source, command=1, family=0x11, extra=b""):
    body = socket.inet_aton(source) + socket.inet_aton("127.0.0.1") + struct.pack(">HH", 4321, 1)
    body += extra
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack(">H", len(body)) + body


@pytest.fixture
def proxied(make_node):
    # Strangers' addresses get in: "auto" would refuse what does not come from loopback.
    return make_node({"proxy_protocol.mqtt": "on", "auth.anonymous": "on"})


def test_proxy_v2(proxied, name):
    for head in (proxy_v2("192.0.2.7"), proxy_v2("192.0.2.7", extra=b"\x04\x00\x01x"),
                 SIGNATURE + b"\x20\x00\x00\x00"):  # the last one: LOCAL, a health check
        with Raw(proxied.mqtt, head + connect(name)) as raw:
            assert raw.expect(CONNACK).body[1] == 0


def test_proxy_v2_in_pieces(proxied, name):
    import time
    with Raw(proxied.mqtt) as raw:
        for byte in proxy_v2("192.0.2.7") + connect(name):
            raw.send(bytes([byte]))
            time.sleep(0.001)
        raw.expect(CONNACK)


@pytest.mark.parametrize("head", [b"", SIGNATURE + b"\x30\x11\x00\x00",
                                  SIGNATURE + b"\x21\x11\x00\x04abcd", b"\r\n\r\n\x00\r\nQUIX\n"],
                         ids=["none", "version 3", "short", "no signature"])
def test_a_door_behind_a_proxy_takes_nothing_else(proxied, name, head):
    with Raw(proxied.mqtt, head + connect(name)) as raw:
        assert raw.read() is None
    assert proxied.is_running()
