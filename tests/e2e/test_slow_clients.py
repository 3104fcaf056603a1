"""Clients that are slow to ask, or to go, cost nobody else anything."""

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle

import pytest

from simulator.pod import Engine
from tests.e2e.crowd import Drip, p99, timed, wires
from tests.e2e.place import Place, place, process_of, seen_by
from tests.harness import wait_for
from tests.wire import Wire, body_of, chat_body, head_of, in_chunks, post

CAPACITY = 16
GET_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: gateway.test\r\n\r\n"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("slow"), threads=str(CAPACITY)) as here:
        here.deploy("llama", pods=2, engine=Engine(tokens=2))
        yield here


def turn(here: Place) -> None:
    """Return when the gateway has seen what was sent to it before."""
    assert here.gateway.get("/healthz").status_code == 200


@contextmanager
def crowded(here: Place) -> Iterator[None]:
    """200 clients that drip a head, 50 that drip a body and 50 that do not close."""
    port = here.gateway.port
    with ExitStack() as stack:
        holding = stack.enter_context(wires(port, 50))
        for client in holding:
            answer = client.send(post()).read_to_the_end()
            assert (answer.status, answer.complete) == (200, True)
        drip = Drip(0.2)
        for client in stack.enter_context(wires(port, 200)):
            client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\nx-drip: ")
            drip.add(client, b"d" * 1000)
        for client in stack.enter_context(wires(port, 50)):
            head, _, body = post(chat_body(user="d" * 1000)).partition(b"\r\n\r\n")
            drip.add(client.send(head + b"\r\n\r\n"), body)
        turn(here)
        stack.enter_context(drip)
        yield


def seconds_of_health(here: Place, probes: int) -> list[float]:
    """How long each probe took, every second one on a connection of its own."""

    def probe(close: bool) -> None:
        headers = {"Connection": "close"} if close else {}
        assert here.gateway.get("/healthz", headers=headers).status_code == 200

    return [timed(lambda n=number: probe(n % 2 == 0)) for number in range(probes)]  # type: ignore[misc]


def test_a_crowd_of_slow_clients_slows_neither_probes_nor_requests(here: Place) -> None:
    def ask(stream: bool) -> None:
        answer = here.exchange(post(chat_body(stream=stream)))
        assert (answer.status, answer.complete) == (200, True)

    def seconds_of_requests() -> list[float]:
        return [timed(lambda n=number: ask(n % 2 == 0)) for number in range(60)]  # type: ignore[misc]

    before = seconds_of_requests()
    with crowded(here):
        health = seconds_of_health(here, 150)
        requests = seconds_of_requests()
        health += seconds_of_health(here, 50)
    before += seconds_of_requests()
    assert p99(health) < 0.05
    assert statistics.median(requests) < 2 * statistics.median(before) + 0.005
    assert p99(requests) < 2 * p99(before) + 0.05


def test_in_a_crowd_and_with_all_places_taken_health_and_refusals_take_less_than_50_ms(
    here: Place,
) -> None:
    model = here.deploy("thinking", engine=Engine(tokens=1, first_token_seconds=60))
    process = process_of(model.pods[0])
    port = here.gateway.port
    refusals = []

    def ask() -> None:
        answer = here.exchange(post(chat_body("thinking")))
        assert (answer.status, answer.value("x-gateway-error")) == (503, "gateway_overloaded")

    with crowded(here), wires(port, CAPACITY) as waiting:
        for client in waiting:
            client.send(post(chat_body("thinking")))
        wait_for(lambda: process.active == CAPACITY, "all places are taken")
        health = seconds_of_health(here, 100)
        refusals = [timed(ask) for _ in range(100)]
        health += seconds_of_health(here, 50)
        assert process.active == CAPACITY
    assert p99(health) < 0.05
    assert p99(refusals) < 0.05
    here.wait_until_idle()


@pytest.mark.fault(20)
def test_what_is_not_sent_in_time_is_answered_with_a_408_and_what_comes_steadily_is_served(
    here: Place,
) -> None:
    """Ten seconds for a head, and a kilobyte a second for a body after its first ten."""
    slow_head, _, slow_body = post(chat_body(user="d" * 1000)).partition(b"\r\n\r\n")
    steady_body = chat_body(user="s" * 24_000)
    steady_head = post(steady_body).removesuffix(steady_body)
    chunked_head = post(b"", "Transfer-Encoding: chunked")
    drip = Drip(0.2)
    before = here.gateway.metric("gateway_errors_total", code="request_timeout")
    with wires(here.gateway.port, 6) as clients:
        silent, dripping, no_body, drip_body, drip_chunks, steady = clients
        silent.send(slow_head[:40])
        drip.add(dripping.send(slow_head[:5]), slow_head[5:])
        no_body.send(slow_head + b"\r\n\r\n")
        drip.add(drip_body.send(slow_head + b"\r\n\r\n"), slow_body, 2)
        drip.add(drip_chunks.send(chunked_head), in_chunks(slow_body), 2)
        drip.add(steady.send(steady_head), steady_body, 400)
        began = time.monotonic()
        with drip:
            answers = [client.read_to_the_end() for client in clients[:-1]]
            took = time.monotonic() - began
            served = steady.read_to_the_end()
    assert 9.0 < took < 13.0
    for answer in answers:
        assert (answer.status, answer.value("x-gateway-error")) == (408, "request_timeout")
        assert answer.value("connection") == "close"
        assert (answer.complete, answer.reset) == (True, False)
    assert (served.status, served.complete) == (200, True)
    after = here.gateway.metric("gateway_errors_total", code="request_timeout")
    assert after == before + len(answers)


@pytest.mark.parametrize("stream", [False, True])
def test_requests_sent_at_once_are_answered_in_their_order(here: Place, stream: bool) -> None:
    identified = [
        post(chat_body(stream=stream), f"x-request-id: in-line-{n}", close=n == 2) for n in range(3)
    ]
    with Wire(here.gateway.port) as client:
        raw = client.send(b"".join(identified)).read_to_the_end().raw
    assert raw.count(b"HTTP/1.1 200 OK\r\n") == 3
    places = [raw.index(f"x-request-id: in-line-{n}\r\n".encode()) for n in range(3)]
    assert places == sorted(places)
    here.wait_until_idle()


def test_a_request_sent_while_a_stream_runs_is_answered_after_it(here: Place) -> None:
    here.deploy("running", engine=Engine(tokens=10, token_seconds=0.02))
    with Wire(here.gateway.port) as client:
        client.send(post(chat_body("running", stream=True), close=False))
        seen = client.read_until(b'"content"')
        raw = client.send(post(chat_body("llama"))).read_to_the_end(seen).raw
    done = raw.index(b"[DONE]")
    assert b"HTTP/1.1 200 OK" in raw[done:]
    assert raw.endswith(b"}")
    here.wait_until_idle()


@pytest.mark.fault(25)
def test_a_head_may_be_cut_at_every_byte(here: Place) -> None:
    request = post(close=False)
    head_bytes = request.index(b"\r\n\r\n") + 4
    with Wire(here.gateway.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in range(1, head_bytes + 1):
            client.send(request[:cut])
            turn(here)
            seen = client.send(request[cut:]).read_until(b"\r\n\r\n")
            assert head_of(seen)[0] == "HTTP/1.1 200 OK"
            length = int(dict(head_of(seen)[1])["content-length"])
            while len(body_of(seen)) < length:
                seen += client.socket.recv(65_536)
            assert len(body_of(seen)) == length


def test_a_head_may_come_byte_by_byte(here: Place) -> None:
    with Wire(here.gateway.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post():
            client.send(bytes([byte]))
        answer = client.read_to_the_end()
    assert (answer.status, answer.complete) == (200, True)


def test_a_chunked_upload_in_odd_pieces_arrives_whole(here: Place) -> None:
    body = chat_body(user="".join(chr(97 + n % 26) for n in range(3000)))
    sizes = cycle([1, 2, 7, 64, 300])
    chunks, rest = [], body
    while rest:
        size = next(sizes)
        chunks.append(rest[:size])
        rest = rest[size:]
    upload = post(in_chunks(*chunks), "Transfer-Encoding: chunked", "x-request-id: odd-pieces")
    with Wire(here.gateway.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for size in cycle([1, 3, 17, 2, 90]):
            client.send(upload[:size])
            turn(here)
            upload = upload[size:]
            if not upload:
                break
        answer = client.read_to_the_end()
    assert (answer.status, answer.complete) == (200, True)
    pods = here.cluster.models["llama"].pods
    (seen,) = [r for r in seen_by(*pods) if r.request_id == "odd-pieces"]
    assert body_of(seen.raw) == body
