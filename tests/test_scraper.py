"""The rounds in which engines are asked: what is published, for how long, and what is counted."""

import threading
from collections.abc import Collection

import pytest

from cache.endpoints import Endpoint
from load.fetch import FetchError
from load.scraper import Scraper
from load.values import LoadStore
from metrics import SCRAPES
from tests.fakes import Clock, endpoint, endpoints
from tests.harness import PATIENCE


def page(running: float, waiting: float = 0, usage: float = 0, tokens: float = 0) -> str:
    return (
        f"vllm:num_requests_running {running}\n"
        f"vllm:num_requests_waiting {waiting}\n"
        f"vllm:kv_cache_usage_perc {usage}\n"
        f"vllm:generation_tokens_total {tokens}\n"
    )


class Book:
    """Pages by endpoint, as a test writes them; none there means no connection."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.kept: list[str] = []

    def fetch(self, endpoint: Endpoint) -> str:
        try:
            return self.pages[endpoint.address]
        except KeyError:
            raise FetchError("unreachable") from None

    def keep(self, endpoints: Collection[Endpoint]) -> None:
        self.kept = [endpoint.name for endpoint in endpoints]


class Round:
    """A scraper of a few endpoints whose pages, clock and requests in flight a test sets."""

    def __init__(self, count: int = 2, seconds: float = 1.0) -> None:
        self.clock = Clock()
        self.book = Book()
        self.endpoints = list(endpoints(count))
        self.in_flight = 0
        self.store = LoadStore(self.clock)
        self.scraper = Scraper(
            self.store,
            lambda: self.endpoints,
            lambda key: self.in_flight,
            seconds=seconds,
            pages=self.book,
            clock=self.clock,
        )


@pytest.fixture
def a_round() -> Round:
    return Round()


def counted(result: str) -> float:
    return SCRAPES.labels(result)._value.get()  # type: ignore[no-any-return]


def test_what_engines_report_is_published(a_round: Round) -> None:
    a_round.book.pages = {"10.0.0.1": page(3, 2, 0.5), "10.0.0.2": page(1)}
    a_round.in_flight = 4
    a_round.scraper.step()
    engines = a_round.store.snapshot().engines
    first = engines[endpoint(1).key]
    assert (first.running, first.waiting, first.kv_usage) == (3, 2, 0.5)
    assert (first.in_flight, first.requests, first.at) == (4, 5, a_round.clock.now)
    assert engines.keys() == {endpoint(1).key, endpoint(2).key}


def test_tokens_a_second_are_told_from_two_rounds(a_round: Round) -> None:
    a_round.book.pages = {"10.0.0.1": page(1, tokens=1000)}
    a_round.scraper.step()
    assert a_round.store.snapshot().engines[endpoint(1).key].tokens_per_second == 0
    a_round.clock.now += 2
    a_round.book.pages = {"10.0.0.1": page(1, tokens=1300)}
    a_round.scraper.step()
    assert a_round.store.snapshot().engines[endpoint(1).key].tokens_per_second == 150


def test_an_engine_that_counts_anew_has_made_nothing_yet(a_round: Round) -> None:
    for tokens in (1000, 10):
        a_round.book.pages = {"10.0.0.1": page(1, tokens=tokens)}
        a_round.clock.now += 1
        a_round.scraper.step()
    assert a_round.store.snapshot().engines[endpoint(1).key].tokens_per_second == 0


def test_a_report_serves_a_few_rounds_and_then_no_more(a_round: Round) -> None:
    a_round.book.pages = {"10.0.0.1": page(3), "10.0.0.2": page(1)}
    a_round.scraper.step()
    del a_round.book.pages["10.0.0.1"]
    before = counted("unreachable")
    for missed in range(1, 5):
        a_round.clock.now += 1
        a_round.scraper.step()
        known = endpoint(1).key in a_round.store.snapshot().engines
        assert known == (missed < 3)
        assert endpoint(2).key in a_round.store.snapshot().engines
    assert counted("unreachable") - before == 4


def test_reports_are_worth_nothing_when_rounds_have_ceased(a_round: Round) -> None:
    a_round.book.pages = {"10.0.0.1": page(3)}
    a_round.scraper.step()
    a_round.clock.now += 2.9
    assert a_round.store.snapshot().engines
    a_round.clock.now += 0.2
    assert not a_round.store.snapshot().engines


def test_endpoints_that_are_gone_are_forgotten(a_round: Round) -> None:
    a_round.book.pages = {"10.0.0.1": page(3), "10.0.0.2": page(1)}
    a_round.scraper.step()
    del a_round.endpoints[0]
    a_round.scraper.step()
    assert a_round.store.snapshot().engines.keys() == {endpoint(2).key}
    assert a_round.book.kept == ["pod-2"]


def test_an_address_that_two_models_share_is_asked_once(a_round: Round) -> None:
    a_round.endpoints.append(a_round.endpoints[0])
    before = counted("unreachable")
    a_round.scraper.step()
    assert counted("unreachable") - before == 2


@pytest.mark.parametrize(
    ("text", "result"), [("hello", "no_metrics"), (page(float("nan")), "malformed")]
)
def test_a_page_that_is_no_report_is_counted(a_round: Round, text: str, result: str) -> None:
    a_round.book.pages = {"10.0.0.1": text}
    before = counted(result)
    a_round.scraper.step()
    assert counted(result) - before == 1
    assert not a_round.store.snapshot().engines


def test_engines_that_stop_and_begin_to_report_are_told_of_once(
    a_round: Round, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway.load")
    for pages in ({}, {}, {"10.0.0.1": page(1), "10.0.0.2": page(1)}):
        a_round.book.pages = pages
        a_round.scraper.step()
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "2 engines don't report their load (pod-1: unreachable)",
        "all engines report their load",
    ]


def test_the_pause_makes_up_for_what_a_round_took(a_round: Round) -> None:
    assert a_round.scraper.step() == pytest.approx(1.0, abs=0.5)


def test_a_fleet_that_is_expensive_to_read_is_asked_less_often() -> None:
    large = Round(count=300, seconds=0.001)
    lines = page(1) + 'vllm:num_requests_running{engine="1"} 0\n' * 100
    large.book.pages = {one.address: lines for one in large.endpoints}
    pause = large.scraper.step()
    assert pause > 0.01  # a tenth of a processor, and not all of it
    large.clock.now += 2 * pause
    assert len(large.store.snapshot().engines) == 300  # reports serve accordingly longer


def test_a_bug_ends_the_thread_and_is_counted(a_round: Round) -> None:
    def broken(key: object) -> int:
        raise ZeroDivisionError

    scraper = Scraper(
        a_round.store,
        lambda: a_round.endpoints,
        broken,
        seconds=1,
        pages=a_round.book,
        clock=a_round.clock,
    )
    before = counted("internal_error")
    thread = threading.Thread(target=scraper.run)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert counted("internal_error") - before == 1


def test_it_stops_when_it_is_told_to(a_round: Round) -> None:
    a_round.scraper.start()
    a_round.scraper.stop()
    a_round.scraper._thread.join(PATIENCE)
    assert not a_round.scraper._thread.is_alive()
