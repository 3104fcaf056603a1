"""A request's chunks are read by the letter: an answer's may be a little off."""

import time

import pytest

from relay.bodies import ChunkedBody
from tests.test_framing import GOOD_CHUNKS, Outcome, check, outcome


def exact() -> ChunkedBody:
    return ChunkedBody(exact=True)


def of_chunk(line: bytes, trailers: bytes = b"") -> bytes:
    """A body of one chunk of two bytes."""
    return line + b"\r\nhi\r\n0\r\n" + trailers + b"\r\n"


TAKEN: Outcome = (b"hi", "reusable")
BY_THE_GRAMMAR = (
    *(b"2", b"02", b"0" * 14 + b"2", b"2;a", b"2;a=b", b'2;a="b"', b"2 ;a", b"2\t; a = b;c"),
    *(b"2;a;b", b'2;a="b;c"', b'2;a="\\""', b'2;a="\xff"', b'2;a=""', b"2;a;a"),
)
A_LITTLE_OFF = (
    *(b"2 ", b"2\t", b"2;", b"2; ", b"2;a;", b"2;;a", b"2;=b", b"2;a=", b'2;a="b', b'2;a="\\"'),
    *(b"2;a b", b"2;\xff", b"2;a=\xff", b"2;a ", b"2;a=b c", b'2;a="b"c', b"2;a@b"),
)


@pytest.mark.parametrize("line", BY_THE_GRAMMAR)
def test_extensions_of_the_grammar_are_dropped(line: bytes) -> None:
    check(exact, of_chunk(line), TAKEN)
    check(ChunkedBody, of_chunk(line), TAKEN)


@pytest.mark.fault(26)
@pytest.mark.parametrize("line", A_LITTLE_OFF)
def test_what_the_grammar_lacks_is_no_requests(line: bytes) -> None:
    check(exact, of_chunk(line), (b"", "error"))
    check(ChunkedBody, of_chunk(line), TAKEN)


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    "name",
    [b"Content-Length", b"transfer-encoding", b"HOST", b"Te", b"Trailer", b"Authorization"],
)
def test_no_trailer_frames_routes_or_admits_a_request(name: bytes) -> None:
    data = of_chunk(b"2", b"X: y\r\n" + name + b": 5\r\n")
    check(exact, data, (b"hi", "error"))
    check(ChunkedBody, data, TAKEN)
    check(exact, of_chunk(b"2", b"X-" + name + b": 5\r\n"), TAKEN)


@pytest.mark.parametrize(
    ("data", "content"), [good for good in GOOD_CHUNKS if b"5 \r\n" not in good[0]]
)
def test_all_else_is_read_alike(data: bytes, content: bytes) -> None:
    check(exact, data, (content, "reusable"))


def test_extensions_are_bounded_by_the_content_that_comes_with_them() -> None:
    signed = b"1000;signature=" + b"f" * 64 + b"\r\n" + bytes(4096) + b"\r\n"
    assert outcome(exact(), signed * 200 + b"0\r\n\r\n")[1] == "reusable"
    assert outcome(exact(), b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")[1] == "reusable"
    padded = b"1;a=" + b"f" * 1000 + b"\r\nx\r\n"
    assert outcome(exact(), padded * 16 + b"0\r\n\r\n")[1] == "reusable"
    assert outcome(exact(), padded * 18 + b"0\r\n\r\n")[1] == "error"


@pytest.mark.parametrize("part", [b";a", b" ", b";a ", b';a="', b';a="\\"', b";a=", b"=", b";"])
@pytest.mark.parametrize("end", [b"", b"\x00", b"=", b'"'])
def test_no_line_takes_long_to_read(part: bytes, end: bytes) -> None:
    line = b"2;a" + part * (4000 // len(part)) + end
    began = time.process_time()
    for _ in range(10):
        exact().feed(line + b"\r\n")
    assert time.process_time() - began < 0.5
