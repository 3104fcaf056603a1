"""The rounds in which engines are asked: what is published, for how long, and what is counted."""

import threading
from collections import Counter
from collections.abc import Callable, Collection

import pytest

from cache.endpoints import Endpoint
from load.fetch import FetchError
from load.scraper import Scraper
from load.values import LoadStore
from metrics import SCRAPES
from tests.fakes import Clock, endpoint, endpoints
from tests.harness import PATIENCE, wait_for


def page(running: float, waiting: float = 0, usage: float = 0, tokens: float = 0) -> str:
    return (
        f"vllm:num_requests_running {running}\n"
        f"vllm:num_requests_waiting {waiting}\n"
        f"vllm:kv_cache_usage_perc {usage}\n"
        f"vllm:generation_tokens_total {tokens}\n"
    )


class Book:
    """Pages by endpoint, as a test writes them; none there means no connection.

    `meanwhile` is what happens while an endpoint's page is fetched, `asked` who was asked.
    """

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.meanwhile: dict[str, Callable[[], object]] = {}
        self.asked: Counter[str] = Counter()
        self.kept: list[str] = []

    def fetch(self, endpoint: Endpoint) -> str:
        self.asked[endpoint.name] += 1
        self.meanwhile.get(endpoint.address, int)()
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
        assert known == (missed < 2)
        assert endpoint(2).key in a_round.store.snapshot().engines
    assert counted("unreachable") - before == 4


def test_reports_are_worth_nothing_when_rounds_have_ceased(a_round: Round) -> None:
    a_round.book.pages = {"10.0.0.1": page(3)}
    a_round.scraper.step()
    a_round.clock.now += 2.9
    assert a_round.store.snapshot().engines
    a_round.clock.now += 0.2
    assert not a_round.store.snapshot().engines


def test_a_report_that_was_not_renewed_serves_no_longer_for_that(a_round: Round) -> None:
    a_round.book.pages = {"10.0.0.1": page(3), "10.0.0.2": page(1)}
    a_round.scraper.step()
    a_round.book.pages = {}
    a_round.clock.now += 1.2
    a_round.scraper.step()
    a_round.clock.now += 1.7
    assert a_round.store.snapshot().engines
    a_round.clock.now += 0.2
    assert not a_round.store.snapshot().engines


def test_reports_are_published_while_another_is_waited_for(a_round: Round) -> None:
    seen = []

    def until_the_other_is_there() -> None:
        wait_for(lambda: a_round.store.snapshot().engines, "the other's report")
        seen.append(a_round.store.snapshot().engines.keys())

    a_round.book.pages = {"10.0.0.1": page(3), "10.0.0.2": page(1)}
    a_round.book.meanwhile = {"10.0.0.1": until_the_other_is_there}
    a_round.scraper.step()
    assert seen == [{endpoint(2).key}]
    assert len(a_round.store.snapshot().engines) == 2


def test_engines_that_never_answer_hold_up_no_other_s_report() -> None:
    """However many: the other is asked every round, these once, and no report lasts for it."""
    fleet = Round(count=60)
    over = threading.Event()

    def report_is(seconds: float) -> bool:
        report = fleet.store.snapshot().engines.get(endpoint(1).key)
        return report is not None and report.at == fleet.clock.now - seconds

    def a_second_passes_after_each_report() -> None:
        while not over.wait(0.002):
            if report_is(0):
                fleet.clock.now += 1

    fleet.book.pages = {"10.0.0.1": page(3)}
    fleet.book.meanwhile = {f"10.0.0.{n}": lambda: over.wait(PATIENCE) for n in range(2, 61)}
    fleet.book.meanwhile["10.0.0.2"] = a_second_passes_after_each_report
    try:
        for _ in range(4):
            assert fleet.scraper.step() == 0
            assert report_is(1)
        assert fleet.book.asked["pod-1"] == 4
        assert set(fleet.book.asked.values()) == {4, 1}
        fleet.clock.now += 2.1
        assert not fleet.store.snapshot().engines
    finally:
        over.set()
    fleet.book.meanwhile = {}
    fleet.scraper.step()
    assert fleet.book.asked["pod-60"] == 1


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


@pytest.mark.parametrize(("took", "pause"), [(0.0, 1.0), (0.4, 0.6), (1.7, 0.0)])
def test_the_pause_makes_up_for_what_a_round_took(took: float, pause: float) -> None:
    one = Round(count=1)

    def time_passes() -> None:
        one.clock.now += took

    one.book.pages = {"10.0.0.1": page(1)}
    one.book.meanwhile = {"10.0.0.1": time_passes}
    assert one.scraper.step() == pytest.approx(pause, abs=0.01)
    assert one.store.snapshot().engines


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
