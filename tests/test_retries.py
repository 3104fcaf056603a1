"""The retry rules, as a table and over every sequence of failures."""

from itertools import product

import pytest

from cache.endpoints import Key
from routing.retries import Failure, RetryRules, Step
from tests.fakes import endpoint

A, B, C, D = (endpoint(number).key for number in range(1, 5))
NOTHING, STALE, DIED = Failure.NOTHING_SENT, Failure.STALE_CONNECTION, Failure.DIED
UNAVAILABLE, FINAL = Failure.UNAVAILABLE, Failure.FINAL
ELSEWHERE, RESEND, GIVE_UP = Step.ELSEWHERE, Step.RESEND, Step.GIVE_UP

History = list[tuple[Failure, Key, Step]]


def table(**cases: History) -> pytest.MarkDecorator:
    names = [name.replace("_", " ") for name in cases]
    return pytest.mark.parametrize("history", list(cases.values()), ids=names)


def play(rules: RetryRules, history: History) -> None:
    for number, (failure, at, expected) in enumerate(history):
        assert rules.after(failure, at) is expected, f"at step {number}"


@table(
    connect_failures_use_up_the_retries=[
        (NOTHING, A, ELSEWHERE),
        (NOTHING, B, ELSEWHERE),
        (NOTHING, C, GIVE_UP),
    ],
    a_503_is_tried_once_elsewhere=[(UNAVAILABLE, A, ELSEWHERE), (UNAVAILABLE, B, GIVE_UP)],
    a_503_between_refusals=[
        (NOTHING, A, ELSEWHERE),
        (UNAVAILABLE, B, ELSEWHERE),
        (NOTHING, C, ELSEWHERE),
        (UNAVAILABLE, D, GIVE_UP),
    ],
    a_death_is_replayed_once=[(DIED, A, ELSEWHERE), (DIED, B, GIVE_UP)],
    a_refusal_after_a_death_is_no_replay=[
        (DIED, A, ELSEWHERE),
        (NOTHING, B, ELSEWHERE),
        (DIED, C, GIVE_UP),
    ],
    a_503_after_a_death=[
        (DIED, A, ELSEWHERE),
        (UNAVAILABLE, B, ELSEWHERE),
        (DIED, C, GIVE_UP),
    ],
    an_idle_connection_is_replaced_once=[
        (STALE, A, RESEND),
        (DIED, A, ELSEWHERE),
        (STALE, B, GIVE_UP),
    ],
    the_fresh_one_is_refused=[(STALE, A, RESEND), (NOTHING, A, ELSEWHERE), (DIED, B, GIVE_UP)],
    the_fresh_one_gives_a_503=[
        (STALE, A, RESEND),
        (UNAVAILABLE, A, ELSEWHERE),
        (DIED, B, GIVE_UP),
    ],
    an_idle_connection_at_the_second_endpoint=[
        (DIED, A, ELSEWHERE),
        (STALE, B, RESEND),
        (DIED, B, GIVE_UP),
    ],
    nothing_follows_what_is_final=[(FINAL, A, GIVE_UP)],
    nor_after_other_failures=[(NOTHING, A, ELSEWHERE), (DIED, B, ELSEWHERE), (FINAL, C, GIVE_UP)],
)
def test_with_replay(history: History) -> None:
    play(RetryRules(retries=2, replay=True), history)


@table(
    a_death_is_the_end=[(DIED, A, GIVE_UP)],
    also_after_a_refusal=[(NOTHING, A, ELSEWHERE), (DIED, B, GIVE_UP)],
    also_after_a_503=[(UNAVAILABLE, A, ELSEWHERE), (DIED, B, GIVE_UP)],
    a_refusal_still_goes_elsewhere=[
        (NOTHING, A, ELSEWHERE),
        (NOTHING, B, ELSEWHERE),
        (NOTHING, C, GIVE_UP),
    ],
    an_idle_connection_is_replaced=[(STALE, A, RESEND), (DIED, A, GIVE_UP)],
    and_no_other_endpoint_sees_it_after_that=[(STALE, A, RESEND), (NOTHING, A, GIVE_UP)],
    not_even_after_a_503=[(STALE, A, RESEND), (UNAVAILABLE, A, GIVE_UP)],
)
def test_without_replay(history: History) -> None:
    play(RetryRules(retries=2, replay=False), history)


@pytest.mark.parametrize("retries", [0, 1, 5, 10])
def test_connect_failures_are_retried_as_often_as_allowed(retries: int) -> None:
    rules = RetryRules(retries=retries, replay=True)
    steps = [rules.after(NOTHING, endpoint(number).key) for number in range(retries + 1)]
    assert steps == [ELSEWHERE] * retries + [GIVE_UP]


@pytest.mark.parametrize(
    ("failures", "may"),
    [
        ([NOTHING], False),
        ([NOTHING, UNAVAILABLE], False),
        ([STALE], True),
        ([DIED], True),
        ([DIED, NOTHING], True),
    ],
)
def test_the_rules_know_whether_the_request_may_have_run(
    failures: list[Failure], may: bool
) -> None:
    rules = RetryRules(retries=2, replay=True)
    for failure, at in zip(failures, (A, B), strict=False):
        rules.after(failure, at)
    assert rules.may_have_run is may


def endpoints_that_may_have_run_it(rules: RetryRules, failures: tuple[Failure, ...]) -> list[Key]:
    """Play failures to the end, each "elsewhere" at a new endpoint."""
    number, suspects = 1, []
    for failure in failures:
        at = endpoint(number).key
        if failure in (DIED, STALE):
            suspects.append(at)
        step = rules.after(failure, at)
        assert step is not RESEND or failure is STALE
        if failure is FINAL:
            assert step is GIVE_UP
        if step is GIVE_UP:
            break
        number += step is ELSEWHERE
    return suspects


@pytest.mark.parametrize(("replay", "most"), [(True, 2), (False, 1)])
def test_whatever_fails_few_endpoints_ever_run_a_request(replay: bool, most: int) -> None:
    for failures in product(Failure, repeat=6):
        rules = RetryRules(retries=4, replay=replay)
        suspects = endpoints_that_may_have_run_it(rules, failures)
        assert len(set(suspects)) <= most, failures
        assert len(suspects) <= most + 1, "one resend at most"


@pytest.mark.parametrize("replay", [True, False])
def test_every_sequence_of_failures_comes_to_an_end(replay: bool) -> None:
    for failures in product((NOTHING, STALE, DIED, UNAVAILABLE), repeat=7):
        rules = RetryRules(retries=2, replay=replay)
        steps = [rules.after(failure, endpoint(n).key) for n, failure in enumerate(failures)]
        assert GIVE_UP in steps, failures
