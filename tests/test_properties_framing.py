"""What holds of any response of an endpoint, however its bytes come."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.framing import check, check_body, check_coding, check_head, check_quick_readers, seeds
from fuzz.promises import Broken, pieces
from proxy.framing import Head
from relay.bodies import Body, ChunkedBody, ClosedBody, LengthBody
from relay.stream import chunk

SIZES = st.integers(1, 12)
STATUS_LINES = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 ", b"HTTP/1.1 204 x", b"HTTP/1.1 304", b"HTTP/1.1 500 \xfc"]
)
FIELDS = st.sampled_from(
    [
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"Transfer-Encoding: chunked",
        b"Content-Type: text/event-stream",
        b"Connection: close, x-hop",
        b"Connection: Content-Length, server",
        b"X-Hop: 1",
        b"Server: engine",
        b"DATE:\tnow ",
        b"Set-Cookie: a=b; c",
        b"X-Latin: \xfc\xff\x80\x85",
        b"Target-Pod: forged",
        b"Keep-Alive: 5",
        b"X-Empty:",
    ]
)
CHUNKS = st.sampled_from(
    [
        *(b"5\r\nhello\r\n", b"5", b"0", b"00a", b"\r", b"\n", b"\r\n", b"hello", b"0\r\n\r\n"),
        *(b";x=y", b" ", b"\t", b"X: 1\r\n", b"0x", b"f" * 8, b"x" * 4090, b"1\r\n\n\r\n"),
        *(b';x="\\""', b"Content-Length: 1\r\n", b"\xff", b"\0"),
    ]
)
LINES = st.sampled_from(
    [
        *(b"data: [DONE]", b"data:[DONE]", b"data: {}", b"event: error", b"event:message_stop"),
        *(b"event: response.completed", b"event: x", b"", b"", b"x" * 60, b"data: [DONE"),
    ]
)
ENDS = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r", b""])
EVENTS = st.lists(st.tuples(LINES, ENDS).map(b"".join), max_size=5).map(b"".join)


@given(first=STATUS_LINES, fields=st.lists(FIELDS, max_size=5), size=SIZES, body=st.lists(CHUNKS))
def test_any_response_is_the_same_however_it_is_cut_and_passes_as_what_it_is(
    first: bytes, fields: list[bytes], size: int, body: list[bytes]
) -> None:
    head = b"".join(line + b"\r\n" for line in (first, *fields))
    check(bytes([size]) + head + b"\r\n" + b"".join(body))


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(tokens=st.lists(CHUNKS | st.binary(max_size=4), max_size=8), size=SIZES, exact=st.booleans())
def test_any_chunked_body_ends_alike_however_it_is_cut_and_never_whole_if_it_is_not(
    tokens: list[bytes], size: int, exact: bool
) -> None:
    wire = b"".join(tokens)
    check_body(lambda: ChunkedBody(exact=exact), wire, pieces(wire, size))
    check_quick_readers(wire)


@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
@given(wire=EVENTS, size=SIZES)
def test_any_event_stream_ends_alike_however_it_is_cut(wire: bytes, size: int) -> None:
    check_body(lambda: ClosedBody(event_stream=True), wire, pieces(wire, size))


@given(length=st.integers(0, 20), wire=st.binary(max_size=24), size=SIZES)
def test_any_body_of_a_known_length_ends_there(length: int, wire: bytes, size: int) -> None:
    check_body(lambda: LengthBody(length), wire, pieces(wire, size))


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
def test_what_is_written_in_chunks_is_read_again(parts: list[bytes]) -> None:
    check_coding(parts)
    check_quick_readers(b"".join(chunk(part) for part in parts))


def test_what_a_search_begins_with_keeps_all_promises() -> None:
    assert len(seeds()) > 10
    for seed in seeds():
        check(seed)


class Hasty(ChunkedBody):
    """A reader that takes a chunk of no bytes for the end, before the line is whole."""

    def feed(self, data: bytes) -> bytes:
        content = super().feed(data)
        self.complete = self.complete or self._pending.startswith(b"0")
        return content


class Trusting(ChunkedBody):
    """A reader that takes a closed connection for the end."""

    def end(self) -> None:
        self.complete = True


class Forgetful(LengthBody):
    """A reader that loses what comes with a line's end."""

    def feed(self, data: bytes) -> bytes:
        return super().feed(data).rstrip(b"\n")


@pytest.mark.parametrize(
    ("make", "wire"),
    [
        (Hasty, b"3\r\na\nb\r\n0\r\n\r\n"),
        (Trusting, b"3\r\na\nb\r\n0\r\n\r\n"),
        (lambda: Forgetful(7), b"abc\n\ndef"),
    ],
)
def test_a_reader_that_breaks_a_promise_is_noticed(make: Callable[[], Body], wire: bytes) -> None:
    with pytest.raises(Broken):
        check_body(make, wire, pieces(wire, 4))


@pytest.mark.parametrize(
    "fields", [(("X-A", "1\r\nX-B: 2"),), (("X-A", "1\r"),), (("X\r\nY", "1"),), (("X", "\0"),)]
)
def test_a_field_that_hides_a_line_is_noticed(fields: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Broken):
        check_head(Head(1, 200, "OK", fields))
    with pytest.raises(Broken):
        check_head(Head(1, 200, "OK\r\nX-B: 2", ()))
