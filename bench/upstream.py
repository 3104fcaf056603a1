"""The model behind every proxy: one epoll loop that sends stamped tokens when they are due.

It is plain and single-threaded so that it costs little: tokens are formatted in one step, and
unless a request wants each by itself, those due within the same millisecond leave in one turn of
the loop, as those of an engine's batch do. It prints its port, and ends
when its standard input closes. `GET /lag` says how late it was since it was last asked.
"""

import gc
import heapq
import itertools
import json
import re
import select
import socket
import sys
import time

from bench.figures import quantile
from bench.wire import ANSWER, STREAM_END, STREAM_HEAD, TOKEN

STDIN = 0
TICK = 1_000_000
GOLDEN = 0.6180339887498949
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_WISH = re.compile(rb"Write (\d+) tokens at ([\d.]+) a second(, each by itself)?")


class Connection:
    """A proxy's connection: what came of a request, and what could not be sent yet."""

    __slots__ = ("backlog", "inbox", "open", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = b""
        self.backlog = b""
        self.open = True


class Stream:
    """An answer that runs: how many tokens are left, and nanoseconds between them."""

    __slots__ = ("connection", "interval", "left", "tick")

    def __init__(self, connection: Connection, tokens: int, rate: float, *, ticks: bool) -> None:
        self.connection = connection
        self.left = tokens
        self.interval = int(1e9 / rate)
        self.tick = TICK if ticks else 1

    def due(self, at: int) -> int:
        """When the token for that time leaves: on the next millisecond, with `ticks`.

        A loop that sent whatever is due in each of its turns would send one by one behind a proxy
        that keeps it turning with other requests, and in heaps behind one that does not.
        """
        return -(-at // self.tick) * self.tick


class Upstream:
    """Answers requests on a loopback port of its own choice."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._due: list[tuple[int, int, Stream]] = []
        self._tickets = itertools.count()
        self._lags: list[int] = []

    def run(self) -> None:
        """Serve until standard input closes."""
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(STDIN, select.EPOLLIN)
        while True:
            self._wait()
            for fd, events in self._epoll.poll(0 if self._due else None, 512):
                if fd == STDIN:
                    return
                connection = self._connections.get(fd)
                if connection is None:
                    self._accept()
                elif events & select.EPOLLOUT:
                    self._flush(connection)
                else:
                    self._receive(connection)
            self._send_due()

    def _wait(self) -> None:
        """Wait until a token is due or something arrives; epoll's own clock ticks too coarsely."""
        if self._due:
            left = (self._due[0][0] - time.monotonic_ns()) / 1e9
            select.select((self._epoll,), (), (), max(0.0, left))

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[sock.fileno()] = Connection(sock)
            self._epoll.register(sock, select.EPOLLIN)

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        data = connection.inbox + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(data, 0, end)
            after = end + 4 + (int(length[1]) if length else 0)
            if len(data) < after:
                break
            self._answer(connection, data[:after])
            data = data[after:]
        connection.inbox = data

    def _answer(self, connection: Connection, request: bytes) -> None:
        wish = _WISH.search(request)
        if request.startswith(b"GET "):
            self._write(connection, self._page(request))
        elif wish is None:
            self._write(connection, ANSWER)
        else:
            stream = Stream(connection, int(wish[1]), float(wish[2]), ticks=wish[3] is None)
            self._write(connection, STREAM_HEAD)
            entry = (time.monotonic_ns(), next(self._tickets), stream)
            heapq.heappush(self._due, entry)

    def _page(self, request: bytes) -> bytes:
        """How late tokens left (p99, nanoseconds), or what satisfies a health check."""
        document: dict[str, object] = {"status": "ok", "model_path": "bench"}
        if request.startswith(b"GET /lag "):
            document = {"lag": quantile(self._lags, 0.99)}
            self._lags.clear()
        body = json.dumps(document).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return head % len(body) + body

    def _send_due(self) -> None:
        """Send what is due. The first token comes at once, the second after a phase of its own."""
        due, now = self._due, time.monotonic_ns()
        if due and due[0][0] <= now:
            self._lags.append(now - due[0][0])
        while due and due[0][0] <= now:
            at, ticket, stream = due[0]
            if not stream.connection.open:
                heapq.heappop(due)
                continue
            self._write(stream.connection, TOKEN % time.monotonic_ns())
            stream.left -= 1
            if not stream.left:
                self._write(stream.connection, STREAM_END)
                heapq.heappop(due)
                continue
            if ticket >= 0:
                at += int(stream.interval * (ticket * GOLDEN % 1.0))
                ticket = -1 - ticket  # its phase is set
            heapq.heapreplace(due, (stream.due(at + stream.interval), ticket, stream))

    def _write(self, connection: Connection, data: bytes) -> None:
        if connection.backlog:
            connection.backlog += data
            return
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        if sent < len(data):
            connection.backlog = data[sent:]
            self._epoll.modify(connection.sock, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, connection: Connection) -> None:
        data, connection.backlog = connection.backlog, b""
        self._epoll.modify(connection.sock, select.EPOLLIN)
        self._write(connection, data)

    def _drop(self, connection: Connection) -> None:
        if connection.open:
            connection.open = False
            del self._connections[connection.sock.fileno()]
            connection.sock.close()


def main() -> int:
    """Print the port and serve."""
    gc.disable()
    upstream = Upstream()
    print(upstream.port, flush=True)
    upstream.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
