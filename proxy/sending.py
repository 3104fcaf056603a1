"""Sending to clients: at once, in one piece, or part by part; and what comes after it."""

import select
import socket
from enum import Enum

from relay.sockets import untaken


class End(Enum):
    """What becomes of a connection when a request on it was answered."""

    KEEP = "it may carry another request"
    CLOSE = "it is closed, and the client may read everything first"
    RESET = "it is reset, so that the client sees that something is missing"
    AWAY = "its answer is passed on elsewhere, which says when that is over"


class Collected:
    """Stands for the socket where an answer is sent in one piece."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        """Keep it."""
        self._parts.append(data)

    def take(self) -> bytes:
        """All that was kept, which is kept no longer."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


class Outlet:
    """Stands for the socket where a thread sends an answer part by part.

    A client that takes nothing for `seconds` has left: `TimeoutError`.
    """

    def __init__(self, client: socket.socket, seconds: float) -> None:
        self._client = client
        self._seconds = seconds

    def sendall(self, data: bytes) -> None:
        """Send all of it; raises `OSError` if the client is gone."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._client.send(rest) :]
            except BlockingIOError:
                self._wait()

    def _wait(self) -> None:
        writable = select.poll()
        writable.register(self._client, select.POLLOUT)
        left = untaken(self._client)
        while not writable.poll(self._seconds * 1000):
            before, left = left, untaken(self._client)
            if left >= before:
                raise TimeoutError("the client reads nothing")


def send(client: socket.socket, data: bytes) -> bytes:
    """Send what goes without waiting; return the rest. Raises `OSError` if the client is gone."""
    try:
        sent = client.send(data)
    except BlockingIOError:
        return data
    return b"" if sent == len(data) else data[sent:]
