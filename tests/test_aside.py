"""Endpoints that fail on transport level are set aside, the last one never."""

import dataclasses

import pytest

from cache.endpoints import Endpoint
from routing.aside import FAILURES, FIRST_SECONDS, LONGEST_SECONDS, TRIAL_SECONDS, SetAside
from tests.fakes import Clock, endpoint, endpoints, snapshot

POOL = endpoints(3)
ONE, TWO, THREE = POOL


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def aside(clock: Clock) -> SetAside:
    return SetAside(clock)


def fail(
    aside: SetAside, which: Endpoint, pool: tuple[Endpoint, ...] = POOL, times: int = FAILURES
) -> None:
    for _ in range(times):
        aside.failed(which, pool)


def test_too_few_failures_change_nothing(aside: SetAside) -> None:
    fail(aside, ONE, times=FAILURES - 1)
    assert list(aside.free(POOL)) == list(POOL)
    assert aside.set_aside() == []


def test_several_failures_in_a_row_set_an_endpoint_aside(aside: SetAside) -> None:
    fail(aside, ONE)
    assert list(aside.free(POOL)) == [TWO, THREE]
    assert aside.set_aside() == [ONE.key]


def test_a_success_between_failures_breaks_the_row(aside: SetAside) -> None:
    fail(aside, ONE, times=FAILURES - 1)
    aside.succeeded(ONE)
    fail(aside, ONE, times=FAILURES - 1)
    assert aside.set_aside() == []


def test_failures_of_different_endpoints_make_no_row(aside: SetAside) -> None:
    for which in POOL:
        fail(aside, which, times=FAILURES - 1)
    assert aside.set_aside() == []


def test_it_comes_back_when_its_time_is_over(aside: SetAside, clock: Clock) -> None:
    fail(aside, ONE)
    clock.now += FIRST_SECONDS - 0.01
    assert aside.set_aside() == [ONE.key]
    clock.now += 0.01
    assert aside.set_aside() == []
    assert list(aside.free(POOL)) == list(POOL)


def test_each_further_time_is_twice_as_long_up_to_the_longest(
    aside: SetAside, clock: Clock
) -> None:
    times = []
    fail(aside, ONE, times=FAILURES - 1)
    for _ in range(8):
        fail(aside, ONE, times=1)  # one failure is enough once it is known to fail
        began = clock.now
        while aside.set_aside():
            clock.now += 0.25
        times.append(clock.now - began)
    assert times == [1, 2, 4, 8, 16, LONGEST_SECONDS, LONGEST_SECONDS, LONGEST_SECONDS]


def test_after_a_success_the_times_begin_short_again(aside: SetAside, clock: Clock) -> None:
    fail(aside, ONE)
    clock.now += FIRST_SECONDS
    fail(aside, ONE, times=1)
    aside.succeeded(ONE)
    fail(aside, ONE)
    clock.now += FIRST_SECONDS
    assert aside.set_aside() == []


def test_failures_of_requests_still_running_do_not_prolong_it(
    aside: SetAside, clock: Clock
) -> None:
    fail(aside, ONE, times=10 * FAILURES)
    clock.now += FIRST_SECONDS
    assert aside.set_aside() == []


@pytest.mark.parametrize("pool", [(), (ONE,)])
def test_the_only_endpoint_is_never_set_aside(aside: SetAside, pool: tuple[Endpoint, ...]) -> None:
    fail(aside, ONE, pool, times=20)
    assert aside.set_aside() == []
    assert list(aside.free((ONE,))) == [ONE]


def test_the_last_one_left_is_never_set_aside(aside: SetAside) -> None:
    for which in POOL:
        fail(aside, which, times=20)
    assert aside.set_aside() == [ONE.key, TWO.key]
    assert list(aside.free(POOL)) == [THREE]


def test_among_endpoints_that_are_all_set_aside_each_may_be_tried(aside: SetAside) -> None:
    fail(aside, ONE)
    assert list(aside.free((ONE,))) == [ONE]


def test_one_that_has_become_the_last_comes_back(aside: SetAside) -> None:
    fail(aside, ONE)
    fail(aside, TWO)
    aside.observe(snapshot(llama=[ONE, TWO, endpoint(3, terminating=True)]))
    assert aside.set_aside() == []


def test_a_model_s_last_endpoint_is_its_last_also_when_other_models_have_more(
    aside: SetAside,
) -> None:
    fail(aside, ONE)
    aside.observe(snapshot(llama=[ONE], qwen=[TWO, THREE]))
    assert aside.set_aside() == []


@pytest.mark.parametrize(
    "changed",
    [
        dataclasses.replace(ONE, ready=False, routable=False),
        dataclasses.replace(ONE, terminating=True, routable=False),
        dataclasses.replace(ONE, pod="another"),
    ],
)
def test_a_change_of_its_slice_entry_brings_it_back(aside: SetAside, changed: Endpoint) -> None:
    fail(aside, ONE)
    aside.observe(snapshot(llama=[changed, TWO, THREE]))
    assert aside.set_aside() == []
    fail(aside, changed, times=FAILURES - 1)
    assert aside.set_aside() == [], "the count begins anew too"


def test_an_endpoint_that_is_gone_is_forgotten(aside: SetAside) -> None:
    fail(aside, ONE)
    aside.observe(snapshot(llama=[TWO, THREE]))
    aside.observe(snapshot(llama=POOL))
    assert aside.set_aside() == []


def test_an_unchanged_entry_stays_set_aside(aside: SetAside) -> None:
    fail(aside, ONE)
    aside.observe(snapshot(llama=[*POOL, endpoint(4)]))
    assert aside.set_aside() == [ONE.key]


def test_an_address_that_two_models_share_stays_set_aside(aside: SetAside) -> None:
    fail(aside, ONE)
    other = dataclasses.replace(ONE, pod=None)
    aside.observe(snapshot(llama=POOL, qwen=[other, TWO]))
    assert aside.set_aside() == [ONE.key]


def test_one_that_comes_back_gets_one_request_until_that_is_over(
    aside: SetAside, clock: Clock
) -> None:
    fail(aside, ONE)
    clock.now += FIRST_SECONDS
    assert list(aside.free(POOL)) == list(POOL)
    aside.chosen(ONE)
    assert list(aside.free(POOL)) == [TWO, THREE]
    assert list(aside.free([ONE])) == [ONE], "better than none"
    aside.succeeded(ONE)
    assert list(aside.free(POOL)) == list(POOL)


def test_a_trial_that_fails_sets_it_aside_again(aside: SetAside, clock: Clock) -> None:
    fail(aside, ONE)
    clock.now += FIRST_SECONDS
    aside.chosen(ONE)
    fail(aside, ONE, times=1)
    assert aside.set_aside() == [ONE.key]
    clock.now += 2 * FIRST_SECONDS
    assert list(aside.free(POOL)) == list(POOL)


def test_a_trial_that_nobody_hears_of_is_over_after_a_while(aside: SetAside, clock: Clock) -> None:
    fail(aside, ONE)
    clock.now += FIRST_SECONDS
    aside.chosen(ONE)
    clock.now += TRIAL_SECONDS
    assert list(aside.free(POOL)) == list(POOL)


def test_one_that_was_never_set_aside_is_not_on_trial(aside: SetAside) -> None:
    fail(aside, ONE, times=FAILURES - 1)
    aside.chosen(ONE)
    assert list(aside.free(POOL)) == list(POOL)


def test_what_is_held_against_others_concerns_no_pool() -> None:
    aside = SetAside(Clock())
    aside.failed(ONE, POOL)
    assert aside.concerns(frozenset({ONE.key, TWO.key}))
    assert not aside.concerns(frozenset({TWO.key, THREE.key}))
    aside.succeeded(ONE)
    assert not aside.concerns(frozenset({ONE.key}))


def test_who_is_free_is_found_once_and_holds_until_something_changes(
    aside: SetAside, clock: Clock
) -> None:
    fail(aside, ONE)
    free = aside.free(POOL)
    assert aside.free(POOL) is free
    assert aside.free(endpoints(3)) == (TWO, THREE), "of other endpoints it says nothing"
    clock.now += FIRST_SECONDS
    assert aside.free(POOL) is POOL, "its time is over"
    aside.chosen(ONE)
    assert list(aside.free(POOL)) == [TWO, THREE], "it is being tried"
    clock.now += TRIAL_SECONDS
    assert aside.free(POOL) is POOL, "the trial is over"
    fail(aside, TWO)
    assert list(aside.free(POOL)) == [ONE, THREE]
    aside.succeeded(TWO)
    assert aside.free(POOL) is POOL
    fail(aside, ONE)
    assert list(aside.free(POOL)) == [TWO, THREE]
    aside.observe(snapshot(llama=[TWO, THREE]))
    assert aside.free(POOL) is POOL


def test_endpoints_tried_before_make_no_difference_to_what_holds_for_all(aside: SetAside) -> None:
    fail(aside, ONE)
    free = aside.free(POOL)
    assert list(aside.free([ONE, THREE])) == [THREE]
    assert aside.free(POOL) is free
