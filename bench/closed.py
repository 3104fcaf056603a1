"""The load generator for answers that are not streamed: each client asks again when answered.

Run as a process of its own: `python -m bench.closed` reads a plan from standard input and prints
what it saw, both as JSON.
"""

import gc
import json
import re
import select
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass

from bench.figures import quantile
from bench.wire import ANSWER_BODY, request

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
#: Seconds that the last answers may take after the time is over.
PATIENCE = 10.0


@dataclass(frozen=True)
class Plan:
    """`clients` that ask one request after another for `seconds`."""

    port: int
    clients: int
    seconds: float


class Client:
    """One keep-alive connection with at most one request on its way."""

    __slots__ = ("asked", "rest", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.asked = 0
        self.rest = b""


class ClosedLoad:
    """Carries out a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._request = request(plan.port)
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._took: list[int] = []
        self._errors: Counter[str] = Counter()

    def run(self) -> dict[str, object]:
        """Ask until the time is over, wait for the last answers, and report."""
        started = time.monotonic()
        self._end = started + self._plan.seconds
        for _ in range(self._plan.clients):
            self._open()
        while self._clients:
            if time.monotonic() > self._end + PATIENCE:
                self._errors["unfinished"] += len(self._clients)
                break
            for fd, _ in self._epoll.poll(1.0):
                self._step(fd, self._clients[fd])
        return self._report(time.monotonic() - started)

    def _open(self) -> None:
        client = Client(self._plan.port)
        self._clients[client.sock.fileno()] = client
        self._epoll.register(client.sock, select.EPOLLIN)
        self._ask(client)

    def _ask(self, client: Client) -> None:
        client.asked = time.monotonic_ns()
        client.rest = b""
        client.sock.send(self._request)

    def _step(self, fd: int, client: Client) -> None:
        try:
            data = client.sock.recv(65_536)
            if not data:
                self._renew(fd, client, "cut off")
                return
            client.rest += data
            end = client.rest.find(b"\r\n\r\n")
            if end >= 0 and self._whole(client.rest, end):
                self._answered(fd, client, end)
        except OSError as error:
            self._renew(fd, client, type(error).__name__)

    def _whole(self, data: bytes, end: int) -> bool:
        length = _LENGTH.search(data, 0, end)
        if length is None:
            return data.endswith(b"\r\n0\r\n\r\n")
        return len(data) >= end + 4 + int(length[1])

    def _answered(self, fd: int, client: Client, end: int) -> None:
        now = time.monotonic_ns()
        self._took.append(now - client.asked)
        if not client.rest.startswith(b"HTTP/1.1 200"):
            self._errors[f"status {client.rest[9:12].decode('latin-1')}"] += 1
        elif ANSWER_BODY not in client.rest:
            self._errors["wrong answer"] += 1
        if now >= self._end * 1e9:
            self._close(fd, client)
        elif b"\r\nconnection: close" in client.rest[:end].lower():
            self._renew(fd, client, "")
        else:
            self._ask(client)

    def _renew(self, fd: int, client: Client, error: str) -> None:
        if error:
            self._errors[error] += 1
        self._close(fd, client)
        if time.monotonic() < self._end:
            self._open()

    def _close(self, fd: int, client: Client) -> None:
        del self._clients[fd]
        client.sock.close()

    def _report(self, wall: float) -> dict[str, object]:
        return {
            "wall": wall,
            "load_cpu": time.process_time(),
            "asking": wall,
            "requests": len(self._took),
            "errors": dict(self._errors),
            "request_p50": quantile(self._took, 0.5) / 1e9,
            "request_p99": quantile(self._took, 0.99) / 1e9,
        }


def main() -> int:
    """Carry out the plan on standard input."""
    plan = Plan(**json.load(sys.stdin))
    gc.disable()
    json.dump(ClosedLoad(plan).run(), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
