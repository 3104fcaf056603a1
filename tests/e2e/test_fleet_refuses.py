"""A fleet that refuses or dies under load: answers stay fast, and no storm of retries hits it."""

import json
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.expect import API, OVERLOADED, Expected, check_error
from tests.e2e.place import Place, place, process_of, seen_by
from tests.e2e.steady import Steady, in_ms, slowest_of_100
from tests.harness import wait_for
from tests.wire import behaving, chat_body, post

Figure = Callable[[str, object], None]
PODS = 10
#: Seconds that 99 of 100 refusals stay below. They take milliseconds; the machine may be busy.
FAST = 1.0
#: Retries that may come on top of a fifth of the requests: the fewest that are always allowed.
FEWEST = 3


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("refusing")) as here:
        here.deploy("neighbour")
        yield here


def refused(here: Place) -> float:
    return here.gateway.metric("gateway_upstream_failures_total", kind="refused")


def errors(here: Place, code: str) -> float:
    return here.gateway.metric("gateway_errors_total", code=code)


@pytest.mark.fault(17)
def test_while_every_pod_refuses_answers_are_fast_and_attempts_hardly_more_than_requests(
    here: Place, record_property: Figure
) -> None:
    here.cluster.model("refusing", pods=PODS, processes=False)
    wait_for(lambda: len(here.gateway.endpoints("refusing")) == PODS, "the pods are known")
    # Until something is held against a pod, a retry on it is free: one dead pod is no dying fleet.
    for _ in range(3 * PODS):
        here.exchange(post(chat_body("refusing")))
    attempts, counted = -refused(here), -errors(here, "upstream_unreachable")

    with Steady(here.gateway.port, post(chat_body("refusing")), per_second=200) as load:
        wait_for(lambda: len(load.samples) >= 600, "600 answers", patience=60.0)
        neighbour = here.exchange(post(chat_body("neighbour")))

    attempts += refused(here)
    requests = len(load.samples)
    assert attempts <= 1.2 * requests + FEWEST
    assert attempts > requests, "some are tried again: else the budget was not what bounds them"
    for sample in load.samples:
        expected = Expected(503, "upstream_unreachable", OVERLOADED)
        check_error(sample.answer, expected, retry_after=1)
    assert counted + errors(here, "upstream_unreachable") == requests
    assert slowest_of_100(load.samples) < FAST
    assert neighbour.status == 200
    record_property("row 17: attempts / requests, all refuse", f"{attempts / requests:.3f}")
    record_property("row 17: p50 / p99 of the 503s", in_ms(load.samples))


@pytest.mark.fault(12, 17)
def test_pods_that_die_of_every_request_see_hardly_more_of_them_than_came(
    here: Place, record_property: Figure
) -> None:
    model = here.deploy("dying", pods=5)
    deadly = behaving("reset-before-head", "dying")
    wait_for(
        lambda: here.exchange(deadly) and all(process_of(pod).requests for pod in model.pods),
        "each pod has died of one",
    )
    seen, counted = len(seen_by(*model.pods)), errors(here, "upstream_reset")

    with Steady(here.gateway.port, deadly, per_second=150) as load:
        wait_for(lambda: len(load.samples) >= 150, "150 answers", patience=60.0)

    attempts, requests = len(seen_by(*model.pods)) - seen, len(load.samples)
    assert requests <= attempts <= 1.2 * requests + FEWEST
    for sample in load.samples:
        check_error(sample.answer, Expected(502, "upstream_reset", API))
    assert errors(here, "upstream_reset") == counted + requests
    assert slowest_of_100(load.samples) < FAST
    record_property("row 17: attempts / requests, all die", f"{attempts / requests:.3f}")


@pytest.mark.fault(17)
def test_a_fleet_that_answers_again_is_used_at_once(here: Place) -> None:
    """Whatever is held against its pods: none of them is the last to be asked."""
    model = here.deploy("back-again", pods=3)
    request = post(chat_body("back-again"))
    for pod in model.pods:
        process_of(pod).kill()
    for _ in range(20):
        assert here.exchange(request).status == 503
    for pod in model.pods:
        process_of(pod).start()
        process_of(pod).become_ready()
    answer = here.exchange(request)
    assert answer.status == 200
    assert json.loads(answer.content)["object"] == "chat.completion"
