"""A gateway stops: what runs finishes, what comes is told, and nothing is left behind."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import requests

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.e2e.place import environment_of, process_of
from tests.e2e.test_pod_life import events
from tests.harness import PATIENCE, GatewayProcess, gateway_process, wait_for
from tests.wire import Wire, chat_body, post

GET_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: gateway.test\r\n\r\n"


def stop(gateway: GatewayProcess) -> None:
    gateway.process.send_signal(signal.SIGTERM)


def listens(gateway: GatewayProcess) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", gateway.port)) == 0


def test_a_worker_that_is_only_starting_hears_the_signal_too(
    cluster: Cluster, tmp_path: Path
) -> None:
    environment = environment_of(cluster, tmp_path, grace_seconds="600")
    configuration = str(Path(__file__).parent / "slow_fork.py")
    with gateway_process(tmp_path, "-c", configuration, **environment) as gateway:
        gateway.listening()
        wait_for(lambda: "Booting worker" in gateway.logs(), "a worker is starting")
        stop(gateway)
        assert gateway.process.wait(PATIENCE) == 0


@pytest.mark.fault(22)
def test_a_running_stream_finishes_within_the_grace(
    cluster: Cluster, start_gateway: GatewayFactory, tmp_path: Path
) -> None:
    cluster.model("llama", engine=Engine(tokens=60, token_seconds=0.02))
    gateway = start_gateway(workers="2").ready()
    stream = gateway.chat(stream=True)
    arriving = events(stream)
    next(arriving)

    stop(gateway)
    wait_for(lambda: not listens(gateway), "it listens no more")
    rest = list(arriving)
    stream.close()

    assert rest[-1] == "[DONE]"
    assert {json.loads(event)["sim"]["n"] for event in rest[:-1]} >= set(range(2, 61))
    assert gateway.process.wait(PATIENCE) == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("gateway-")] == [
        gateway.log_file.name
    ]


@pytest.mark.fault(22)
@pytest.mark.parametrize("content_type", ["stream", "plain"])
def test_what_still_runs_when_the_grace_is_over_is_told_so(
    cluster: Cluster, start_gateway: GatewayFactory, content_type: str
) -> None:
    model = cluster.model("llama", engine=Engine(tokens=10_000, token_seconds=0.05))
    gateway = start_gateway(grace_seconds="1").ready()
    process = process_of(model.pods[0])
    with Wire(gateway.port) as client:
        client.send(post(chat_body(stream=content_type == "stream")))
        if content_type == "stream":
            seen = client.read_until(b"data: ")
        else:
            seen = b""
            wait_for(lambda: process.active, "the request runs")
        stop(gateway)
        stopped = time.monotonic()
        answer = client.read_to_the_end(seen)
        took = time.monotonic() - stopped

    assert 0.9 < took < 5
    assert not answer.reset
    assert b"[DONE]" not in answer.raw
    if content_type == "stream":
        assert not answer.complete
        last = answer.content.decode().strip().split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "gateway_draining"
    else:
        assert answer.status == 503
        assert answer.value("x-gateway-error") == "gateway_draining"
        assert answer.value("connection") == "close"
    assert gateway.process.wait(PATIENCE) == 0
    # The engine is not asked again by anybody: the request was ended, not replayed.
    assert len(process.requests) == 1
    wait_for(lambda: process.active == 0, "the engine's work was stopped")


@pytest.mark.parametrize("behaviour", ["stall-before-head=60", "stall-after-tokens=2"])
def test_an_endpoint_that_hangs_does_not_outlast_the_grace(
    cluster: Cluster, start_gateway: GatewayFactory, behaviour: str
) -> None:
    # Two pods: the request must not move on to the other one when the first is given up.
    model = cluster.model("llama", pods=2)
    gateway = start_gateway(grace_seconds="0.5").ready()
    for pod in model.pods:
        process_of(pod).behave(behaviour)
    with Wire(gateway.port) as client:
        client.send(post(chat_body(stream=True)))
        wait_for(lambda: sum(process_of(pod).active for pod in model.pods), "the request runs")
        stop(gateway)
        answer = client.read_to_the_end()
    assert b"gateway_draining" in answer.raw
    assert gateway.process.wait(5.0) == 0
    assert sum(len(process_of(pod).requests) for pod in model.pods) == 1


def test_a_client_that_is_behind_when_the_grace_is_over_sees_that_something_is_missing(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    model = cluster.model("llama")
    gateway = start_gateway(grace_seconds="0.5").ready()
    process = process_of(model.pods[0])
    with Wire(gateway.port, receive_buffer=4096) as client:
        client.send(post(chat_body(), "x-sim-behaviour: large=100000000"))
        seen = client.read_until(b"\r\n\r\n")
        stop(gateway)
        wait_for(lambda: process.active == 0, "the endpoint was let go")
        answer = client.read_to_the_end(seen)
    assert answer.status == 200
    assert not answer.complete
    assert not answer.reset
    assert gateway.process.wait(PATIENCE) == 0


def test_health_turns_bad_at_once_on_a_connection_that_is_kept(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", engine=Engine(tokens=60, token_seconds=0.02))
    gateway = start_gateway().ready()
    running = gateway.chat(stream=True)
    with Wire(gateway.port) as probe:
        assert b" 200 " in probe.send(GET_HEALTH).read_until(b"}\n")
        stop(gateway)
        wait_for(lambda: not listens(gateway), "it listens no more", 1.0)
        answer = probe.send(GET_HEALTH).read_to_the_end()
    assert answer.status == 503
    assert json.loads(answer.body)["reason"] == "draining"
    assert answer.value("connection") == "close"
    assert list(events(running))[-1] == "[DONE]"
    running.close()


def test_a_request_on_a_kept_connection_is_answered_and_the_connection_closed(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", engine=Engine(tokens=2))
    gateway = start_gateway().ready()
    with Wire(gateway.port) as client:
        client.send(post(chat_body(), close=False)).read_until(b"}}")
        stop(gateway)
        wait_for(lambda: not listens(gateway), "it listens no more", 1.0)
        answer = client.send(post(chat_body(), close=False)).read_to_the_end()
    assert answer.status == 200
    assert answer.complete
    assert answer.value("connection") == "close"


def test_an_answer_that_begins_while_draining_says_that_the_connection_closes(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    model = cluster.model("llama", engine=Engine(tokens=2, first_token_seconds=0.7))
    gateway = start_gateway().ready()
    with Wire(gateway.port) as client:
        client.send(post(chat_body(), close=False))
        wait_for(lambda: process_of(model.pods[0]).active, "the request runs")
        stop(gateway)
        wait_for(lambda: not listens(gateway), "it listens no more", 0.5)
        answer = client.read_to_the_end()
    assert answer.status == 200
    assert answer.value("connection") == "close"
    assert gateway.process.wait(PATIENCE) == 0


@pytest.mark.fault(22)
def test_what_waits_in_the_accept_queue_is_answered(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", pods=2, engine=Engine(tokens=1))
    gateway = start_gateway().ready()
    (worker,) = gateway.workers()
    # A worker that is stopped accepts nothing, so that the connections wait.
    os.kill(worker, signal.SIGSTOP)
    clients = [Wire(gateway.port).send(post(chat_body())) for _ in range(20)]
    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGCONT)
    answers = [client.read_to_the_end() for client in clients]
    for client in clients:
        client.socket.close()
    assert [(answer.status, answer.reset) for answer in answers] == [(200, False)] * 20


def test_an_earlier_broken_answer_does_not_shorten_the_drain(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    model = cluster.model("llama", engine=Engine(tokens=60, token_seconds=0.02))
    gateway = start_gateway().ready()
    process_of(model.pods[0]).behave("die-after-tokens=2", times=3)
    for _ in range(3):
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(events(gateway.chat(stream=True)))
    stream = gateway.chat(stream=True)
    arriving = events(stream)
    next(arriving)
    with Wire(gateway.port) as probe:
        probe.send(GET_HEALTH).read_until(b"}\n")
        stop(gateway)
        wait_for(lambda: not listens(gateway), "it listens no more", 1.0)
        assert probe.send(GET_HEALTH).read_to_the_end().status == 503
    assert list(arriving)[-1] == "[DONE]"
    stream.close()


@pytest.mark.fault(22)
def test_a_second_sigterm_changes_nothing(cluster: Cluster, start_gateway: GatewayFactory) -> None:
    cluster.model("llama", engine=Engine(tokens=60, token_seconds=0.02))
    gateway = start_gateway().ready()
    stream = gateway.chat(stream=True)
    arriving = events(stream)
    next(arriving)
    for _ in range(3):
        stop(gateway)
        next(arriving)
    assert list(arriving)[-1] == "[DONE]"
    stream.close()
    assert gateway.process.wait(PATIENCE) == 0


def test_silent_connections_do_not_hold_up_the_end(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", engine=Engine(tokens=2))
    gateway = start_gateway(grace_seconds="60").ready()
    with Wire(gateway.port), Wire(gateway.port) as kept:
        kept.send(GET_HEALTH).read_until(b"}\n")
        stop(gateway)
        assert gateway.process.wait(10.0) == 0


def test_clients_that_do_not_close_hold_up_nobody(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", engine=Engine(tokens=1))
    gateway = start_gateway().ready()
    holding = [Wire(gateway.port).send(post(chat_body())) for _ in range(10)]
    for client in holding:
        client.read_until(b"}}")
    slowest = 0.0
    for _ in range(20):
        asked = time.monotonic()
        assert gateway.get("/healthz", headers={"Connection": "close"}).status_code == 200
        slowest = max(slowest, time.monotonic() - asked)
    for client in holding:
        client.socket.close()
    assert slowest < 1.0  # each of them would cost two seconds
