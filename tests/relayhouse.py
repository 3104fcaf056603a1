"""A relay and workers' ends of it, over real sockets, without the gateway around them."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from proxy.link import RelayLink
from relay.messages import Order, Report
from tests.harness import wait_for

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
EVENT = "\n\ndata: broken\n\n"
EVENTS = {"died": EVENT, "idle": EVENT, "draining": EVENT, "timeout": EVENT}


class Account:
    """What became of one stream."""

    def __init__(self, facts: dict[str, Any] | None = None) -> None:
        self.facts = facts or {}
        self.reports: list[Report] = []
        self.was_lost = False
        self.was_moved = False

    def ended(self, report: Report) -> None:
        self.reports.append(report)

    def lost(self) -> None:
        self.was_lost = True

    def moved(self) -> None:
        self.was_moved = True

    def outcome(self) -> str:
        wait_for(lambda: self.reports, "the stream has ended")
        assert len(self.reports) == 1
        return self.reports[0].outcome


class Worker:
    """One worker's end, with what it has adopted."""

    def __init__(self, directory: Path, tick: float = 1.0) -> None:
        self.adopted: list[Account] = []
        self.link = RelayLink(directory, EVENTS, self._adopt, tick=tick)
        self.link.start()

    def _adopt(self, facts: dict[str, Any]) -> Account:
        self.adopted.append(Account(facts))
        return self.adopted[-1]

    def die(self) -> None:
        self.link.stop()


class Exchange:
    """A stream: the client's far end, the endpoint's far end, and the account of it."""

    def __init__(self) -> None:
        self.account = Account()
        self.client, self._client = connection()
        self.endpoint, self._upstream = connection()

    def hand_to(self, worker: Worker, received: bytes = b"", **fields: Any) -> "Exchange":
        order = Order(**DEFAULTS | fields)

        def handed() -> bool:
            return worker.link.hand_over(
                order, (self._client, self._upstream), (HEAD, received), self.account
            )

        wait_for(handed, "there is a relay")
        return self

    def try_to_hand_to(self, worker: Worker) -> bool:
        """Without waiting; with all that a message may carry."""
        sockets = (self._client, self._upstream)
        raw = (HEAD, bytes(150_000))
        return worker.link.hand_over(Order(**DEFAULTS), sockets, raw, self.account, patient=False)

    def let_go(self) -> None:
        """The worker's own descriptors are closed, as when it has died."""
        self._client.close()
        self._upstream.close()

    def received(self) -> bytes:
        """Everything until the client's connection ends."""
        return b"".join(iter(lambda: self.client.recv(65_536), b""))

    def close(self) -> None:
        for one in (self.client, self._client, self.endpoint, self._upstream):
            one.close()


DEFAULTS: dict[str, Any] = {
    "id": 0,
    "framing": "chunked",
    "length": 0,
    "events": True,
    "takes_event": True,
    "idle": 30.0,
    "send": 30.0,
    "ends": time.monotonic() + 3600,
    "closes": True,
    "facts": {"name": "a"},
}


def connection() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname(), 10.0)
        near, _ = listener.accept()
    return far, near


class House:
    """A gateway's directory with its workers and streams."""

    def __init__(self, directory: Path, running: ExitStack) -> None:
        self.directory = directory
        self._running = running
        self.workers: list[Worker] = []

    def worker(self, tick: float = 1.0) -> Worker:
        worker = Worker(self.directory, tick)
        self.workers.append(worker)
        self._running.callback(worker.die)
        return worker

    def exchange(self) -> Exchange:
        exchange = Exchange()
        self._running.callback(exchange.close)
        return exchange

    def relay(self) -> int:
        """The id of the one relay."""
        (relay,) = self.relays()
        return relay

    @contextmanager
    def relay_stopped(self) -> Iterator[None]:
        """What is done meanwhile, the relay sees at once when it goes on."""
        relay = self.relay()
        os.kill(relay, signal.SIGSTOP)
        wait_for(lambda: _state(relay) == "T", "the relay has stopped")
        try:
            yield
        finally:
            with suppress(ProcessLookupError):  # it may have been killed meanwhile
                os.kill(relay, signal.SIGCONT)

    def relays(self) -> list[int]:
        """The ids of the relays of this directory, without those that are only waited for."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(self.directory).encode() in words and b"relay" in words:
                found.append(int(entry.name))
        return found


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@contextmanager
def relay_house(directory: Path) -> Iterator[House]:
    """A gateway's directory; at the end nothing of it may be left."""
    directory.mkdir()
    with ExitStack() as running:
        house = House(directory, running)
        yield house
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    wait_for(lambda: not house.relays(), "no relay outlives its gateway")
    for worker in house.workers:
        wait_for(worker.link.process.reap, "no zombie is left")
