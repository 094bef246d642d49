"""Kafka requests made by hand, for what Debian's clients have no call: users with SCRAM secrets,
quotas; and what no client would send."""
import hashlib
import os
import socket
import struct

MECHANISMS = {"SCRAM-SHA-256": (1, "sha256"), "SCRAM-SHA-512": (2, "sha512")}


def string(text):
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def compact(data):
    assert len(data) < 127
    return bytes([len(data) + 1]) + data


class Raw:
    """A connection; every request's answer is awaited."""

    def __init__(self, port, host="127.0.0.1", timeout=20):
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(struct.pack(">i", len(data)) + data)

    def receive(self):
        """The next frame; None when the connection has ended."""
        try:
            size = self.file.read(4)
        except ConnectionResetError:
            return None
        return self.file.read(struct.unpack(">i", size)[0]) if len(size) == 4 else None

    def ask(self, key, version, body, flexible=False):
        """The answer's body."""
        self.send(struct.pack(">hhih", key, version, 7, -1) + (b"\0" if flexible else b"") + body)
        answer = self.receive()
        assert answer is not None, "closed"
        assert answer[:4] == struct.pack(">i", 7)
        return answer[5 if flexible else 4:]

    def handshake(self, mechanism, version=1):
        """(code, mechanisms there are)"""
        answer = self.ask(17, version, string(mechanism))
        code, count = struct.unpack_from(">hi", answer)
        names, at = [], 6
        for _ in range(count):
            size = struct.unpack_from(">h", answer, at)[0]
            names.append(answer[at + 2:at + 2 + size].decode())
            at += 2 + size
        return code, names

    def login(self, user, password):
        assert self.handshake("PLAIN")[0] == 0
        token = b"\0%s\0%s" % (user.encode(), password.encode())
        return struct.unpack_from(">h", self.ask(36, 0, struct.pack(">i", len(token)) + token))[0]

    def put_user(self, name, password, mechanisms=MECHANISMS):
        """Makes a user, or gives it another password (AlterUserScramCredentials)."""
        body = b"\x01" + bytes([len(mechanisms) + 1])
        for mechanism in mechanisms:
            number, digest = MECHANISMS[mechanism]
            salt = os.urandom(16)
            salted = hashlib.pbkdf2_hmac(digest, password.encode(), salt, 4096)
            body += (compact(name.encode()) + struct.pack(">bi", number, 4096) + compact(salt) +
                     compact(salted) + b"\0")
        answer = self.ask(51, 0, body + b"\0", flexible=True)
        code = struct.unpack_from(">h", answer, 4 + 1 + 1 + len(name.encode()))[0]
        assert code == 0, code

    def allow(self, user, resource, name, operation):
        """Adds a rule (CreateAcls): resource and operation are Kafka's numbers."""
        body = (struct.pack(">ib", 1, resource) + string(name) + b"\3" + string("User:" + user) +
                string("*") + struct.pack(">bb", operation, 3))
        code = struct.unpack_from(">h", self.ask(30, 1, body), 8)[0]
        assert code == 0, code

    def set_quota(self, user, key, value):
        """value None removes it."""
        body = (struct.pack(">ii", 1, 1) + string("user") + string(user) + struct.pack(">i", 1) +
                string(key) + struct.pack(">d?", value or 0, value is None) + b"\0")
        code = struct.unpack_from(">h", self.ask(49, 0, body), 8)[0]
        assert code == 0, code
