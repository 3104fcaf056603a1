"""One request over several attempts: where it goes, what comes of it, and that nothing leaks."""

import random
from collections.abc import Callable
from contextlib import suppress
from itertools import product

import pytest

from cache.endpoints import Endpoint
from load.values import LoadStore
from proxy.errors import GatewayError
from proxy.failures import (
    ConnectFailed,
    ConnectionDied,
    ResponseBroken,
    ResponseInvalid,
    ResponseTimeout,
)
from proxy.forwarder import Answer, Forwarder
from proxy.framing import Head
from proxy.request import InferenceRequest
from proxy.steps import BLOCKING, Steps, carry_out
from proxy.stream import Stream
from proxy.transport import Reply
from routing.aside import SetAside
from routing.budget import RetryBudget
from routing.inflight import InFlight
from routing.router import ModelUnknown, NoReadyEndpoints, Router
from routing.view import Query
from tests.fakes import Clock, endpoint, endpoints, snapshot, store_of

REFUSED = ConnectFailed("refused", "refused")
STALE = ConnectionDied("closed", idle=True)
DIED = ConnectionDied("reset", idle=False)
BROKEN = ResponseBroken("reset", "within the head")
TIMEOUT = ResponseTimeout("timeout", "no response head within the limit")
INVALID = ResponseInvalid("protocol_error", "no HTTP")

#: What an attempt comes to: a status, or a failure.
Outcome = int | Exception


class FakeStream(Stream):
    """A body that only knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class FakeExchange:
    """Gives scripted outcomes, then a 200; remembers where they were tried, and how."""

    def __init__(self, in_flight: InFlight, *outcomes: Outcome) -> None:
        self._in_flight = in_flight
        self._outcomes = iter(outcomes)
        self.tried: list[str | None] = []
        self.fresh: list[bool] = []
        self.streams: list[FakeStream] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def exchange(
        self, endpoint: Endpoint, request: InferenceRequest, *, fresh: bool = False
    ) -> Steps[Reply]:
        yield BLOCKING
        assert self._in_flight.counts()[endpoint.key] == 1
        self.tried.append(endpoint.pod)
        self.fresh.append(fresh)
        self.meanwhile()
        outcome = next(self._outcomes, 200)
        if isinstance(outcome, Exception):
            raise outcome
        self.streams.append(FakeStream())
        return Reply(Head(1, outcome, "", ()), self.streams[-1])


class Setting:
    """A forwarder over real routing and a scripted transport. Pods are tried in their order."""

    def __init__(
        self, *outcomes: Outcome, pods: int = 4, retries: int = 2, replay: bool = True
    ) -> None:
        self.clock = Clock()
        self.store = store_of(self.clock, llama=endpoints(pods))
        self.in_flight = InFlight()
        self.aside = SetAside(self.clock)
        self.router = Router(
            self.store,
            self.in_flight,
            self.aside,
            LoadStore(self.clock),
            default_strategy="least-request",
            rng=First(),
        )
        self.transport = FakeExchange(self.in_flight, *outcomes)
        self.budget = RetryBudget(self.clock, minimum=100)
        self.forwarder = Forwarder(self.transport, self.budget, retries=retries, replay=replay)

    def forward(self, *, replayable: bool = True) -> Answer:
        request = InferenceRequest("POST", "/", (), {}, (), b"{}", replayable)
        return carry_out(
            self.forwarder.forward(request, self.router.candidates(Query("llama"), None))
        )

    def status(self) -> int:
        """Of the answer; checks that just its own place is held, and gives that back."""
        answer = self.forward()
        assert self.in_flight.counts() == {answer.lease.endpoint.key: 1}
        assert [stream.closed for stream in self.transport.streams[:-1]] == [1] * (
            len(self.transport.streams) - 1
        )
        status = answer.reply.head.status
        answer.close()
        self.check_nothing_is_held()
        return status

    def error(self, *, replayable: bool = True) -> str:
        with pytest.raises(GatewayError) as caught:
            self.forward(replayable=replayable)
        self.check_nothing_is_held()
        return caught.value.code

    def check_nothing_is_held(self) -> None:
        assert self.in_flight.counts() == {}
        assert all(stream.closed for stream in self.transport.streams)


class First(random.Random):
    """No randomness: the first of equals."""

    def random(self) -> float:
        return 0.0


@pytest.mark.parametrize("status", [200, 201, 302, 400, 404, 429, 500, 502, 504])
def test_any_answer_but_a_503_is_passed_on_at_once(status: int) -> None:
    setting = Setting(status)
    assert setting.status() == status
    assert setting.transport.tried == ["pod-1"]


#: Outcomes, what comes of them, and where the request was sent.
PATHS: list[tuple[tuple[Outcome, ...], int | str, list[int]]] = [
    ((REFUSED, 200), 200, [1, 2]),
    ((REFUSED, REFUSED, 200), 200, [1, 2, 3]),
    ((REFUSED, REFUSED, REFUSED), "upstream_unreachable", [1, 2, 3]),
    ((503, 200), 200, [1, 2]),
    ((503, 503), 503, [1, 2]),
    ((503, 400), 400, [1, 2]),
    ((503, REFUSED, 200), 200, [1, 2, 3]),
    ((REFUSED, 503, 200), 200, [1, 2, 3]),
    ((503, DIED, 200), 200, [1, 2, 3]),
    ((503, DIED, DIED), "upstream_reset", [1, 2, 3]),
    ((503, TIMEOUT), "upstream_timeout", [1, 2]),
    ((503, INVALID), "upstream_protocol_error", [1, 2]),
    ((503, BROKEN), "upstream_reset", [1, 2]),
    ((503, STALE, 200), 200, [1, 2, 2]),
    ((DIED, 200), 200, [1, 2]),
    ((DIED, DIED), "upstream_reset", [1, 2]),
    ((DIED, 503, 200), 200, [1, 2, 3]),
    ((DIED, REFUSED, 200), 200, [1, 2, 3]),
    ((DIED, REFUSED, REFUSED, REFUSED), "upstream_reset", [1, 2, 3, 4]),
    ((STALE, 200), 200, [1, 1]),
    ((STALE, STALE, 200), 200, [1, 1, 2]),
    ((STALE, DIED, 200), 200, [1, 1, 2]),
    ((STALE, DIED, DIED), "upstream_reset", [1, 1, 2]),
    ((STALE, REFUSED, 200), 200, [1, 1, 2]),
    ((STALE, 503, 200), 200, [1, 1, 2]),
    ((STALE, TIMEOUT), "upstream_timeout", [1, 1]),
    ((REFUSED, STALE, 200), 200, [1, 2, 2]),
    ((TIMEOUT,), "upstream_timeout", [1]),
    ((INVALID,), "upstream_protocol_error", [1]),
    ((BROKEN,), "upstream_reset", [1]),
]


@pytest.mark.parametrize(("outcomes", "result", "tried"), PATHS)
def test_each_path_ends_as_promised(
    outcomes: tuple[Outcome, ...], result: int | str, tried: list[int]
) -> None:
    setting = Setting(*outcomes)
    found: int | str = setting.status() if isinstance(result, int) else setting.error()
    assert found == result
    assert setting.transport.tried == [f"pod-{number}" for number in tried]


@pytest.mark.parametrize(
    ("outcomes", "code", "tried"),
    [
        ((DIED,), "upstream_reset", 1),
        ((REFUSED, DIED), "upstream_reset", 2),
        ((503, DIED), "upstream_reset", 2),
        ((STALE, DIED), "upstream_reset", 2),
        ((STALE, REFUSED), "upstream_reset", 2),
    ],
)
@pytest.mark.parametrize(("replay", "replayable"), [(False, True), (True, False), (False, False)])
def test_what_must_not_run_twice_is_not_replayed(
    outcomes: tuple[Outcome, ...], code: str, tried: int, replay: bool, replayable: bool
) -> None:
    setting = Setting(*outcomes, replay=replay)
    assert setting.error(replayable=replayable) == code
    assert len(setting.transport.tried) == tried


def test_a_503_that_is_the_last_word_passes_though_the_next_refused() -> None:
    """The refusal sent nothing, and the endpoint's own answer says more than ours."""
    setting = Setting(503, REFUSED, pods=2)
    answer = setting.forward()
    assert answer.reply.head.status == 503
    assert answer.lease.endpoint.pod == "pod-1"
    assert setting.in_flight.counts() == {endpoint(1).key: 1}
    assert setting.transport.streams[0].closed == 0
    answer.close()
    setting.check_nothing_is_held()


@pytest.mark.parametrize(
    ("outcome", "result"),
    [(503, 503), (REFUSED, "upstream_unreachable"), (DIED, "upstream_reset")],
)
def test_the_only_endpoint_is_tried_once(outcome: Outcome, result: int | str) -> None:
    setting = Setting(outcome, pods=1)
    found: int | str = setting.status() if isinstance(result, int) else setting.error()
    assert found == result
    assert setting.transport.tried == ["pod-1"]


def test_only_a_resend_avoids_connections_that_idled() -> None:
    setting = Setting(REFUSED, STALE, DIED, 200)
    setting.status()
    assert setting.transport.fresh == [False, False, True, False]


def test_no_retries_means_none_after_a_refusal() -> None:
    setting = Setting(REFUSED, retries=0)
    assert setting.error() == "upstream_unreachable"


def test_a_model_that_vanished_before_the_first_attempt_is_told_as_that() -> None:
    setting = Setting()
    candidates = setting.router.candidates(Query("llama"), None)
    setting.store.put(snapshot(setting.clock.now))
    request = InferenceRequest("POST", "/", (), {}, (), b"{}", True)
    with pytest.raises(ModelUnknown):
        carry_out(setting.forwarder.forward(request, candidates))
    setting.store.put(snapshot(setting.clock.now, llama=()))
    with pytest.raises(NoReadyEndpoints):
        carry_out(setting.forwarder.forward(request, candidates))
    setting.check_nothing_is_held()


def test_endpoints_that_terminate_meanwhile_are_not_tried() -> None:
    setting = Setting(REFUSED, pods=2)
    gone = snapshot(setting.clock.now, llama=[endpoint(1), endpoint(2, terminating=True)])
    setting.transport.meanwhile = lambda: setting.store.put(gone)
    assert setting.error() == "upstream_unreachable"
    assert setting.transport.tried == ["pod-1"]


def test_a_bug_in_the_transport_holds_nothing() -> None:
    setting = Setting(503, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        setting.forward()
    setting.check_nothing_is_held()


def test_an_answer_that_is_closed_twice_gives_its_place_back_once() -> None:
    setting = Setting(200, 200)
    first, second = setting.forward(), setting.forward()
    first.close()
    first.close()
    assert setting.in_flight.counts() == {second.lease.endpoint.key: 1}
    second.close()
    setting.check_nothing_is_held()


def test_an_answer_gives_its_place_back_also_when_its_stream_fails_to_close() -> None:
    class Stuck(FakeStream):
        def close(self) -> None:
            raise OSError

    setting = Setting()
    lease = setting.router.candidates(Query("llama"), None).take()
    assert lease is not None
    with pytest.raises(OSError):
        Answer(Reply(Head(1, 200, "", ()), Stuck()), lease, 1).close()
    assert setting.in_flight.counts() == {}


def test_whatever_happens_nothing_is_held_and_few_see_a_request_that_may_have_run() -> None:
    every: list[Outcome] = [REFUSED, STALE, DIED, 503, TIMEOUT, 200]
    for outcomes in product(every, repeat=4):
        setting = Setting(*outcomes, pods=6)
        with suppress(GatewayError):
            setting.forward().close()
        setting.check_nothing_is_held()
        tried = setting.transport.tried
        ran = zip(tried, (*outcomes, 200), strict=False)
        may_have_run = {pod for pod, outcome in ran if outcome not in (REFUSED, 503)}
        assert len(may_have_run) <= 2, outcomes
        assert len(tried) <= 6, outcomes
