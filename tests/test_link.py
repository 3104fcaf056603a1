"""A worker and the relay process: streams are handed over, accounted for, and never lost unseen."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import wait_for
from tests.relayhouse import EVENT, HEAD, House, relay_house
from tests.wire import in_chunks, unchunked


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with relay_house(tmp_path / "gateway") as house:
        yield house


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
