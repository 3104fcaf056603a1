"""What is told of endpoints that are set aside: that they are, and that they are back."""

import dataclasses

import pytest

from cache.endpoints import Endpoint
from routing.aside import FAILURES, LONGEST_SECONDS, SetAside
from tests.fakes import Clock, endpoints, snapshot

POOL = endpoints(3)
ONE, TWO, THREE = POOL


class Listener:
    """A set-aside list that writes down what it tells."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, bool]] = []
        self.aside = SetAside(self.clock, tell=self._hear)

    def _hear(self, endpoint: Endpoint, aside: bool) -> None:
        self.told.append((endpoint.name, aside))

    def fail(self, times: int = FAILURES) -> None:
        for _ in range(times):
            self.aside.failed(ONE, POOL)


@pytest.fixture
def listener() -> Listener:
    listening = Listener()
    listening.fail()
    return listening


def test_it_is_told_once_that_an_endpoint_is_set_aside(listener: Listener) -> None:
    for _ in range(3):
        listener.clock.now += LONGEST_SECONDS + 1
        listener.fail(1)
    assert listener.told == [("pod-1", True)]


def test_failures_that_set_nothing_aside_are_not_told() -> None:
    listener = Listener()
    listener.fail(FAILURES - 1)
    listener.aside.succeeded(ONE)
    assert listener.told == []


def test_it_is_back_when_it_answers(listener: Listener) -> None:
    listener.aside.succeeded(ONE)
    listener.aside.succeeded(ONE)
    assert listener.told == [("pod-1", True), ("pod-1", False)]


def test_it_is_back_when_its_entry_changes_and_is_ready(listener: Listener) -> None:
    changed = dataclasses.replace(ONE, zone="elsewhere")
    listener.aside.observe(snapshot(m=[changed, TWO, THREE]))
    assert listener.told == [("pod-1", True), ("pod-1", False)]


def test_one_that_is_gone_or_terminating_is_not_back(listener: Listener) -> None:
    leaving = dataclasses.replace(ONE, terminating=True, routable=False)
    listener.aside.observe(snapshot(m=[leaving, TWO, THREE]))
    assert listener.told == [("pod-1", True)]
