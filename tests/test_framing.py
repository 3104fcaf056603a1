"""Bodies of responses: the same content and the same end, however the bytes are split."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.bodies import Body, ChunkedBody, LengthBody, Truncated
from tests.wire import in_chunks

Outcome = tuple[bytes, str]


def outcome(body: Body, *parts: bytes) -> Outcome:
    """Feed `parts` and close: the content, and how it ended."""
    content = b""
    for part in parts:
        if body.complete or body.error is not None:
            body.reusable = body.reusable and not part
            continue
        content += body.feed(part)
    if body.error is not None:
        return content, "error"
    if not body.complete:
        try:
            body.end()
        except Truncated:
            return content, "truncated"
        return content, "closed"
    return content, "reusable" if body.reusable else "complete"


def splits(data: bytes) -> list[tuple[bytes, ...]]:
    """All at once, byte by byte, and in two parts at every position."""
    each_byte = tuple(data[i : i + 1] for i in range(len(data)))
    return [(data,), each_byte, *((data[:i], data[i:]) for i in range(1, len(data)))]


def check(make: Callable[[], Body], data: bytes, expected: Outcome) -> None:
    for parts in splits(data):
        found = outcome(make(), *parts)
        assert found == expected, parts


@pytest.mark.parametrize(
    ("length", "data", "expected"),
    [
        (0, b"", (b"", "reusable")),
        (5, b"hello", (b"hello", "reusable")),
        (5, b"hell", (b"hell", "truncated")),
        (5, b"", (b"", "truncated")),
        (5, b"hello!", (b"hello", "complete")),
        (5, b"helloHTTP/1.1 200 OK\r\n\r\n", (b"hello", "complete")),
    ],
)
def test_bodies_of_a_known_length(length: int, data: bytes, expected: Outcome) -> None:
    check(lambda: LengthBody(length), data, expected)


GOOD_CHUNKS: list[tuple[bytes, bytes]] = [
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!"),
    (b"00005\r\nhello\r\n000\r\n\r\n", b"hello"),
    (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
    (b"5;name=value\r\nhello\r\n0;last\r\n\r\n", b"hello"),
    (b'5 ; a="b;c"\r\nhello\r\n0\r\n\r\n', b"hello"),
    (b"5 \r\nhello\r\n0\t\r\n\r\n", b"hello"),
    (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    (b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Other:\r\n\r\n", b"hi"),
]


@pytest.mark.parametrize(("data", "content"), GOOD_CHUNKS)
def test_chunked_bodies(data: bytes, content: bytes) -> None:
    check(ChunkedBody, data, (content, "reusable"))
    check(ChunkedBody, data + b"H", (content, "complete"))


@pytest.mark.parametrize(("data", "content"), GOOD_CHUNKS)
def test_a_chunked_body_that_breaks_off_anywhere_is_truncated(data: bytes, content: bytes) -> None:
    for length in range(len(data)):
        found, how = outcome(ChunkedBody(), data[:length])
        assert how == "truncated", data[:length]
        assert content.startswith(found)


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b"\r\n", b""),
        (b"hello\r\n", b""),
        (b"-5\r\nhello\r\n", b""),
        (b"+5\r\nhello\r\n", b""),
        (b"0x5\r\nhello\r\n", b""),
        (b"5_0\r\nhello\r\n", b""),
        (b" 5\r\nhello\r\n", b""),
        (b"5 x\r\nhello\r\n", b""),
        (b"5\nhello\n0\n\n", b""),
        (b"5;a\x00b\r\nhello\r\n", b""),
        (b"5;a\rb\r\nhello\r\n", b""),
        (b"1000000000000000\r\nhello\r\n", b""),
        (b"5\r\nhelloX\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\rX", b"hello"),
        (b"5\r\nhelloXX", b"hello"),
        (b"5\r\nhello\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\nxyz\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n0\r\nno field\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n0\r\n folded: x\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n0\r\n\n", b"hello"),
    ],
)
def test_chunked_bodies_that_are_not_valid(data: bytes, content: bytes) -> None:
    check(ChunkedBody, data, (content, "error"))


@pytest.mark.parametrize("prefix", [b"5;", b"0\r\nX: "])
@pytest.mark.parametrize(("length", "how"), [(4000, "reusable"), (4200, "error"), (9999, "error")])
def test_a_line_too_long_is_an_error_however_it_comes(prefix: bytes, length: int, how: str) -> None:
    rest = b"\r\n" if prefix.startswith(b"0") else b"hello\r\n0\r\n\r\n"
    data = prefix + b"x" * length + b"\r\n" + rest
    assert outcome(ChunkedBody(), data)[1] == how
    for step in (1, 7, 4095, 4096, 4097):
        parts = [data[i : i + step] for i in range(0, len(data), step)]
        assert outcome(ChunkedBody(), *parts)[1] == how, step


def test_a_line_without_an_end_is_given_up_before_it_fills_the_memory() -> None:
    body, fed = ChunkedBody(), 0
    while body.error is None:
        body.feed(b"5" * 1000)
        fed += 1000
        assert fed < 10_000


def test_trailers_are_bounded() -> None:
    many = b"X-Trailer: " + b"x" * 1000 + b"\r\n"
    assert outcome(ChunkedBody(), b"0\r\n" + many * 60 + b"\r\n")[1] == "reusable"
    assert outcome(ChunkedBody(), b"0\r\n" + many * 70 + b"\r\n")[1] == "error"


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    cuts=st.lists(st.integers(0, 600), max_size=12),
)
def test_chunks_give_the_same_content_however_they_are_cut(
    chunks: list[bytes], cuts: list[int]
) -> None:
    data = in_chunks(*chunks)
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    parts = [data[a:b] for a, b in pairwise(places)]
    assert outcome(ChunkedBody(), *parts) == (b"".join(chunks), "reusable")


@given(data=st.lists(st.sampled_from([b"5", b"0", b"a", b";", b"\r", b"\n", b"\r\n", b"hello"])))
def test_any_bytes_end_alike_at_once_and_byte_by_byte(data: list[bytes]) -> None:
    whole = b"".join(data)
    at_once = outcome(ChunkedBody(), whole)
    each = outcome(ChunkedBody(), *(whole[i : i + 1] for i in range(len(whole))))
    assert each == at_once
