"""Answers that are no valid HTTP: refused before their head goes out, cut off visibly after it."""

from collections.abc import Iterator

import pytest

from tests.canned import CannedPod
from tests.e2e.expect import API, Expected, check_error, counted_once
from tests.e2e.place import Place, on_both_paths, place
from tests.harness import wait_for
from tests.wire import RawAnswer, chat_body, in_chunks, post

INVALID = Expected(502, "upstream_protocol_error", API)
DIED = Expected(502, "upstream_reset", API)


@on_both_paths
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("odd"), relay=request.param) as here:
        yield here


Canned = list[CannedPod]


@pytest.fixture(scope="module")
def canned(here: Place) -> Iterator[Canned]:
    """Two pods whose answer the test sets, so that a request could be tried again elsewhere."""
    with CannedPod(b"") as one, CannedPod(b"") as other:
        one.deploy(here.cluster, "canned")
        other.deploy(here.cluster, "canned", slice_name="canned-too")
        wait_for(lambda: len(here.gateway.endpoints("canned")) == 2, "the pods are known")
        yield [one, other]


def ask(here: Place, canned: Canned, raw: bytes) -> RawAnswer:
    """What a client gets when a pod says this."""
    for pod in canned:
        pod.answer = raw
    return here.exchange(post(chat_body("canned")))


def answer_to(here: Place, canned: Canned, raw: bytes, *, code: str) -> RawAnswer:
    """The same; one pod is asked, once, and one error is counted."""
    asked = sum(len(pod.seen) for pod in canned)
    with counted_once(here.gateway, code):
        answer = ask(here, canned, raw)
    assert sum(len(pod.seen) for pod in canned) == asked + 1
    return answer


def head(*fields: str, first: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([first, *fields, "", ""]).encode("latin-1")


HELLO = b'data: {"n": 1}\n\n'
EARLY = head(first="HTTP/1.1 103 Early Hints")
NO_HEADS = {
    "switching protocols": head(
        "Upgrade: h2c", "Connection: Upgrade", first="HTTP/1.1 101 Switching Protocols"
    ),
    "hints before switching": EARLY + head(first="HTTP/1.1 101 Switching Protocols"),
    "hints without end": EARLY * 20 + head("Content-Length: 0"),
    "an invalid hint": head("no field", first="HTTP/1.1 103 Early Hints") + head(),
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80",
    "HTTP/2 in words": head(first="HTTP/2 200 OK"),
    "HTTP/0.9": b"<html>hello</html>\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a version that does not exist": head(first="HTTP/1.2 200 OK"),
    "a status of two digits": head(first="HTTP/1.1 99 Low"),
    "a status of four digits": head(first="HTTP/1.1 2000 OK"),
    "a status out of range": head(first="HTTP/1.1 600 High"),
    "a word as status": head(first="HTTP/1.1 OK"),
    "a space before the colon": head("Content-Length : 5") + b"hello",
    "a NUL in a value": head("X-Odd: a\0b", "Content-Length: 5") + b"hello",
    "a CR in a value": head("X-Odd: a\rb", "Content-Length: 5") + b"hello",
    "a field without name": head(": x", "Content-Length: 5") + b"hello",
    "a line without colon": head("hello", "Content-Length: 5") + b"hello",
    "64 KB without end": b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000,
    "64 KB of fields": head(*[f"X-Many: {'x' * 1000}"] * 70),
    "a negative length": head("Content-Length: -1"),
    "a length with a sign": head("Content-Length: +5") + b"hello",
    "a length in hexadecimals": head("Content-Length: 0x5") + b"hello",
    "a length twice in one field": head("Content-Length: 5, 5") + b"hello",
    "no length in its field": head("Content-Length:"),
    "a length beyond all numbers": head("Content-Length: " + "9" * 25),
    "two lengths that agree": head("Content-Length: 5", "Content-Length: 5") + b"hello",
    "length and chunks": head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunked twice": head("Transfer-Encoding: chunked, chunked") + in_chunks(b"hello"),
    "a coding nobody offered": head("Transfer-Encoding: gzip, chunked") + in_chunks(b"hello"),
    "a coding that is not the last": head("Transfer-Encoding: chunked, gzip"),
    "a coding without name": head("Transfer-Encoding:") + b"hello",
    "chunks in HTTP/1.0": head("Transfer-Encoding: chunked", first="HTTP/1.0 200 OK")
    + in_chunks(b"hello"),
}


@pytest.mark.fault(15)
@pytest.mark.parametrize("case", NO_HEADS)
def test_what_is_no_head_of_http_is_a_502_and_not_asked_for_again(
    here: Place, canned: Canned, case: str
) -> None:
    answer = answer_to(here, canned, NO_HEADS[case], code="upstream_protocol_error")
    check_error(answer, INVALID)


@pytest.mark.fault(15)
@pytest.mark.parametrize("raw", [b"HTTP/1.1 200", head("Content-Length: 5")[:-2], EARLY])
def test_a_head_that_breaks_off_is_a_502_and_not_asked_for_again(
    here: Place, canned: Canned, raw: bytes
) -> None:
    check_error(answer_to(here, canned, raw, code="upstream_reset"), DIED)


CHUNKED = "Transfer-Encoding: chunked"
GOOD = in_chunks(HELLO, end=False)
BAD_CHUNKS = {
    "no chunk at all": b"",
    "garbage": b"\x16\x03\x01 this is no chunk\r\n\r\n",
    "garbage after a chunk": GOOD + b"\x00\xff\xfe\r\n",
    "a chunk longer than its size": GOOD + b"3\r\nhello\r\n0\r\n\r\n",
    "a chunk shorter than its size": GOOD + b"f\r\nhello\r\n0\r\n\r\n",
    "a negative size": GOOD + b"-5\r\nhello\r\n0\r\n\r\n",
    "a size with 0x": GOOD + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size of 128 bits": GOOD + b"f" * 32 + b"\r\nhello\r\n0\r\n\r\n",
    "a size without digits": GOOD + b"\r\nhello\r\n0\r\n\r\n",
    "bare line feeds": GOOD + b"5\nhello\n0\n\n",
    "an extension without end": GOOD + b"5;" + b"x" * 10_000,
    "an invalid trailer": GOOD + b"0\r\nno field\r\n\r\n",
    "trailers without end": GOOD + b"0\r\n" + b"x-more: x\r\n" * 10_000,
    "half of the last chunk": GOOD + b"0\r\n",
    "no last chunk": GOOD,
}


@pytest.mark.fault(15)
@pytest.mark.parametrize("case", BAD_CHUNKS)
def test_a_stream_in_bad_chunks_ends_with_the_event_that_says_so(
    here: Place, canned: Canned, case: str
) -> None:
    raw = head("Content-Type: text/event-stream", CHUNKED) + BAD_CHUNKS[case]
    answer = answer_to(here, canned, raw, code="upstream_died")
    check_cut(answer)
    assert answer.content.startswith(HELLO) == BAD_CHUNKS[case].startswith(GOOD)
    assert answer.content.endswith(b"}\n\n")
    assert b'"upstream_died"' in answer.content.rpartition(b"\n\ndata: ")[2]


@pytest.mark.fault(15)
@pytest.mark.parametrize("case", BAD_CHUNKS)
def test_an_answer_in_bad_chunks_is_visibly_short(here: Place, canned: Canned, case: str) -> None:
    raw = head("Content-Type: application/json", CHUNKED) + BAD_CHUNKS[case]
    answer = answer_to(here, canned, raw, code="upstream_died")
    check_cut(answer)
    assert b"upstream_died" not in answer.raw, "an event is not for such an answer"


@pytest.mark.fault(15)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("kind", ["text/event-stream", "text/event-stream; charset=utf-8"])
def test_a_stream_without_framing_and_without_done_is_not_whole(
    here: Place, canned: Canned, version: str, kind: str
) -> None:
    first = head(f"Content-Type: {kind}", first=f"HTTP/{version} 200 OK")
    answer = answer_to(here, canned, first + HELLO, code="upstream_died")
    check_cut(answer)
    assert answer.content.startswith(HELLO)
    assert b'"upstream_died"' in answer.content
    whole = ask(here, canned, first + HELLO + b"data: [DONE]\n\n")
    assert whole.complete
    assert whole.content.endswith(b"[DONE]\n\n")


@pytest.mark.fault(15)
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_an_answer_short_of_its_length_is_short_for_its_client_too(
    here: Place, canned: Canned, kind: str
) -> None:
    raw = head(f"Content-Type: {kind}", "Content-Length: 100") + HELLO
    answer = answer_to(here, canned, raw, code="upstream_died")
    check_cut(answer)
    assert (answer.value("content-length"), answer.body) == ("100", HELLO)


def check_cut(answer: RawAnswer) -> None:
    """It looks broken to whoever reads its framing, and came to that end in an orderly way."""
    assert answer.status == 200
    assert not answer.complete
    assert not answer.reset, "a reset can destroy what the client has not read yet"
    assert answer.value("x-gateway-error") is None, "the head was the endpoint's"
    assert b"[DONE]" not in answer.content
