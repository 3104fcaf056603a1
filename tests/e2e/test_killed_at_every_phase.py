"""A worker is killed, or told to stop, while its clients are at every phase of a request."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from simulator.cluster import Cluster
from simulator.fleet import Pod
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.e2e.crowd import alive, relay_of, wait_until_moved, wires, workers
from tests.e2e.expect import OVERLOADED, Expected, check_error
from tests.e2e.place import process_of, seen_by
from tests.e2e.test_restarts import whole_stream
from tests.harness import GatewayProcess, wait_for
from tests.wire import RawAnswer, Wire, chat_body, exchange, post

TOKENS = 60
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
#: What each client asks, by its phase.
REQUESTS = {
    "half a head": post(chat_body(), "x-request-id: half-a-head", close=False),
    "half a body": post(chat_body(), "x-request-id: half-a-body", close=False),
    "waiting": post(chat_body("slow"), "x-request-id: waiting", close=False),
    "within a head": post(
        chat_body(), "x-request-id: within-a-head", "x-sim-behaviour: slow-head=1.5", close=False
    ),
    "in a stream": post(chat_body("long", stream=True), "x-request-id: in-a-stream", close=False),
}
#: Bytes of it that its client has sent; all, where nothing is said.
SENT = {"half a head": 40, "half a body": len(REQUESTS["half a body"]) - 10}
HALVES = {"half-a-head", "half-a-body"}
SERVED = sorted(name.replace(" ", "-") for name in REQUESTS)


@dataclass
class Scene:
    """A gateway with a client at each phase, one that idles, and one that asks how it does."""

    gateway: GatewayProcess
    pods: list[Pod]
    clients: dict[str, Wire]
    idle: Wire
    probe: Wire
    seen: bytes  # of the stream

    def go_on(self) -> None:
        """Let those who have sent a half send the rest."""
        for phase, sent in SENT.items():
            self.clients[phase].send(REQUESTS[phase][sent:])

    def read(self, phase: str) -> RawAnswer:
        seen = self.seen if phase == "in a stream" else b""
        return self.clients[phase].read_to_the_end(seen)

    def asked(self) -> list[str]:
        """The requests that pods have seen."""
        return sorted(str(request.request_id) for request in seen_by(*self.pods))

    def work(self) -> int:
        return sum(process_of(pod).active for pod in self.pods)

    def wait_until_draining(self) -> None:
        """The worker keeps no connection any more, and says so on one that it has."""

        def says_so() -> bool:
            return b"Connection: close" in self.probe.send(HEALTH).read_until(b"}\n")

        wait_for(says_so, "the worker is draining")


@contextmanager
def scene(cluster: Cluster, gateway: GatewayProcess) -> Iterator[Scene]:
    engines = {
        "llama": Engine(tokens=2),
        "slow": Engine(tokens=2, first_token_seconds=1.5),
        "long": Engine(tokens=TOKENS, token_seconds=0.03),
    }
    pods = [cluster.model(name, engine=engine).pods[0] for name, engine in engines.items()]
    for name in engines:
        wait_for(lambda name=name: gateway.endpoints(name), "the model is known")  # type: ignore[misc]
    with wires(gateway.port, len(REQUESTS) + 2) as (idle, probe, *others):
        clients = dict(zip(REQUESTS, others, strict=True))
        for phase, client in clients.items():
            client.send(REQUESTS[phase][: SENT.get(phase)])
        seen = clients["in a stream"].read_until(b"tok")
        idle.send(HEALTH).read_until(b"}\n")
        probe.send(HEALTH).read_until(b"}\n")
        here = Scene(gateway, pods, clients, idle, probe, seen)
        wait_for(lambda: here.work() == 3, "pods work for those who have sent all of it")
        yield here


@pytest.mark.fault(22)
@pytest.mark.parametrize("relay", ["true", "false"], ids=["relay", "plain"])
def test_a_killed_worker_breaks_what_waits_visibly_and_no_more_than_that(
    cluster: Cluster,
    start_gateway: GatewayFactory,
    record_property: Callable[[str, object], None],
    relay: str,
) -> None:
    gateway = start_gateway(relay=relay).ready()
    if relay == "true":
        relay_of(gateway)
    with scene(cluster, gateway) as here:
        if relay == "true":
            wait_until_moved(gateway, 1)
        (worker,) = workers(gateway)
        os.kill(worker, signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: not alive(worker), "it is dead")
        assert exchange(gateway.port, post()).status == 200
        record_property(
            f"row 22: from kill -9 to the next answer ({relay=}), s",
            f"{time.monotonic() - killed:.2f}",
        )
        stream = here.read("in a stream")
        broken = [here.read(phase) for phase in REQUESTS if phase != "in a stream"]
        assert [answer.raw for answer in [*broken, here.idle.read_to_the_end()]] == [b""] * 5
        if relay == "true":
            assert whole_stream(stream, TOKENS)
        else:
            assert not stream.complete
            assert b"[DONE]" not in stream.raw
        wait_for(lambda: here.work() == 0, "the pods work for nobody")
        assert not set(here.asked()) & HALVES
    wait_for(lambda: gateway.in_flight() == 0, "nothing is in flight")
    assert gateway.metric("gateway_in_flight") == 0


@pytest.mark.fault(22)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_worker_that_is_told_to_stop_answers_whatever_had_begun(
    cluster: Cluster, start_gateway: GatewayFactory, number: signal.Signals
) -> None:
    gateway = start_gateway().ready()
    relay_of(gateway)
    with scene(cluster, gateway) as here:
        wait_until_moved(gateway, 1)
        gateway.process.send_signal(number)
        here.wait_until_draining()
        here.go_on()
        assert whole_stream(here.read("in a stream"), TOKENS)
        for phase in REQUESTS:
            if phase != "in a stream":
                answer = here.read(phase)
                assert (answer.status, answer.complete, answer.reset) == (200, True, False), phase
                assert answer.value("connection") == "close"
        end = here.idle.read_to_the_end()
        assert (end.raw, end.reset) == (b"", False)
        assert here.asked() == SERVED, "each of them once"
    if number is signal.SIGTERM:
        assert gateway.process.wait(20.0) == 0
    else:
        assert exchange(gateway.port, post()).status == 200


@pytest.mark.fault(22)
def test_what_is_complete_only_when_the_grace_is_over_is_told_to_come_again(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    gateway = start_gateway(grace_seconds="0.3").ready()
    with scene(cluster, gateway) as here:
        gateway.process.send_signal(signal.SIGTERM)
        assert b"gateway_draining" in here.read("in a stream").content
        here.go_on()
        draining = Expected(503, "gateway_draining", OVERLOADED)
        for phase in REQUESTS:
            if phase != "in a stream":
                answer = here.read(phase)
                check_error(answer, draining, retry_after=1)
                assert answer.value("connection") == "close"
        assert not set(here.asked()) & HALVES
        wait_for(lambda: here.work() == 0, "the pods work for nobody")
    assert gateway.process.wait(20.0) == 0
