"""Several workers are one gateway, and a worker's death or replacement is hardly noticed."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.e2e.place import Place, place
from tests.e2e.test_pod_life import events
from tests.harness import GatewayProcess, wait_for
from tests.wire import Wire, behaving, chat_body, post

WORKERS = 3


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("w")
    with place(directory, workers=str(WORKERS), poll_seconds="0.5") as running:
        wait_for(lambda: len(running.gateway.status()["workers"]) == WORKERS, "all workers are up")
        yield running


def asked_of_every_worker(gateway: GatewayProcess, path: str, needle: str) -> set[str]:
    """The lines at `path` that start with `needle`, over many connections."""
    found = set()
    for _ in range(30):
        text = gateway.get(path, headers={"Connection": "close"}).text
        found |= {line for line in text.splitlines() if line.startswith(needle)}
    return found


def test_every_worker_tells_the_counts_of_all(town: Place) -> None:
    counted = town.deploy("counted", pods=2, engine=Engine(tokens=1))
    ready = {pod.name: "ready" for pod in counted.pods}
    wait_for(
        lambda: all(town.gateway.endpoints("counted") == ready for _ in range(30)),
        "every worker knows them, not only the first one that was asked",
    )
    for _ in range(30):
        assert town.gateway.chat("counted").status_code == 200
    line = 'gateway_requests_total{model="counted",status="200"}'
    assert asked_of_every_worker(town.gateway, "/metrics", line) == {f"{line} 30.0"}
    count = 'gateway_request_seconds_count{model="counted"}'
    assert asked_of_every_worker(town.gateway, "/metrics", count) == {f"{count} 30.0"}


def test_no_worker_makes_a_file_while_another_may_read_it(town: Place) -> None:
    """It would be empty for a moment, and `/metrics` fail."""
    (directory,) = town.gateway.log_file.parent.glob(f"gateway-{town.gateway.process.pid}-*")

    def files() -> set[tuple[str, int]]:
        return {(path.name, path.stat().st_ino) for path in directory.glob("*.db")}

    before = files()
    assert len(before) >= 4 * WORKERS
    model = town.deploy("first", pods=2, engine=Engine(tokens=1))
    for how in ("close-before-head", "reset-after-head", ""):
        for _ in range(10):
            town.exchange(behaving(how, model.name) if how else post(chat_body(model.name)))
    town.exchange(post(b"{"))
    assert "gateway_retries_total" in town.gateway.get("/metrics").text
    assert files() == before


def test_endpoints_are_counted_once_however_many_workers_know_them(town: Place) -> None:
    town.deploy("once", pods=2)
    line = 'gateway_endpoints{model="once",state="ready"}'
    wait_for(
        lambda: asked_of_every_worker(town.gateway, "/metrics", line) == {f"{line} 2.0"},
        "every worker knows both",
    )
    age = asked_of_every_worker(town.gateway, "/metrics", "gateway_snapshot_age_seconds ")
    assert all(0 <= float(line.split()[1]) < 5 for line in age)


def test_requests_in_flight_are_added_up_over_the_workers(town: Place) -> None:
    gateway = town.gateway
    town.deploy("slow", pods=2, engine=Engine(tokens=10_000, token_seconds=0.05))
    streams = [gateway.chat("slow", stream=True) for _ in range(9)]
    try:
        assert gateway.metric("gateway_in_flight", model="slow") == 9
        for _ in range(10):  # whichever worker answers
            (entry,) = [m for m in gateway.status()["models"] if m["model"] == "slow"]
            assert sum(endpoint["in_flight"] for endpoint in entry["endpoints"]) == 9
        assert len(set(gateway.status()["workers"])) == WORKERS
    finally:
        for stream in streams:
            stream.close()
    wait_for(lambda: gateway.metric("gateway_in_flight", model="slow") == 0, "none is left")
    town.wait_until_idle()


def test_an_endpoint_set_aside_by_one_worker_is_shown_by_all(town: Place) -> None:
    model = town.deploy("aside", pods=2, engine=Engine(tokens=1))
    model.pods[0].crash(notice=None)
    line = 'gateway_endpoints{model="aside",state="set_aside"} 1.0'

    def shown() -> bool:
        for _ in range(6):
            assert town.gateway.chat("aside").status_code == 200
        return line in town.gateway.get("/metrics").text

    wait_for(shown, "it is set aside")


@pytest.mark.fault(22)
def test_a_killed_worker_leaves_no_request_in_flight_and_is_replaced(town: Place) -> None:
    gateway = town.gateway
    town.deploy("killed")
    waiting = [Wire(gateway.port) for _ in range(6)]
    for client in waiting:
        client.send(behaving("stall-before-head", "killed"))
    wait_for(lambda: gateway.metric("gateway_in_flight", model="killed") == 6, "all wait")
    killed = set(gateway.workers())

    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    wait_for(lambda: not killed & set(gateway.workers()), "they are gone")
    wait_for(lambda: gateway.metric("gateway_in_flight", model="killed") == 0, "nor their requests")
    town.wait_until_idle()
    for client in waiting:
        assert client.read_to_the_end().raw == b""
        client.socket.close()
    wait_for(lambda: len(set(gateway.status()["workers"]) - killed) == WORKERS, "all are new")
    assert not set(gateway.status()["workers"]) & killed
    wait_for(lambda: gateway.metric("gateway_snapshot_age_seconds") < 5, "all have listed")


@pytest.mark.fault(22)
def test_after_the_death_of_the_only_worker_the_next_request_is_served_within_a_second(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    model = cluster.model("llama", engine=Engine(tokens=1))
    gateway = start_gateway(poll_seconds="0.5").ready()
    for _ in range(3):
        (worker,) = gateway.workers()
        os.kill(worker, signal.SIGKILL)
        killed = time.monotonic()
        answer = gateway.chat()
        assert answer.status_code == 200
        assert time.monotonic() - killed < 1.0
    # The poller of the new worker works too.
    new = model.add_pod()
    wait_for(lambda: new.name in gateway.endpoints(), "the change is seen")


def test_a_new_worker_does_not_wait_long_for_an_api_server_that_is_away(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama")
    gateway = start_gateway().ready()
    cluster.api.fault("hang")
    (worker,) = gateway.workers()
    os.kill(worker, signal.SIGKILL)
    answer = gateway.chat()
    assert answer.headers["x-gateway-error"] == "endpoints_unknown"
    cluster.api.heal()
    gateway.ready()


@pytest.mark.fault(22)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_fails_no_request_and_cuts_no_stream(
    cluster: Cluster, start_gateway: GatewayFactory, workers: str
) -> None:
    cluster.model("llama", pods=2, engine=Engine(tokens=4))
    cluster.model("slow", engine=Engine(tokens=100, token_seconds=0.02))
    gateway = start_gateway(workers=workers).ready()
    wait_for(lambda: len(gateway.workers()) == int(workers), "all workers are up")
    old = set(gateway.workers())
    running = gateway.chat("slow", stream=True)
    statuses: Counter[object] = Counter()
    reloaded = threading.Event()

    def ask() -> None:
        while not reloaded.is_set():
            answer = gateway.chat()
            statuses[answer.status_code, answer.headers.get("x-gateway-error")] += 1

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        gateway.process.send_signal(signal.SIGHUP)
        assert list(events(running))[-1] == "[DONE]"
        wait_for(
            lambda: len(gateway.workers()) == int(workers) and not old & set(gateway.workers()),
            "all workers are new",
        )
    finally:
        reloaded.set()
        for asker in askers:
            asker.join()

    assert set(statuses) == {(200, None)}
    assert gateway.chat().status_code == 200
    assert gateway.metric("gateway_requests_total", model="llama", status="200") > 1
    assert gateway.metric("gateway_in_flight") == 0


@pytest.mark.fault(8)
def test_credentials_that_are_missing_for_a_moment_end_neither_a_worker_nor_a_reload(
    cluster: Cluster, start_gateway: GatewayFactory, tmp_path: Path
) -> None:
    cluster.model("llama")
    gateway = start_gateway(poll_seconds="0.5").ready()
    (tmp_path / "kubeconfig").rename(tmp_path / "away")
    gateway.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "Hang up" in gateway.logs(), "the reload has begun")
    wait_for(lambda: len(gateway.workers()) == 1, "one is left")
    (worker,) = gateway.workers()
    os.kill(worker, signal.SIGKILL)
    # Gone, or a connection that is kept may still lead to it.
    wait_for(lambda: {*gateway.workers()} - {worker} == {*gateway.workers()} != set(), "it is new")

    unready = gateway.get("/healthz")
    assert unready.status_code == 503
    assert "no list of EndpointSlices has succeeded yet" in unready.json()["reason"]

    (tmp_path / "away").rename(tmp_path / "kubeconfig")
    gateway.ready()
    assert gateway.chat().status_code == 200
