"""Draining: begun once, over when the grace is, and then everything is ended once."""

import threading

from proxy.drain import Drain
from tests.harness import PATIENCE


class Ends:
    """Counts how often it was the end."""

    def __init__(self) -> None:
        self.count = 0
        self.came = threading.Event()
        self.over_before: bool | None = None
        self.drain: Drain | None = None

    def __call__(self) -> None:
        self.count += 1
        self.over_before = self.drain.over if self.drain else None
        self.came.set()


def test_nothing_has_begun_at_first() -> None:
    ends = Ends()
    drain = Drain(0, ends)
    assert not drain.begun
    assert not drain.over
    assert not ends.came.wait(0.05), "the grace counts from the beginning of the drain"


def test_while_the_grace_lasts_nothing_is_ended() -> None:
    ends = Ends()
    drain = Drain(3600, ends)
    drain.begin()
    assert drain.begun
    assert not drain.over
    assert ends.count == 0


def test_when_the_grace_is_over_what_runs_is_ended() -> None:
    ends = Ends()
    drain = Drain(0.05, ends)
    ends.drain = drain
    drain.begin()
    assert ends.came.wait(PATIENCE)
    assert drain.over
    assert ends.over_before is True, "whoever is ended must see why"


def test_a_second_signal_changes_nothing() -> None:
    ends = Ends()
    drain = Drain(0.05, ends)
    drain.begin()
    drain.begin()
    assert ends.came.wait(PATIENCE)
    drain.begin()
    assert ends.count == 1


def test_signals_that_come_at_once_begin_one_drain() -> None:
    ends = Ends()
    drain = Drain(0, ends)
    start = threading.Barrier(8)
    failed: list[RuntimeError] = []

    def begin() -> None:
        start.wait(PATIENCE)
        try:
            drain.begin()
        except RuntimeError as error:
            failed.append(error)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert ends.came.wait(PATIENCE)
    assert not failed
    assert ends.count == 1


def test_a_drain_that_has_not_ended_keeps_no_process_alive() -> None:
    before = set(threading.enumerate())
    Drain(3600, Ends()).begin()
    timers = set(threading.enumerate()) - before
    assert len(timers) == 1
    assert all(timer.daemon for timer in timers)
