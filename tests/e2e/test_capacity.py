"""A gateway that has all the work it can do says so at once, and stays visible."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import requests

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.harness import GatewayProcess, wait_for
from tests.wire import Wire, behaving

CAPACITY = 8


@contextmanager
def busy(gateway: GatewayProcess) -> Iterator[None]:
    """All places taken by requests that wait for their pod, until the block ends."""
    with ExitStack() as clients:
        for _ in range(CAPACITY):
            clients.enter_context(Wire(gateway.port)).send(behaving("stall-before-head"))
        wait_for(lambda: gateway.in_flight() == CAPACITY, "all places are taken")
        yield


def p99(times: list[float]) -> float:
    """The time that one of a hundred exceeds."""
    return sorted(times)[math.ceil(len(times) * 0.99) - 1]


def test_health_is_told_and_one_more_request_refused_within_50_ms_while_all_places_are_taken(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", pods=2, engine=Engine(tokens=10_000, token_seconds=0.02))
    gateway = start_gateway(threads=str(CAPACITY)).ready()
    health, refusals = [], []
    with busy(gateway):
        for _ in range(300):
            started = time.monotonic()
            assert gateway.get("/healthz").status_code == 200
            health.append(time.monotonic() - started)
            started = time.monotonic()
            refused = gateway.chat()
            refusals.append(time.monotonic() - started)
            assert refused.status_code == 503
            assert refused.headers["x-gateway-error"] == "gateway_overloaded"
    assert p99(health) < 0.05
    assert p99(refusals) < 0.05
    wait_for(lambda: gateway.in_flight() == 0, "the places are free again")
    assert gateway.metric("gateway_client_aborts_total", phase="waiting") == CAPACITY
    assert gateway.metric("gateway_in_flight") == 0


def test_every_place_comes_back_however_its_request_ended(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    pod = cluster.model("llama", engine=Engine(tokens=3)).pods[0]
    gateway = start_gateway(threads=str(CAPACITY)).ready()
    wait_for(lambda: gateway.endpoints() == {pod.name: "ready"}, "the pod is known")
    ends = ["", "status=500", "reset-before-head", "die-after-tokens=1", "garbage", "two-lengths"]

    def ask(end: str) -> None:
        try:
            list(gateway.chat(stream=True, headers={"x-sim-behaviour": end} if end else {}))
        except requests.RequestException:
            pass  # some of them are cut off

    for end in ends:
        threads = [threading.Thread(target=ask, args=(end,)) for _ in range(CAPACITY)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with busy(gateway):
        assert gateway.metric("gateway_errors_total", code="gateway_overloaded") == 0
    wait_for(lambda: gateway.in_flight() == 0, "nothing is in flight")
    assert gateway.metric("gateway_in_flight") == 0
