"""A pod dies with many requests in hand, or one after the other does: nobody loses an answer."""

import threading
import time
from functools import partial

import pytest

from simulator.cluster import Cluster
from simulator.fleet import Pod
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.e2e.place import process_of
from tests.harness import GatewayProcess, wait_for

CLIENTS = 20


class Burst:
    """Requests that all begin at once; `statuses` and pods are there when it has ended."""

    def __init__(self, gateway: GatewayProcess, **body: object) -> None:
        self._gateway = gateway
        self._body = body
        self.statuses: list[int] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        self.statuses.append(self._gateway.chat(body=self._body).status_code)

    def end(self) -> list[int]:
        for thread in self._threads:
            thread.join()
        return self.statuses


def warm_up(gateway: GatewayProcess) -> None:
    """Leave an idle connection to the pods for every request of the next burst."""
    assert Burst(gateway, max_tokens=5).end() == [200] * CLIENTS


def two_pods(cluster: Cluster, gateway: GatewayProcess) -> list[Pod]:
    pods = cluster.model(
        "llama", pods=2, engine=Engine(token_seconds=0.02, keep_alive_seconds=30.0)
    ).pods
    wait_for(lambda: list(gateway.endpoints().values()) == ["ready"] * 2, "both are known")
    return pods


@pytest.mark.fault(12)
@pytest.mark.parametrize("retries", ["0", "2"])
@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.2], ids=lambda s: f"after-{s}-s")
def test_requests_that_had_not_begun_to_be_answered_are_answered_elsewhere(
    cluster: Cluster, start_gateway: GatewayFactory, retries: str, seconds: float
) -> None:
    gateway = start_gateway(retries=retries).ready()
    dying, _ = two_pods(cluster, gateway)
    warm_up(gateway)
    burst = Burst(gateway, max_tokens=100)
    wait_for(lambda: process_of(dying).active > CLIENTS / 4, "it has work in hand")
    begun = time.monotonic()
    wait_for(lambda: time.monotonic() > begun + seconds, "it has been at it for a while")

    dying.crash(notice=None)

    assert burst.end() == [200] * CLIENTS
    assert gateway.metric("gateway_retries_denied_total") == 0


@pytest.mark.parametrize("clients_know", [False, True], ids=["cold", "warm"])
def test_while_the_api_server_is_away_a_dead_pod_costs_no_client_of_a_burst_anything(
    cluster: Cluster, gateway: GatewayProcess, clients_know: bool
) -> None:
    dying, _ = two_pods(cluster, gateway)
    if clients_know:
        warm_up(gateway)
    cluster.api.fault("refuse")
    dying.crash(notice=None)
    for _ in range(3):
        assert Burst(gateway, max_tokens=5).end() == [200] * CLIENTS
    assert gateway.endpoints()[dying.name] in ("ready", "set_aside")


@pytest.mark.fault(12)
@pytest.mark.parametrize("strategy", ["round-robin", "least-request"])
def test_a_fleet_that_dies_pod_by_pod_costs_nobody_an_answer_while_a_sound_one_is_left(
    cluster: Cluster, start_gateway: GatewayFactory, strategy: str
) -> None:
    """With so few requests that the budget allows no more than three retries.

    Those that died before are due for another try when the next one dies.
    """
    gateway = start_gateway(strategy=strategy).ready()
    pods = cluster.model("llama", pods=4, engine=Engine(tokens=1)).pods
    wait_for(lambda: list(gateway.endpoints().values()) == ["ready"] * 4, "all are known")
    statuses: list[int] = []

    def is_set_aside(pod: Pod) -> bool:
        statuses.append(gateway.chat().status_code)
        return gateway.endpoints()[pod.name] == "set_aside"

    for dying in pods[:3]:
        dying.crash(notice=None)
        wait_for(partial(is_set_aside, dying), "it is set aside")
        wait_for(lambda: "set_aside" not in gateway.endpoints().values(), "its time is over")

    assert set(statuses) == {200}
    assert gateway.metric("gateway_retries_denied_total") == 0


@pytest.mark.fault(12, 13)
@pytest.mark.parametrize("setting", ["a path that may store", "no replay"])
def test_what_must_not_run_twice_does_not_whatever_connection_it_came_on(
    cluster: Cluster, start_gateway: GatewayFactory, setting: str
) -> None:
    gateway = start_gateway(replay="false" if setting == "no replay" else "true").ready()
    pods = two_pods(cluster, gateway)
    warm_up(gateway)
    seen = sum(len(process_of(pod).requests) for pod in pods)
    for pod in pods:
        process_of(pod).behave("close-before-head", times=CLIENTS)
    path = "/v1/chat/completions" if setting == "no replay" else "/v1/responses"

    answer = gateway.post_bytes(path, b'{"model": "llama", "input": "Hello"}', {})

    assert answer.status_code == 502
    assert answer.headers["x-gateway-error"] == "upstream_reset"
    assert sum(len(process_of(pod).requests) for pod in pods) == seen + 1
