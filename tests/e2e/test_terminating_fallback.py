"""When nothing is ready, endpoints that terminate but still serve are better than none."""

import time
from collections.abc import Iterator

import pytest

from simulator.fleet import Pod
from simulator.model import Model
from simulator.pod import Engine
from tests.e2e.place import Place, place, process_of, seen_by
from tests.harness import wait_for
from tests.wire import RawAnswer, Wire, chat_body, post

#: How an engine must behave for the fallback to be of use.
SERVES_ON = Engine(refuses_when_terminating=False)
GRACE = 600.0


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Requests may wait here for longer than any test does, so none that is answered has."""
    with place(
        tmp_path_factory.mktemp("fallback"), terminating_fallback="true", hold_seconds="300"
    ) as running:
        yield running


def leaving(lenient: Place, name: str, pods: int = 2) -> tuple[Model, list[Pod]]:
    """A model all of whose pods terminate, and are known to."""
    model = lenient.deploy(name, pods, engine=SERVES_ON)
    for pod in model.pods:
        pod.terminate(grace=GRACE)
    lenient.wait_for_states(name, {pod.name: "terminating" for pod in model.pods})
    return model, model.pods


def ask(lenient: Place, model: str, *headers: str) -> RawAnswer:
    return lenient.exchange(post(chat_body(model), *headers))


def held(lenient: Place) -> float:
    return lenient.gateway.metric("gateway_held_requests")


@pytest.mark.parametrize("strategy", ["random", "least-request"])
def test_terminating_pods_answer_at_once_by_any_strategy_and_nobody_waits(
    lenient: Place, strategy: str
) -> None:
    name = f"all-leave-{strategy}"
    _, pods = leaving(lenient, name)
    before = lenient.gateway.counted("gateway_holds_total", "result")
    answers = [ask(lenient, name, f"routing-strategy: {strategy}") for _ in range(10)]
    assert {answer.status for answer in answers} == {200}
    assert {answer.value("target-pod") for answer in answers} <= {pod.name for pod in pods}
    assert lenient.gateway.counted("gateway_holds_total", "result") == before
    assert lenient.gateway.get(f"/v1/models/{name}").json()["ready_endpoints"] == 0


def test_they_are_not_used_while_anything_is_ready(lenient: Place) -> None:
    model = lenient.deploy("one-stays", 3, engine=SERVES_ON)
    staying, *going = model.pods
    for pod in going:
        pod.terminate(grace=GRACE)
    states = {staying.name: "ready", **{pod.name: "terminating" for pod in going}}
    lenient.wait_for_states(model.name, states)
    process_of(staying).behave("status=503")
    refused = ask(lenient, model.name)
    assert (refused.status, refused.value("x-gateway-error")) == (503, None), "nor for a retry"
    answers = [ask(lenient, model.name) for _ in range(10)]
    assert {answer.value("target-pod") for answer in answers} == {staying.name}
    assert seen_by(*going) == []


def test_a_pod_that_becomes_ready_wins_at_once(lenient: Place) -> None:
    model, pods = leaving(lenient, "replaced")
    assert ask(lenient, model.name).value("target-pod") in {pod.name for pod in pods}
    fresh = model.add_pod()
    lenient.wait_for_states(
        model.name, {fresh.name: "ready", **{pod.name: "terminating" for pod in pods}}
    )
    seen_before = len(seen_by(*pods))
    answers = [ask(lenient, model.name) for _ in range(10)]
    assert {answer.value("target-pod") for answer in answers} == {fresh.name}
    assert len(seen_by(*pods)) == seen_before


def test_a_terminating_pod_that_refuses_is_followed_by_another(lenient: Place) -> None:
    model, (first, second) = leaving(lenient, "half-gone")
    first.crash(notice=None)
    answers = [ask(lenient, model.name) for _ in range(6)]
    assert {(a.status, a.value("target-pod")) for a in answers} == {(200, second.name)}


def test_a_stream_goes_on_where_its_pod_was_the_fallback(lenient: Place) -> None:
    model, _ = leaving(lenient, "streaming", 1)
    with Wire(lenient.gateway.port) as client:
        client.send(post(chat_body(model.name, stream=True, max_tokens=60)))
        seen = client.read_until(b'"tok "')
        fresh = model.add_pod()
        answer = client.read_to_the_end(seen)
    assert answer.complete
    assert answer.content.count(b'"tok "') == 60
    assert seen_by(fresh) == []


def test_what_is_neither_ready_nor_serving_is_waited_for_and_the_fallback_is_not(
    lenient: Place,
) -> None:
    model, (pod,) = leaving(lenient, "unsound", 1)
    pod.fail_probe()
    began = time.monotonic()
    with Wire(lenient.gateway.port) as client:
        # Until the change is known it is still the fallback.
        wait_for(lambda: not endpoint(lenient, model.name)["serving"], "it serves no more")
        client.send(post(chat_body(model.name)))
        wait_for(lambda: held(lenient) == 1, "it waits")
        other = model.create_pod()
        other.run()
        answer = client.read_to_the_end()
    assert (answer.status, answer.value("target-pod")) == (200, other.name)
    assert time.monotonic() - began < 100
    other.fail_probe()
    lenient.wait_for_states(model.name, {pod.name: "terminating", other.name: "not_ready"})
    with Wire(lenient.gateway.port) as client:
        client.send(post(chat_body(model.name)))
        wait_for(lambda: held(lenient) == 1, "it waits again")
    wait_for(lambda: held(lenient) == 0, "it has left")


def endpoint(lenient: Place, model: str) -> dict[str, object]:
    (entry,) = [e for e in lenient.gateway.status()["models"] if e["model"] == model]
    (found,) = entry["endpoints"]
    return dict(found)
