"""What unit tests put in place of the outside: a clock, endpoints, and tiny upstream servers."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator

from cache.endpoints import Endpoint, Pool, Snapshot
from cache.store import SnapshotStore
from tests.harness import PATIENCE


class Clock:
    """Seconds, set by hand; it starts where a machine long since up would be."""

    def __init__(self) -> None:
        self.now = 50_000.0

    def __call__(self) -> float:
        return self.now


def endpoint(number: int, *, routable: bool = True, terminating: bool = False) -> Endpoint:
    """The endpoint `10.0.0.NUMBER:8000` of the pod `pod-NUMBER`."""
    return Endpoint(
        f"10.0.0.{number}",
        8000,
        pod=f"pod-{number}",
        ready=routable,
        terminating=terminating,
        routable=routable and not terminating,
    )


def endpoints(count: int) -> tuple[Endpoint, ...]:
    return tuple(endpoint(number) for number in range(1, count + 1))


def snapshot(listed_at: float = 50_000.0, **pools: Iterable[Endpoint]) -> Snapshot:
    return Snapshot({name: Pool(name, tuple(found)) for name, found in pools.items()}, listed_at)


def store_of(clock: Clock, **pools: Iterable[Endpoint]) -> SnapshotStore:
    store = SnapshotStore(600.0, clock)
    store.put(snapshot(clock.now, **pools))
    return store


Script = Callable[[socket.socket], None]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Upstream:
    """A server on loopback that runs one script for each connection, one after the other.

    A script gets the connection; when it returns, the connection is closed. Connections beyond the
    last script stay in the accept queue. What a script raises is raised again at the end.
    """

    def __init__(self, *scripts: Script, receive_buffer: int | None = None) -> None:
        self._listener = socket.socket()
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._listener.settimeout(PATIENCE)
        self.endpoint = Endpoint("127.0.0.1", self._listener.getsockname()[1], pod="tiny")
        self._error: BaseException | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(scripts,))
        self._thread.start()

    def _run(self, scripts: tuple[Script, ...]) -> None:
        for script in scripts:
            try:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(PATIENCE)
                    script(connection)
            except Exception as error:  # noqa: BLE001 - raised again in the test's own thread
                if not self._ending.is_set():
                    self._error = error
                return

    def close(self) -> None:
        self._ending.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes a waiting accept
        self._thread.join(PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error


@contextlib.contextmanager
def upstream(*scripts: Script, receive_buffer: int | None = None) -> Iterator[Upstream]:
    running = Upstream(*scripts, receive_buffer=receive_buffer)
    try:
        yield running
    finally:
        running.close()


def read_request(connection: socket.socket) -> bytes:
    """Read a request with a `Content-Length`, whole."""
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += received(connection)
    length = next(
        int(line.partition(b":")[2])
        for line in bytes(data[:end]).lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    while len(data) < end + 4 + length:
        data += received(connection)
    assert len(data) == end + 4 + length
    return bytes(data)


def received(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    assert data, "the gateway closed its connection too early"
    return data


def until_closed(connection: socket.socket) -> None:
    """Wait until the other side has closed; what it sends is thrown away."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(65_536):
            pass


def reset(connection: socket.socket) -> None:
    """Close with an RST, as a host does that knows nothing of the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def answering(*responses: bytes) -> Script:
    """Read a request and answer it, once for each response; then wait for the close."""

    def script(connection: socket.socket) -> None:
        for response in responses:
            read_request(connection)
            connection.sendall(response)
        until_closed(connection)

    return script


def sending(*parts: bytes, then: Script = until_closed) -> Script:
    """Read a request, answer it in parts that arrive one by one, then do something else."""

    def script(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_request(connection)
        with contextlib.suppress(ConnectionError):  # the gateway may have had enough
            for part in parts:
                connection.sendall(part)
        then(connection)

    return script


def close(connection: socket.socket) -> None:
    connection.close()
