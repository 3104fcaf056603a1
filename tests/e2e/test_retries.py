"""What is tried again, where, and what never is."""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from simulator.fleet import Pod
from simulator.model import Model
from simulator.pod import Engine
from tests.canned import CannedPod
from tests.e2e.expect import API, OVERLOADED, Expected, check_error, counted_once
from tests.e2e.place import Place, place, process_of, seen_by
from tests.harness import GatewayProcess, wait_for
from tests.wire import RawAnswer, behaving, chat_body, post

DIED = Expected(502, "upstream_reset", API)
UNREACHABLE = Expected(503, "upstream_unreachable", OVERLOADED)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Round-robin, so that two requests meet two pods; a budget that the tests don't exhaust."""
    with place(
        tmp_path_factory.mktemp("retries"),
        strategy="round-robin",
        connect_timeout="0.5",
        first_byte_timeout="2",
    ) as here:
        here.deploy("steady")
        yield here


@pytest.fixture(autouse=True)
def with_budget(here: Place) -> None:
    """Enough requests that every retry of a test is within the budget."""
    for _ in range(40):
        assert here.exchange(post(chat_body("steady", max_tokens=1))).status == 200


@contextmanager
def retried(gateway: GatewayProcess, **expected: int) -> Iterator[None]:
    """Check what is tried again in this block, by reason."""
    before = gateway.counted("gateway_retries_total", "reason")
    yield
    after = gateway.counted("gateway_retries_total", "reason")
    assert Counter(after) - Counter(before) == expected


@contextmanager
def unseen(gateway: GatewayProcess, **failures: int) -> Iterator[None]:
    """Check which failures of endpoints, by kind, happen in this block: no client got an error."""
    before = gateway.counted("gateway_upstream_failures_total", "kind")
    errors = gateway.metric("gateway_errors_total")
    yield
    after = gateway.counted("gateway_upstream_failures_total", "kind")
    assert Counter(after) - Counter(before) == failures
    assert gateway.metric("gateway_errors_total") == errors


def ask(here: Place, model: Model, *headers: str, **fields: object) -> RawAnswer:
    return here.exchange(post(chat_body(model.name, **fields), *headers))


#: Closes its connections at once, so that each request comes on a fresh one.
ABRUPT = Engine(tokens=1, token_seconds=0.0, keep_alive_seconds=0.01)


def until_it_meets(here: Place, model: Model, pod: Pod) -> None:
    """Ask until the next turn is `pod`'s, on a fresh connection."""
    wait_for(lambda: ask(here, model).value("target-pod") != pod.name, "the turn is the pod's")
    wait_for(lambda: process_of(pod).connections == 0, "the pod has closed idle connections")


# --- Connections that do not come about ---------------------------------------------------------


@pytest.mark.fault(11)
def test_a_refused_request_goes_to_another_endpoint(here: Place) -> None:
    model = here.deploy("refused", pods=2, engine=ABRUPT)
    dead, alive = model.pods
    until_it_meets(here, model, dead)
    dead.crash(notice=None)
    with retried(here.gateway, connect=1), unseen(here.gateway, refused=1):
        answer = ask(here, model)
    assert (answer.status, answer.value("target-pod")) == (200, alive.name)


@pytest.mark.fault(11)
def test_an_endpoint_that_refused_is_not_asked_twice_for_one_request(here: Place) -> None:
    model = here.deploy("all-refuse", pods=2)
    for pod in model.pods:
        pod.crash(notice=None)
    failures = here.gateway.metric("gateway_upstream_failures_total", kind="refused")
    with retried(here.gateway, connect=1):
        answer = ask(here, model)
    check_error(answer, UNREACHABLE, retry_after=1)
    after = here.gateway.metric("gateway_upstream_failures_total", kind="refused")
    assert after == failures + 2, "each of the two once"


def test_at_most_so_many_endpoints_more_are_tried_as_the_setting_says(here: Place) -> None:
    model = here.deploy("many-refuse", pods=5)
    for pod in model.pods:
        pod.crash(notice=None)
    with retried(here.gateway, connect=2):
        answer = ask(here, model)
    check_error(answer, UNREACHABLE, retry_after=1)
    assert b"after 3 attempt(s)" in answer.content


@contextmanager
def black_hole(pod: Pod) -> Iterator[None]:
    """Where the pod was, connections are neither accepted nor refused: its queue is full."""
    process_of(pod).kill()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((pod.address, pod.port))
        listener.listen(0)
        queued = [socket.socket() for _ in range(4)]
        for one in queued:
            one.setblocking(False)
            one.connect_ex((pod.address, pod.port))
        try:
            yield
        finally:
            for one in queued:
                one.close()


@pytest.mark.fault(11)
def test_a_black_hole_costs_the_connect_timeout_and_no_more(here: Place) -> None:
    model = here.deploy("hole", pods=2, engine=ABRUPT)
    hole, alive = model.pods
    until_it_meets(here, model, hole)
    with black_hole(hole):
        begun = time.monotonic()
        with retried(here.gateway, connect=1), unseen(here.gateway, connect_timeout=1):
            answer = ask(here, model)
    assert (answer.status, answer.value("target-pod")) == (200, alive.name)
    assert time.monotonic() - begun > 0.5


# --- A 503 of an endpoint -----------------------------------------------------------------------


def test_an_endpoints_503_makes_one_other_try(here: Place) -> None:
    model = here.deploy("busy", pods=2, engine=ABRUPT)
    busy, other = model.pods
    until_it_meets(here, model, busy)
    process_of(busy).behave("status=503")
    with retried(here.gateway, unavailable=1):
        answer = ask(here, model)
    assert (answer.status, answer.value("target-pod")) == (200, other.name)
    assert answer.value("retry-after") is None


def test_a_503_of_all_passes_with_its_body_and_when_to_come_back(here: Place) -> None:
    model = here.deploy("all-busy", pods=3)
    with retried(here.gateway, unavailable=1):
        answer = here.exchange(behaving("status=503", model.name))
    assert answer.status == 503
    assert json.loads(answer.content)["error"]["message"] == "so it was asked for"
    assert answer.value("retry-after") == "7"
    assert answer.value("x-gateway-error") is None
    assert len(seen_by(*model.pods)) == 2, "one other, not all others"


def test_a_503_passes_where_there_is_no_other(here: Place) -> None:
    model = here.deploy("one-busy", pods=1)
    with retried(here.gateway):
        answer = here.exchange(behaving("status=503", model.name, stream=True))
    assert (answer.status, answer.value("retry-after")) == (503, "7")


def test_a_503_is_the_last_word_where_the_other_refuses(here: Place) -> None:
    model = here.deploy("busy-and-dead", pods=2, engine=ABRUPT)
    busy, dead = model.pods
    until_it_meets(here, model, busy)
    process_of(busy).behave("status=503")
    dead.crash(notice=None)
    answer = ask(here, model)
    assert (answer.status, answer.value("retry-after")) == (503, "7")
    assert answer.value("x-gateway-error") is None
    here.wait_until_idle()


# --- Endpoints that die before they answer ------------------------------------------------------


@pytest.mark.fault(12)
@pytest.mark.parametrize("how", ["reset-before-head", "close-before-head"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_whose_endpoint_dies_is_replayed_on_another(
    here: Place, how: str, stream: bool
) -> None:
    model = here.deploy(f"dying-{how}-{stream}", pods=2, engine=ABRUPT)
    dying, other = model.pods
    until_it_meets(here, model, dying)
    seen = len(seen_by(*model.pods))
    process_of(dying).behave(how)
    with retried(here.gateway, replay=1), unseen(here.gateway, reset=1):
        answer = ask(here, model, "x-request-id: once", stream=stream)
    assert (answer.status, answer.value("target-pod")) == (200, other.name)
    assert answer.complete
    first, second = seen_by(*model.pods)[seen:]
    assert first.request_id == second.request_id == "once"


@pytest.mark.fault(12)
def test_a_request_that_kills_is_seen_by_two_endpoints_at_most(here: Place) -> None:
    model = here.deploy("killed", pods=5)
    with retried(here.gateway, replay=1), counted_once(here.gateway, "upstream_reset"):
        answer = here.exchange(behaving("reset-before-head", model.name))
    check_error(answer, DIED)
    seen = [len(process_of(pod).requests) for pod in model.pods]
    assert sorted(seen) == [0, 0, 0, 1, 1]


@pytest.mark.fault(12)
def test_a_request_that_may_have_run_is_not_told_to_be_retriable(here: Place) -> None:
    """Its endpoint died, and the only other one refuses: who retries must decide that himself."""
    model = here.deploy("died-and-refused", pods=2, engine=ABRUPT)
    dying, dead = model.pods
    until_it_meets(here, model, dying)
    process_of(dying).behave("reset-before-head")
    dead.crash(notice=None)
    check_error(ask(here, model), DIED)


@pytest.mark.fault(12)
def test_a_response_that_may_be_stored_is_not_asked_for_twice(here: Place) -> None:
    model = here.deploy("storing", pods=2)
    request = post(
        chat_body(model.name), "x-sim-behaviour: reset-before-head", target="/v1/responses?x=1"
    )
    with retried(here.gateway), counted_once(here.gateway, "upstream_reset"):
        check_error(here.exchange(request), DIED)
    assert len(seen_by(*model.pods)) == 1


@pytest.mark.fault(12, 14)
@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("stall-before-head=9", 504),
        ("slow-head=9", 504),
        ("garbage", 502),
        ("both-framings", 502),
        ("status=500", 500),
        ("status=502", 502),
        ("status=429", 429),
        ("reset-after-head", 200),
        ("short-length", 200),
    ],
)
def test_nothing_else_is_ever_sent_twice(here: Place, how: str, status: int) -> None:
    model = here.deploy("once-" + how.replace("=", "-"), pods=2)
    with retried(here.gateway):
        answer = here.exchange(behaving(how, model.name))
    assert answer.status == status
    assert len(seen_by(*model.pods)) == 1


@pytest.mark.fault(12)
def test_an_endpoint_that_dies_within_its_head_is_not_replayed(here: Place) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Le"
    with CannedPod(half) as one, CannedPod(half) as other:
        one.deploy(here.cluster, "half-head")
        other.deploy(here.cluster, "half-head", slice_name="half-head-too")
        wait_for(lambda: len(here.gateway.endpoints("half-head")) == 2, "both are known")
        with retried(here.gateway):
            check_error(here.exchange(post(chat_body("half-head"))), DIED)
        assert len(one.seen + other.seen) == 1


# --- Connections that were idle -----------------------------------------------------------------


@pytest.mark.fault(13)
@pytest.mark.parametrize("how", ["close-idle", "reset-on-reuse"])
def test_a_connection_that_ended_while_idle_costs_nothing(here: Place, how: str) -> None:
    """The only endpoint is asked again, on a fresh connection."""
    model = here.deploy(how, pods=1, engine=Engine(tokens=1, token_seconds=0.0))
    process = process_of(model.pods[0])
    errors = here.gateway.metric("gateway_errors_total")
    for _ in range(5):
        process.behave(how)
        assert ask(here, model).status == 200
    assert ask(here, model).status == 200
    assert here.gateway.metric("gateway_errors_total") == errors
    assert len(process.requests) == 6, "each was read once"
    # An answer that takes its time goes to the relay, which leaves one more in reserve.
    assert process.accepted in (6, 7)


@pytest.mark.fault(13)
def test_an_idle_connection_that_dies_is_replaced_once(here: Place) -> None:
    model = here.deploy("dies-again", pods=1)
    process = process_of(model.pods[0])
    assert ask(here, model).status == 200
    process.behave("reset-before-head", times=5)
    with retried(here.gateway, stale_connection=1), counted_once(here.gateway, "upstream_reset"):
        check_error(ask(here, model), DIED)
    assert len(process.requests) == 1 + 2
