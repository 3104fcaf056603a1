"""Crowds of clients that ask too much of a gateway, and its processes as the kernel shows them."""

import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, Self

from tests.harness import GatewayProcess, wait_for
from tests.wire import Wire

#: How a client leaves: it closes its connection, or it is gone without a word.
Departure = Literal["fin", "rst"]
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


def leave(wire: Wire, how: Departure) -> None:
    """Close the connection, whatever is still unread on it."""
    if how == "fin":
        wire.socket.shutdown(socket.SHUT_WR)  # before closing: unread bytes would make it a reset
    else:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    wire.socket.close()


def p99(times: list[float]) -> float:
    """The time that one of a hundred exceeds."""
    return sorted(times)[math.ceil(len(times) * 0.99) - 1]


def timed(what: Callable[[], object]) -> float:
    """Seconds it takes."""
    started = time.monotonic()
    what()
    return time.monotonic() - started


@contextmanager
def wires(port: int, count: int) -> Iterator[list[Wire]]:
    """`count` connections, closed at the end."""
    with ExitStack() as clients:
        yield [clients.enter_context(Wire(port)) for _ in range(count)]


class Drip:
    """Clients that go on sending, a piece each every `interval` seconds; a context manager.

    One whose connection the gateway has closed, or who has said everything, sends no more.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._sending: list[tuple[Wire, bytes, int]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def add(self, wire: Wire, data: bytes, piece: int = 1) -> Wire:
        """Send `data` on `wire`, `piece` bytes at a time; before the block begins."""
        self._sending.append((wire, data, piece))
        return wire

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self._sending = [rest for client in self._sending if (rest := self._send(*client))]

    @staticmethod
    def _send(wire: Wire, data: bytes, piece: int) -> tuple[Wire, bytes, int] | None:
        try:
            wire.send(data[:piece])
        except OSError:
            return None
        return (wire, data[piece:], piece) if len(data) > piece else None


def relays(gateway: GatewayProcess) -> list[int]:
    """The relays of this gateway that live, whoever their parent is."""
    return [
        pid
        for pid in processes_of(gateway)
        if b"\0-m\0relay\0" in _read(Path(f"/proc/{pid}/cmdline"))
    ]


def relay_of(gateway: GatewayProcess) -> int:
    """The one relay there is, once every worker that is to be can give it streams."""

    def connected() -> list[int]:
        found = relays(gateway)
        assert len(found) <= 1
        # Streams aside, it has one socket that listens, and one to each worker.
        enough = found and sockets(found[0]) > max(1, len(workers(gateway)))
        return found if enough else []

    return wait_for(connected, "the workers are connected to a relay")[0]


def workers(gateway: GatewayProcess) -> list[int]:
    """The workers of this gateway, without its relay."""
    others = relays(gateway)
    return [pid for pid in gateway.workers() if pid not in others and alive(pid)]


def processes_of(gateway: GatewayProcess) -> list[int]:
    """Every living process of this gateway, orphans too: they inherit the port it was given."""
    port = f"\0PORT={gateway.port}\0".encode()
    return [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and alive(int(path.name)) and port in b"\0" + _read(path / "environ")
    ]


def alive(pid: int) -> bool:
    """Whether it runs, or one of its threads still has its files open; a zombie does not."""
    return state_of(pid) not in ("", "Z", "X") or threads(pid) > 1


def state_of(pid: int) -> str:
    """Its state's letter, as of proc(5); empty if there is no such process."""
    return _read(Path(f"/proc/{pid}/stat")).rpartition(b") ")[2][:1].decode()


def threads(pid: int) -> int:
    """How many it has, itself among them; 0 if there is no such process."""
    return len(_entries(Path(f"/proc/{pid}/task")))


def descriptors(pid: int) -> int:
    return len(_entries(Path(f"/proc/{pid}/fd")))


def wait_until_moved(gateway: GatewayProcess, count: int) -> None:
    """Until the relay has `count` streams: their first tokens are sent by the worker."""

    def has_them() -> bool:
        return any(tcp_sockets(pid) >= 2 * count for pid in relays(gateway))

    wait_for(has_them, f"the relay has {count} streams")


def tcp_sockets(pid: int) -> int:
    """How many of its descriptors are TCP connections; a relay has two for each stream."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    every = {f"socket:[{line.split()[9]}]" for line in lines}
    return sum(_link(path) in every for path in _entries(Path(f"/proc/{pid}/fd")))


def worker_of(gateway: GatewayProcess, port: int) -> int | None:
    """The worker that has accepted the client's connection from that port, if one has."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [f":{number:04X}" for number in (gateway.port, port)]
    fields = (line.split() for line in lines)
    inodes = {f"socket:[{one[9]}]" for one in fields if [end[-5:] for end in one[1:3]] == ends}
    for pid in workers(gateway):
        if any(_link(path) in inodes for path in _entries(Path(f"/proc/{pid}/fd"))):
            return pid
    return None


def sockets(pid: int) -> int:
    """How many of its descriptors are sockets."""
    return sum(_link(path).startswith("socket:") for path in _entries(Path(f"/proc/{pid}/fd")))


def resident_bytes(gateway: GatewayProcess) -> int:
    """The memory of all its processes together."""
    pages = [_read(Path(f"/proc/{pid}/statm")).split() for pid in processes_of(gateway)]
    return sum(4096 * int(fields[1]) for fields in pages if fields)


def settled_bytes(gateway: GatewayProcess, seconds: float) -> int:
    """The least memory it holds at any moment of a while.

    A list that is just being read takes some for a moment; a leak is there at every moment.
    """
    ends, least = time.monotonic() + seconds, resident_bytes(gateway)
    while time.monotonic() < ends:
        time.sleep(0.05)
        least = min(least, resident_bytes(gateway))
    return least


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []  # it has ended meanwhile


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""  # it was closed meanwhile


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it has ended meanwhile
