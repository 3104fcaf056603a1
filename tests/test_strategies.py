"""Strategies: each chooses among what it is given, and spreads load as its name says."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.endpoints import Endpoint, Key
from routing.strategies import STRATEGIES
from routing.strategies.base import Strategy
from routing.strategies.simple import LeastRequest, PowerOfTwo, Random, RoundRobin
from routing.view import Query, View
from tests.fakes import endpoint, endpoints


def choose(strategy: Strategy, of: Sequence[Endpoint], loads: Mapping[Key, int]) -> Endpoint:
    """One choice, as the counts have it made."""
    query = Query("llama")
    endpoint = strategy.pick(of, View(loads), query)
    strategy.chosen(endpoint, query)
    return endpoint


def picks(strategy: Strategy, of: Sequence[Endpoint], times: int) -> list[str | None]:
    return [choose(strategy, of, {}).pod for _ in range(times)]


@pytest.mark.parametrize("name", STRATEGIES)
@given(
    count=st.integers(1, 12),
    seed=st.integers(0, 1000),
    loads=st.dictionaries(st.integers(1, 12), st.integers(0, 5)),
)
def test_every_strategy_chooses_one_of_those_it_was_given(
    name: str, count: int, seed: int, loads: dict[int, int]
) -> None:
    of = endpoints(count)
    by_key: dict[Key, int] = {endpoint(number).key: load for number, load in loads.items()}
    strategy = STRATEGIES[name](random.Random(seed))
    for _ in range(count + 1):
        assert choose(strategy, of, by_key) in of


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_strategy_leaves_an_idle_endpoint_out(name: str) -> None:
    strategy = STRATEGIES[name](random.Random(1))
    counts = Counter(picks(strategy, endpoints(5), 2000))
    assert len(counts) == 5
    assert min(counts.values()) > 300


def test_random_does_not_look_at_load() -> None:
    strategy = Random(random.Random(1))
    of = endpoints(2)
    chosen = Counter(choose(strategy, of, {of[0].key: 100}).pod for _ in range(1000))
    assert chosen["pod-1"] > 400


def test_round_robin_gives_each_endpoint_its_turn_before_any_has_a_second() -> None:
    strategy = RoundRobin(random.Random(1))
    turns = picks(strategy, endpoints(4), 12)
    assert set(turns[:4]) == {"pod-1", "pod-2", "pod-3", "pod-4"}
    assert turns[:4] == turns[4:8] == turns[8:]


def test_round_robin_keeps_its_order_for_each_of_two_models_that_take_turns() -> None:
    strategy = RoundRobin(random.Random(1))
    llama, qwen = endpoints(3), [endpoint(number) for number in (11, 12)]
    seen: dict[str, list[str | None]] = {"llama": [], "qwen": []}
    for _ in range(6):
        seen["llama"] += picks(strategy, llama, 1)
        seen["qwen"] += picks(strategy, qwen, 1)
    assert seen["llama"][:3] == seen["llama"][3:]
    assert len(set(seen["llama"])) == 3
    assert seen["qwen"][:2] == seen["qwen"][2:4] == seen["qwen"][4:]


def test_round_robin_is_not_disturbed_by_endpoints_that_come_and_go() -> None:
    strategy = RoundRobin(random.Random(1))
    three = endpoints(3)
    first, second, third = (choose(strategy, three, {}) for _ in range(3))
    without_first = [e for e in three if e != first]
    assert choose(strategy, without_first, {}) == second
    newcomer = endpoint(9)
    assert choose(strategy, [*three, newcomer], {}) == newcomer
    assert choose(strategy, [*three, newcomer], {}) == first
    assert choose(strategy, [*three, newcomer], {}) == third


def test_round_robin_begins_differently_in_different_workers() -> None:
    starts = {choose(RoundRobin(random.Random(s)), endpoints(4), {}).pod for s in range(40)}
    assert len(starts) == 4


def test_round_robin_forgets_the_endpoints_whose_turn_is_the_longest_ago() -> None:
    class ForgetfulRoundRobin(RoundRobin):
        MEMORY = 2

    strategy = ForgetfulRoundRobin(random.Random(1))
    one, two, three = endpoints(3)
    for turn in (one, two, three):  # so the first is forgotten
        choose(strategy, [turn], {})
    assert choose(strategy, [two, three, one], {}) == one


def test_least_request_chooses_the_endpoint_with_the_fewest_requests() -> None:
    of = endpoints(3)
    loads = {of[0].key: 2, of[1].key: 1, of[2].key: 3}
    assert {choose(LeastRequest(random.Random(s)), of, loads) for s in range(20)} == {of[1]}


def test_least_request_takes_an_endpoint_without_a_count_for_idle() -> None:
    of = endpoints(3)
    loads = {of[0].key: 1, of[2].key: 1}
    assert choose(LeastRequest(random.Random(1)), of, loads) == of[1]


def test_least_request_spreads_over_equals() -> None:
    of = endpoints(4)
    loads = {of[3].key: 1}
    strategy = LeastRequest(random.Random(1))
    counts = Counter(choose(strategy, of, loads).pod for _ in range(900))
    assert set(counts) == {"pod-1", "pod-2", "pod-3"}
    assert min(counts.values()) > 200


def test_power_of_two_never_chooses_the_most_loaded_of_several() -> None:
    of = endpoints(5)
    loads = {e.key: load for load, e in enumerate(of)}
    strategy = PowerOfTwo(random.Random(1))
    counts = Counter(choose(strategy, of, loads).pod for _ in range(1000))
    assert "pod-5" not in counts
    assert counts["pod-1"] > counts["pod-2"] > counts["pod-3"] > counts["pod-4"] > 0
