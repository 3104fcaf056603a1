"""As many requests have a place as there are places, and each gives back what it took."""

import threading
import time

from proxy.places import Place
from tests.harness import PATIENCE


def test_there_are_as_many_places_as_there_are() -> None:
    places = threading.BoundedSemaphore(2)
    first, second, third = (Place(places) for _ in range(3))
    assert first.take(0.0)
    assert second.take(0.0)
    assert not third.take(0.0)


def test_where_all_are_taken_one_is_refused_after_its_time() -> None:
    places = threading.BoundedSemaphore(1)
    assert Place(places).take(0.0)
    started = time.monotonic()
    assert not Place(places).take(0.01)
    assert 0.01 <= time.monotonic() - started < PATIENCE


def test_one_that_waits_gets_the_place_that_is_given_back() -> None:
    places = threading.BoundedSemaphore(1)
    first, second = Place(places), Place(places)
    assert first.take(0.0)
    taken: list[bool] = []
    waiting = threading.Thread(target=lambda: taken.append(second.take(PATIENCE)))
    waiting.start()
    first.close()
    waiting.join()
    assert taken == [True]


def test_closing_twice_gives_back_once() -> None:
    places = threading.Semaphore(1)
    one = Place(places)
    assert one.take(0.0)
    one.close()
    one.close()
    assert Place(places).take(0.0)
    assert not Place(places).take(0.0)


def test_one_that_took_none_gives_nothing_back() -> None:
    places = threading.Semaphore(1)
    assert Place(places).take(0.0)
    untried, refused = Place(places), Place(places)
    assert not refused.take(0.0)
    untried.close()
    refused.close()
    assert not Place(places).take(0.0)
