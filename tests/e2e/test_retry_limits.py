"""A dying fleet is not hit by a storm, and an endpoint that fails is left alone."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from routing.aside import FIRST_SECONDS
from simulator.fleet import Pod
from simulator.model import Model
from tests.e2e.expect import API, OVERLOADED, Expected, check_error, counted_once
from tests.e2e.place import Place, place, process_of, seen_by
from tests.e2e.test_retries import black_hole
from tests.harness import wait_for
from tests.wire import RawAnswer, behaving, chat_body, post

CONNECT_SECONDS = 0.3


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(
        tmp_path_factory.mktemp("limits"),
        strategy="round-robin",
        replay="false",
        connect_timeout=str(CONNECT_SECONDS),
    ) as here:
        yield here


def ask(here: Place, model: Model) -> RawAnswer:
    return here.exchange(post(chat_body(model.name)))


def refused(here: Place) -> float:
    return here.gateway.metric("gateway_upstream_failures_total", kind="refused")


def state_of(here: Place, pod: Pod) -> str:
    return here.gateway.endpoints(pod.name.rpartition("-")[0])[pod.name]


@pytest.mark.fault(17)
def test_at_most_a_fifth_of_the_requests_are_retries(here: Place) -> None:
    here.cluster.model("dead", pods=5, processes=False)
    wait_for(lambda: len(here.gateway.endpoints("dead")) == 5, "the pods are known")
    attempts_before = refused(here)
    with ThreadPoolExecutor(10) as clients:
        answers = list(clients.map(lambda _: here.exchange(post(chat_body("dead"))), range(200)))
    assert {answer.value("x-gateway-error") for answer in answers} == {"upstream_unreachable"}
    retries = refused(here) - attempts_before - len(answers)
    assert 0.1 * len(answers) < retries <= max(3, 0.2 * len(answers))


@pytest.mark.fault(12)
def test_without_replay_a_request_that_may_have_run_is_never_repeated(here: Place) -> None:
    model = here.deploy("dying", pods=2)
    with counted_once(here.gateway, "upstream_reset"):
        answer = here.exchange(behaving("reset-before-head", "dying"))
    check_error(answer, Expected(502, "upstream_reset", API))
    assert len(seen_by(*model.pods)) == 1


def set_aside_one(here: Place, name: str) -> tuple[Model, Pod, float]:
    """Kill one of two pods unnoticed by the API, and ask until it is set aside.

    The monotonic time is one before it was.
    """
    model = here.deploy(name, pods=2)
    failing = model.pods[0]
    process_of(failing).kill()
    asked = 0.0

    def is_set_aside() -> bool:
        nonlocal asked
        asked = time.monotonic()
        ask(here, model)
        return state_of(here, failing) == "set_aside"

    wait_for(is_set_aside, "the pod is set aside")
    return model, failing, asked


@pytest.mark.fault(18)
def test_an_endpoint_that_keeps_failing_is_left_alone_until_its_time_is_over(here: Place) -> None:
    before = refused(here)
    model, failing, _ = set_aside_one(here, "failing")
    assert refused(here) == before + 3, "after so many failures in a row"
    assert here.gateway.metric("gateway_endpoints", model="failing", state="set_aside") == 1
    assert here.gateway.metric("gateway_endpoints", model="failing", state="ready") == 1
    process_of(failing).start()
    process_of(failing).become_ready()

    wait_for(lambda: state_of(here, failing) == "ready", "its time is over")
    wait_for(lambda: ask(here, model).value("target-pod") == failing.name, "it is chosen again")
    assert here.gateway.metric("gateway_endpoints", model="failing", state="set_aside") == 0


@pytest.mark.fault(18)
def test_while_an_endpoint_is_set_aside_it_is_not_chosen(here: Place) -> None:
    model, failing, before_that = set_aside_one(here, "aside")
    other = model.pods[1].name
    while_aside: list[str | None] = []

    def its_time_is_over() -> bool:
        answer = ask(here, model)
        if state_of(here, failing) != "set_aside" or refused(here) > before:
            return True
        while_aside.append(answer.value("target-pod"))
        return False

    before = refused(here)
    wait_for(its_time_is_over, "its time is over")
    assert len(while_aside) >= 2
    assert set(while_aside) == {other}
    if refused(here) > before:
        assert time.monotonic() - before_that >= FIRST_SECONDS, "its time was over"


@pytest.mark.fault(18)
def test_a_change_of_its_slice_entry_brings_an_endpoint_back(here: Place) -> None:
    model, failing, _ = set_aside_one(here, "changing")
    for _ in range(2):  # each time for twice as long: the second would be 2 s
        wait_for(lambda: state_of(here, failing) == "ready", "its time is over")
        wait_for(
            lambda: ask(here, model) and state_of(here, failing) == "set_aside", "it fails again"
        )
    failing.fail_probe()
    process_of(failing).start()
    failing.become_ready()
    wait_for(lambda: state_of(here, failing) == "ready", "it is back", patience=2.0)
    wait_for(lambda: ask(here, model).value("target-pod") == failing.name, "it is chosen again")


@pytest.mark.fault(18)
def test_the_last_endpoint_is_never_set_aside(here: Place) -> None:
    model = here.deploy("last", pods=1)
    pod = model.pods[0]
    process_of(pod).kill()
    before = refused(here)
    answers = [ask(here, model) for _ in range(10)]
    assert {answer.value("x-gateway-error") for answer in answers} == {"upstream_unreachable"}
    assert refused(here) == before + 10, "each request asks it"
    assert state_of(here, pod) == "ready"
    process_of(pod).start()
    process_of(pod).become_ready()
    assert ask(here, model).status == 200


@pytest.mark.fault(11, 18)
def test_black_holes_cost_a_connect_timeout_each_and_the_last_one_is_asked_again(
    here: Place,
) -> None:
    model = here.deploy("holes", pods=2)
    unreachable = Expected(503, "upstream_unreachable", OVERLOADED)
    before = here.gateway.metric("gateway_upstream_failures_total", kind="connect_timeout")
    with black_hole(model.pods[0]), black_hole(model.pods[1]):
        begun = time.monotonic()
        for _ in range(3):
            with counted_once(here.gateway, unreachable.code):
                check_error(ask(here, model), unreachable, retry_after=1)
        seconds = time.monotonic() - begun
        after = here.gateway.metric("gateway_upstream_failures_total", kind="connect_timeout")
        # The gateway may notice each half a second late, but not wait for nothing.
        assert seconds < (after - before) * (CONNECT_SECONDS + 0.5)
        assert seconds >= (after - before) * CONNECT_SECONDS

        def states() -> list[str]:
            assert ask(here, model).status == 503
            return sorted(here.gateway.endpoints("holes").values())

        wait_for(lambda: states() == ["ready", "set_aside"], "one is set aside, and one never")
    for pod in model.pods:
        process_of(pod).start()
        process_of(pod).become_ready()
    assert ask(here, model).status == 200


def test_a_status_never_sets_an_endpoint_aside(here: Place) -> None:
    model = here.deploy("erring", pods=2)
    for status in (500, 502, 503, 429):
        for _ in range(4):
            assert here.exchange(behaving(f"status={status}", model.name)).status == status
    assert set(here.gateway.endpoints("erring").values()) == {"ready"}
