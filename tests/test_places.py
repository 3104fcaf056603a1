"""As many requests have a place as there are places, and each gives back what it took."""

import threading
import time

from proxy.places import Place, Places
from proxy.steps import BLOCKING, carry_out
from tests.harness import PATIENCE


def full() -> tuple[Places, Place]:
    """A place that is taken, and there is no other."""
    places = Places(1)
    taken = Place(places)
    assert taken.take()
    return places, taken


def test_there_are_as_many_places_as_there_are() -> None:
    places = Places(2)
    assert [Place(places).take() for _ in range(3)] == [True, True, False]


def test_where_all_are_taken_one_is_refused_after_a_moment() -> None:
    places, _ = full()
    started = time.monotonic()
    assert not carry_out(Place(places).wait())
    assert 0.004 <= time.monotonic() - started < PATIENCE


def test_one_that_waits_gets_the_place_that_is_given_back() -> None:
    places, first = full()
    second = Place(places)
    steps = second.wait()
    assert next(steps) is BLOCKING
    first.close()
    assert carry_out(steps)
    assert not Place(places).take()
    second.close()
    assert Place(places).take()


def test_a_crowd_is_refused_at_once_and_on_the_loop() -> None:
    places, first = full()
    waiting = [steps for _ in range(20) if next(steps := Place(places).wait(), None) is BLOCKING]
    assert 0 < len(waiting) < 10
    for steps in waiting[1:]:
        steps.close()  # given up
    first.close()
    assert carry_out(waiting[0])
    steps = Place(places).wait()
    assert next(steps) is BLOCKING, "there is room in the line again"


def test_a_place_may_come_back_from_another_thread() -> None:
    places, first = full()
    taken: list[bool] = []

    def ask() -> None:
        while not taken:
            second = Place(places)
            if carry_out(second.wait()):
                taken.append(True)

    waiting = threading.Thread(target=ask)
    waiting.start()
    first.close()
    waiting.join()
    assert taken == [True]


def test_closing_twice_gives_back_once() -> None:
    places, one = full()
    one.close()
    one.close()
    assert Place(places).take()
    assert not Place(places).take()


def test_one_that_took_none_gives_nothing_back() -> None:
    places, _ = full()
    untried, refused = Place(places), Place(places)
    assert not refused.take()
    untried.close()
    refused.close()
    assert not Place(places).take()
