"""Jobs run on threads that are there already, and whatever happens in one, the thread stays."""

import logging
import threading

import pytest

from proxy.threads import Threads
from tests.harness import wait_for


def test_as_many_jobs_run_at_once_as_there_are_threads() -> None:
    threads = Threads(3)
    together = threading.Barrier(4)

    def wait() -> None:
        together.wait(5)

    for _ in range(3):
        threads.run(wait)
    together.wait(5)
    threads.shutdown()


def test_a_job_that_fails_costs_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    threads = Threads(1)
    done = threading.Event()

    def fail() -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, "gateway.server"):
        threads.run(fail)
        threads.run(done.set)
        assert done.wait(5)
    assert "a bug on a request's thread" in caplog.text
    threads.shutdown()


def test_at_the_end_what_came_before_is_done_and_no_thread_is_left() -> None:
    others = set(threading.enumerate())
    threads = Threads(5)

    def ours() -> set[threading.Thread]:
        return set(threading.enumerate()) - others

    assert len(ours()) == 5
    done: list[int] = []
    for number in range(50):
        threads.run(done.append, number)
    threads.shutdown()
    wait_for(lambda: not ours(), "all have ended")
    assert sorted(done) == list(range(50))
