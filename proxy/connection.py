"""One connection to an endpoint: opened, a request sent, a response's head awaited."""

import contextlib
import socket
from collections.abc import Callable

from cache.endpoints import Endpoint
from proxy.failures import (
    BodyDied,
    BodyIdle,
    ConnectFailed,
    ConnectionDied,
    ResponseBroken,
    ResponseInvalid,
    ResponseTimeout,
)
from proxy.framing import MAX_HEAD_BYTES, Head, ProtocolError, parse_head

_RECEIVE_BYTES = 65_536
#: Informational responses that may precede the final one.
_MAX_INFORMATIONAL = 8


class Connection:
    """One TCP connection to an endpoint.

    Belongs to one thread at a time; only `shut_down` may be called from another.
    """

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        """Connect within `timeout` seconds; raises `ConnectFailed`."""
        self.key = endpoint.key
        self.reused = False
        self.idle_since = 0.0
        family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(endpoint.key)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            self._socket.close()
            raise ConnectFailed(_connect_kind(error), f"{endpoint.name}: {error}") from error

    def is_clean(self) -> bool:
        """Whether an idle connection is still open, and silent as it must be."""
        self._socket.settimeout(0)  # with a timeout Python waits for data, whatever the flags say
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # closed, or bytes nobody asked for

    def send(self, head: bytes, body: bytes, timeout: float) -> None:
        """Send a request, each step within `timeout` seconds.

        An endpoint may answer before it has read everything, and close: a connection that breaks
        here is not given up before its answer was looked for. Raises `ResponseTimeout`.
        """
        self._socket.settimeout(timeout)
        try:
            if len(body) <= _RECEIVE_BYTES:
                self._socket.sendall(head + body)
            else:
                self._socket.sendall(head)
                self._socket.sendall(body)
        except TimeoutError as error:
            raise ResponseTimeout("timeout", "the endpoint does not read the request") from error
        except OSError:
            pass  # told by the response that comes or does not

    def receive_head(self, deadline: float, clock: Callable[[], float]) -> tuple[Head, bytes]:
        """Wait for the final response's head; returns it and what came of the body with it.

        Raises `ConnectionDied`, `ResponseTimeout`, `ResponseInvalid`. Informational responses are
        skipped, as they are not passed on.
        """
        received = b""
        for _ in range(_MAX_INFORMATIONAL):
            block, received = self._receive_block(received, deadline, clock)
            try:
                head = parse_head(block)
            except ProtocolError as error:
                raise ResponseInvalid("protocol_error", str(error)) from error
            if head.status >= 200:
                return head, received
            if head.status == 101:
                break
        raise ResponseInvalid("protocol_error", "no final response, only informational ones")

    def _receive_block(
        self, received: bytes, deadline: float, clock: Callable[[], float]
    ) -> tuple[bytes, bytes]:
        """Bytes up to the next empty line, and those after it."""
        while (end := received.find(b"\r\n\r\n")) < 0:
            if len(received) > MAX_HEAD_BYTES or not received.startswith(b"HTTP/"[: len(received)]):
                raise ResponseInvalid("protocol_error", "this is no HTTP/1.1 response")
            received += self._receive_head_part(deadline - clock(), begun=bool(received))
        if end > MAX_HEAD_BYTES:
            raise ResponseInvalid("protocol_error", "the response's head is too large")
        return received[:end], received[end + 4 :]

    def _receive_head_part(self, timeout: float, *, begun: bool) -> bytes:
        if timeout <= 0:
            raise ResponseTimeout("timeout", "no response head within the limit")
        self._socket.settimeout(timeout)
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError as error:
            raise ResponseTimeout("timeout", "no response head within the limit") from error
        except OSError as error:
            if begun:
                raise ResponseBroken("reset", f"the response's head broke off: {error}") from error
            raise ConnectionDied(str(error), idle=self.reused) from error
        if data:
            return data
        if begun:
            raise ResponseBroken("reset", "the connection closed within the response's head")
        raise ConnectionDied("the connection closed without a response", idle=self.reused)

    def receive(self, timeout: float) -> bytes:
        """Wait at most `timeout` seconds for bytes; empty at the connection's end.

        Raises `BodyIdle` and `BodyDied`.
        """
        self._socket.settimeout(timeout)
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError as error:
            raise BodyIdle("idle", f"nothing came for {timeout:g} s") from error
        except OSError as error:
            raise BodyDied("died", str(error)) from error

    def shut_down(self) -> None:
        """End the connection under the thread that uses it, which then sees it closed."""
        with contextlib.suppress(OSError):  # it may have ended by itself
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; safe to call twice."""
        self._socket.close()


def _connect_kind(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "connect_timeout"
    return "refused" if isinstance(error, ConnectionRefusedError) else "unreachable"
