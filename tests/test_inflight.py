"""In-flight counts: exact, whoever counts at once, and given back once."""

import random
import threading
from collections.abc import Sequence

import pytest

from cache.endpoints import Endpoint
from routing.inflight import InFlight, Lease
from routing.strategies.base import Strategy
from routing.strategies.simple import LeastRequest
from routing.view import Query, View
from tests.fakes import endpoint, endpoints
from tests.harness import PATIENCE

QUERY = Query("llama")


def least() -> LeastRequest:
    return LeastRequest(random.Random(1))


def test_a_choice_is_counted_until_it_is_given_back() -> None:
    in_flight = InFlight()
    lease = in_flight.pick(least(), endpoints(1), QUERY)
    assert in_flight.counts() == {endpoint(1).key: 1}
    lease.release()
    assert in_flight.counts() == {}


def test_giving_back_twice_counts_once() -> None:
    in_flight = InFlight()
    first, second = (in_flight.pick(least(), endpoints(1), QUERY) for _ in range(2))
    first.release()
    first.release()
    assert in_flight.counts() == {endpoint(1).key: 1}
    second.release()
    assert in_flight.counts() == {}


def test_the_strategy_sees_what_was_chosen_before() -> None:
    in_flight = InFlight()
    strategy = least()
    leases = [in_flight.pick(strategy, endpoints(3), QUERY) for _ in range(9)]
    assert set(in_flight.counts().values()) == {3}
    for lease in leases:
        if lease.endpoint == endpoint(2):
            lease.release()
    assert in_flight.pick(strategy, endpoints(3), QUERY).endpoint == endpoint(2)


def test_counts_outlive_a_change_of_the_slice_entry() -> None:
    in_flight = InFlight()
    lease = in_flight.pick(least(), [endpoint(1)], QUERY)
    changed = endpoint(1, terminating=True)
    assert in_flight.counts()[changed.key] == 1
    lease.release()
    assert in_flight.counts() == {}


def test_the_counts_are_a_copy() -> None:
    in_flight = InFlight()
    counts = in_flight.counts()
    in_flight.pick(least(), endpoints(1), QUERY)
    assert counts == {}


def test_a_strategy_that_fails_leaves_nothing_counted() -> None:
    class Broken(Strategy):
        def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
            raise ZeroDivisionError

    in_flight = InFlight()
    with pytest.raises(ZeroDivisionError):
        in_flight.pick(Broken(random.Random(1)), endpoints(2), QUERY)
    assert in_flight.counts() == {}
    in_flight.pick(least(), endpoints(2), QUERY).release()  # nor is the lock held


def run_at_once(work: list[threading.Thread]) -> None:
    for thread in work:
        thread.start()
    for thread in work:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_counts_are_exact_however_many_threads_count() -> None:
    in_flight, strategy, of = InFlight(), least(), endpoints(5)
    kept: list[Lease] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait(PATIENCE)
        for number in range(500):
            lease = in_flight.pick(strategy, of, QUERY)
            if number % 10:
                lease.release()
            else:
                kept.append(lease)

    run_at_once([threading.Thread(target=work) for _ in range(8)])
    assert sum(in_flight.counts().values()) == len(kept) == 8 * 50
    for lease in kept:
        lease.release()
    assert in_flight.counts() == {}


def test_a_lease_that_several_threads_give_back_at_once_counts_once() -> None:
    in_flight, strategy, of = InFlight(), least(), endpoints(1)
    kept = in_flight.pick(strategy, of, QUERY)
    leases = [in_flight.pick(strategy, of, QUERY) for _ in range(300)]
    start = threading.Barrier(4)

    def work() -> None:
        start.wait(PATIENCE)
        for lease in leases:
            lease.release()

    run_at_once([threading.Thread(target=work) for _ in range(4)])
    assert in_flight.counts() == {endpoint(1).key: 1}
    kept.release()
