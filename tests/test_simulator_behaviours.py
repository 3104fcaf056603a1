"""The ways a model pod can misbehave, each as it looks on the wire."""

import gzip
import http.client
import time
from collections.abc import Iterator

import pytest

from simulator.pod import Behaviour, Kind, ModelPod
from tests.podclient import (
    ask,
    begin,
    connect,
    events,
    eventually,
    read_to_the_end,
    read_until,
    ready_pod,
    request,
)

FINAL_CHUNK = b"\r\n0\r\n\r\n"
DONE = b"data: [DONE]\n\n"
RESETS = [
    "reset-during-request",
    "reset-before-head",
    "reset-after-head",
    "die-after-tokens=2",
]
BROKEN_FRAMINGS = [
    "close-after-tokens=2",
    "truncated-chunk",
    "bad-chunk-size",
    "short-length",
]
BAD_RESPONSES = {
    "close-before-head": http.client.RemoteDisconnected,
    "garbage": http.client.BadStatusLine,
    "many-headers": http.client.HTTPException,
    "huge-header": http.client.LineTooLong,
}
GOOD_IN_ANY_FRAMING = [
    "stall-before-head=0.05",
    "chunk-extensions",
    "drip-chunk=0.01",
    "trailers",
    "close-framed",
    "http-1.0",
    "hop-by-hop",
    "slow-head=0.05",
    "continue-first",
    "close-idle",
]


@pytest.fixture
def pod() -> Iterator[ModelPod]:
    with ready_pod() as pod:
        yield pod


def exchange(pod: ModelPod, behaviour: str, stream: bool = True) -> tuple[bytes, bytes]:
    """Head and body, as raw bytes, of a request that asks for this behaviour."""
    client = begin(pod, "connection: close", f"x-sim-behaviour: {behaviour}", stream=stream)
    head, _, body = read_to_the_end(client).partition(b"\r\n\r\n")
    return head.lower(), body


def test_an_unknown_behaviour_is_refused_with_the_known_ones(pod: ModelPod) -> None:
    with pytest.raises(ValueError, match=r"no behaviour 'dance'; known: .*die-after-tokens"):
        pod.behave("dance")
    with pytest.raises(ValueError, match="takes no number"):
        Behaviour.parse("garbage=3")
    assert exchange(pod, "dance")[0].startswith(b"http/1.1 400 ")


def test_a_number_that_is_not_given_has_a_default() -> None:
    assert Behaviour.parse("die-after-tokens") == Behaviour(Kind.DIE_AFTER_TOKENS, 3)
    assert Behaviour.parse("stall-before-head=0.5").number == 0.5


def test_a_behaviour_holds_for_as_many_requests_as_it_was_told(pod: ModelPod) -> None:
    pod.behave("status=503", times=2)
    pod.behave(Behaviour(Kind.STATUS, 418))
    statuses = [ask(pod)[0] for _ in range(4)]
    assert (statuses, len(pod.requests)) == ([503, 503, 418, 200], 4)
    assert ask(pod, "/health", "GET")[0] == 200


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("behaviour", RESETS)
def test_a_connection_is_reset(pod: ModelPod, behaviour: str, stream: bool) -> None:
    pod.behave(behaviour)
    with pytest.raises(ConnectionResetError):
        ask(pod, stream=stream)
    assert len(pod.requests) == (behaviour != "reset-during-request")
    assert ask(pod)[0] == 200
    assert pod.closed_early == []


def test_an_upload_is_cut_off_while_it_runs(pod: ModelPod) -> None:
    pod.behave("reset-during-request")
    with pytest.raises(ConnectionError):
        ask(pod, prompt="x" * 30_000_000)
    assert pod.requests == []


def test_the_tokens_before_a_reset_arrive(pod: ModelPod) -> None:
    client = begin(pod, "x-sim-behaviour: die-after-tokens=2")
    received = read_until(ConnectionResetError, client)
    assert [event["sim"]["n"] for event in events(received)] == [0, 1, 2]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("behaviour", BROKEN_FRAMINGS)
def test_a_body_ends_too_early(pod: ModelPod, behaviour: str, stream: bool) -> None:
    pod.behave(behaviour)
    with pytest.raises(http.client.IncompleteRead):
        ask(pod, stream=stream)


@pytest.mark.parametrize("behaviour", BAD_RESPONSES)
def test_a_head_is_no_head_a_client_would_take(pod: ModelPod, behaviour: str) -> None:
    pod.behave(behaviour)
    with pytest.raises(BAD_RESPONSES[behaviour]):
        ask(pod)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("behaviour", GOOD_IN_ANY_FRAMING)
def test_an_unusual_answer_is_complete_all_the_same(
    pod: ModelPod, behaviour: str, stream: bool
) -> None:
    pod.behave(behaviour)
    status, headers, body = ask(pod, stream=stream)
    assert (status, headers["x-sim-pod"]) == (200, "pod-a")
    assert body.endswith(DONE if stream else b"}}")


def test_a_stall_lasts_until_the_client_leaves(pod: ModelPod) -> None:
    client = begin(pod, "x-sim-behaviour: stall-after-tokens=1")
    client.settimeout(0.1)
    received = read_until(TimeoutError, client)
    assert [event["sim"]["n"] for event in events(received)] == [0, 1]
    eventually(lambda: len(pod.closed_early) == 1)


def test_a_client_may_leave_before_the_head(pod: ModelPod) -> None:
    begin(pod, "x-sim-behaviour: stall-before-head=30").close()
    eventually(lambda: len(pod.closed_early) == 1)
    assert pod.active == 0


def test_a_stream_may_lack_its_last_event_only(pod: ModelPod) -> None:
    _, body = exchange(pod, "end-without-done")
    assert body.endswith(FINAL_CHUNK)
    assert DONE not in body
    head, body = exchange(pod, "close-framed-truncated")
    assert b"content-length" not in head
    assert b"transfer-encoding" not in head
    assert events(body)[-1]["sim"]["n"] == 8


def test_framings_contradict_each_other(pod: ModelPod) -> None:
    head, _ = exchange(pod, "both-framings")
    assert (head.count(b"content-length:"), head.count(b"transfer-encoding:")) == (1, 1)
    head, _ = exchange(pod, "two-lengths")
    assert head.count(b"content-length:") == 2


def test_an_answer_nobody_asked_for_follows(pod: ModelPod) -> None:
    assert exchange(pod, "extra-bytes")[1].endswith(b'{"stolen": true}')


def test_heads_are_folded_or_end_in_bare_line_feeds(pod: ModelPod) -> None:
    assert b"x-folded: one\r\n two" in exchange(pod, "obs-fold")[0]
    assert b"\r\n" not in exchange(pod, "bare-lf", stream=False)[0]


def test_interim_responses_come_first(pod: ModelPod) -> None:
    hints, answer = exchange(pod, "early-hints")
    assert hints.startswith(b"http/1.1 103 early hints\r\nlink: ")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert exchange(pod, "continue-first")[0] == b"http/1.1 100 continue"


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_pod_says_when_to_come_back(pod: ModelPod, status: int) -> None:
    head, body = exchange(pod, f"status={status}")
    assert head.startswith(f"http/1.1 {status} ".encode())
    assert b"retry-after: 7\r\n" in head
    assert f'"code": {status}'.encode() in body
    assert exchange(pod, "status=529")[0].startswith(b"http/1.1 529 ")


def test_a_redirect_would_come_back_to_the_pod(pod: ModelPod) -> None:
    head, _ = exchange(pod, "redirect")
    assert head.startswith(b"http/1.1 307 ")
    assert b"location: http://pod/v1/redirected\r\n" in head


def test_an_answer_without_content_has_no_framing(pod: ModelPod) -> None:
    head, body = exchange(pod, "no-content")
    assert (head.split(b"\r\n")[0], body) == (b"http/1.1 204 no content", b"")
    assert b"content-length" not in head


def test_a_compressed_body_is_sent_as_such(pod: ModelPod) -> None:
    head, body = exchange(pod, "gzip")
    assert b"content-encoding: gzip\r\n" in head
    assert gzip.decompress(body).endswith(DONE)


def test_a_pod_may_claim_the_gateways_own_header(pod: ModelPod) -> None:
    assert b"x-gateway-error: made_by_the_pod" in exchange(pod, "gateway-error-header")[0]


def test_a_large_answer_waits_for_its_reader(pod: ModelPod) -> None:
    client = begin(pod, "x-sim-behaviour: large")
    assert client.recv(10)
    assert pod.active == 1
    client.close()
    eventually(lambda: len(pod.closed_early) == 1)


def test_a_head_may_take_its_time(pod: ModelPod) -> None:
    began = time.monotonic()
    assert b"x-sim-pod" in exchange(pod, "slow-head=0.2")[0]
    assert time.monotonic() - began >= 0.2


def test_an_idle_connection_is_closed_without_notice(pod: ModelPod) -> None:
    with begin(pod, "x-sim-behaviour: close-idle") as client:
        answer = read_to_the_end(client)
    assert answer.endswith(FINAL_CHUNK)
    assert b"connection: close" not in answer


def test_a_connection_is_reset_when_it_is_used_again(pod: ModelPod) -> None:
    with connect(pod) as client:
        client.sendall(request("x-sim-behaviour: reset-on-reuse"))
        received = b""
        while not received.endswith(FINAL_CHUNK):
            received += client.recv(65536)
        client.sendall(request())
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert len(pod.requests) == 1
