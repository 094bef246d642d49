"""A link of TCP that can be made slow: every byte takes delay_s in each direction, order is kept."""
import collections
import selectors
import socket
import threading
import time

PIECE = 65536
HELD_MAX = 4 << 20  # bytes on their way, per direction: a link holds no more


class Proxy:
    """Listens at .port and passes everything on to the port given. One thread for all of it."""

    def __init__(self, to_port, delay_s=0.0):
        self.to_port, self.delay_s, self.ending = to_port, delay_s, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.listener.setblocking(False)
        self.select = selectors.DefaultSelector()
        self.select.register(self.listener, selectors.EVENT_READ)
        self.other, self.held = {}, {}  # of each socket: its peer; what is on its way to it
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _accept(self):
        near, _ = self.listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self.to_port), timeout=1)
        except OSError:
            near.close()
            return
        self.other.update({near: far, far: near})
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.setblocking(False)
            self.held[one] = collections.deque()
            self.select.register(one, selectors.EVENT_READ)

    def _drop(self, one):
        for each in (one, self.other.get(one)):
            if each in self.other:
                self.select.unregister(each)
                each.close()
                del self.other[each], self.held[each]

    def _read(self, one):
        held = self.held[self.other[one]]
        if sum(len(b) for _, b in held) > HELD_MAX:
            return
        try:
            got = one.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if got:
            held.append((time.monotonic() + self.delay_s, got))
        else:
            self._drop(one)

    def _pass_on(self):
        now = time.monotonic()
        for one in list(self.held):
            held = self.held.get(one)
            while held and held[0][0] <= now:
                due, piece = held[0]
                try:
                    sent = one.send(piece)
                except BlockingIOError:
                    break
                except OSError:
                    self._drop(one)
                    break
                held.popleft()
                if sent < len(piece):
                    held.appendleft((due, piece[sent:]))
                    break

    def _run(self):
        while not self.ending:
            for key, _ in self.select.select(0.002 if any(self.held.values()) else 0.05):
                if key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj in self.other:
                    self._read(key.fileobj)
            self._pass_on()
        for one in list(self.other):
            self._drop(one)
        self.select.close()
        self.listener.close()

    def close(self):
        self.ending = True
        self.thread.join(5)
