"""A pod's coming and going never becomes a wrong answer."""

import json
import time
from collections.abc import Iterator

import pytest
import requests

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.harness import GatewayProcess, wait_for

#: Of each kind some; `tests/test_router.py` has them all.
STRATEGIES = [
    None,
    "random",
    "round-robin",
    "least-request",
    "power-of-two",
    "least-busy",
    "session-affinity",
    "prefix-cache:2,least-kv-cache:1",
]


def headers(strategy: str | None) -> dict[str, str]:
    return {"routing-strategy": strategy} if strategy else {}


def events(response: requests.Response) -> Iterator[str]:
    """The data of a stream's events, as they come."""
    lines = response.iter_lines(chunk_size=None)
    return (line[6:].decode() for line in lines if line.startswith(b"data: "))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pods_that_are_not_ready_yet_give_a_retriable_503(
    cluster: Cluster, gateway: GatewayProcess, strategy: str | None
) -> None:
    cluster.model("llama", pods=2, ready=False)
    wait_for(lambda: len(gateway.endpoints()) == 2, "the pods are known")

    answer = gateway.chat(headers=headers(strategy))

    assert answer.status_code == 503
    assert answer.headers["x-gateway-error"] == "no_ready_endpoints"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["x-should-retry"] == "true"
    assert "2 endpoints, 2 not ready" in answer.json()["error"]["message"]
    assert gateway.get("/healthz").status_code == 200
    assert gateway.get("/v1/models/llama").json()["ready_endpoints"] == 0


def seconds_until_served(gateway: GatewayProcess, cluster: Cluster) -> float:
    """How long after the slice's change the first request succeeds, asking without a pause."""
    pod = cluster.models["llama"].pods[0]
    pod.become_ready()
    wait_for(lambda: gateway.chat().status_code == 200, "a request succeeds")
    served = time.monotonic()
    return served - pod.changed_at


def test_with_the_watch_a_ready_pod_is_used_within_100_ms(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", pods=1, ready=False)
    gateway = start_gateway(poll_seconds="60").ready()
    wait_for(lambda: cluster.api.open_watches, "the watch is open")
    assert seconds_until_served(gateway, cluster) < 0.1


def test_without_the_watch_a_ready_pod_is_used_within_a_poll_interval(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", pods=1, ready=False)
    gateway = start_gateway(watch="false", poll_seconds="0.5").ready()
    assert seconds_until_served(gateway, cluster) < 0.5 + 0.1


@pytest.mark.parametrize("publish_not_ready", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_terminating_pod_finishes_its_stream_and_gets_no_new_request(
    cluster: Cluster, gateway: GatewayProcess, strategy: str | None, publish_not_ready: bool
) -> None:
    model = cluster.model(
        "llama",
        pods=1,
        publish_not_ready=publish_not_ready,
        engine=Engine(tokens=40, token_seconds=0.02, refuses_when_terminating=False),
    )
    pod = model.pods[0]
    wait_for(lambda: gateway.endpoints() == {pod.name: "ready"}, "the pod is known")
    stream = gateway.chat(stream=True, headers=headers(strategy))
    stream_events = events(stream)
    next(stream_events)

    pod.terminate()
    wait_for(lambda: gateway.endpoints() == {pod.name: "terminating"}, "termination is seen")
    refused = gateway.chat(headers=headers(strategy))
    rest = list(stream_events)

    assert refused.status_code == 503
    assert "1 endpoint, 1 terminating" in refused.json()["error"]["message"]
    assert stream.status_code == 200
    assert rest[-1] == "[DONE]"
    assert {json.loads(event)["sim"]["n"] for event in rest[:-1]} >= set(range(2, 41))
    assert pod.process is not None
    assert len(pod.process.requests) == 1


def test_with_a_second_pod_every_new_request_goes_there(
    cluster: Cluster, gateway: GatewayProcess
) -> None:
    model = cluster.model("llama", pods=2, engine=Engine(refuses_when_terminating=False))
    leaving, staying = model.pods
    wait_for(lambda: list(gateway.endpoints().values()) == ["ready"] * 2, "both are known")
    assert leaving.process is not None

    leaving.terminate(wait_gone=False)
    wait_for(lambda: gateway.endpoints().get(leaving.name) != "ready", "termination is seen")
    seen_before = len(leaving.process.requests)
    answers = [gateway.chat() for _ in range(20)]

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["target-pod"] for answer in answers} == {staying.name}
    assert len(leaving.process.requests) == seen_before


def test_a_model_scaled_to_zero_is_known_and_unavailable(
    cluster: Cluster, gateway: GatewayProcess
) -> None:
    cluster.model("llama", pods=0)
    wait_for(lambda: gateway.get("/v1/models/llama").status_code == 200, "the model is known")
    answer = gateway.chat()
    assert answer.status_code == 503
    assert "model 'llama': 0 endpoints" in answer.json()["error"]["message"]
