"""Scale from zero: requests for a model without endpoints wait for the first that is ready."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from simulator.cluster import Cluster
from simulator.model import Model
from tests.e2e.expect import INVALID, OVERLOADED, Expected, check_error
from tests.e2e.place import Place, environment_of, place, process_of, seen_by
from tests.e2e.test_aliases import log_line
from tests.harness import PATIENCE, GatewayProcess, gateway_process, wait_for
from tests.wire import RawAnswer, Wire, chat_body, exchange, post

#: Beyond what any answer takes here; whoever has one earlier did not wait for its end.
HOLD_SECONDS = 300
#: Requests of one model that may wait: half of all that may, which are half of the threads.
HELD = 32


@pytest.fixture(scope="module")
def zero(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway that only a watch tells of changes, so that no poll can release anybody."""
    with place(
        tmp_path_factory.mktemp("hold"),
        hold_seconds=str(HOLD_SECONDS),
        hold_requests=str(2 * HELD),
        threads=str(4 * HELD),
        poll_seconds="300",
    ) as running:
        running.deploy("there")
        yield running


def scaled_to_zero(place: Place, name: str) -> Model:
    """A model whose slice is empty, and known to be."""
    model = place.cluster.model(name, pods=0)
    wait_for(lambda: place.gateway.get(f"/v1/models/{name}").status_code == 200, "it is known")
    return model


def held(gateway: GatewayProcess) -> float:
    return gateway.metric("gateway_held_requests")


def holds(gateway: GatewayProcess) -> dict[str, float]:
    return gateway.counted("gateway_holds_total", "result")


def waiting(place: Place, clients: ExitStack, request: bytes, count: int = 1) -> list[Wire]:
    """Clients whose requests are held."""
    before = held(place.gateway)
    wires = [clients.enter_context(Wire(place.gateway.port)).send(request) for _ in range(count)]
    wait_for(lambda: held(place.gateway) == before + count, f"{count} wait")
    return wires


def test_a_request_waits_for_the_first_pod_and_goes_there_at_once(
    zero: Place, record_property: Any
) -> None:
    delays = []
    with ExitStack() as clients:
        for number in range(5):
            model = scaled_to_zero(zero, f"waking-{number}")
            request = post(chat_body(model.name), f"x-request-id: {model.name}")
            (client,) = waiting(zero, clients, request)
            pod = model.create_pod()
            pod.run(ready=False)
            zero.wait_for_states(model.name, {pod.name: "not_ready"})
            assert held(zero.gateway) == 1
            pod.become_ready()
            answer = client.read_to_the_end()
            assert (answer.status, answer.value("target-pod")) == (200, pod.name)
            (seen,) = seen_by(pod)
            delays.append(seen.at - pod.changed_at)
            assert log_line(zero, model.name)["held_seconds"] > 0
    assert held(zero.gateway) == 0
    record_property("from the slice's change to the held request's arrival, best of 5", delays)
    assert min(delays) < 0.1
    assert max(delays) < 10


def test_a_held_request_streams_like_any_other(zero: Place) -> None:
    model = scaled_to_zero(zero, "streamed")
    with ExitStack() as clients:
        (client,) = waiting(zero, clients, post(chat_body(model.name, stream=True, max_tokens=9)))
        model.add_pod()
        answer = client.read_to_the_end()
    assert answer.complete
    assert answer.content.count(b'"tok "') == 9
    assert answer.content.endswith(b"data: [DONE]\n\n")


def test_while_as_many_wait_as_may_everything_else_goes_on(zero: Place) -> None:
    model = scaled_to_zero(zero, "crowded")
    before = holds(zero.gateway)
    with ExitStack() as clients:
        crowd = waiting(
            zero, clients, post(chat_body(model.name), "routing-strategy: round-robin"), HELD
        )
        one_more = zero.exchange(post(chat_body(model.name)))
        says = f"0 endpoints, and {HELD} requests wait for an endpoint already"
        full = Expected(503, "no_ready_endpoints", OVERLOADED, says=says)
        check_error(one_more, full, retry_after=1)
        times = []
        for _ in range(20):
            began = time.monotonic()
            assert zero.gateway.get("/healthz").status_code == 200
            assert zero.gateway.chat("there").status_code == 200
            times.append(time.monotonic() - began)
        assert min(times) < 0.1
        unknown = zero.exchange(post(chat_body("no-such")))
        check_error(unknown, Expected(404, "model_not_found", INVALID, "model"))
        other = scaled_to_zero(zero, "not-crowded")
        (client,) = waiting(zero, clients, post(chat_body(other.name)))
        other.add_pod()
        assert client.read_to_the_end().status == 200
        wait_for(lambda: held(zero.gateway) == HELD, "only the crowd waits")
        pods = model.add_pods(4)
        answers = [client.read_to_the_end() for client in crowd]
    assert {answer.status for answer in answers} == {200}
    assert [len(seen_by(pod)) for pod in pods] == [HELD / 4] * 4, "as the strategy says"
    wait_for(lambda: held(zero.gateway) == 0, "nobody is left")
    after = holds(zero.gateway)
    changes = {result: after[result] - before[result] for result in after}
    assert {result: change for result, change in changes.items() if change} == {
        "ready": HELD + 1,
        "full": 1,
    }


def test_a_client_that_leaves_gives_its_place_back_at_once(zero: Place) -> None:
    model = scaled_to_zero(zero, "left")
    gateway = zero.gateway
    left_before = holds(gateway)["left"]
    aborts_before = gateway.metric("gateway_client_aborts_total", phase="waiting")
    times = []
    with ExitStack() as clients:
        for number in range(3):
            request = post(chat_body(model.name), f"x-request-id: left-{number}")
            (client,) = waiting(zero, clients, request)
            began = time.monotonic()
            client.socket.close()
            wait_for(lambda: held(gateway) == 0, "it is not held any more")
            times.append(time.monotonic() - began)
            line = log_line(zero, f"left-{number}")
            assert (line["status"], line["client_left"]) == (499, "waiting")
    assert min(times) < 1
    assert max(times) < 10
    assert holds(gateway)["left"] == left_before + 3
    assert gateway.metric("gateway_client_aborts_total", phase="waiting") == aborts_before + 3
    pod = model.add_pod()
    zero.wait_for_states(model.name, {pod.name: "ready"})
    assert seen_by(pod) == [], "nobody asks on its behalf"


def test_an_unknown_strategy_is_told_at_once_also_where_nothing_is_ready(zero: Place) -> None:
    model = scaled_to_zero(zero, "strategic")
    answer = zero.exchange(post(chat_body(model.name), "routing-strategy: fastest"))
    check_error(answer, Expected(400, "unknown_strategy", INVALID, "routing-strategy"))


def test_a_model_that_is_deleted_is_not_waited_for(zero: Place) -> None:
    model = scaled_to_zero(zero, "deleted")
    before = holds(zero.gateway)
    with ExitStack() as clients:
        (client,) = waiting(zero, clients, post(chat_body(model.name)))
        model.delete()
        answer = client.read_to_the_end()
    check_error(answer, Expected(404, "model_not_found", INVALID, "model"))
    assert holds(zero.gateway) == {**before, "model_gone": before["model_gone"] + 1}


def test_a_retry_does_not_wait(zero: Place) -> None:
    model = zero.deploy("retried")
    (pod,) = model.pods
    process_of(pod).behave("status=503")
    answer = zero.exchange(post(chat_body(model.name)))
    assert (answer.status, answer.value("x-gateway-error")) == (503, None)
    pod.crash(notice=None)
    refused = zero.exchange(post(chat_body(model.name)))
    check_error(refused, Expected(503, "upstream_unreachable", OVERLOADED), retry_after=1)


def test_before_the_first_list_requests_wait_too_and_are_told_how_long(tmp_path: Path) -> None:
    with Cluster() as cluster:
        cluster.model("llama")
        cluster.model("empty", pods=0)
        cluster.api.fault("500")
        environment = environment_of(cluster, tmp_path, hold_seconds="2")
        with gateway_process(tmp_path, **environment) as gateway:
            gateway.listening()
            began = time.monotonic()
            unknown = exchange(gateway.port, post())
            assert time.monotonic() - began >= 2
            check_waited(unknown, "endpoints_unknown", "no list of EndpointSlices has succeeded")
            with Wire(gateway.port) as client, Wire(gateway.port) as other:
                client.send(post())
                other.send(post(chat_body("empty")))
                wait_for(lambda: held(gateway) == 2, "they wait")
                cluster.api.heal()
                assert client.read_to_the_end().status == 200
                empty = other.read_to_the_end()
            check_waited(empty, "no_ready_endpoints", "model 'empty': 0 endpoints")
            counts = holds(gateway)
            assert (counts.pop("ready"), counts.pop("timeout")) == (1, 2)
            assert not any(counts.values())
            assert counts.keys() == {
                "full",
                "left",
                "draining",
                "model_gone",
                "stale",
                "internal_error",
            }


def check_waited(answer: RawAnswer, code: str, says: str) -> None:
    check_error(answer, Expected(503, code, OVERLOADED, says=says), retry_after=1)
    assert b" s of waiting for one" in answer.content


def test_two_workers_hold_requests_each_and_are_counted_together(tmp_path: Path) -> None:
    with (
        place(tmp_path, workers="2", hold_seconds=str(HOLD_SECONDS), hold_requests="16") as here,
        ExitStack() as clients,
    ):
        model = scaled_to_zero(here, "shared")
        request = post(chat_body(model.name), "routing-strategy: round-robin")
        crowd = waiting(here, clients, request, 8)
        pods = model.add_pods(2)
        assert {client.read_to_the_end().status for client in crowd} == {200}
        counts = [len(seen_by(pod)) for pod in pods]
        assert sum(counts) == 8
        assert min(counts) >= 3, "each worker spreads its own"
        wait_for(lambda: held(here.gateway) == 0, "nobody is left")
        assert holds(here.gateway)["ready"] == 8


def test_a_stop_lets_them_wait_until_its_grace_is_over(tmp_path: Path) -> None:
    with (
        place(tmp_path, hold_seconds=str(HOLD_SECONDS), grace_seconds="3") as here,
        ExitStack() as clients,
    ):
        lucky, unlucky = scaled_to_zero(here, "lucky"), scaled_to_zero(here, "unlucky")
        (first,) = waiting(here, clients, post(chat_body(lucky.name)))
        (second,) = waiting(here, clients, post(chat_body(unlucky.name)))
        here.gateway.process.terminate()
        wait_for(lambda: not listens(here.gateway), "it drains")
        lucky.add_pod()
        assert first.read_to_the_end().status == 200
        draining = Expected(503, "gateway_draining", OVERLOADED)
        check_error(second.read_to_the_end(), draining, retry_after=1)
        clients.close()
        assert here.gateway.process.wait(PATIENCE) == 0


def listens(gateway: GatewayProcess) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", gateway.port)) == 0
