"""The retry budget: a share of the requests of a sliding window, and a few in any case."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.budget import RetryBudget
from tests.fakes import Clock
from tests.harness import PATIENCE


def retries_allowed(budget: RetryBudget) -> int:
    count = 0
    while budget.allows_retry():
        count += 1
        assert count < 10_000
    return count


@pytest.mark.parametrize(
    ("requests", "retries"),
    [(0, 3), (1, 3), (15, 3), (16, 3), (19, 3), (20, 4), (24, 4), (100, 20), (102, 20), (104, 20)],
)
def test_a_fifth_of_the_requests_may_be_retries_and_three_in_any_case(
    requests: int, retries: int
) -> None:
    budget = RetryBudget(Clock())
    for _ in range(requests):
        budget.request()
    assert retries_allowed(budget) == retries


def test_new_requests_bring_new_retries() -> None:
    budget = RetryBudget(Clock())
    for _ in range(20):
        budget.request()
    assert retries_allowed(budget) == 4
    for _ in range(5):
        budget.request()
    assert retries_allowed(budget) == 1


def test_what_has_left_the_window_counts_no_more() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    for _ in range(100):
        budget.request()
    clock.now += 9.9
    assert retries_allowed(budget) == 20
    clock.now += 1
    assert not budget.allows_retry(), "the requests are gone, their retries are not"
    clock.now += 10
    assert retries_allowed(budget) == 3


def test_the_window_slides_a_second_at_a_time() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    for _ in range(20):
        for _ in range(10):
            budget.request()
        clock.now += 1
    assert retries_allowed(budget) == int(0.2 * 10 * 9)  # nine whole seconds and this one


def test_a_long_silence_costs_no_memory_and_no_time() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    budget.request()
    clock.now += 1e9
    assert retries_allowed(budget) == 3


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=200))
def test_never_is_more_than_the_share_spent_in_the_window(moves: list[tuple[bool, float]]) -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    requests: list[int] = []
    retries: list[int] = []
    for is_request, pause in moves:
        clock.now += pause
        second = int(clock.now)
        if is_request:
            budget.request()
            requests.append(second)
        else:
            in_window = [sum(at > second - 10 for at in times) for times in (requests, retries)]
            allowed = in_window[1] + 1 <= max(3, 0.2 * in_window[0])
            assert budget.allows_retry() is allowed
            retries += [second] * allowed


def test_threads_that_ask_at_once_get_no_more_than_there_is() -> None:
    budget = RetryBudget(Clock())
    allowed: list[bool] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait(PATIENCE)
        for _ in range(100):
            budget.request()
        start.wait(PATIENCE)
        for _ in range(100):
            allowed.append(budget.allows_retry())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(allowed) == 800
    assert sum(allowed) == 160
