"""What an endpoint answers reaches the client as it is."""

import gzip
import json
from collections.abc import Iterator
from functools import partial

import pytest

from simulator.fleet import Pod
from simulator.pod import Engine
from tests.canned import CannedPod
from tests.e2e.place import Place, bytes_left_unread, place, process_of, seen_by
from tests.harness import wait_for
from tests.wire import RawAnswer, behaving, chat_body, head_of, post


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("answers")) as here:
        here.deploy("llama", engine=Engine(tokens=2, token_seconds=0.001))
        yield here


@pytest.fixture(scope="module")
def canned(here: Place) -> Iterator[CannedPod]:
    """A pod whose answer the test sets; its model is `canned`."""
    with CannedPod(b"") as pod:
        pod.deploy(here.cluster, "canned")
        wait_for(lambda: here.gateway.endpoints("canned"), "the pod is known")
        yield pod


def answer_to(here: Place, canned: CannedPod, *lines: str, body: bytes = b"") -> RawAnswer:
    """What a client gets when the pod says this."""
    canned.answer = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    return here.exchange(post(chat_body("canned")))


@pytest.mark.fault(16)
@pytest.mark.parametrize("status", [400, 401, 404, 405, 413, 422, 429, 500, 502, 504, 529])
def test_an_endpoints_own_error_passes_and_is_not_repeated(here: Place, status: int) -> None:
    pods = here.cluster.models["llama"].pods
    before = len(seen_by(*pods))
    answer = here.exchange(behaving(f"status={status}"))
    assert answer.status == status
    error = json.loads(answer.content)["error"]
    assert (error["message"], error["code"]) == ("so it was asked for", status)
    assert answer.value("retry-after") == ("7" if status == 429 else None)
    assert answer.value("x-gateway-error") is None
    assert answer.value("x-should-retry") is None
    assert len(seen_by(*pods)) == before + 1


@pytest.mark.fault(16)
def test_an_endpoints_error_is_none_of_the_gateways(here: Place) -> None:
    before = here.gateway.metric("gateway_errors_total")
    requests = here.gateway.metric("gateway_requests_total", model="llama", status="500")
    assert here.exchange(behaving("status=500")).status == 500
    assert here.gateway.metric("gateway_errors_total") == before
    counted = here.gateway.metric("gateway_requests_total", model="llama", status="500")
    assert counted == requests + 1


@pytest.mark.fault(16)
def test_a_redirect_is_passed_and_not_followed(here: Place) -> None:
    pod = here.cluster.models["llama"].pods[0]
    before = len(seen_by(pod))
    answer = here.exchange(behaving("redirect"))
    assert (answer.status, answer.content) == (307, b"{}")
    assert answer.value("location") == f"http://{pod.address}:{pod.port}/v1/redirected"
    assert len(seen_by(pod)) == before + 1


def test_a_relative_location_stays_as_it_is(here: Place, canned: CannedPod) -> None:
    lines = ("HTTP/1.1 302 Found", "Location: ../x y", "Content-Length: 0")
    answer = answer_to(here, canned, *lines)
    assert answer.value("location") == "../x y"


@pytest.mark.fault(16)
def test_when_to_come_back_passes_in_whatever_form(here: Place, canned: CannedPod) -> None:
    date = "Fri, 31 Dec 2100 23:59:59 GMT"
    for status in ("429 Too Many Requests", "503 Service Unavailable", "529 Overloaded"):
        lines = (f"HTTP/1.1 {status}", f"Retry-After: {date}", "x-should-retry: no")
        answer = answer_to(here, canned, *lines, "Content-Length: 4", body=b"full")
        assert head_of(answer.raw)[0] == f"HTTP/1.1 {status}"
        assert (answer.value("retry-after"), answer.value("retry-after-ms")) == (date, None)
        assert (answer.value("x-should-retry"), answer.body) == ("no", b"full")
        assert answer.value("x-gateway-error") is None


@pytest.mark.fault(16)
@pytest.mark.parametrize("stream", [False, True])
def test_compressed_content_is_not_decoded(here: Place, stream: bool) -> None:
    answer = here.exchange(behaving("gzip", stream=stream))
    assert answer.value("content-encoding") == "gzip"
    assert answer.value("content-length") == str(len(answer.body))
    content = gzip.decompress(answer.body)
    assert content.endswith(b"data: [DONE]\n\n" if stream else b"}}")


@pytest.mark.fault(16)
def test_an_answer_without_content_stays_without(here: Place, canned: CannedPod) -> None:
    no_content = here.exchange(behaving("no-content"))
    assert (no_content.status, no_content.body) == (204, b"")
    assert no_content.value("content-length") is no_content.value("transfer-encoding") is None
    lines = ("HTTP/1.1 304 Not Modified", 'ETag: "x"', "Content-Length: 99")
    not_modified = answer_to(here, canned, *lines)
    assert (not_modified.status, not_modified.body) == (304, b"")
    assert not_modified.value("etag") == '"x"'


@pytest.mark.fault(16)
@pytest.mark.parametrize("stream", [False, True])
def test_trailers_end_with_the_gateway(here: Place, stream: bool) -> None:
    answer = here.exchange(behaving("trailers", stream=stream))
    assert answer.complete
    assert answer.content.endswith(b"data: [DONE]\n\n" if stream else b"}}")
    assert b"x-sim-trailer" not in answer.raw.lower()


@pytest.mark.fault(15, 16)
@pytest.mark.parametrize("how", ["early-hints", "continue-first"])
@pytest.mark.parametrize("stream", [False, True])
def test_informational_answers_end_with_the_gateway(here: Place, how: str, stream: bool) -> None:
    answer = here.exchange(behaving(how, stream=stream))
    assert answer.status == 200
    assert answer.raw.count(b"HTTP/1.") == 1
    assert answer.value("link") is None


@pytest.mark.parametrize("how", ["http-1.0", "close-framed"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_ends_with_its_connection_is_framed_for_the_client(
    here: Place, how: str, stream: bool
) -> None:
    answer = here.exchange(behaving(how, stream=stream))
    assert head_of(answer.raw)[0] == "HTTP/1.1 200 OK"
    assert answer.value("transfer-encoding") == "chunked"
    assert answer.complete
    assert (b"[DONE]" in answer.content) == stream


def test_repeated_fields_pass_as_they_are(here: Place, canned: CannedPod) -> None:
    answer = answer_to(
        here,
        canned,
        "HTTP/1.1 299 Odd but legal",
        "Set-Cookie: a=1; Path=/",
        "Set-Cookie: b=2",
        "X-Odd: \xe9\t, ,",
        "Content-Type: text/x; a=b",
        "Content-Length: 2",
        body=b"ok",
    )
    assert head_of(answer.raw)[0] == "HTTP/1.1 299 Odd but legal"
    assert answer.values("set-cookie") == ["a=1; Path=/", "b=2"]
    assert answer.value("x-odd") == "\xe9\t, ,"
    assert answer.value("content-type") == "text/x; a=b"
    assert answer.body == b"ok"


def test_nothing_is_added_about_the_content(here: Place, canned: CannedPod) -> None:
    answer = answer_to(here, canned, "HTTP/1.1 200", "Content-Length: 2", body=b"ok")
    assert head_of(answer.raw)[0] == "HTTP/1.1 200 ", "a reason is no duty, a space before it is"
    assert {name for name, _ in head_of(answer.raw)[1]} == {
        "server", "date", "connection", "content-length", "x-request-id", "target-pod",
    }  # fmt: skip


def test_date_and_server_are_the_endpoints_where_it_has_them(
    here: Place, canned: CannedPod
) -> None:
    date = "Mon, 01 Jan 2001 00:00:00 GMT"
    lines = ("HTTP/1.1 200 OK", f"Date: {date}", "server: engine/1", "Content-Length: 0")
    answer = answer_to(here, canned, *lines)
    assert answer.values("date") == [date]
    assert answer.values("server") == ["engine/1"]


def test_fields_about_the_endpoints_connection_do_not_pass(here: Place) -> None:
    answer = here.exchange(behaving("hop-by-hop"))
    assert answer.status == 200
    assert answer.value("connection") == "close", "the gateway's own: the client asked for it"
    for name in ("x-hop", "keep-alive", "proxy-authenticate"):
        assert answer.value(name) is None


def test_what_only_the_gateway_says_is_dropped_from_an_endpoints_answer(
    here: Place, canned: CannedPod
) -> None:
    assert here.exchange(behaving("gateway-error-header")).value("x-gateway-error") is None
    ours = ("x-gateway-error", "x-request-id", "target-pod", "routing-strategy")
    answer = answer_to(
        here, canned, "HTTP/1.1 500 Mine", "Content-Length: 0", *(f"{n}: theirs" for n in ours)
    )
    assert answer.status == 500
    assert b"theirs" not in answer.raw


@pytest.mark.parametrize("strategy", ["random", "round-robin", "least-request", "power-of-two"])
def test_the_answer_names_its_pod_and_the_strategy_that_was_asked_for(
    here: Place, strategy: str
) -> None:
    name = here.cluster.models["llama"].pods[0].name
    plain = here.exchange(post())
    assert (plain.value("target-pod"), plain.value("routing-strategy")) == (name, None)
    chosen = here.exchange(post(None, f"Routing-Strategy: {strategy}"))
    assert (chosen.value("target-pod"), chosen.value("routing-strategy")) == (name, strategy)


def _closed(pod: Pod) -> int:
    """How many connections to the pod have been closed."""
    process = process_of(pod)
    return process.accepted - process.connections


def _has_seen_more(pod: Pod, closed: int) -> bool:
    """Whether bytes from the pod lie unread, or more connections to it are closed than `closed`.

    The gateway closes one at once where they came together with the answer's end. One in reserve
    and the scraper's stay open.
    """
    return bytes_left_unread(pod) > 0 or _closed(pod) > closed


def test_bytes_behind_an_answer_are_nobodys(here: Place, canned: CannedPod) -> None:
    """They could be read as the answer to the next request on the connection."""
    behind = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"
    for status in ("200 OK", "204 No Content", "304 Not Modified"):
        answer = answer_to(here, canned, f"HTTP/1.1 {status}", "Content-Length: 0", body=behind)
        assert answer.body == b""
    pod = here.cluster.models["llama"].pods[0]
    closed = _closed(pod)
    for turn in range(3):  # each closes one, at the latest when the next request finds the bytes
        assert here.exchange(behaving("extra-bytes")).status == 200
        wait_for(
            partial(_has_seen_more, pod, closed + turn),
            "the bytes are at the gateway, or it has closed the connection",
        )
        answer = here.exchange(post())
        assert json.loads(answer.content).get("object") == "chat.completion"


def test_connections_to_endpoints_are_used_again(here: Place) -> None:
    model = here.deploy("reused", engine=Engine(tokens=1, token_seconds=0.0))
    for stream in (True, False) * 5:
        assert here.exchange(post(chat_body("reused", stream=stream))).status == 200
        here.wait_until_idle()  # a stream's client is done a moment before its worker hears of it
    assert process_of(model.pods[0]).accepted <= 2, "that, and one in reserve"
