"""Strategies that go by engines' reports: what they choose, what they make of missing ones."""

import random
from collections import Counter, deque
from collections.abc import Mapping

import pytest

from cache.endpoints import Key
from load.engines import MOST_REQUESTS
from load.gateways import MEMORY, MOST_GATEWAYS, Gateways
from load.values import EngineLoad, LoadSnapshot
from routing.inflight import InFlight, Lease
from routing.latency import HALF_LIFE_SECONDS, Latencies
from routing.strategies import STRATEGIES, Strategies
from routing.view import Query, View
from tests.fakes import Clock, endpoint, endpoints

NEED_REPORTS = ("least-busy", "least-kv-cache", "least-latency", "prefix-cache", "throughput")
QUERY = Query("llama")


def snapshot(*loads: EngineLoad | None) -> LoadSnapshot:
    """Reports of the endpoints 1, 2, …, of which some may be missing, after rounds of the same."""
    found = {endpoint(n).key: load for n, load in enumerate(loads, 1) if load is not None}
    return LoadSnapshot(found, 1e9, seen(*found.values()))


def seen(*loads: EngineLoad, rounds: int = 50) -> float:
    """How many gateways there seem to be after rounds of these reports."""
    gateways = Gateways()
    return [gateways.seen(loads) for _ in range(rounds)][-1]


def chosen(
    name: str,
    *loads: EngineLoad | None,
    own: Mapping[Key, int] | None = None,
    latencies: Latencies | None = None,
) -> set[str | None]:
    """The pods that are chosen, of all equals there are."""
    found = set()
    for seed in range(20):
        strategy = Strategies(random.Random(seed)).get(name)
        view = View(own or {}, snapshot(*loads), latencies)
        found.add(strategy.pick(endpoints(len(loads)), view, QUERY).pod)
    return found


def load(**fields: float) -> EngineLoad:
    return EngineLoad(**fields)  # type: ignore[arg-type]


def test_reports_are_looked_up_once_for_a_pool_and_anew_for_another() -> None:
    pool = endpoints(3)
    snapshot = LoadSnapshot({one.key: EngineLoad(running=n) for n, one in enumerate(pool)}, 1e9)
    found = snapshot.of(pool)
    assert snapshot.of(pool) is found
    assert View({}, snapshot).reports(pool).busy() == [0, 1, 2]
    left = [pool[0], pool[2]]  # for a second attempt
    assert View({}, snapshot).reports(left).busy() == [0, 2]
    left.reverse()
    assert View({pool[0].key: 5}, snapshot).reports(left).busy() == [2, 5]
    assert snapshot.of(pool) is found
    begins_alike = (*pool[:1], endpoint(9))
    view = View({}, snapshot)
    assert view.reports(begins_alike).busy() == [0, 0]
    assert view.fell_back
    assert snapshot.of(begins_alike) is not found


def test_least_busy_counts_what_runs_and_what_waits() -> None:
    assert chosen("least-busy", load(running=9), load(running=1, waiting=7)) == {"pod-2"}


def test_least_kv_cache_goes_to_the_emptiest_cache() -> None:
    full, less = load(kv_usage=0.9, running=2), load(kv_usage=0.2, running=9)
    assert chosen("least-kv-cache", full, less) == {"pod-2"}


def test_equal_caches_are_told_apart_by_what_waits() -> None:
    assert chosen("least-kv-cache", load(waiting=1), load(), load(waiting=2)) == {"pod-2"}


def test_throughput_goes_where_the_fewest_tokens_are_made() -> None:
    quick = load(running=4, tokens_per_second=400)
    assert chosen("throughput", quick, load(running=4, tokens_per_second=300)) == {"pod-2"}


def test_an_engine_that_is_stuck_has_no_headroom() -> None:
    stuck = load(running=30, tokens_per_second=0)
    assert chosen("throughput", stuck, load(running=4, tokens_per_second=400)) == {"pod-2"}


def observed(clock: Clock, *seconds: float | None) -> Latencies:
    latencies = Latencies(clock)
    for number, value in enumerate(seconds, 1):
        if value is not None:
            latencies.observed(endpoint(number).key, value)
    return latencies


def test_least_latency_goes_to_the_one_that_answers_first() -> None:
    latencies = observed(Clock(), 0.5, 0.2, 0.9)
    assert chosen("least-latency", load(), load(), load(), latencies=latencies) == {"pod-2"}


def test_a_queue_is_waited_for_by_every_request_in_it() -> None:
    latencies = observed(Clock(), 0.5, 0.2)
    queued = load(waiting=2)
    assert chosen("least-latency", load(), queued, latencies=latencies) == {"pod-1"}


def test_one_that_never_answered_yet_is_tried() -> None:
    latencies = observed(Clock(), 0.5, None, 0.9)
    found = chosen("least-latency", load(), load(), load(), latencies=latencies)
    assert found == {"pod-1", "pod-2"}


def test_a_slow_answer_fades() -> None:
    clock = Clock()
    latencies = observed(clock, 8.0, 1.0)
    keys = [endpoint(1).key, endpoint(2).key, endpoint(3).key]
    assert latencies.expected(keys) == [8.0, 1.0, None]
    clock.now += HALF_LIFE_SECONDS
    assert latencies.expected(keys) == [4.5, 1.0, None]
    latencies.observed(keys[0], 2.0)
    assert 2.0 < (latencies.expected(keys)[0] or 0) < 8.0


def test_endpoints_that_are_gone_are_forgotten() -> None:
    latencies = observed(Clock(), 8.0, 1.0)
    latencies.forget([endpoint(1).key])
    assert latencies.expected([endpoint(1).key, endpoint(2).key]) == [None, 1.0]


@pytest.mark.parametrize("name", NEED_REPORTS)
def test_what_was_sent_since_the_report_counts(name: str) -> None:
    """An old report must not draw all requests of a second to one endpoint."""
    in_flight = InFlight(Clock())
    loads = snapshot(load(running=2), load(running=2), load(running=2))
    strategy = Strategies(random.Random(1)).get(name)
    leases = [in_flight.pick(strategy, endpoints(3), QUERY, loads) for _ in range(30)]
    assert max(Counter(lease.endpoint.pod for lease in leases).values()) <= 14


def test_what_other_gateways_send_is_taken_to_be_like_our_own() -> None:
    """Half of all is ours, so for each of our requests another gateway sends one too."""
    loads = snapshot(load(running=4000, in_flight=2000), load(running=6000, in_flight=3000))
    assert loads.gateways == pytest.approx(2, abs=0.01)
    own = {endpoint(1).key: 2001, endpoint(2).key: 3000}  # one more than when it was asked
    view = View(own, loads)
    assert view.reports(endpoints(2)).busy() == pytest.approx([4002, 6000], abs=0.1)


def test_all_that_engines_have_are_our_own_requests_where_we_are_alone() -> None:
    assert seen(load(running=40, in_flight=40), load(waiting=3, in_flight=3)) == 1


def test_an_engine_that_reports_fewer_than_we_sent_does_not_make_us_half_a_gateway() -> None:
    assert seen(load(running=1, in_flight=40)) == 1


def test_no_more_gateways_are_believed_in_than_there_may_be() -> None:
    assert seen(load(running=1e9, in_flight=3)) == MOST_GATEWAYS


def test_one_absurd_report_is_forgotten_in_a_few_rounds() -> None:
    gateways = Gateways()
    for _ in range(50):
        gateways.seen([load(running=20, in_flight=10)])
    assert gateways.seen([load(running=MOST_REQUESTS, in_flight=10)]) == MOST_GATEWAYS
    after = [gateways.seen([load(running=20, in_flight=10)]) for _ in range(40)]
    assert after[-1] == pytest.approx(2, abs=0.5)


def test_one_request_at_a_time_says_nothing_of_others() -> None:
    """Else its end would count as the end of ten, and what others may do would hide the reports."""
    assert seen(load(running=10, in_flight=1)) == 1
    assert seen(load(running=30, in_flight=3)) == pytest.approx(10)


def test_one_round_of_many_says_little() -> None:
    gateways = Gateways()
    for _ in range(50):
        gateways.seen([load(running=20, in_flight=10)])
    assert gateways.seen([load(running=20, in_flight=0)]) == pytest.approx(2 / MEMORY, abs=0.01)


def test_what_has_ended_since_the_report_counts_no_more() -> None:
    view = View({}, snapshot(load(running=5, in_flight=5)))
    assert view.reports(endpoints(1)).busy() == [0]


@pytest.mark.parametrize("name", NEED_REPORTS)
@pytest.mark.parametrize("stuck_at", [0, 5])
def test_an_engine_whose_report_stands_still_draws_no_requests(name: str, stuck_at: int) -> None:
    """The others end what they get before they are asked again; it goes on answering the asker."""
    in_flight = InFlight(Clock())
    strategy = Strategies(random.Random(1)).get(name)
    stuck = endpoint(3)
    for _ in range(20):
        loads = snapshot(
            *(load(running=5, in_flight=in_flight.on(endpoint(n).key)) for n in (1, 2)),
            load(running=stuck_at, in_flight=in_flight.on(stuck.key)),
        )
        leases = [in_flight.pick(strategy, endpoints(3), QUERY, loads) for _ in range(30)]
        for lease in leases:
            if lease.endpoint != stuck:
                lease.release()
    assert in_flight.on(stuck.key) <= 60, "a fair share were 200"


def test_no_engine_has_fewer_requests_than_we_sent_it() -> None:
    many = EngineLoad(running=12, in_flight=3)
    view = View({endpoint(1).key: 2}, LoadSnapshot({endpoint(1).key: many}, 1e9, gateways=32))
    assert view.reports(endpoints(1)).busy() == [2]
    fewer = EngineLoad(running=1, waiting=2, in_flight=9)
    assert (fewer.requests, fewer.queued) == (9, 8)


@pytest.mark.parametrize("name", NEED_REPORTS)
def test_without_reports_requests_in_flight_count(name: str) -> None:
    own = {endpoint(1).key: 9, endpoint(3).key: 9}
    assert chosen(name, None, None, None, own=own) == {"pod-2"}


@pytest.mark.parametrize("name", NEED_REPORTS)
@pytest.mark.parametrize("each", [0.005, 0.0])
def test_an_engine_without_a_report_is_neither_shunned_nor_flooded(name: str, each: float) -> None:
    """Twenty requests a second take five seconds each; the second engine never reports.

    They fill a tenth of its cache in each engine, or so little that none is reported.
    """
    in_flight = InFlight(Clock())
    strategy = Strategies(random.Random(1)).get(name)
    counts: Counter[str | None] = Counter()
    running: deque[Lease] = deque()
    for _ in range(40):
        own = [in_flight.on(one.key) for one in endpoints(5)]
        found = [load(running=o, in_flight=o, kv_usage=o * each) for o in own]
        loads = snapshot(found[0], None, *found[2:])
        for _ in range(20):
            lease = in_flight.pick(strategy, endpoints(5), QUERY, loads)
            lease.first_byte(lease.began + 0.2)
            counts[lease.endpoint.pod] += 1
            running.append(lease)
            if len(running) > 100:
                running.popleft().release()
    assert 120 <= counts["pod-2"] <= 200, "a fair share are 160"


@pytest.mark.parametrize("name", [*STRATEGIES, "prefix-cache:2,least-busy:1"])
def test_a_missing_report_is_noticed_where_it_was_wanted(name: str) -> None:
    strategy = Strategies(random.Random(1)).get(name)
    for loads, missing in ((snapshot(load(), None), True), (snapshot(load(), load()), False)):
        lease = InFlight(Clock()).pick(strategy, endpoints(2), QUERY, loads)
        wanted = name in NEED_REPORTS or "least-busy" in name
        assert lease.fell_back == (missing and wanted)


def test_choices_by_the_same_reports_differ_where_there_are_several_gateways() -> None:
    """All of them would else send the next requests to the same engine."""
    ours, theirs = {"in_flight": 10}, {"in_flight": 4}
    own = {endpoint(1).key: 4, endpoint(2).key: 4}
    alone = (load(running=4, **theirs), load(running=4.5, **theirs))
    assert chosen("least-busy", *alone, own=own) == {"pod-1"}
    own = {endpoint(1).key: 10, endpoint(2).key: 10, endpoint(3).key: 12}
    many = (load(running=100, **ours), load(running=101, **ours), load(running=101, **ours))
    assert snapshot(*many).gateways > 8
    assert chosen("least-busy", *many, own=own) == {"pod-1", "pod-2"}, "the third has got two more"


def test_requests_that_ended_do_not_hide_those_sent_since() -> None:
    """Three requests ended on each since the report, and one was sent three more."""
    latencies = observed(Clock(), 0.5, 0.49)
    reports = load(running=6, in_flight=6), load(running=6, in_flight=6)
    own = {endpoint(1).key: 3, endpoint(2).key: 6}
    assert chosen("least-latency", *reports, own=own, latencies=latencies) == {"pod-1"}


def test_one_lucky_answer_does_not_make_an_endpoint_the_quickest() -> None:
    clock = Clock()
    latencies = observed(clock, 0.5, 0.5)
    latencies.observed(endpoint(1).key, 0.01)
    assert (latencies.expected([endpoint(1).key])[0] or 0) > 0.4
    for _ in range(60):
        latencies.observed(endpoint(1).key, 0.01)
    assert (latencies.expected([endpoint(1).key])[0] or 1) < 0.1


def test_tokens_of_one_second_count_less_than_requests() -> None:
    """The first engine has just read a prompt, the second has more to do."""
    reader = load(running=4, tokens_per_second=1500)
    assert chosen("throughput", reader, load(running=8, tokens_per_second=500)) == {"pod-1"}
