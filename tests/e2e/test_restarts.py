"""Gateways and their workers come and go, and what runs through them does not notice."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.e2e.crowd import alive, relay_of, wait_until_moved, wires, workers
from tests.e2e.place import process_of
from tests.harness import GatewayProcess, wait_for
from tests.wire import RawAnswer, Wire, body_of, chat_body, head_of, post

RESTARTS = 20
#: Of streams that run, 20 ms a token, until their engine is told to hurry.
TOKENS = 1500
NUMBERS = re.compile(rb'"n":(\d+) *,')
DONE = b"data: [DONE]\n\n"


class Service:
    """Where clients connect. Who connected before it moved has done so for good."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._lock = threading.Lock()  # guards: _port, and the moment between it and connecting
        self._port = gateway.port

    def connect(self) -> Wire:
        with self._lock:
            return Wire(self._port)

    def move(self, gateway: GatewayProcess) -> None:
        with self._lock:
            self._port = gateway.port


@dataclass
class Clients:
    """Clients that ask without a pause, in all usual ways; a context manager that ends them.

    `good` counts answers that were whole, `bad` tells of all others.
    """

    service: Service
    good: dict[str, int] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)

    def __enter__(self) -> "Clients":
        self._stopping = threading.Event()
        streams = [self._stream, self._stream, self._kept_stream]
        ways = [*streams, self._short, self._short, self._keep]
        self._threads = [threading.Thread(target=self._ask_on, args=(way,)) for way in ways]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, way: Callable[[], str]) -> None:
        while not self._stopping.is_set():
            try:
                wrong = way()
            except (OSError, AssertionError) as error:
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                self.bad.append(f"{way.__name__}: {wrong}")
            else:
                self.good[way.__name__] = self.good.get(way.__name__, 0) + 1

    def _stream(self) -> str:
        with self.service.connect() as wire:
            answer = wire.send(post(chat_body(stream=True))).read_to_the_end()
        return "" if whole_stream(answer, 15) else repr(answer)

    def _kept_stream(self) -> str:
        """A stream whose connection the client would use again."""
        with self.service.connect() as wire:
            request = post(chat_body(stream=True), close=False)
            answer = RawAnswer(wire.send(request).read_until(b"\r\n0\r\n\r\n"))
        return "" if whole_stream(answer, 15) else repr(answer)

    def _short(self) -> str:
        with self.service.connect() as wire:
            answer = wire.send(post(chat_body("short"))).read_to_the_end()
        return "" if answer.status == 200 and answer.complete and not answer.reset else repr(answer)

    def _keep(self) -> str:
        """Ask on one connection until an answer says that it closes."""
        with self.service.connect() as wire:
            while not self._stopping.is_set():
                answer = read_one(wire.send(post(chat_body("short"), close=False)))
                if answer.status != 200 or not answer.complete:
                    return repr(answer)
                if answer.value("connection") == "close":
                    break
        return ""


def read_one(wire: Wire) -> RawAnswer:
    """The next answer on a connection that may be kept; its length is given."""
    seen = wire.read_until(b"\r\n\r\n")
    length = int(dict(head_of(seen)[1])["content-length"])
    while len(body_of(seen)) < length and (data := wire.socket.recv(65_536)):
        seen += data
    return RawAnswer(seen)


def whole_stream(answer: RawAnswer, tokens: int) -> bool:
    """Whether it has all its tokens in order, its last event, and its framing's end."""
    numbers = [int(n) for n in NUMBERS.findall(answer.content)]
    in_order = [n for n in numbers if 1 <= n <= tokens] == list(range(1, tokens + 1))
    ended = answer.complete and answer.content.endswith(DONE) and not answer.reset
    return answer.status == 200 and in_order and ended


@pytest.mark.fault(22)
def test_twenty_restarts_under_load_cost_nobody_an_answer(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", pods=2, engine=Engine(tokens=15, token_seconds=0.02))
    cluster.model("short", pods=2, engine=Engine(tokens=1))
    serving, spare = start_gateway().ready(), start_gateway().ready()
    statuses = []
    with Clients(Service(serving)) as clients:
        for _ in range(RESTARTS):
            clients.service.move(spare)
            statuses.append(serving.stop())
            serving, spare = spare, serving.start().ready()
    assert clients.bad == []
    assert statuses == [0] * RESTARTS
    assert clients.good.keys() == {"_stream", "_kept_stream", "_short", "_keep"}
    assert min(clients.good["_stream"], clients.good["_short"]) > 2 * RESTARTS


def with_workers(gateway: GatewayProcess, count: int) -> GatewayProcess:
    """The gateway, when all its workers are up and can give streams to the relay."""
    gateway.ready()
    wait_for(lambda: len(workers(gateway)) == count, "all workers are up")
    relay_of(gateway)
    return gateway


@contextmanager
def streams(
    gateway: GatewayProcess, count: int, *, kept: bool = False
) -> Iterator[list[tuple[Wire, bytes]]]:
    """Streams that the relay has, each with what was read of it and a request id of its own.

    Where `kept`, the client of every other one would use its connection again.
    """
    with wires(gateway.port, count) as clients:
        for number, client in enumerate(clients):
            close = not kept or number % 2 == 0
            fields = f"x-request-id: stream-{number}"
            client.send(post(chat_body(stream=True), fields, close=close))
        begun = [(client, client.read_until(b"tok")) for client in clients]
        wait_until_moved(gateway, count)
        yield begun


def listens(gateway: GatewayProcess) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", gateway.port)) == 0


def replace_workers(gateway: GatewayProcess, number: signal.Signals) -> None:
    """Let all workers be replaced: killed, or by a reload."""
    old = set(workers(gateway))
    if number is signal.SIGHUP:
        gateway.process.send_signal(number)
    else:
        for pid in old:
            os.kill(pid, number)
        wait_for(lambda: not any(alive(pid) for pid in old), "they are dead")
    wait_for(lambda: set(workers(gateway)) - old, "there is a new worker")


@pytest.mark.fault(22)
@pytest.mark.parametrize("count", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_running_streams_survive_their_worker_and_are_accounted_for_once(
    cluster: Cluster, start_gateway: GatewayFactory, number: signal.Signals, count: str
) -> None:
    process = process_of(
        cluster.model("llama", engine=Engine(tokens=TOKENS, token_seconds=0.02)).pods[0]
    )
    gateway = with_workers(start_gateway(workers=count), int(count))
    with streams(gateway, 10, kept=True) as running:
        began = time.monotonic()
        wait_for(lambda: gateway.in_flight() == 10, "all are counted")
        replace_workers(gateway, number)
        wait_for(lambda: gateway.in_flight() == 10, "those who are left know of all of them")
        metric = gateway.metric
        wait_for(lambda: metric("gateway_in_flight", model="llama") == 10, "so do metrics")
        assert process.active == 10
        lasted = time.monotonic() - began
        process.hurry()
        answers = [client.read_to_the_end(seen) for client, seen in running]
    assert all(whole_stream(answer, TOKENS) for answer in answers)
    check_accounts(gateway, 10, lasted)
    assert len(process.requests) == 10
    assert gateway.chat().status_code == 200


def check_accounts(gateway: GatewayProcess, count: int, lasted: float) -> None:
    """`count` streams that went well are counted and logged once each, and are over.

    Each took more than `lasted` seconds.
    """
    wait_for(lambda: gateway.in_flight() == 0, "nothing is in flight")
    metric = gateway.metric
    wait_for(lambda: metric("gateway_requests_total", model="llama") >= count, "all are counted")
    assert metric("gateway_requests_total", model="llama", status="200") == count
    assert metric("gateway_requests_total", model="llama") == count
    assert metric("gateway_request_seconds_count", model="llama") == count
    assert metric("gateway_first_byte_seconds_count", model="llama") == count
    assert metric("gateway_in_flight") == 0
    assert metric("gateway_errors_total") == 0
    assert metric("gateway_client_aborts_total") == 0
    lines = [line for line in gateway.log_lines() if "request_id" in line]
    assert sorted(line["request_id"] for line in lines) == sorted(
        f"stream-{number}" for number in range(count)
    )
    for line in lines:
        assert (line["status"], line["model"]) == (200, "llama")
        assert line["bytes"] > 1000
        assert line["seconds"] >= lasted
        assert "error" not in line
        assert "client_left" not in line


@pytest.mark.fault(22)
def test_one_worker_of_two_that_dies_takes_no_stream_with_it(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", engine=Engine(tokens=150, token_seconds=0.02))
    gateway = with_workers(start_gateway(workers="2"), 2)
    with streams(gateway, 10) as running:
        os.kill(workers(gateway)[0], signal.SIGKILL)
        answers = [client.read_to_the_end(seen) for client, seen in running]
    assert all(whole_stream(answer, 150) for answer in answers)
    check_accounts(gateway, 10, 2.0)


@pytest.mark.fault(22)
def test_workers_that_stop_together_cut_no_stream_before_the_grace_is_over(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    """The relay hears of it late: those who stop first must not leave too early."""
    cluster.model("llama", engine=Engine(tokens=100, token_seconds=0.02))
    gateway = with_workers(start_gateway(workers="2", grace_seconds="30"), 2)
    relay = relay_of(gateway)
    with streams(gateway, 3) as running:
        os.kill(relay, signal.SIGSTOP)
        gateway.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(gateway), "all workers stop")
        os.kill(relay, signal.SIGCONT)
        answers = [client.read_to_the_end(seen) for client, seen in running]
    assert all(whole_stream(answer, 100) for answer in answers)
    assert gateway.process.wait(20.0) == 0
    logged = [line["request_id"] for line in gateway.log_lines() if "request_id" in line]
    assert sorted(logged) == [f"stream-{number}" for number in range(3)]


def test_the_first_process_outlives_the_last_stream(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    """A container ends with its first process, and everything in it then."""
    cluster.model("llama", engine=Engine(tokens=100, token_seconds=0.02))
    gateway = with_workers(start_gateway(), 1)
    with streams(gateway, 5) as running:
        replace_workers(gateway, signal.SIGKILL)
        gateway.ready()
        gateway.process.send_signal(signal.SIGTERM)
        for client, seen in running:
            received = client.read_until(b"[DONE]", seen)
            assert gateway.process.poll() is None
            assert whole_stream(client.read_to_the_end(received), 100)
    assert gateway.process.wait(20.0) == 0
    logged = [line["request_id"] for line in gateway.log_lines() if "request_id" in line]
    assert sorted(logged) == [f"stream-{number}" for number in range(5)]


@pytest.mark.fault(22)
@pytest.mark.parametrize("replaced", [None, signal.SIGKILL, signal.SIGHUP])
def test_streams_that_outlast_the_grace_are_told_so_whoever_began_them(
    cluster: Cluster, start_gateway: GatewayFactory, replaced: signal.Signals | None
) -> None:
    engine = Engine(tokens=100_000, token_seconds=0.02)
    process = process_of(cluster.model("llama", engine=engine).pods[0])
    gateway = with_workers(start_gateway(workers="2", grace_seconds="1"), 2)
    with streams(gateway, 20, kept=True) as running:
        if replaced:
            replace_workers(gateway, replaced)
            gateway.ready()
        gateway.process.send_signal(signal.SIGTERM)
        stopped = time.monotonic()
        answers = [client.read_to_the_end(seen) for client, seen in running]
        took = time.monotonic() - stopped
    assert 0.5 < took < 5.0
    for answer in answers:
        last = answer.content.decode().strip().split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "gateway_draining"
        assert (answer.complete, answer.reset) == (False, False)
        assert b"[DONE]" not in answer.raw
    assert gateway.process.wait(20.0) == 0
    wait_for(lambda: process.active == 0, "the engine's work was stopped")
