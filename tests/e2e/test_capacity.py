"""A gateway that has all the work it can do says so at once, and stays visible."""

import os
import re
import resource
import selectors
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.e2e.crowd import p99, state_of, wires, workers
from tests.harness import GatewayProcess, wait_for
from tests.wire import Wire, behaving, chat_body, post

CAPACITY = 8
#: Requests at once.
BURST = 50


@contextmanager
def busy(gateway: GatewayProcess) -> Iterator[None]:
    """All places taken by requests that wait for their pod, until the block ends."""
    with ExitStack() as clients:
        for _ in range(CAPACITY):
            clients.enter_context(Wire(gateway.port)).send(behaving("stall-before-head"))
        wait_for(lambda: gateway.in_flight() == CAPACITY, "all places are taken")
        yield


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


def test_busy_connections_and_new_ones_keep_each_other_waiting_no_longer_than_a_turn(
    start_gateway: GatewayFactory,
) -> None:
    """As `/healthz` is asked: by connections of their own, among clients that keep theirs."""
    gateway = start_gateway().ready()
    (worker,) = gateway.workers()

    def ask(wire: Wire, name: str) -> None:
        wire.send(post(chat_body("nobody"), f"x-request-id: {name}", close=False))

    def is_answered(wire: Wire) -> bool:
        return b"model_not_found" in wire.read_until(b"}}")

    with wires(gateway.port, 100) as kept:
        for wire in kept:
            ask(wire, "first")
            assert is_answered(wire)
        os.kill(worker, signal.SIGSTOP)
        try:
            wait_for(lambda: state_of(worker) == "T", "it has stopped")
            for wire in kept:
                ask(wire, "busy")
            with wires(gateway.port, 200) as newcomers:
                for wire in newcomers:
                    ask(wire, "new")
                os.kill(worker, signal.SIGCONT)
                assert all(is_answered(wire) for wire in (*kept, *newcomers))
        finally:
            os.kill(worker, signal.SIGCONT)

    def order() -> list[str]:
        ids = [line.get("request_id") for line in gateway.log_lines()]
        return [name for name in ids if name in ("busy", "new")]

    wait_for(lambda: len(order()) == 300, "all are logged")
    assert order()[:40].count("new") >= 19, "they take turns"
    assert order()[:180].count("busy") == 100, "and a flood of new ones takes no more"


def test_no_connection_is_one_too_many_for_the_table_of_descriptors(
    start_gateway: GatewayFactory,
) -> None:
    """A worker whose table has to grow stops for milliseconds, and everyone with it."""
    gateway = start_gateway(workers="2").ready()
    wait_for(lambda: len(workers(gateway)) == 2, "both workers are up")
    for worker in workers(gateway):
        most, _ = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        status = Path(f"/proc/{worker}/status").read_text()
        (size,) = re.findall(r"^FDSize:\s+(\d+)$", status, re.M)
        assert int(size) >= most > 64


def test_a_burst_is_refused_within_50_ms_while_long_prompts_hold_the_threads(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", engine=Engine(tokens=1, first_token_seconds=60))
    gateway = start_gateway(threads=str(CAPACITY)).ready()
    with ExitStack() as clients:
        for _ in range(CAPACITY):
            prompt = post(chat_body(user="u" * 20_000))
            clients.enter_context(Wire(gateway.port)).send(prompt)
        wait_for(lambda: gateway.in_flight() == CAPACITY, "all places are taken")
        rounds = [p99(times_of_refusals(gateway, BURST)) for _ in range(9)]
    assert min(rounds) < 0.05, "each slow, and not only those beside which others were at work"


def times_of_refusals(gateway: GatewayProcess, count: int) -> list[float]:
    """Ask so often at once, and return the seconds until each refusal."""
    sent: dict[Any, float] = {}
    took: list[float] = []
    with wires(gateway.port, count) as clients, selectors.DefaultSelector() as answers:
        for client in clients:
            answers.register(client.socket, selectors.EVENT_READ)
        assert gateway.get("/healthz").status_code == 200, "all of them are accepted"
        for client in clients:
            sent[client.socket] = time.monotonic()
            client.send(post())
        while len(took) < count:
            for key, _ in answers.select():
                took.append(time.monotonic() - sent[key.fileobj])
                answers.unregister(key.fileobj)
        refused = [client.read_to_the_end() for client in clients]
    assert {answer.value("x-gateway-error") for answer in refused} == {"gateway_overloaded"}
    return took


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
