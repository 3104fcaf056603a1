"""A client that reads slowly slows its own endpoint, holds nothing else, and is cut if it stops."""

import ctypes
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from simulator.fleet import Pod
from simulator.pod import Engine
from tests.e2e.crowd import relay_of, resident_bytes, timed
from tests.e2e.place import Place, bytes_left_unread, on_both_paths, place, process_of
from tests.e2e.test_streaming import token_delays
from tests.harness import wait_for
from tests.wire import Wire, chat_body, post

SEND_TIMEOUT = 2.0
SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python has no name for it
#: Bytes by which all processes of a gateway may grow together while clients do not read.
GROWTH = 20_000_000
LARGE = 8_000_000
HUGE = post(chat_body("flood", max_tokens=1), "x-sim-behaviour: large=50000000")
FLOOD = Engine(tokens=1_000_000, token_seconds=0.0)


@on_both_paths
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("readers")
    with place(directory, relay=request.param, send_timeout=str(SEND_TIMEOUT)) as here:
        if request.param == "true":
            relay_of(here.gateway)
        here.deploy("flood", engine=FLOOD)
        here.deploy("steady", engine=Engine(tokens=50, token_seconds=0.02))
        yield here


def wait_until_it_is_paused(pod: Pod) -> None:
    """How much is left unread then is for the kernel to say; while it reads, that changes."""
    looks = [0]

    def stays_unread() -> bool:
        looks.append(bytes_left_unread(pod))
        time.sleep(0.05)
        return looks[-1] == looks[-2] > 0

    wait_for(stays_unread, "the gateway leaves the pod's answer unread")


def lazy_reader(stack: ExitStack, port: int, request: bytes, mark: bytes) -> tuple[Wire, bytes]:
    """A client that has read its answer up to `mark`, and reads no more; and what it has read."""
    client = stack.enter_context(Wire(port, receive_buffer=4096))
    return client, client.send(request).read_until(mark)


@pytest.mark.fault(19)
def test_readers_that_stop_pause_their_endpoint_cost_no_memory_and_are_cut(here: Place) -> None:
    (pod,) = here.cluster.models["flood"].pods
    process = process_of(pod)
    gateway = here.gateway
    here.exchange(post(chat_body("steady", stream=True)))  # whatever is made only once is there
    before = peak = resident_bytes(gateway)

    def all_are_cut() -> bool:
        nonlocal peak
        peak = max(peak, resident_bytes(gateway))
        return process.active == 0

    with ExitStack() as stack:
        began = time.monotonic()
        stream = lazy_reader(stack, gateway.port, post(chat_body("flood", stream=True)), b"tok")
        whole = [lazy_reader(stack, gateway.port, HUGE, b"xxx") for _ in range(2)]
        wait_until_it_is_paused(pod)
        with Wire(gateway.port) as neighbour:
            pieces = neighbour.send(post(chat_body("steady", stream=True))).arrivals()
        wait_for(all_are_cut, "their endpoint is told that they are cut")
        took = time.monotonic() - began
        here.wait_until_idle()
        answers = [reader.read_to_the_end(seen) for reader, seen in [stream, *whole]]
    assert peak - before < GROWTH
    assert len(token_delays(pieces)) >= 50
    assert max(token_delays(pieces)) < 0.5
    assert SEND_TIMEOUT * 0.9 < took < 2 * SEND_TIMEOUT + 5.0
    assert not any(answer.complete for answer in answers)
    assert gateway.metric("gateway_in_flight") == 0
    assert gateway.metric("gateway_upstream_failures_total") == 0


@pytest.mark.fault(19)
def test_a_reader_that_is_slow_but_reads_is_not_cut(here: Place) -> None:
    """It takes longer than the timeout to read what the kernel's buffers hold."""
    (pod,) = here.cluster.models["flood"].pods
    process = process_of(pod)
    with ExitStack() as stack:
        reader, _ = lazy_reader(stack, here.gateway.port, HUGE, b"xxx")
        wait_until_it_is_paused(pod)
        began = time.monotonic()
        while (now := time.monotonic()) - began < 2 * SEND_TIMEOUT:
            for _ in range(10):
                assert reader.socket.recv(4096)
            assert process.active == 1, f"cut after {now - began:.1f} s"
            time.sleep(0.1)  # 400 kB/s
    wait_for(lambda: process.active == 0, "it has left")
    here.wait_until_idle()


def vanish(client: Wire) -> None:
    """Let nothing that is sent to the client reach it any more, so that it answers nothing.

    A filter (socket(7), SO_ATTACH_FILTER) drops every packet before TCP sees it.
    """
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # return 0 bytes
    program = struct.pack("HP", 1, ctypes.addressof(drop_all))
    client.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@pytest.mark.fault(19)
@pytest.mark.parametrize("phase", ["waiting", "receiving"])
def test_a_client_that_vanishes_without_a_word_is_given_up_within_its_timeout(
    here: Place, phase: str
) -> None:
    """Its answer is so slow that the kernel's buffers would take minutes to fill."""
    first = 60.0 if phase == "waiting" else 0.0
    engine = Engine(tokens=100_000, token_seconds=0.02, first_token_seconds=first)
    model = here.deploy(f"vanished-{phase}", engine=engine)
    process = process_of(model.pods[0])
    aborts = here.gateway.metric("gateway_client_aborts_total", phase=phase)
    with Wire(here.gateway.port) as client:
        client.send(post(chat_body(model.name, stream=True)))
        wait_for(lambda: process.active, "it is worked on")
        if phase == "receiving":
            client.read_until(b"tok")
        vanish(client)
        left = time.monotonic()
        wait_for(lambda: process.active == 0, "its endpoint works for nobody")
        assert time.monotonic() - left < 2 * SEND_TIMEOUT + 5.0
        here.wait_until_idle()
    assert here.gateway.metric("gateway_client_aborts_total", phase=phase) == aborts + 1
    assert set(here.gateway.endpoints(model.name).values()) == {"ready"}


def test_slow_readers_of_large_answers_hold_no_thread(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    request = post(chat_body("llama"), f"x-sim-behaviour: large={LARGE}")
    with place(tmp_path_factory.mktemp("large"), threads="2") as here, ExitStack() as stack:
        here.deploy("llama", engine=Engine(tokens=1))
        relay_of(here.gateway)
        port = here.gateway.port
        readers = [lazy_reader(stack, port, request, b"\r\n\r\n") for _ in range(10)]
        answered = [timed(lambda: check_chat(here)) for _ in range(20)]
        assert max(answered) < 1.0
        assert here.gateway.in_flight() == 10
        for reader, seen in readers:
            assert reader.read_to_the_end(seen).complete
        here.wait_until_idle()
        assert here.gateway.metric("gateway_client_aborts_total") == 0


def check_chat(here: Place) -> None:
    assert here.exchange(post()).status == 200
