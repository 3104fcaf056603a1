"""A worker and the relay process: streams are handed over, accounted for, and never lost unseen."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.link import RelayLink
from relay.messages import Order, Report
from tests.harness import wait_for
from tests.wire import in_chunks, unchunked

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

    def __init__(self, directory: Path) -> None:
        self.adopted: list[Account] = []
        self.link = RelayLink(directory, EVENTS, self._adopt)
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


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class House:
    """A gateway's directory with its workers and streams."""

    def __init__(self, directory: Path, running: ExitStack) -> None:
        self.directory = directory
        self._running = running
        self.workers: list[Worker] = []

    def worker(self) -> Worker:
        worker = Worker(self.directory)
        self.workers.append(worker)
        self._running.callback(worker.die)
        return worker

    def exchange(self) -> Exchange:
        exchange = Exchange()
        self._running.callback(exchange.close)
        return exchange

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


@pytest.fixture
def house(tmp_path: Path, running: ExitStack) -> Iterator[House]:
    directory = tmp_path / "gateway"
    directory.mkdir()
    house = House(directory, running)
    yield house
    running.close()
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    wait_for(lambda: not house.relays(), "no relay outlives its gateway")
    for worker in house.workers:
        wait_for(worker.link.reap, "no zombie is left")


def test_a_stream_passes_and_is_accounted_for(house: House) -> None:
    exchange = house.exchange().hand_to(house.worker(), in_chunks(b"data: 1\n\n", end=False))
    exchange.endpoint.sendall(in_chunks(b"data: 2\n\n"))
    raw = exchange.received()
    assert raw.startswith(HEAD)
    assert unchunked(raw.removeprefix(HEAD)) == (b"data: 1\n\ndata: 2\n\n", True)
    assert exchange.account.outcome() == "complete"
    report = exchange.account.reports[0]
    assert report.size == 18
    assert report.reusable
    assert report.first is not None
    assert report.first <= report.at <= time.monotonic()


def test_a_connection_that_may_go_on_is_left_open(house: House) -> None:
    exchange = house.exchange().hand_to(house.worker(), closes=False)
    exchange.endpoint.sendall(in_chunks(b"all"))
    assert exchange.account.outcome() == "complete"
    exchange._client.setblocking(True)
    exchange._client.sendall(b"the next answer")
    seen = b""
    while not seen.endswith(b"the next answer"):
        seen += exchange.client.recv(1000)
    assert unchunked(seen.removeprefix(HEAD).removesuffix(b"the next answer")) == (b"all", True)


def test_an_endpoint_that_dies_breaks_the_stream_visibly_and_tells(house: House) -> None:
    exchange = house.exchange().hand_to(house.worker())
    exchange.endpoint.sendall(in_chunks(b"data: 1\n\n", end=False) + b"9\r\ndata")
    exchange.endpoint.close()
    content, complete = unchunked(exchange.received().removeprefix(HEAD))
    assert content == b"data: 1\n\ndata" + EVENT.encode()
    assert not complete
    assert exchange.account.outcome() == "died"


def test_a_client_that_leaves_ends_its_endpoints_work(house: House) -> None:
    exchange = house.exchange().hand_to(house.worker())
    exchange.client.close()
    exchange.endpoint.settimeout(1.0)
    assert exchange.endpoint.recv(1) == b""
    assert exchange.account.outcome() == "left"


def test_limits_are_kept(house: House) -> None:
    worker = house.worker()
    silent = house.exchange().hand_to(worker, idle=0.2)
    endless = house.exchange().hand_to(worker, ends=time.monotonic() + 0.2)
    stalled = house.exchange().hand_to(worker, send=0.2)
    stalled.endpoint.setblocking(False)

    def endpoint_is_ended() -> bool:
        try:
            return not stalled.endpoint.send(in_chunks(bytes(100_000), end=False))
        except BlockingIOError:
            return bool(stalled.account.reports)
        except OSError:
            return True

    wait_for(endpoint_is_ended, "the endpoint of a client that does not read is ended")
    assert silent.account.outcome() == "idle"
    assert endless.account.outcome() == "timeout"
    assert stalled.account.outcome() == "stalled"
    assert unchunked(silent.received().removeprefix(HEAD)) == (EVENT.encode(), False)


def test_a_worker_that_dies_leaves_its_streams_to_the_next(house: House) -> None:
    first = house.worker()
    exchange = house.exchange().hand_to(first, facts={"name": "orphan"})
    first.die()
    exchange.let_go()
    exchange.endpoint.sendall(in_chunks(b"still here", end=False))
    second = house.worker()
    wait_for(lambda: second.adopted, "the stream is adopted")
    assert second.adopted[0].facts == {"name": "orphan"}
    exchange.endpoint.sendall(b"0\r\n\r\n")
    assert unchunked(exchange.received().removeprefix(HEAD)) == (b"still here", True)
    assert second.adopted[0].outcome() == "complete"
    assert not exchange.account.reports


def test_a_stream_that_ends_while_there_is_no_worker_is_accounted_for_later(house: House) -> None:
    first = house.worker()
    exchange = house.exchange().hand_to(first)
    first.die()
    exchange.let_go()
    exchange.endpoint.sendall(in_chunks(b"alone"))
    assert unchunked(exchange.received().removeprefix(HEAD)) == (b"alone", True)
    second = house.worker()
    wait_for(lambda: second.adopted, "the stream is adopted")
    assert second.adopted[0].outcome() == "complete"


def test_a_worker_that_stops_gives_its_streams_to_one_that_does_not(house: House) -> None:
    old = house.worker()
    exchange = house.exchange().hand_to(old)
    old.link.leave()
    new = house.worker()
    wait_for(lambda: new.adopted, "the stream is adopted")
    wait_for(lambda: exchange.account.was_moved, "the old worker is told")
    exchange.let_go()
    exchange.endpoint.sendall(in_chunks(b"moved"))
    assert unchunked(exchange.received().removeprefix(HEAD)) == (b"moved", True)
    assert new.adopted[0].outcome() == "complete"


def test_a_cut_tells_the_clients_before_it_ends_their_streams(house: House) -> None:
    worker = house.worker()
    exchange = house.exchange().hand_to(worker)
    worker.link.cut()
    assert unchunked(exchange.received().removeprefix(HEAD)) == (EVENT.encode(), False)
    assert exchange.account.outcome() == "draining"


def test_a_relay_that_is_killed_is_back_within_a_second(house: House) -> None:
    worker = house.worker()
    exchange = house.exchange().hand_to(worker)
    (relay,) = house.relays()
    os.kill(relay, signal.SIGKILL)
    killed = time.monotonic()
    wait_for(lambda: exchange.account.was_lost, "the worker knows that the stream is lost")
    again = house.exchange().hand_to(worker)
    assert time.monotonic() - killed < 1.0
    again.endpoint.sendall(in_chunks(b"good"))
    assert again.account.outcome() == "complete"
    assert relay not in house.relays()


def test_a_relay_that_does_not_read_blocks_nobody_who_cant_wait(house: House) -> None:
    worker = house.worker()
    house.exchange().hand_to(worker)
    (relay,) = house.relays()
    os.kill(relay, signal.SIGSTOP)
    try:
        handed, longest = 0, 0.0
        while handed < 100:
            stream = house.exchange()
            began = time.monotonic()
            taken = stream.try_to_hand_to(worker)
            longest = max(longest, time.monotonic() - began)
            if not taken:
                break
            handed += 1
        assert 0 < handed < 100, "there is a bound to what waits for it"
        assert longest < 0.5
    finally:
        os.kill(relay, signal.SIGCONT)


def test_many_workers_share_one_relay(house: House) -> None:
    for _ in range(4):
        house.exchange().hand_to(house.worker())
    assert len(house.relays()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_a_whole_group_does_not_end_the_relay(
    house: House, number: signal.Signals
) -> None:
    exchange = house.exchange().hand_to(house.worker())
    (relay,) = house.relays()
    os.kill(relay, number)
    exchange.endpoint.sendall(in_chunks(b"good"))
    assert exchange.account.outcome() == "complete"
