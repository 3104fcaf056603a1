"""What breaks after an answer has begun is visible to every client."""

import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.canned import CannedPod
from tests.e2e.expect import API, counted_once
from tests.e2e.place import Place, on_both_paths, place, process_of
from tests.harness import wait_for
from tests.wire import RawAnswer, Wire, behaving, chat_body, in_chunks, post


@on_both_paths
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("broken")
    with place(directory, relay=request.param, idle_timeout="1.5") as here:
        here.deploy("llama", pods=2)
        yield here


def last_event(answer: RawAnswer) -> Any:
    """The payload of a stream's last event, which must be whole."""
    _, found, event = answer.content.rpartition(b"\n\ndata: ")
    assert found
    assert event.endswith(b"\n\n")
    return json.loads(event)


def check_broken_stream(answer: RawAnswer, code: str) -> None:
    """A stream that broke off: visible by its framing, its last event, and no `[DONE]`."""
    assert answer.status == 200
    assert answer.value("content-type") == "text/event-stream; charset=utf-8"
    assert not answer.complete
    assert not answer.reset, "a reset can destroy what the client has not read yet"
    assert b"[DONE]" not in answer.content
    error = last_event(answer)["error"]
    assert (error["code"], error["type"], error["param"]) == (code, API, None)
    assert error["message"]
    assert answer.value("x-gateway-error") is None, "the head was the endpoint's"


STREAMS_THAT_DIE = [
    "reset-after-head",
    "die-after-tokens=2",
    "close-after-tokens=2",
    "truncated-chunk",
    "bad-chunk-size",
    "close-framed-truncated",
]


@pytest.mark.fault(15)
@pytest.mark.parametrize("how", STREAMS_THAT_DIE)
def test_a_stream_whose_endpoint_dies_ends_with_the_event_that_says_so(
    here: Place, how: str
) -> None:
    with counted_once(here.gateway, "upstream_died"):
        answer = here.exchange(behaving(how, stream=True))
    check_broken_stream(answer, "upstream_died")
    tokens = answer.content.count(b'"content":"tok ')
    assert tokens == 2 or "tokens" not in how, "what came before must pass"


@pytest.mark.fault(14)
def test_a_stream_that_falls_silent_ends_with_the_event_that_says_so(here: Place) -> None:
    processes = [process_of(pod) for pod in here.cluster.models["llama"].pods]
    left_before = sum(len(process.closed_early) for process in processes)
    with counted_once(here.gateway, "upstream_idle"):
        answer = here.exchange(behaving("stall-after-tokens=2", stream=True))
    check_broken_stream(answer, "upstream_idle")
    wait_for(
        lambda: sum(len(process.closed_early) for process in processes) > left_before,
        "the silent endpoint is told to stop",
    )


TOTAL_SECONDS = 1.0


@on_both_paths
def hasty(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """No answer may take longer than `TOTAL_SECONDS`."""
    directory = tmp_path_factory.mktemp("hasty")
    with place(directory, relay=request.param, total_timeout=str(TOTAL_SECONDS)) as hasty:
        hasty.deploy("llama")
        yield hasty


@pytest.mark.fault(14)
def test_an_answer_that_goes_on_and_on_is_cut_when_it_has_taken_too_long(hasty: Place) -> None:
    """It is never silent for long, so that nothing else ends it."""
    process = process_of(hasty.cluster.models["llama"].pods[0])
    left_before, begun = len(process.closed_early), time.monotonic()
    tokens = post(chat_body(stream=True, max_tokens=10**6))
    errors = hasty.gateway.counted("gateway_errors_total", "code")
    with ThreadPoolExecutor(2) as clients:
        stream, other = clients.map(hasty.exchange, [tokens, behaving("drip-chunk=0.5")])
    assert time.monotonic() - begun >= TOTAL_SECONDS
    check_broken_stream(stream, "upstream_timeout")
    assert b'"content":"tok ' in stream.content, "what came before must pass"
    assert (other.status, other.complete, other.reset) == (200, False, False)
    wait_for(lambda: len(process.closed_early) == left_before + 2, "both are told to stop")

    def counted() -> Counter[str]:
        return Counter(hasty.gateway.counted("gateway_errors_total", "code")) - Counter(errors)

    wait_for(lambda: counted() == {"upstream_timeout": 2}, "each is counted, and as nothing else")


def test_a_client_on_http_1_0_gets_the_event_too(here: Place) -> None:
    request = post(
        chat_body(stream=True), "x-sim-behaviour: die-after-tokens=2", version="1.0", close=False
    )
    answer = here.exchange(request)
    assert last_event(answer)["error"]["code"] == "upstream_died"
    assert b"[DONE]" not in answer.content


@pytest.mark.fault(15)
def test_a_stream_short_of_its_length_is_not_filled_up_with_the_event(here: Place) -> None:
    with counted_once(here.gateway, "upstream_died"):
        answer = here.exchange(behaving("short-length", stream=True))
    assert answer.value("content-length")
    assert not answer.complete
    assert not answer.reset


def test_a_compressed_stream_gets_no_event_that_nobody_could_read(here: Place) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    head += b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    compressed = gzip.compress(b"data: {}\n\n")[:-4]
    with CannedPod(head + in_chunks(compressed, end=False)) as pod:
        pod.deploy(here.cluster, "compressed")
        wait_for(lambda: here.gateway.endpoints("compressed"), "the pod is known")
        with counted_once(here.gateway, "upstream_died"):
            answer = here.exchange(post(chat_body("compressed", stream=True)))
    assert answer.content == compressed
    assert not answer.complete
    assert not answer.reset


ANSWERS_THAT_DIE = [
    "reset-after-head",
    "die-after-tokens=1",
    "short-length",
    "truncated-chunk",
    "bad-chunk-size",
]


@pytest.mark.fault(15)
@pytest.mark.parametrize("how", ANSWERS_THAT_DIE)
def test_an_answer_that_is_no_stream_is_visibly_short(here: Place, how: str) -> None:
    with counted_once(here.gateway, "upstream_died"):
        answer = here.exchange(behaving(how))
    assert answer.status == 200
    assert answer.value("content-type") == "application/json"
    assert not answer.complete
    assert not answer.reset
    assert b"upstream_died" not in answer.raw, "an event is not for such an answer"


@pytest.mark.fault(14)
def test_an_answer_that_is_no_stream_and_falls_silent_is_cut_visibly(here: Place) -> None:
    with counted_once(here.gateway, "upstream_idle"):
        answer = here.exchange(behaving("stall-after-tokens=1"))
    assert answer.status == 200
    assert not answer.complete
    assert not answer.reset


@pytest.mark.fault(15)
def test_a_broken_answer_without_length_ends_in_a_reset_for_http_1_0(here: Place) -> None:
    """Nothing but a reset tells such a client that something is missing."""
    request = post(chat_body(), "x-sim-behaviour: truncated-chunk", version="1.0", close=False)
    answer = here.exchange(request)
    assert answer.value("content-length") is None
    assert answer.reset


def test_a_client_that_reads_late_and_has_sent_more_still_gets_the_event(here: Place) -> None:
    """Bytes that the gateway leaves unread must not turn its close into a reset."""
    before = here.gateway.metric("gateway_errors_total", code="upstream_died")
    with Wire(here.gateway.port) as wire:
        wire.send(behaving("die-after-tokens=2", stream=True) + post() * 10)
        wait_for(
            lambda: here.gateway.metric("gateway_errors_total", code="upstream_died") > before,
            "the answer broke off",
        )
        here.wait_until_idle()
        answer = wire.read_to_the_end()
    check_broken_stream(answer, "upstream_died")


def test_nothing_stays_in_flight_after_broken_answers(here: Place) -> None:
    here.wait_until_idle()
    assert here.gateway.metric("gateway_in_flight") == 0
