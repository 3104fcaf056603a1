"""A request's thread learns of its client's departure, exactly as long as it wants to."""

import threading

from proxy.caller import Caller
from tests.harness import wait_for


def test_a_departure_is_told_once() -> None:
    caller, told = Caller(), []
    caller.on_departure(lambda: told.append(1))
    assert told == []
    caller.depart()
    caller.depart()
    assert caller.departed
    assert told == [1]


def test_who_asks_too_late_is_told_at_once() -> None:
    caller, told = Caller(), []
    caller.depart()
    caller.on_departure(lambda: told.append(1))
    assert told == [1]


def test_the_last_callback_counts_and_none_takes_it_back() -> None:
    caller, told = Caller(), []
    caller.on_departure(lambda: told.append(1))
    caller.on_departure(lambda: told.append(2))
    caller.on_departure(None)
    caller.depart()
    assert told == []
    caller.on_departure(lambda: told.append(3))
    assert told == [3]


def test_a_callback_that_was_taken_back_does_not_run_any_more() -> None:
    """It would end a connection that belongs to another request by then."""
    caller = Caller()
    running, may_end, taken_back = threading.Event(), threading.Event(), threading.Event()

    def callback() -> None:
        running.set()
        assert may_end.wait(5)
        assert not taken_back.is_set()

    def take_back() -> None:
        caller.on_departure(None)
        taken_back.set()

    caller.on_departure(callback)
    loop = threading.Thread(target=caller.depart)
    loop.start()
    assert running.wait(5)
    thread = threading.Thread(target=take_back)
    thread.start()
    may_end.set()
    wait_for(taken_back.is_set, "it is taken back after it ran")
    for one in (loop, thread):
        one.join(5)
