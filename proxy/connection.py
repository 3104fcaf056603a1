"""One connection to an endpoint: opened, a request sent, a response's head awaited."""

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Callable

from cache.endpoints import Endpoint
from proxy.failures import (
    NO_DESCRIPTOR,
    BodyDied,
    BodyIdle,
    ConnectFailed,
    ConnectionDied,
    OutOfResources,
    ResponseBroken,
    ResponseInvalid,
    ResponseTimeout,
    UpstreamFailure,
)
from proxy.framing import MAX_HEAD_BYTES, Head, parse_head
from proxy.steps import BLOCKING, Ready, Steps, is_ready
from relay.bodies import ProtocolError

_RECEIVE_BYTES = 65_536
#: Informational responses that may precede the final one.
_MAX_INFORMATIONAL = 8
#: A connection that had idled and ends so many seconds after a request was begun on it had been
#: closed before the request came; one that ends later may have died of the request.
_STALE_SECONDS = 0.1
#: Reasons for which no connection comes about that are no endpoint's.
_OWN_SHORTAGES = NO_DESCRIPTOR | {errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


class Connection:
    """One TCP connection to an endpoint.

    Belongs to one thread at a time; only `shut_down` may be called from another.
    """

    def __init__(self, endpoint: Endpoint, connected: socket.socket) -> None:
        self.endpoint = endpoint
        self.key = endpoint.key
        self.reused = False
        self.idle_since = 0.0
        self.socket = connected  # never blocking: changing that costs system calls
        self._request_sent = True
        self._begun_at = 0.0  # the present request
        self._received = b""  # of its response, while it was being sent
        self._answered = False
        self._shut_down = False

    @classmethod
    def open(cls, endpoint: Endpoint, timeout: float) -> Steps["Connection"]:
        """Connect within `timeout` seconds; raises `ConnectFailed` and `OutOfResources`."""
        try:
            return cls(endpoint, (yield from _connected(endpoint, timeout)))
        except OSError as error:
            if error.errno in _OWN_SHORTAGES:
                raise OutOfResources("no_resources", str(error)) from error
            raise ConnectFailed(_connect_kind(error), f"{endpoint.name}: {error}") from error

    def is_clean(self) -> bool:
        """Whether an idle connection is still open, and silent as it must be."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # closed, or bytes nobody asked for

    @property
    def reusable(self) -> bool:
        """Whether the connection's own state allows another request, after a response."""
        return self._request_sent and not self._shut_down

    def send(
        self, head: bytes, body: bytes, deadline: float, clock: Callable[[], float]
    ) -> Steps[None]:
        """Send a request, all of it until `deadline` on `clock`; raises `ResponseTimeout`.

        An endpoint may answer before it has read everything. Then the rest is not sent; nor is a
        connection that breaks here given up before its answer was looked for.
        """
        self._begun_at = clock()
        self._received, self._answered, self._request_sent = b"", False, False
        parts = (head + body,) if len(body) <= _RECEIVE_BYTES else (head, body)
        try:
            for part in parts:
                if not (yield from self._send_part(part, deadline, clock)):
                    return
        except OSError:
            return  # told by the response that comes or does not
        self._request_sent = True

    def _send_part(self, part: bytes, deadline: float, clock: Callable[[], float]) -> Steps[bool]:
        """Send `part`; false if the endpoint did not wait for all of it."""
        left = memoryview(part)
        while left:
            try:
                left = left[self.socket.send(left) :]
            except BlockingIOError:
                yield BLOCKING
                if not self._wait_to_send(deadline - clock()):
                    return False
        return True

    def _wait_to_send(self, timeout: float) -> bool:
        """Wait until more can be sent; false if the endpoint has answered or closed."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN | select.POLLOUT)
        events = poll.poll(timeout * 1000) if timeout > 0 else []
        if not events:
            raise ResponseTimeout("timeout", "the endpoint does not read the request")
        if events[0][1] == select.POLLOUT:
            return True
        data = self.socket.recv(_RECEIVE_BYTES)
        self._received += data
        return bool(data) and _only_informational(self._received)

    def receive_head(
        self, deadline: float, clock: Callable[[], float]
    ) -> Steps[tuple[Head, bytes]]:
        """Wait for the final response's head; returns it and what came of the body with it.

        Raises `ConnectionDied`, `ResponseBroken`, `ResponseTimeout`, `ResponseInvalid`.
        Informational responses are skipped, as they are not passed on.
        """
        received, self._received = self._received, b""
        self._answered = bool(received)
        for _ in range(_MAX_INFORMATIONAL):
            block, received = yield from self._receive_block(received, deadline, clock)
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
    ) -> Steps[tuple[bytes, bytes]]:
        """Bytes up to the next empty line, and those after it."""
        while (end := received.find(b"\r\n\r\n")) < 0:
            if received:
                _check_beginning(received)
            received += yield from self._receive_head_part(deadline, clock)
        if end > MAX_HEAD_BYTES:
            raise ResponseInvalid("protocol_error", "the response's head is too large")
        return received[:end], received[end + 4 :]

    def _receive_head_part(self, deadline: float, clock: Callable[[], float]) -> Steps[bytes]:
        # An endpoint nearby may have answered while it was sent to. Once only: others shall have
        # their turn while a head drips in.
        waits = self._answered
        while True:
            if waits:
                yield Ready(self.socket.fileno(), deadline)
            try:
                data = self.socket.recv(_RECEIVE_BYTES)
                break
            except BlockingIOError:
                if waits and clock() >= deadline:
                    raise ResponseTimeout("timeout", "no response head within the limit") from None
            except OSError as error:
                raise self._ended(str(error), clock) from error
            waits = True
        if not data:
            raise self._ended("the connection closed", clock)
        self._answered = True
        return data

    def _ended(self, how: str, clock: Callable[[], float]) -> UpstreamFailure:
        """What the connection's end before a response's head means for the request."""
        if self._answered:  # if only by an informational response: the endpoint was at work
            return ResponseBroken("reset", f"within the response's head: {how}")
        prompt = clock() - self._begun_at < _STALE_SECONDS
        return ConnectionDied(f"without a response: {how}", idle=self.reused and prompt)

    def receive(self, timeout: float) -> bytes:
        """Wait at most `timeout` seconds for bytes; empty at the connection's end.

        Raises `BodyIdle` and `BodyDied`.
        """
        try:
            data = self._receive(timeout)
        except TimeoutError as error:
            raise BodyIdle("idle", f"nothing came for {timeout:g} s") from error
        except OSError as error:
            raise BodyDied("died", str(error)) from error
        if not data and self._shut_down:
            raise BodyDied("died", "the connection was shut down")  # no end that a body may have
        return data

    def _receive(self, timeout: float) -> bytes:
        """Wait at most `timeout` seconds for bytes; raises `OSError`, among them `TimeoutError`."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(BlockingIOError):
                return self.socket.recv(_RECEIVE_BYTES)
            if not is_ready(Ready(self.socket.fileno(), deadline)):
                raise TimeoutError

    def shut_down(self) -> None:
        """End the connection under the thread that uses it, which then sees it closed."""
        self._shut_down = True
        with contextlib.suppress(OSError):  # it may have ended by itself
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; safe to call twice."""
        self.socket.close()


def _connected(endpoint: Endpoint, timeout: float) -> Steps[socket.socket]:
    """A socket connected to `endpoint`; raises `OSError`."""
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield from _connect(connecting, endpoint, timeout)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _connect(connecting: socket.socket, endpoint: Endpoint, timeout: float) -> Steps[None]:
    failed = connecting.connect_ex(endpoint.key)
    if failed == errno.EINPROGRESS:
        failed = yield from _outcome(connecting, timeout)
    if failed:
        raise OSError(failed, os.strerror(failed))


def _outcome(connecting: socket.socket, timeout: float) -> Steps[int]:
    """What becomes of an attempt to connect: an error's number, 0 for none."""
    if not is_ready(Ready(connecting.fileno(), 0.0, to_write=True)):  # on loopback it mostly is
        deadline = time.monotonic() + timeout
        yield Ready(connecting.fileno(), deadline, to_write=True)
        if not is_ready(Ready(connecting.fileno(), 0.0, to_write=True)):
            return errno.ETIMEDOUT
    return connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _check_beginning(received: bytes) -> None:
    """Raise `ResponseInvalid` unless this may become a response's head."""
    if len(received) > MAX_HEAD_BYTES or not received.startswith(b"HTTP/"[: len(received)]):
        raise ResponseInvalid("protocol_error", "this is no HTTP/1.1 response")
    if received.count(b"\n") != received.count(b"\r\n"):  # its end would never be found
        raise ResponseInvalid("protocol_error", "a line of the head ends without CRLF")


def _only_informational(received: bytes) -> bool:
    """Whether what came is no more than informational responses, or parts of them."""
    while received.startswith(b"HTTP/1.1 1"):
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return len(received) <= MAX_HEAD_BYTES
        received = received[end + 4 :]
    return b"HTTP/1.1 1".startswith(received)


def _connect_kind(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "connect_timeout"
    return "refused" if isinstance(error, ConnectionRefusedError) else "unreachable"
