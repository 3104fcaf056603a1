"""Deadlines are noticed soon after they have passed, and cost nothing before."""

import math

from proxy.deadlines import NEVER, STEP_SECONDS, Deadlines


class Watched:
    def __init__(self) -> None:
        self.deadline = math.inf
        self.slot = NEVER
        self._times = 0

    def expired(self) -> None:
        self._times += 1

    def times(self) -> int:
        return self._times


class Clock:
    def __init__(self) -> None:
        self.now = 500.1
        self.deadlines = Deadlines(lambda: self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.deadlines.expire()


def test_a_deadline_is_never_early_and_hardly_late() -> None:
    for tenths in range(1, 40):
        clock, one = Clock(), Watched()
        clock.deadlines.set(one, clock.now + tenths / 10)
        clock.pass_time(tenths / 10 - 0.001)
        assert not one.times()
        clock.pass_time(STEP_SECONDS + 0.002)
        assert one.times() == 1
        clock.pass_time(100)
        assert one.times() == 1


def test_a_deadline_can_be_put_off_as_often_as_one_likes() -> None:
    clock, one = Clock(), Watched()
    for _ in range(100):
        clock.deadlines.set(one, clock.now + 5)
        clock.pass_time(4)
    assert not one.times()
    clock.pass_time(1 + STEP_SECONDS)
    assert one.times() == 1


def test_a_deadline_can_be_brought_forward() -> None:
    clock, one = Clock(), Watched()
    clock.deadlines.set(one, clock.now + 75)
    clock.deadlines.set(one, clock.now + 10)
    clock.pass_time(10 + STEP_SECONDS)
    assert one.times() == 1
    clock.pass_time(100)
    assert one.times() == 1


def test_a_deadline_that_is_lifted_or_forgotten_does_not_come() -> None:
    clock, lifted, forgotten = Clock(), Watched(), Watched()
    for one in (lifted, forgotten):
        clock.deadlines.set(one, clock.now + 5)
    clock.deadlines.set(lifted, math.inf)
    clock.deadlines.forget(forgotten)
    clock.deadlines.forget(forgotten)
    clock.pass_time(100)
    assert not lifted.times()
    assert not forgotten.times()


def test_one_that_is_told_may_take_back_the_deadline_of_another() -> None:
    """Whichever comes first: the two are in the same slot, and a set has no order."""
    clock = Clock()

    class Pair(Watched):
        other: "Pair"

        def expired(self) -> None:
            super().expired()
            clock.deadlines.forget(self.other)

    one, two = Pair(), Pair()
    one.other, two.other = two, one
    for timed in (one, two):
        clock.deadlines.set(timed, clock.now + 1)
    clock.pass_time(1 + STEP_SECONDS)
    assert one.times() + two.times() == 1
    clock.deadlines.set(one, clock.now + 1)
    clock.pass_time(1 + STEP_SECONDS)
    assert one.times() + two.times() == 2


def test_a_deadline_in_the_past_comes_at_the_next_step() -> None:
    clock, one = Clock(), Watched()
    clock.deadlines.set(one, clock.now - 100)
    clock.pass_time(STEP_SECONDS)
    assert one.times() == 1


def test_a_long_sleep_is_caught_up_on() -> None:
    clock, many = Clock(), [Watched() for _ in range(100)]
    for number, one in enumerate(many):
        clock.deadlines.set(one, clock.now + number)
    clock.pass_time(10_000)
    assert [one.times() for one in many] == [1] * 100


def test_one_who_sleeps_until_the_next_deadline_hardly_misses_it() -> None:
    for tenths in range(1, 40):
        clock, one = Clock(), Watched()
        due = clock.now + tenths / 10
        clock.deadlines.set(one, due)
        while not one.times():
            clock.pass_time(clock.deadlines.wait(1.0) + 1e-6)
        assert due <= clock.now < due + STEP_SECONDS + 1e-3


def test_where_there_is_no_deadline_one_may_sleep_as_long_as_one_likes() -> None:
    clock, forgotten, later = Clock(), Watched(), Watched()
    assert clock.deadlines.wait(1.0) == 1.0
    clock.deadlines.set(forgotten, clock.now + 0.5)
    clock.deadlines.forget(forgotten)
    clock.deadlines.set(later, clock.now + 5.0)
    assert clock.deadlines.wait(1.0) == 1.0
