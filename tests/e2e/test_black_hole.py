"""Pods that can't be reached: without a route, or a hole that swallows every attempt to connect."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from simulator.pod import Engine
from tests.e2e.expect import OVERLOADED, Expected, check_error, counted_once
from tests.e2e.place import Place, place, process_of, seen_by
from tests.e2e.steady import Sample, Steady, in_ms, slowest_of_100
from tests.e2e.test_retries import black_hole
from tests.harness import wait_for
from tests.wire import chat_body, post

Figure = Callable[[str, object], None]
PODS = 10
CLIENTS = 10
CONNECT_TIMEOUT = 1.0
UNREACHABLE = Expected(503, "upstream_unreachable", OVERLOADED)
#: The kernel has no route for connections to a broadcast address, and sends nothing there.
NO_ROUTE = "127.255.255.255"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("holes"), connect_timeout=str(CONNECT_TIMEOUT)) as here:
        yield here


def failures(here: Place, kind: str) -> float:
    return here.gateway.metric("gateway_upstream_failures_total", kind=kind)


# --- One of ten under load ----------------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """What clients saw while one of ten pods was a black hole for some seconds."""

    strategy: str
    hole: str  # the pod's name
    all: list[Sample]
    quiet: list[Sample]
    before_aside: list[Sample]
    while_aside: list[Sample]
    seconds_until_back: float
    timeouts_before_aside: float
    timeouts: float
    errors: float


@pytest.fixture(scope="module", params=["least-request", "round-robin"])
def story(here: Place, request: pytest.FixtureRequest) -> Story:
    """Quiet, a hole, set aside and tried in vain, set aside again, and well in the end."""
    engine = Engine(tokens=1, token_seconds=0.0, keep_alive_seconds=0.01)
    name = f"ten-{request.param}"
    model = here.deploy(name, pods=PODS, engine=engine)
    hole = model.pods[0]
    timeouts = failures(here, "connect_timeout")
    errors = here.gateway.metric("gateway_errors_total")

    def is_aside() -> bool:
        return here.gateway.endpoints(name)[hole.name] == "set_aside"

    ask = post(chat_body(name), f"routing-strategy: {request.param}")
    with Steady(here.gateway.port, ask, per_second=100, clients=CLIENTS) as load:
        wait_for(lambda: len(load.samples) >= 125, "a quiet phase")
        began = time.monotonic()
        with black_hole(hole):
            wait_for(is_aside, "it is set aside")
            aside = time.monotonic()
            before_aside = failures(here, "connect_timeout") - timeouts
            wait_for(lambda: not is_aside(), "it may be tried again")
            wait_for(is_aside, "it is set aside again")
            wait_for(lambda: len(load.since(aside)) >= 250, "a phase to compare")
        process_of(hole).start()  # unseen by the API: nothing in its slice changes
        process_of(hole).become_ready()
        answers = time.monotonic()
        wait_for(lambda: served_by(hole.name, load.since(answers)), "it is used again")
        back = time.monotonic()
    return Story(
        request.param,
        hole.name,
        load.samples,
        load.since(0.0, began),
        load.since(began, aside),
        # Who still waits when it answers again may get that answer.
        [one for one in load.since(aside) if one.begun + one.seconds < answers],
        back - answers,
        before_aside,
        failures(here, "connect_timeout") - timeouts,
        here.gateway.metric("gateway_errors_total") - errors,
    )


def served_by(pod: str, samples: list[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.answer.value("target-pod") == pod]


@pytest.mark.fault(11, 18)
def test_no_client_gets_an_error_because_one_of_ten_is_a_black_hole(story: Story) -> None:
    assert {sample.answer.status for sample in story.all} == {200}
    assert all(sample.answer.complete and not sample.answer.reset for sample in story.all)
    assert story.errors == 0
    assert served_by(story.hole, story.quiet), "it was one of those that answered"
    assert not served_by(story.hole, story.while_aside)


@pytest.mark.fault(18)
def test_a_few_requests_pay_a_connect_timeout_until_it_is_set_aside(
    story: Story, record_property: Figure
) -> None:
    # Three in a row are enough; each of the clients may have been on its way there already.
    assert 1 <= story.timeouts_before_aside <= 3 + CLIENTS
    waited = [sample.seconds for sample in story.all if sample.seconds >= CONNECT_TIMEOUT]
    assert len(waited) >= story.timeouts_before_aside, "who is counted has waited"
    assert max(waited) < 2 * CONNECT_TIMEOUT, "nobody waits twice"
    figure = f"{story.timeouts_before_aside:.0f} / {len(story.before_aside)}"
    record_property(
        f"row 18, {story.strategy}: connect timeouts / requests until it is set aside", figure
    )


@pytest.mark.fault(18)
def test_while_it_is_set_aside_the_others_are_as_fast_as_before(
    story: Story, record_property: Figure
) -> None:
    """It is tried again now and then, by so few that 99 of 100 notice nothing."""
    quiet, aside = slowest_of_100(story.quiet), slowest_of_100(story.while_aside)
    assert aside < max(5 * quiet, CONNECT_TIMEOUT / 2)
    record_property(
        f"row 18, {story.strategy}: p50 / p99 of all answers before", in_ms(story.quiet)
    )
    record_property(f"row 18, {story.strategy}: p50 / p99 of all answers while it is set aside",
                    in_ms(story.while_aside))  # fmt: skip
    tried = story.timeouts - story.timeouts_before_aside
    record_property(f"row 18, {story.strategy}: connect timeouts / requests while it is set aside",
                    f"{tried:.0f} / {len(story.while_aside)}")  # fmt: skip


@pytest.mark.fault(18)
def test_a_black_hole_that_answers_again_is_used_again_by_itself(
    story: Story, record_property: Figure
) -> None:
    # It was set aside for the second time, which is for two seconds.
    assert story.seconds_until_back < 2.0 + 5.0
    record_property(f"row 18, {story.strategy}: back after", f"{story.seconds_until_back:.2f} s")


# --- No route -----------------------------------------------------------------------------------


def add_one_without_route(here: Place, model: str, *, count: int) -> None:
    """Give the model one endpoint more, to which there is no route."""
    here.cluster.put_slice(
        {
            "metadata": {
                "name": f"{model}-far-away",
                "labels": {"model.aibrix.ai/name": model},
            },
            "addressType": "IPv4",
            "endpoints": [
                {
                    "addresses": [NO_ROUTE],
                    "conditions": {"ready": True},
                    "targetRef": {"kind": "Pod", "name": f"{model}-far-away"},
                }
            ],
            "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
        }
    )
    wait_for(lambda: len(here.gateway.endpoints(model)) == count, "the endpoint is known")


@pytest.mark.fault(11)
def test_a_pod_without_a_route_costs_its_client_nothing(here: Place) -> None:
    model = here.deploy("one-cut-off")
    add_one_without_route(here, "one-cut-off", count=2)
    before = failures(here, "unreachable")
    errors = here.gateway.metric("gateway_errors_total")
    asked = 0

    def met() -> bool:
        nonlocal asked
        asked += 1
        answer = here.exchange(post(chat_body("one-cut-off")))
        assert (answer.status, answer.value("target-pod")) == (200, model.pods[0].name)
        return failures(here, "unreachable") > before

    wait_for(met, "a request has met it")
    assert len(seen_by(*model.pods)) == asked, "each request was sent once"
    assert here.gateway.metric("gateway_errors_total") == errors


@pytest.mark.fault(11)
def test_a_model_without_any_route_is_told_to_be_unreachable(here: Place) -> None:
    add_one_without_route(here, "cut-off", count=1)
    before = failures(here, "unreachable")
    with counted_once(here.gateway, "upstream_unreachable"):
        answer = here.exchange(post(chat_body("cut-off")))
    check_error(answer, UNREACHABLE, retry_after=1)
    assert failures(here, "unreachable") == before + 1
