"""The relay: streams cost no thread, there is one relay at most, and it leaves nothing behind."""

import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.e2e.crowd import (
    alive,
    descriptors,
    processes_of,
    relay_of,
    relays,
    tcp_sockets,
    threads,
    wait_until_moved,
    wires,
    workers,
)
from tests.e2e.place import process_of
from tests.harness import GatewayProcess, wait_for
from tests.wire import RawAnswer, Wire, chat_body, exchange, post

STREAM = post(chat_body(stream=True))


@contextmanager
def running(gateway: GatewayProcess, count: int) -> Iterator[list[tuple[Wire, bytes]]]:
    """Streams whose first tokens have come, each with what was read of it."""
    with wires(gateway.port, count) as clients:
        yield [(client, client.send(STREAM).read_until(b"tok")) for client in clients]


@contextmanager
def moved(gateway: GatewayProcess, count: int) -> Iterator[list[tuple[Wire, bytes]]]:
    """Streams that the relay has."""
    with running(gateway, count) as streams:
        wait_until_moved(gateway, count)
        yield streams


def rest_of(stream: tuple[Wire, bytes]) -> RawAnswer:
    client, seen = stream
    return client.read_to_the_end(seen)


def finished(answer: RawAnswer) -> bool:
    return answer.complete and answer.content.endswith(b"data: [DONE]\n\n")


@pytest.mark.fault(22)
def test_a_killed_relay_breaks_its_streams_visibly_and_is_back_within_a_second(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    process = process_of(
        cluster.model("llama", engine=Engine(tokens=100_000, token_seconds=0.02)).pods[0]
    )
    cluster.model("short", engine=Engine(tokens=3))
    gateway = start_gateway().ready()
    for _ in range(2):
        killed = relay_of(gateway)
        with moved(gateway, 8) as streams:
            os.kill(killed, signal.SIGKILL)
            at = time.monotonic()
            # What it is given before it is dead is a stream of its own, and breaks as well.
            wait_for(lambda killed=killed: not alive(killed), "it is dead")  # type: ignore[misc]
            asked = 0
            while relays(gateway) in ([], [killed]):
                assert time.monotonic() - at < 1.0, "there is a new one"
                answer = exchange(gateway.port, post(chat_body("short", stream=asked % 2 == 0)))
                assert (answer.status, answer.complete) == (200, True)
                asked += 1
            broken = [rest_of(stream) for stream in streams]
            assert time.monotonic() - at < 3.0
        assert not any(answer.complete or b"[DONE]" in answer.raw for answer in broken)
        wait_for(lambda: process.active == 0, "their endpoint works for nobody")
        wait_for(lambda: gateway.in_flight() == 0, "nothing is in flight")
        assert gateway.metric("gateway_in_flight") == 0
    assert gateway.metric("gateway_requests_total", model="llama") == 16
    assert set(gateway.endpoints().values()) == {"ready"}, "the endpoint is not to blame"


@pytest.mark.fault(22)
def test_a_relay_that_is_back_has_streams_again(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", engine=Engine(tokens=50, token_seconds=0.02))
    gateway = start_gateway().ready()
    killed = relay_of(gateway)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: relays(gateway) not in ([], [killed]), "there is a new one", 1.0)
    relay = relay_of(gateway)

    def has_streams() -> bool:
        with running(gateway, 5) as streams:
            has_them = tcp_sockets(relay) >= 10
            assert all(finished(rest_of(stream)) for stream in streams)
            return has_them

    wait_for(has_streams, "the relay moves the streams")


def test_workers_give_way_to_the_relay_also_to_one_that_came_later(
    start_gateway: GatewayFactory,
) -> None:
    gateway = start_gateway(workers="2", niceness="10").ready()

    def niceness(pid: int) -> int:
        return os.getpriority(os.PRIO_PROCESS, pid)

    def of_threads(worker: int) -> list[int]:
        found = []
        for task in Path(f"/proc/{worker}/task").iterdir():
            with suppress(ProcessLookupError):  # it has ended since
                found.append(niceness(int(task.name)))
        return sorted(found)

    def give_way() -> bool:
        found = [of_threads(worker) for worker in workers(gateway)]
        # The one that is as before has to start the relay.
        return len(found) == 2 and all(
            of == [usual, *[min(usual + 10, 19)] * (len(of) - 1)] for of in found
        )

    usual = niceness(os.getpid())
    wait_for(give_way, "both give way, with all their threads but one each")
    assert niceness(gateway.process.pid) == usual
    for _ in range(2):
        relay = relay_of(gateway)
        assert niceness(relay) == usual
        os.kill(relay, signal.SIGKILL)
        wait_for(lambda relay=relay: not alive(relay), "it is dead")  # type: ignore[misc]


def test_there_is_never_more_than_one_relay(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", engine=Engine(tokens=3))
    gateway = start_gateway(workers="2")
    seen = set()

    def count(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen.add(len(relays(gateway)))
            exchange(gateway.port, STREAM)

    count(1.0)  # both workers start
    wait_for(lambda: len(workers(gateway)) == 2, "both workers are up")
    for _ in range(3):
        os.kill(relay_of(gateway), signal.SIGKILL)
        count(1.0)
    old = workers(gateway)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in old), "they are dead")
    count(1.0)
    gateway.process.send_signal(signal.SIGHUP)
    count(2.0)
    assert seen <= {0, 1}
    assert len(relays(gateway)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_meant_for_the_whole_group_does_not_end_the_relay(
    cluster: Cluster, start_gateway: GatewayFactory, number: signal.Signals
) -> None:
    cluster.model("llama", engine=Engine(tokens=40, token_seconds=0.02))
    gateway = start_gateway().ready()
    relay = relay_of(gateway)
    with moved(gateway, 3) as streams:
        os.kill(relay, number)
        assert all(finished(rest_of(stream)) for stream in streams)
    assert relays(gateway) == [relay]


@pytest.mark.parametrize("streams", [0, 3])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_when_the_gateway_is_gone(
    cluster: Cluster, start_gateway: GatewayFactory, end: signal.Signals, streams: int
) -> None:
    model = cluster.model("llama", engine=Engine(tokens=100_000, token_seconds=0.02))
    gateway = start_gateway(workers="2", grace_seconds="1").ready()
    wait_for(lambda: len(workers(gateway)) == 2, "both workers are up")
    relay_of(gateway)
    with moved(gateway, streams) as begun:
        everything = processes_of(gateway)
        gateway.process.send_signal(end)
        assert not any(finished(rest_of(stream)) for stream in begun)
        status = gateway.process.wait(20.0)
        wait_for(
            lambda: not any(alive(pid) for pid in everything) and not processes_of(gateway),
            "every process is gone",
            10.0,
        )
        wait_for(lambda: process_of(model.pods[0]).active == 0, "nothing is worked on")
    assert status == (0 if end is signal.SIGTERM else -signal.SIGKILL)


@pytest.mark.fault(22)
def test_a_relay_that_dies_with_the_gateway_is_not_replaced_for_long(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama")
    gateway = start_gateway(workers="2").ready()
    relay = relay_of(gateway)
    for worker in workers(gateway):  # so that they begin to notice together
        os.kill(worker, signal.SIGSTOP)
    gateway.process.kill()
    gateway.process.wait(20.0)
    os.kill(relay, signal.SIGKILL)
    for pid in processes_of(gateway):
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not processes_of(gateway), "every process is gone")


@pytest.mark.fault(21)
def test_a_stream_for_which_the_relay_has_no_descriptors_ends_with_an_event(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    process = process_of(cluster.model("llama", engine=Engine(tokens=1000)).pods[0])
    gateway = start_gateway().ready()
    relay = relay_of(gateway)
    taken = {int(path.name) for path in Path(f"/proc/{relay}/fd").iterdir()}
    first_free = min(set(range(len(taken) + 1)) - taken)
    before = resource.prlimit(relay, resource.RLIMIT_NOFILE)
    resource.prlimit(relay, resource.RLIMIT_NOFILE, (first_free, before[1]))
    answer = exchange(gateway.port, STREAM)
    assert (answer.status, answer.complete, answer.reset) == (200, False, False)
    last = answer.content.decode().strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "gateway_overloaded"
    wait_for(lambda: process.active == 0, "its endpoint works for nobody")
    resource.prlimit(relay, resource.RLIMIT_NOFILE, before)
    assert finished(exchange(gateway.port, STREAM))
    assert gateway.metric("gateway_errors_total", code="gateway_overloaded") == 1


def test_a_hundred_streams_take_no_place_and_no_thread_and_leave_nothing_open(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    engine = Engine(tokens=100, token_seconds=0.02, keep_alive_seconds=60)
    process = process_of(cluster.model("llama", engine=engine).pods[0])
    gateway = start_gateway(threads="4").ready()
    relay = relay_of(gateway)
    with running(gateway, 4) as first:  # whatever is made only once is there
        assert all(finished(rest_of(stream)) for stream in first)
    (worker,) = workers(gateway)

    def open_in_worker() -> int:
        return descriptors(worker) - process.connections  # the pool's idle ones aside

    wait_for(lambda: gateway.in_flight() == 0, "nothing is in flight")
    open_before, relay_before, threads_before = (
        open_in_worker(),
        descriptors(relay),
        threads(worker),
    )

    with moved(gateway, 100) as streams:
        assert gateway.in_flight() == 100
        assert threads(worker) <= threads_before
        assert threads(relay) == 1
        assert all(finished(rest_of(stream)) for stream in streams)

    assert gateway.metric("gateway_errors_total") == 0
    wait_for(lambda: descriptors(relay) <= relay_before, "the relay has closed everything")
    wait_for(lambda: open_in_worker() <= open_before, "the worker has closed everything")
    wait_for(lambda: gateway.in_flight() == 0, "nothing is in flight")
    assert gateway.metric("gateway_requests_total", model="llama", status="200") == 104


def test_without_the_relay_streams_are_served_by_threads(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", engine=Engine(tokens=10, token_seconds=0.02))
    gateway = start_gateway(relay="false", niceness="10").ready()
    usual = os.getpriority(os.PRIO_PROCESS, gateway.process.pid)
    assert [os.getpriority(os.PRIO_PROCESS, worker) for worker in workers(gateway)] == [usual]
    with running(gateway, 5) as streams:
        assert relays(gateway) == []
        assert all(finished(rest_of(stream)) for stream in streams)
