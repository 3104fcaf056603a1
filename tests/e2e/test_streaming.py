"""Streams: every token at once, nobody waits for another, and who leaves is noticed."""

import json
import re
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from simulator.fleet import Pod
from simulator.pod import Engine
from tests.canned import CannedPod
from tests.e2e.place import Place, bytes_left_unread, on_both_paths, place, process_of
from tests.harness import wait_for
from tests.wire import Wire, behaving, body_of, chat_body, post, unchunked, values

SENT = re.compile(rb'"n":(\d+) *,"t":([\d.]+) *}')
#: Seconds a token may be on its way through a gateway that shares its machine with other tests.
DELAY = 0.5


@on_both_paths
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("streaming")
    with place(directory, relay=request.param, idle_timeout="60") as here:
        yield here


@pytest.fixture
def slow(here: Place) -> str:
    """A model whose tokens come a second apart, far longer than any delay allowed."""
    here.deploy("slow", engine=Engine(tokens=3, token_seconds=1.0))
    return "slow"


def token_delays(pieces: list[tuple[float, bytes]]) -> list[float]:
    """How long each token was on its way, by the time of its sending that it carries."""
    return [at - float(sent[2]) for at, data in pieces for sent in SENT.finditer(data)]


def test_every_token_is_passed_on_as_it_comes(here: Place, slow: str) -> None:
    with Wire(here.gateway.port) as wire:
        pieces = wire.send(post(chat_body(slow, stream=True))).arrivals()
    delays = token_delays(pieces)
    assert len(delays) >= 4
    assert max(delays) < DELAY


def test_the_head_of_a_stream_does_not_wait_for_its_first_token(here: Place) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with CannedPod(head) as pod, Wire(here.gateway.port) as wire:
        pod.deploy(here.cluster, "thinking")
        wait_for(lambda: here.gateway.endpoints("thinking"), "the pod is known")
        pod.may_close.clear()
        wire.send(post(chat_body("thinking", stream=True)))
        received = wire.read_until(b"\r\n\r\n")
        assert values(received, "content-type") == ["text/event-stream"]
        pod.may_close.set()
        assert b"upstream_died" in wire.read_to_the_end(received).content


def test_a_chunk_in_pieces_is_passed_on_in_pieces(here: Place) -> None:
    """Waiting for the end of a chunk would hold up what has come of it."""
    here.deploy("dripping")
    with Wire(here.gateway.port) as wire:
        pieces = wire.send(behaving("drip-chunk=0.4", "dripping", stream=True)).arrivals()
    whole = b"".join(data for _, data in pieces)
    content, complete = unchunked(whole.partition(b"\r\n\r\n")[2])
    assert complete
    assert content.endswith(b"data: [DONE]\n\n")
    first = next(at for at, data in pieces if b"data: " in data)
    assert pieces[-1][0] - first > 0.6, "half of it comes 0.8 s before the end"


def test_a_client_that_leaves_stops_its_stream(here: Place) -> None:
    model = here.deploy("endless", engine=Engine(tokens=100_000, token_seconds=0.02))
    process = process_of(model.pods[0])
    aborts = here.gateway.metric("gateway_client_aborts_total", phase="receiving")
    with Wire(here.gateway.port) as wire:
        wire.send(post(chat_body("endless", stream=True))).read_until(b"tok")
        assert here.gateway.in_flight() == 1
    left = time.monotonic()
    wait_for(lambda: process.closed_early, "the pod sees that the client is gone")
    assert process.closed_early[0] - left < 1.0
    here.wait_until_idle()
    assert process.active == 0
    assert here.gateway.metric("gateway_in_flight", model="endless") == 0
    after = here.gateway.metric("gateway_client_aborts_total", phase="receiving")
    assert after == aborts + 1


def test_a_client_that_resets_is_gone_as_well(here: Place) -> None:
    model = here.deploy("endless-too", engine=Engine(tokens=100_000, token_seconds=0.02))
    process = process_of(model.pods[0])
    with Wire(here.gateway.port) as wire:
        wire.send(post(chat_body("endless-too", stream=True))).read_until(b"tok")
        # Closing with unread bytes sends a reset.
        wait_for(lambda: wire.socket.recv(1, socket.MSG_PEEK), "more has come")
    wait_for(lambda: process.closed_early, "the pod sees that the client is gone")
    here.wait_until_idle()


def wait_until_it_stands_still(pod: Pod) -> None:
    samples: deque[int] = deque(maxlen=30)

    def stands_still() -> bool:
        samples.append(bytes_left_unread(pod))
        return len(samples) == 30 and len(set(samples)) == 1 and samples[0] > 0

    wait_for(stands_still, "the gateway reads no more of the pod's answer")


def test_a_client_that_does_not_read_slows_its_own_upstream_only(here: Place) -> None:
    model = here.deploy("flood", engine=Engine(tokens=1_000_000, token_seconds=0.0))
    process = process_of(model.pods[0])
    with Wire(here.gateway.port, receive_buffer=4096) as lazy:
        received = lazy.send(post(chat_body("flood", stream=True))).read_until(b"tok")
        wait_until_it_stands_still(model.pods[0])

        answer = here.exchange(post(chat_body("flood", stream=True, max_tokens=200)))
        assert answer.complete
        assert answer.content.endswith(b"data: [DONE]\n\n")
        wait_for(lambda: process.active == 1, "the lazy client's stream waits, and is not given up")

        while len(received) < 200_000:
            received += lazy.socket.recv(65_536)
    content, _ = unchunked(body_of(received))
    numbers = [int(sent[1]) for sent in SENT.finditer(content)]
    assert numbers == list(range(len(numbers))), "it went on where it stood"
    wait_for(lambda: process.active == 0, "its end is noticed")
    here.wait_until_idle()


def test_many_streams_at_once_keep_apart(here: Place) -> None:
    here.deploy("many", pods=3, engine=Engine(tokens=20, token_seconds=0.01))
    with ExitStack() as clients:
        wires = [clients.enter_context(Wire(here.gateway.port)) for _ in range(30)]
        for number, wire in enumerate(wires):
            wire.send(post(chat_body("many", stream=True, max_tokens=number + 1)))
        for number, wire in enumerate(wires):
            answer = wire.read_to_the_end()
            assert answer.complete
            events = [e for e in answer.content.split(b"\n\n") if e]
            assert events[-1] == b"data: [DONE]"
            parsed = [json.loads(event[6:]) for event in events[:-1]]
            assert sum(bool(e["choices"][0]["delta"].get("content")) for e in parsed) == number + 1
            assert len({event["id"] for event in parsed}) == 1
    here.wait_until_idle()
