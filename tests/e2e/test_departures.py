"""A client that leaves ends the work that is done for it, whatever stage it is at."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import get_args

import pytest

from simulator.model import Model
from simulator.pod import Engine
from tests.e2e.crowd import Departure, leave, relay_of, wires
from tests.e2e.place import Place, on_both_paths, place, process_of, seen_by
from tests.harness import wait_for
from tests.wire import Wire, chat_body, in_chunks, post

#: More than enough failures, if they were any, to have each of two endpoints set aside.
CLIENTS = 8
#: Seconds within which an endpoint must know that nobody waits for it any more.
NOTICE = 1.0
ways_to_leave = pytest.mark.parametrize("how", get_args(Departure))


@on_both_paths
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("departures")
    # Longer than any of these tests, so that no timeout of the gateway's ends what they began.
    with place(directory, relay=request.param, idle_timeout="60", send_timeout="60") as here:
        if request.param == "true":
            relay_of(here.gateway)
        yield here


class Effects:
    """What a departure must and must not lead to; made before the clients ask."""

    def __init__(self, here: Place, model: Model, phase: str) -> None:
        self._here, self._model, self._phase = here, model, phase
        self._processes = [process_of(pod) for pod in model.pods]
        self._before = self._counts()

    def _counts(self) -> tuple[float, float, float]:
        metric = self._here.gateway.metric
        return (
            metric("gateway_client_aborts_total", phase=self._phase),
            metric("gateway_retries_total"),
            metric("gateway_upstream_failures_total"),
        )

    def work(self) -> int:
        """Requests that the pods are working on."""
        return sum(process.active for process in self._processes)

    def check(self, left: float) -> None:
        """`CLIENTS` clients have left at the monotonic time `left`."""
        wait_for(lambda: len(self._ends()) == CLIENTS, "the pods see that everybody is gone")
        assert max(self._ends()) - left < NOTICE
        wait_for(lambda: self.work() == 0, "the pods work for nobody", NOTICE)
        self._here.wait_until_idle()
        name = self._model.name
        gateway = self._here.gateway
        wait_for(lambda: gateway.metric("gateway_in_flight", model=name) == 0, "nor by the metric")
        aborts, retries, failures = self._before
        assert self._counts() == (aborts + CLIENTS, retries, failures)
        assert gateway.metric("gateway_requests_total", model=name) == CLIENTS
        assert len(seen_by(*self._model.pods)) == CLIENTS, "nobody was asked in another's place"
        assert set(gateway.endpoints(name).values()) == {"ready"}

    def _ends(self) -> list[float]:
        return [at for process in self._processes for at in process.closed_early]


def leave_all(clients: list[Wire], how: Departure) -> float:
    """Let all of them leave, and return when they began to."""
    left = time.monotonic()
    for client in clients:
        leave(client, how)
    return left


@pytest.mark.fault(19)
@ways_to_leave
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_leaves_while_it_waits_for_the_first_byte_ends_the_work(
    here: Place, how: Departure, stream: bool
) -> None:
    engine = Engine(tokens=1, first_token_seconds=60)
    model = here.deploy(f"prefill-{stream}-{how}".lower(), pods=2, engine=engine)
    effects = Effects(here, model, "waiting")
    with wires(here.gateway.port, CLIENTS) as clients:
        for client in clients:
            client.send(post(chat_body(model.name, stream=stream)))
        wait_for(lambda: effects.work() == CLIENTS, "all of them are worked on")
        left = leave_all(clients, how)
        effects.check(left)


@pytest.mark.fault(19)
@ways_to_leave
def test_a_client_that_leaves_in_the_middle_of_a_stream_ends_it(
    here: Place, how: Departure
) -> None:
    engine = Engine(tokens=100_000, token_seconds=0.02)
    model = here.deploy(f"streaming-{how}", pods=2, engine=engine)
    effects = Effects(here, model, "receiving")
    with wires(here.gateway.port, CLIENTS) as clients:
        for client in clients:
            client.send(post(chat_body(model.name, stream=True))).read_until(b"tok")
        left = leave_all(clients, how)
        effects.check(left)


@pytest.mark.fault(19)
@ways_to_leave
def test_a_client_that_leaves_a_stream_which_is_silent_ends_it(here: Place, how: Departure) -> None:
    """No byte fails to be sent: only the connection itself can tell."""
    model = here.deploy(f"silent-{how}", pods=2)
    effects = Effects(here, model, "receiving")
    request = post(chat_body(model.name, stream=True), "x-sim-behaviour: stall-after-tokens=2")
    with wires(here.gateway.port, CLIENTS) as clients:
        for client in clients:
            client.send(request).read_until(b'"n":2')
        left = leave_all(clients, how)
        effects.check(left)


@pytest.mark.fault(19)
@pytest.mark.parametrize("phase", ["waiting", "receiving"])
def test_a_client_that_closes_its_sending_side_only_is_taken_to_have_left(
    here: Place, phase: str
) -> None:
    first = 60.0 if phase == "waiting" else 0.0
    engine = Engine(tokens=100_000, token_seconds=0.02, first_token_seconds=first)
    model = here.deploy(f"half-closed-{phase}", pods=2, engine=engine)
    effects = Effects(here, model, phase)
    with wires(here.gateway.port, CLIENTS) as clients:
        for client in clients:
            client.send(post(chat_body(model.name, stream=True)))
        wait_for(lambda: effects.work() == CLIENTS, "all of them are worked on")
        if phase == "receiving":
            for client in clients:
                client.read_until(b"tok")
        left = time.monotonic()
        for client in clients:
            client.socket.shutdown(socket.SHUT_WR)
        effects.check(left)
        for client in clients:
            assert b"[DONE]" not in client.read_to_the_end().raw


@pytest.mark.fault(19)
@ways_to_leave
def test_a_client_that_leaves_an_answer_half_read_ends_it(here: Place, how: Departure) -> None:
    model = here.deploy(f"large-{how}", pods=2)
    effects = Effects(here, model, "receiving")
    request = post(chat_body(model.name), "x-sim-behaviour: large=20000000")
    with ExitStack() as stack:
        port = here.gateway.port
        clients = [stack.enter_context(Wire(port, receive_buffer=4096)) for _ in range(CLIENTS)]
        for client in clients:
            client.send(request).read_until(b"xxx")
        left = leave_all(clients, how)
        effects.check(left)


@pytest.mark.fault(20)
@ways_to_leave
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_client_that_leaves_during_its_upload_is_counted_and_asks_nobody(
    here: Place, how: Departure, framing: str
) -> None:
    model = here.deploy(f"upload-{framing}-{how}")
    body = chat_body(model.name, user="u" * 10_000)
    if framing == "length":
        upload = post(body)
    else:
        upload = post(in_chunks(body), "Transfer-Encoding: chunked")
    gateway = here.gateway
    before = gateway.metric("gateway_client_aborts_total", phase="sending")
    with wires(gateway.port, CLIENTS) as clients:
        for client in clients:
            client.send(upload[:-5000])
        assert gateway.get("/healthz").status_code == 200
        leave_all(clients, how)
        wait_for(
            lambda: (
                gateway.metric("gateway_client_aborts_total", phase="sending") == before + CLIENTS
            ),
            "all of them are counted",
        )
    assert seen_by(*model.pods) == []
    assert gateway.metric("gateway_in_flight") == 0


def test_the_places_of_clients_that_left_are_free_at_once(here: Place) -> None:
    """Sixty-four places, taken and left three times over."""
    model = here.deploy("places", engine=Engine(tokens=1, first_token_seconds=60))
    process = process_of(model.pods[0])
    for _ in range(3):
        with wires(here.gateway.port, 64) as clients:
            for client in clients:
                client.send(post(chat_body("places")))
            wait_for(lambda: process.active == 64, "all of them are worked on")
        wait_for(lambda: process.active == 0, "none of them is", NOTICE + 0.5)
        here.wait_until_idle()
    assert here.gateway.metric("gateway_errors_total", code="gateway_overloaded") == 0
