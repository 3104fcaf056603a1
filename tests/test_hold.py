"""A request that finds no endpoint waits for one: so long, in so few places, and not unseen."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cache.store import EndpointsStale, EndpointsUnknown
from metrics import HELD_REQUESTS, HOLDS
from proxy.caller import Caller
from proxy.failures import ClientLeft
from proxy.hold import Hold
from proxy.steps import BLOCKING, carry_out
from routing.router import ModelUnknown, NoReadyEndpoints
from tests.harness import PATIENCE, wait_for


class Cluster:
    """What requests ask for an endpoint: it gives one, or raises why there is none."""

    def __init__(self, why: Exception | None = None) -> None:
        self.why = why or NoReadyEndpoints("model 'm': 0 endpoints")
        self.ready = False
        self.asked = 0

    def choose(self) -> str:
        self.asked += 1
        if self.ready:
            return "pod"
        raise self.why


class Request:
    """One request on a thread of its own; `outcome` is what it got, or what was raised."""

    def __init__(self, hold: Hold, cluster: Cluster, model: str = "m") -> None:
        self.caller = Caller()
        self.outcome: Any = None
        self.waited = -1.0
        self._thread = threading.Thread(target=self._run, args=(hold, cluster, model))
        self._thread.start()

    def held(self, seconds: float) -> None:
        self.waited = seconds

    def _run(self, hold: Hold, cluster: Cluster, model: str) -> None:
        try:
            self.outcome = carry_out(hold.until_ready(model, cluster.choose, self.caller, self))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.outcome = error

    def end(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.outcome


def held() -> float:
    return float(next(iter(HELD_REQUESTS.collect())).samples[0].value)


def results() -> dict[str, float]:
    samples = next(iter(HOLDS.collect())).samples
    return {s.labels["result"]: s.value for s in samples if s.name.endswith("_total")}


@pytest.fixture
def counted() -> Iterator[Callable[[], dict[str, float]]]:
    """What was counted since the test began; nobody may be left waiting at its end."""
    before, waiting = results(), held()
    yield lambda: {k: v - before.get(k, 0) for k, v in results().items() if v != before.get(k, 0)}
    assert held() == waiting


Counted = Callable[[], dict[str, float]]


def test_where_an_endpoint_is_ready_nobody_waits_or_is_counted(counted: Counted) -> None:
    cluster = Cluster()
    cluster.ready = True
    steps = Hold(60, 1).until_ready("m", cluster.choose, Caller(), Request(Hold(0, 1), cluster))
    with pytest.raises(StopIteration) as done:
        next(steps)
    assert done.value.value == "pod"
    assert counted() == {}


@pytest.mark.parametrize("why", [NoReadyEndpoints("none"), EndpointsUnknown("no list")])
def test_without_a_time_to_wait_the_reason_is_told_at_once(why: Exception) -> None:
    cluster = Cluster(why)
    assert Request(Hold(0, 64), cluster).end() is why
    assert cluster.asked == 1


@pytest.mark.parametrize("why", [ModelUnknown("m"), EndpointsStale("old"), ZeroDivisionError()])
def test_what_time_does_not_heal_is_told_at_once(why: Exception, counted: Counted) -> None:
    cluster = Cluster(why)
    assert Request(Hold(60, 64), cluster).end() is why
    assert cluster.asked == 1
    assert counted() == {}


@pytest.mark.parametrize("why", [NoReadyEndpoints("none"), EndpointsUnknown("no list")])
def test_a_change_that_brings_an_endpoint_releases_all_who_wait(
    why: Exception, counted: Counted
) -> None:
    hold, cluster = Hold(600, 64), Cluster(why)
    before = held()
    requests = [Request(hold, cluster) for _ in range(8)]
    wait_for(lambda: held() == before + 8, "all wait")
    hold.changed()
    wait_for(lambda: cluster.asked >= 24, "each has looked again in vain")
    cluster.ready = True
    hold.changed()
    assert [request.end() for request in requests] == ["pod"] * 8
    assert counted() == {"ready": 8}
    assert all(0 <= request.waited < PATIENCE for request in requests)


def test_nobody_looks_again_unless_something_has_changed() -> None:
    hold, cluster = Hold(600, 64), Cluster()
    request = Request(hold, cluster)
    wait_for(lambda: cluster.asked == 2, "it waits")
    hold.changed()
    wait_for(lambda: cluster.asked == 3, "it looks once more for the change")
    hold.end()
    request.end()
    assert cluster.asked == 4


def test_who_waits_must_not_do_so_on_a_loop() -> None:
    hold, cluster = Hold(60, 1), Cluster()
    steps = hold.until_ready("m", cluster.choose, Caller(), Request(Hold(0, 1), Cluster()))
    assert next(steps) is BLOCKING
    cluster.ready = True
    with pytest.raises(StopIteration) as done:
        next(steps)
    assert done.value.value == "pod"


@pytest.mark.parametrize("why", [NoReadyEndpoints("none"), EndpointsUnknown("no list")])
def test_when_the_time_is_over_the_reason_says_how_long_it_was(
    why: Exception, counted: Counted
) -> None:
    request = Request(Hold(0.3, 64), Cluster(why))
    error = request.end()
    assert type(error) is type(why)
    assert str(error) == f"{why}, after {request.waited:.1f} s of waiting for one"
    assert 0.3 <= request.waited < PATIENCE
    assert counted() == {"timeout": 1}


def test_changes_do_not_lengthen_the_time() -> None:
    hold, cluster = Hold(0.5, 64), Cluster()
    request = Request(hold, cluster)

    def over() -> bool:
        hold.changed()
        return request.outcome is not None

    wait_for(over, "it is told")
    assert isinstance(request.end(), NoReadyEndpoints)
    assert 0.5 <= request.waited < PATIENCE


def test_one_more_than_may_wait_is_told_so_at_once(counted: Counted) -> None:
    hold, cluster = Hold(600, 4), Cluster()
    before = held()
    first, second = Request(hold, cluster), Request(hold, cluster)
    wait_for(lambda: held() == before + 2, "two wait")
    error = Request(hold, cluster).end()
    assert isinstance(error, NoReadyEndpoints)
    assert str(error) == f"{cluster.why}, and 2 requests wait for an endpoint already"
    assert counted() == {"full": 1}
    first.caller.depart()
    assert isinstance(first.end(), ClientLeft)
    third = Request(hold, cluster)
    wait_for(lambda: held() == before + 2, "its place is taken again")
    cluster.ready = True
    hold.changed()
    assert (second.end(), third.end()) == ("pod", "pod")
    assert counted() == {"full": 1, "left": 1, "ready": 2}


def test_no_model_takes_the_places_that_another_needs(counted: Counted) -> None:
    hold, cluster = Hold(600, 8), Cluster()
    before = held()
    waiting = []
    for model, places in [("a", 4), ("b", 2), ("c", 1), ("d", 1)]:
        for _ in range(places):
            waiting.append(Request(hold, cluster, model))
            wait_for(lambda: held() == before + len(waiting), "it waits")
        if model != "c":  # beside which one place is free
            assert isinstance(Request(hold, cluster, model).end(), NoReadyEndpoints)
    assert counted() == {"full": 3}
    error = Request(hold, cluster, "e").end()
    assert str(error) == f"{cluster.why}, and 8 requests wait for an endpoint already"
    cluster.ready = True
    hold.changed()
    assert {request.end() for request in waiting} == {"pod"}


def test_a_client_that_has_left_already_does_not_wait(counted: Counted) -> None:
    hold = Hold(600, 1)
    caller = Caller()
    caller.depart()
    steps = hold.until_ready("m", Cluster().choose, caller, Request(Hold(0, 1), Cluster()))
    with pytest.raises(ClientLeft):
        carry_out(steps)
    assert counted() == {"left": 1}


@pytest.mark.parametrize(
    ("why", "result"),
    [
        (ModelUnknown("the model 'm' does not exist"), "model_gone"),
        (EndpointsStale("old"), "stale"),
        (ZeroDivisionError(), "internal_error"),
    ],
)
def test_what_ends_a_wait_before_its_time_has_its_own_name(
    why: Exception, result: str, counted: Counted
) -> None:
    hold, cluster = Hold(600, 1), Cluster()
    request = Request(hold, cluster)
    wait_for(lambda: cluster.asked == 2, "it waits")
    cluster.why = why
    hold.changed()
    assert request.end() is why
    assert counted() == {result: 1}


def test_at_the_end_nobody_waits_any_more(counted: Counted) -> None:
    hold, cluster = Hold(600, 64), Cluster()
    waiting = Request(hold, cluster)
    wait_for(lambda: cluster.asked == 2, "it waits")
    hold.end()
    assert isinstance(waiting.end(), NoReadyEndpoints)
    assert isinstance(Request(hold, cluster).end(), NoReadyEndpoints)
    assert counted() == {"draining": 2}
    cluster.ready = True
    assert Request(hold, cluster).end() == "pod"


def test_a_change_is_never_missed() -> None:
    """The endpoint becomes ready at any moment of a request's first look around."""
    hold = Hold(600, 64)
    for _ in range(300):
        cluster = Cluster()
        request = Request(hold, cluster)
        cluster.ready = True
        hold.changed()
        assert request.end() == "pod"
