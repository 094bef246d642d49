"""A blocking MQTT client over paho for tests, and a bare one that writes packets byte by byte for
what a well-behaved library would not send."""
import queue
import socket
import struct
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

WAIT_S = 30
V311, V5 = paho.MQTTv311, paho.MQTTv5


def properties(packet, **values):
    made = Properties(getattr(PacketTypes, packet.upper()))
    for key, value in values.items():
        setattr(made, key, value)
    return made


class Client:
    """Every call returns when the server has answered, or fails after WAIT_S."""

    def __init__(self, port, client_id="", version=V5, clean=True, expiry=None, tls=None,
                 manual_ack=False, connect=True, keepalive=60, will=None, host="127.0.0.1",
                 login=None, **connect_properties):
        self.port, self.host, self.version, self.clean = port, host, version, clean
        self.keepalive = keepalive
        more = {} if version == V5 else {"clean_session": clean}
        self.paho = paho.Client(client_id=client_id, protocol=version, **more)
        self.messages = queue.Queue()
        self.answers = {}
        self.answered = threading.Condition()
        self.connack = self.gone = None
        self.connect_properties = dict(connect_properties)
        if expiry is not None:
            self.connect_properties["SessionExpiryInterval"] = expiry
        if will:
            self.paho.will_set(**will)
        if login:
            self.paho.username_pw_set(*login)
        if tls:
            self.paho.tls_set_context(tls)
        self.paho.max_inflight_messages_set(1000)
        self.paho.on_connect = self._on_connect
        self.paho.on_disconnect = self._on_disconnect
        self.paho.on_message = lambda _c, _u, m: self.messages.put(m)
        self.paho.on_subscribe = lambda _c, _u, mid, codes, *_: self._answer(("sub", mid), codes)
        self.paho.on_unsubscribe = lambda _c, _u, mid, *_: self._answer(("unsub", mid), True)
        if connect:
            self.connect()

    def _answer(self, key, value):
        with self.answered:
            self.answers[key] = value
            self.answered.notify_all()

    def _on_connect(self, _c, _u, flags, code, props=None):
        value = getattr(code, "value", code)
        self._answer("connack", {"session": bool(flags["session present"]), "code": value,
                                 "properties": props})

    def _on_disconnect(self, _c, _u, code, props=None):
        self.paho.loop_stop()  # this thread ends, and does not connect again by itself
        self._answer("gone", getattr(code, "value", code))

    def _wait(self, key, within=WAIT_S):
        with self.answered:
            if not self.answered.wait_for(lambda: key in self.answers, within):
                raise AssertionError("no answer to %s within %s s" % (key, within))
            return self.answers.pop(key)

    def connect(self, expect=0):
        self.answers.pop("gone", None)
        more = {}
        if self.version == V5:
            more = {"clean_start": self.clean,
                    "properties": properties("connect", **self.connect_properties)}
        self.paho.connect(self.host, self.port, keepalive=self.keepalive, **more)
        self.paho.loop_start()
        self.connack = self._wait("connack")
        if expect is not None:
            assert self.connack["code"] == expect, self.connack
        return self.connack

    def wait_gone(self, within=WAIT_S):
        """Waits until the server has closed. paho hides most reasons: use Raw to see them."""
        return self._wait("gone", within)

    def subscribe(self, topic, qos=0, expect_ok=True, subscription_id=None, **options):
        if self.version == V5:
            opts = SubscribeOptions(qos=qos, **options)
            more = {}
            if subscription_id:
                more["properties"] = properties("subscribe",
                                                SubscriptionIdentifier=subscription_id)
            _, mid = self.paho.subscribe(topic, options=opts, **more)
        else:
            _, mid = self.paho.subscribe(topic, qos)
        codes = [getattr(c, "value", c) for c in self._wait(("sub", mid))]
        if expect_ok:
            assert codes == [qos], codes
        return codes[0]

    def unsubscribe(self, topic):
        _, mid = self.paho.unsubscribe(topic)
        self._wait(("unsub", mid))

    def publish(self, topic, payload=b"", qos=0, retain=False, wait=True, **props):
        more = {"properties": properties("publish", **props)} if props else {}
        info = self.paho.publish(topic, payload, qos, retain, **more)
        if wait:
            info.wait_for_publish(WAIT_S)
            assert info.is_published(), "publish was not acknowledged"
        return info

    def get(self, within=WAIT_S):
        try:
            return self.messages.get(timeout=within)
        except queue.Empty:
            raise AssertionError("no message within %s s" % within) from None

    def take(self, count, within=WAIT_S):
        until = time.monotonic() + within
        return [self.get(max(0.05, until - time.monotonic())) for _ in range(count)]

    def quiet(self, seconds=0.3):
        """Fails when a message comes within this time."""
        try:
            m = self.messages.get(timeout=seconds)
        except queue.Empty:
            return
        raise AssertionError("unexpected message %s %r" % (m.topic, m.payload[:80]))

    def close(self, **disconnect_properties):
        more = {}
        if disconnect_properties:
            more["properties"] = properties("disconnect", **disconnect_properties)
        self.paho.disconnect(**more)
        self.paho.loop_stop()

    def drop(self):
        """Breaks the connection without DISCONNECT."""
        self.paho.loop_stop()
        sock = self.paho.socket()
        if sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.close()
        except OSError:
            pass


# ---- packets by hand ----

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK = range(1, 10)
PINGREQ, PINGRESP, DISCONNECT, AUTH = 12, 13, 14, 15


def varint(n):
    out = b""
    while True:
        n, low = n >> 7, n & 127
        out += bytes([low | (128 if n else 0)])
        if not n:
            return out


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack(">H", len(s)) + s


def packet(kind, body=b"", flags=0):
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


def connect(client_id="", level=5, flags=0x02, keepalive=0, props=b"", rest=b""):
    has_props = varint(len(props)) + props if level == 5 else b""
    return packet(CONNECT, text("MQTT") + bytes([level, flags]) + struct.pack(">H", keepalive) +
                  has_props + text(client_id) + rest)


def publish(topic, payload=b"", qos=0, pid=1, retain=0, dup=0, props=b"", level=5):
    body = text(topic) + (struct.pack(">H", pid) if qos else b"")
    body += varint(len(props)) + props if level == 5 else b""
    return packet(PUBLISH, body + payload, dup << 3 | qos << 1 | retain)


def subscribe(topic, options=0, pid=1, props=b"", level=5):
    has_props = varint(len(props)) + props if level == 5 else b""
    return packet(SUBSCRIBE, struct.pack(">H", pid) + has_props + text(topic) +
                  bytes([options]), 2)


def ack(kind, pid, reason=None):
    body = struct.pack(">H", pid) + (bytes([reason]) if reason is not None else b"")
    return packet(kind, body, 2 if kind == PUBREL else 0)


class Packet:
    def __init__(self, kind, flags, body):
        self.kind, self.flags, self.body = kind, flags, body

    qos = property(lambda self: self.flags >> 1 & 3)
    dup = property(lambda self: bool(self.flags & 8))

    def publish_parts(self):
        """(topic, packet id, properties, payload) of a PUBLISH of version 5"""
        n = struct.unpack_from(">H", self.body)[0]
        topic, at, pid = self.body[2:2 + n].decode(), 2 + n, 0
        if self.qos:
            pid, at = struct.unpack_from(">H", self.body, at)[0], at + 2
        size, shift = 0, 0
        while True:
            byte = self.body[at]
            size, shift, at = size | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                break
        return topic, pid, self.body[at:at + size], self.body[at + size:]

    def __repr__(self):
        return "packet %d flags %x %r" % (self.kind, self.flags, self.body[:40])


class Raw:
    """A connection that sends exactly what it is told and reads whole packets."""

    def __init__(self, port, *first, sock=None):
        self.sock = sock or socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self.sock.settimeout(WAIT_S)
        for one in first:
            self.send(one)

    def send(self, *packets):
        self.sock.sendall(b"".join(packets))

    def _exactly(self, n):
        got = b""
        while len(got) < n:
            more = self.sock.recv(n - len(got))
            if not more:
                raise EOFError
            got += more
        return got

    def read(self, within=WAIT_S):
        """The next packet; None when the server closed the connection."""
        self.sock.settimeout(within)
        try:
            first = self._exactly(1)[0]
            size, shift = 0, 0
            while True:
                byte = self._exactly(1)[0]
                size, shift = size | (byte & 127) << shift, shift + 7
                if byte < 128:
                    break
            return Packet(first >> 4, first & 15, self._exactly(size))
        except (EOFError, ConnectionResetError):
            return None

    def expect(self, kind, within=WAIT_S):
        got = self.read(within)
        assert got is not None, "closed, expected packet %d" % kind
        assert got.kind == kind, "%r, expected packet %d" % (got, kind)
        return got

    def expect_closed(self, reason=None, within=WAIT_S):
        """The connection is closed, after a DISCONNECT or CONNACK with this reason if given."""
        seen = None
        while True:
            got = self.read(within)
            if got is None:
                break
            if got.kind == DISCONNECT:
                seen = got.body[0] if got.body else 0
            elif got.kind == CONNACK:
                seen = got.body[1]
        if reason is not None:
            assert seen == reason, "closed with %r, expected %#x" % (seen, reason)
        return seen

    def silent(self, seconds=0.3):
        self.sock.settimeout(seconds)
        try:
            got = self.sock.recv(1)
        except socket.timeout:
            return
        raise AssertionError("closed" if got == b"" else "unexpected bytes")

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
