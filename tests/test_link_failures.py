"""Workers and relays that stop, die, hang or err cost no stream, and no account of one."""

import array
import fcntl
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bench.proc import cpu_seconds
from metrics import ERRORS
from relay.messages import Order, Report, pack, values
from relay.tally import Tally
from tests.harness import PATIENCE, wait_for
from tests.relayhouse import DEFAULTS, EVENTS, HEAD, Account, Exchange, House, relay_house
from tests.wire import in_chunks, unchunked


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with relay_house(tmp_path / "gateway") as house:
        yield house


class Spoken:
    """A worker's end that reads nothing, byte by byte as it is spoken."""

    def __init__(self, house: House) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(str(house.directory / "relay.sock"))
        _, descriptor = Tally.begin()
        self._send(pack({"kind": "hello", "events": EVENTS, "leaves": False}), descriptor)
        os.close(descriptor)

    def give(self, exchange: Exchange, number: int) -> Exchange:
        order = Order(**DEFAULTS | {"id": number, "facts": {"name": str(number)}})
        sockets = (exchange._client, exchange._upstream)
        message = pack({"kind": "stream", "head": len(HEAD), **values(order)}, HEAD)
        self._send(message, *(one.fileno() for one in sockets))
        exchange.let_go()
        return exchange

    def _send(self, message: bytes, *descriptors: int) -> None:
        passed = array.array("i", descriptors)
        self._socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])

    def was_told_something(self) -> bool:
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def die(self) -> None:
        self._socket.close()


def content_of(exchange: Exchange) -> tuple[bytes, bool]:
    return unchunked(exchange.received().removeprefix(HEAD))


def bugs() -> float:
    return float(ERRORS.labels("internal_error")._value.get())


def facts(worker: Any) -> list[str]:
    return sorted(account.facts["name"] for account in worker.adopted)


def test_workers_that_stop_together_stay_until_it_is_known_who_has_the_streams(
    house: House,
) -> None:
    old, other = house.worker(), house.worker()
    exchange = house.exchange().hand_to(old)
    wait_for(other.link.linked.is_set, "the other has a relay too")
    with house.relay_stopped():
        old.link.leave()
        other.link.leave()
        assert other.link.needed, "the relay may have given it the stream already"

    def one_has_it() -> bool:
        others = other.link.needed and len(other.adopted) == 1 and not old.link.needed
        return others or (old.link.needed and not other.link.needed)

    wait_for(one_has_it, "one of them has it, and the other may go")
    assert exchange.account.was_moved == bool(other.adopted)
    exchange.endpoint.sendall(in_chunks(b"all"))
    assert content_of(exchange) == (b"all", True)
    wait_for(lambda: not (old.link.needed or other.link.needed), "nothing is left")


def test_a_worker_that_stops_without_a_relay_or_streams_is_not_needed(house: House) -> None:
    worker = house.worker()
    wait_for(worker.link.linked.is_set, "there is a relay")
    worker.link.leave()
    wait_for(lambda: not worker.link.needed, "nothing is left to it")
    os.kill(house.relay(), signal.SIGKILL)
    wait_for(lambda: not worker.link.linked.is_set(), "it knows")
    house.exchange().hand_to(worker).endpoint.sendall(in_chunks(b"of a late request"))
    wait_for(lambda: not worker.link.needed, "a new relay gives it nothing either")


def test_streams_of_a_worker_that_died_with_something_unread_go_on(house: House) -> None:
    heir = house.worker()
    wait_for(heir.link.linked.is_set, "there is a relay")
    dying = Spoken(house)
    ended = dying.give(house.exchange(), 1)
    ended.endpoint.sendall(in_chunks(b"first"))
    wait_for(dying.was_told_something, "the end of the first is on its way")
    with house.relay_stopped():
        last = dying.give(house.exchange(), 2)
        dying.die()
    last.endpoint.sendall(in_chunks(b"second"))
    assert content_of(ended) == (b"first", True)
    assert content_of(last) == (b"second", True)
    wait_for(lambda: len(heir.adopted) == 2, "both are accounted for")
    assert facts(heir) == ["1", "2"]
    assert [account.outcome() for account in heir.adopted] == ["complete"] * 2


def test_what_a_dead_worker_was_told_and_what_it_was_not_is_accounted_for_once(
    house: House,
) -> None:
    first = house.worker()
    for number in range(3):
        exchange = house.exchange().hand_to(first, facts={"name": str(number)})
        exchange.endpoint.sendall(in_chunks(b"good"))
        assert exchange.account.outcome() == "complete"
    running = house.exchange().hand_to(first, facts={"name": "running"})
    first.die()
    second = house.worker()
    wait_for(lambda: second.adopted, "the stream that runs is adopted")
    running.endpoint.sendall(in_chunks(b"good"))
    assert second.adopted[0].outcome() == "complete"
    assert facts(second) == ["running"]


def test_ends_that_a_dead_worker_did_not_take_are_accounted_for(house: House) -> None:
    heir = house.worker()
    wait_for(heir.link.linked.is_set, "there is a relay")
    dying = Spoken(house)
    exchanges = [dying.give(house.exchange(), number) for number in range(400)]
    for exchange in exchanges:  # one by one: more reports than the kernel keeps for it
        exchange.endpoint.sendall(in_chunks(b"x"))
        exchange.received()
        exchange.close()
    dying.die()
    wait_for(lambda: len(heir.adopted) == 400, "all are accounted for")
    assert {account.outcome() for account in heir.adopted} == {"complete"}


def test_a_stream_that_ends_with_its_worker_is_accounted_for_at_once(house: House) -> None:
    heir = house.worker()
    wait_for(heir.link.linked.is_set, "there is a relay")
    dying = Spoken(house)
    exchange = dying.give(house.exchange(), 1)
    assert exchange.client.recv(len(HEAD)) == HEAD
    with house.relay_stopped():
        exchange.endpoint.sendall(in_chunks(b"all"))
        dying.die()
    wait_for(lambda: heir.adopted, "the stream is accounted for")
    assert heir.adopted[0].outcome() == "complete"


class Blocking(Account):
    """Takes its time."""

    def ended(self, report: Report) -> None:
        wait_for(lambda: self.facts.get("goes on"), "the test goes on")
        super().ended(report)


def test_what_a_relay_said_before_it_died_counts(house: House) -> None:
    worker = house.worker()
    first, second, third = house.exchange(), house.exchange(), house.exchange()
    first.account = Blocking()
    first.hand_to(worker)
    second.hand_to(worker)
    first.endpoint.sendall(in_chunks(b"first"))
    assert content_of(first) == (b"first", True)
    second.endpoint.sendall(in_chunks(b"second"))
    assert content_of(second) == (b"second", True)
    later = house.exchange().hand_to(worker)
    # The relay says what has ended before it does anything else, but after the client has it all.
    assert later.client.recv(len(HEAD)) == HEAD
    relay = house.relay()
    with house.relay_stopped():
        third.hand_to(worker)  # which it does not read
        os.kill(relay, signal.SIGKILL)
        wait_for(lambda: relay not in house.relays(), "it is dead")
    first.account.facts["goes on"] = True
    assert first.account.outcome() == "complete"
    assert second.account.outcome() == "complete"
    wait_for(lambda: third.account.was_lost, "the last one is lost")
    assert not second.account.was_lost


class Failing(Account):
    """A bug."""

    def ended(self, report: Report) -> None:
        raise KeyError("a bug")

    def lost(self) -> None:
        raise KeyError("a bug")


def test_an_account_with_a_bug_harms_no_other(house: House) -> None:
    before = bugs()
    worker = house.worker()
    bad, lost, good = house.exchange(), house.exchange(), house.exchange()
    bad.account, lost.account = Failing(), Failing()
    for one in (bad, lost, good):
        one.hand_to(worker)
    bad.endpoint.sendall(in_chunks(b"x"))
    assert content_of(bad) == (b"x", True)
    good.endpoint.sendall(in_chunks(b"good"))
    assert good.account.outcome() == "complete"
    assert bugs() == before + 1
    last = house.exchange().hand_to(worker)
    os.kill(house.relay(), signal.SIGKILL)
    wait_for(lambda: last.account.was_lost, "the other is told of the relay's death")
    assert bugs() == before + 2
    again = house.exchange().hand_to(worker)
    again.endpoint.sendall(in_chunks(b"good"))
    assert again.account.outcome() == "complete"


def test_a_relay_that_is_gone_before_it_is_greeted_is_replaced(house: House) -> None:
    path = house.directory / "relay.sock"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        path.with_suffix(".lock").open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        listener.bind(str(path))
        listener.listen(1)
        worker = house.worker()
        for _ in range(3):
            listener.accept()[0].close()
    exchange = house.exchange().hand_to(worker)
    exchange.endpoint.sendall(in_chunks(b"good"))
    assert exchange.account.outcome() == "complete"


def test_streams_with_large_facts_change_hands(house: House) -> None:
    old = house.worker()
    exchanges = [
        house.exchange().hand_to(old, facts={"name": str(number), "tracestate": "x" * 8_700})
        for number in range(30)
    ]
    new = house.worker()
    wait_for(new.link.linked.is_set, "the new worker has a relay too")
    old.link.leave()
    wait_for(lambda: len(new.adopted) == 30, "all are adopted")
    wait_for(lambda: not old.link.needed, "the old worker has none")
    for exchange in exchanges:
        exchange.endpoint.sendall(in_chunks(b"moved"))
    assert [content_of(exchange) for exchange in exchanges] == [(b"moved", True)] * 30
    assert {account.outcome() for account in new.adopted} == {"complete"}


def test_a_relay_that_cant_live_is_started_twice_a_second_at_most(house: House) -> None:
    began = time.monotonic()
    house.worker()
    killed: set[int] = set()
    while len(killed) < 3:
        for relay in house.relays():
            with suppress(ProcessLookupError):  # it is buried already
                os.kill(relay, signal.SIGKILL)
            killed.add(relay)
    assert 1.0 < time.monotonic() - began < PATIENCE


def limited_to(relay: int, more: int) -> tuple[int, int]:
    """Let the relay have so many descriptors more; returns its limits before."""
    taken = {int(path.name) for path in Path(f"/proc/{relay}/fd").iterdir()}
    first_free = min(set(range(len(taken) + 1)) - taken)
    before = resource.prlimit(relay, resource.RLIMIT_NOFILE)
    resource.prlimit(relay, resource.RLIMIT_NOFILE, (first_free + more, before[1]))
    return before


def test_a_relay_without_descriptors_waits_for_some(house: House) -> None:
    first = house.worker()
    wait_for(first.link.linked.is_set, "the relay is up")
    relay = house.relay()
    before = limited_to(relay, 0)
    used, second = cpu_seconds(relay), house.worker()
    exchange = house.exchange().hand_to(second)
    exchange.client.settimeout(1.0)
    with pytest.raises(TimeoutError):
        exchange.client.recv(1)  # the other worker's connection waits to be accepted
    assert cpu_seconds(relay) - used < 0.2
    resource.prlimit(relay, resource.RLIMIT_NOFILE, before)
    exchange.client.settimeout(PATIENCE)
    assert exchange.client.recv(len(HEAD)) == HEAD


def test_streams_leave_descriptors_to_workers_that_come(house: House) -> None:
    first = house.worker(tick=0.05)
    wait_for(first.link.linked.is_set, "the relay is up")
    relay = house.relay()
    limited_to(relay, 40)
    given = [house.exchange().hand_to(first) for _ in range(20)]
    wait_for(lambda: any(one.account.reports for one in given), "some are refused")
    others = [house.worker(tick=0.05) for _ in range(3)]
    refused = [house.exchange().hand_to(worker) for worker in others]
    assert [one.account.outcome() for one in refused] == ["refused"] * 3
    running = [one for one in given if not one.account.reports]
    assert running
    assert house.relays() == [relay]
    for one in running:
        one.endpoint.sendall(in_chunks(b"good"))
        assert one.account.outcome() == "complete"


def test_a_relay_that_hangs_is_replaced_and_its_streams_are_broken_off(house: House) -> None:
    worker = house.worker(tick=0.05)
    exchange = house.exchange().hand_to(worker)
    assert exchange.client.recv(len(HEAD)) == HEAD
    relay = house.relay()
    os.kill(relay, signal.SIGSTOP)
    queued = house.exchange().hand_to(worker)
    wait_for(lambda: exchange.account.was_lost and queued.account.was_lost, "they are lost")
    again = house.exchange().hand_to(worker)
    again.endpoint.sendall(in_chunks(b"good"))
    assert again.account.outcome() == "complete"
    assert house.relay() != relay
    for one in (exchange, queued):
        one.let_go()
        assert not content_of(one)[1]


def test_a_relay_that_has_nothing_to_say_is_left_alone(house: House) -> None:
    worker = house.worker(tick=0.01)
    exchange = house.exchange().hand_to(worker)
    relay = house.relay()
    wait_for(worker.link.linked.is_set, "there is a relay")
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        house.exchange().hand_to(worker)
    exchange.endpoint.sendall(in_chunks(b"good"))
    assert exchange.account.outcome() == "complete"
    assert house.relays() == [relay]


def test_a_stream_that_has_changed_hands_ends_without_a_reset(house: House) -> None:
    old = house.worker()
    exchange = house.exchange().hand_to(old, closes=False)
    new = house.worker()
    wait_for(new.link.linked.is_set, "the new worker has a relay too")
    old.link.leave()
    wait_for(lambda: exchange.account.was_moved, "the old worker has closed its part")
    exchange.let_go()
    exchange.client.sendall(b"the next request, which nobody reads")
    exchange.endpoint.sendall(in_chunks(b"all"))
    assert new.adopted[0].outcome() == "complete"
    assert content_of(exchange) == (b"all", True)
