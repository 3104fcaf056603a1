"""What is read in one go is read as gunicorn and the rules would; what is odd is left to them."""

from typing import Any

import pytest
from gunicorn.http.body import LengthReader
from gunicorn.http.errors import ParseException
from gunicorn.http.unreader import IterUnreader
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import GatewayError
from proxy.plain_heads import read_plain
from proxy.rules import LawfulRequest
from tests.test_arrival import ADDRESS, CONFIG
from tests.wire import post

COMPARED = (
    *("method", "uri", "path", "query", "fragment", "version", "headers", "trailers", "scheme"),
    *("must_close", "req_number", "peer_addr", "remote_addr", "_expected_100_continue"),
)


def by_gunicorn(head: bytes) -> Any:
    return LawfulRequest(CONFIG, IterUnreader([head]), ADDRESS, 7)


def check_the_same(head: bytes) -> bool:
    """Compare where it is read in one go; whether it is."""
    plain = read_plain(head, CONFIG, ADDRESS, 7)
    if plain is None:
        return False
    request, length = plain
    theirs = by_gunicorn(head)  # which accepts it
    assert {name: getattr(request, name) for name in COMPARED} == {
        name: getattr(theirs, name) for name in COMPARED
    }
    assert vars(request).keys() == vars(theirs).keys()
    assert request.should_close() == theirs.should_close()
    assert type(theirs.body.reader) is LengthReader
    assert length == theirs.body.reader.length
    return True


def head_of(*lines: str) -> bytes:
    return (
        "".join(f"{line}\r\n" for line in ("POST /v1/completions HTTP/1.1", *lines)).encode(
            "latin-1"
        )
        + b"\r\n"
    )


@pytest.mark.parametrize(
    "lines",
    [
        ["Host: a", "User-Agent: OpenAI/Python 1.2 (x; y)", "Content-Length: 2"],
        ["host:a", "ACCEPT: */*", "authorization: Bearer abc", "content-length: 0"],
        ["Host: [::1]:80", "Connection: keep-alive"],
        ["Host: a", "Connection: close", "X-Forwarded-Proto: https", "X-Forwarded-For: 1.2.3.4"],
        ["Host: a.b:8", "A: b c  d", "B: :", "C: a:b"],
    ],
)
def test_what_clients_send_is_read_in_one_go(lines: list[str]) -> None:
    assert check_the_same(head_of(*lines))
    assert not read_plain(head_of(*lines)[:-2], CONFIG, ADDRESS, 7)


@pytest.mark.parametrize(
    "line",
    [
        "Expect: 100-continue",
        "Transfer-Encoding: chunked",
        "transfer-encoding: identity",
        "Upgrade: h2c",
        "HTTP2-Settings: x",
        "Connection: keep-alive, close",
        "Connection: x-hop",
        "Content-Length: 2, 2",
        "Content-Length: +2",
        "Content-Length: -1",
        "Content-Length: 1_0",
        "Content-Length: 9999999999999999",
        "Content-Length : 2",
        "X_Under: a",
        "X: a\tb",
        "X: a ",
        "X:  a",
        "X:",
        "X: ",
        " X: a",
        "X: a\r\n folded",
        "X: \xe9",
        "X: a\x00",
        "X: a\nY: b",
        "X: a\rY: b",
        "no colon",
        ": nameless",
        "host: twice",
    ],
)
def test_what_is_odd_is_left_to_gunicorn(line: str) -> None:
    assert read_plain(head_of("Host: a", line), CONFIG, ADDRESS, 7) is None


@pytest.mark.parametrize("host", [None, "Host: a b", "Host: u@a", "Host: a/b", "Host: [::g]"])
def test_so_is_a_request_without_a_valid_host(host: str | None) -> None:
    assert read_plain(head_of(*filter(None, [host]), "X: a"), CONFIG, ADDRESS, 7) is None


@pytest.mark.parametrize(
    "first",
    [
        "GET / HTTP/1.1",
        "POST / HTTP/1.0",
        "POST / HTTP/1.10",
        "POST  / HTTP/1.1",
        "POST /a?b HTTP/1.1",
        "POST /a%2fb HTTP/1.1",
        "POST http://a/ HTTP/1.1",
        "POST * HTTP/1.1",
        "post / HTTP/1.1",
        "POST / http/1.1",
    ],
)
def test_other_request_lines_are_too(first: str) -> None:
    assert read_plain(f"{first}\r\nHost: a\r\n\r\n".encode(), CONFIG, ADDRESS, 7) is None


def test_so_are_heads_near_a_limit() -> None:
    assert (
        read_plain(head_of("Host: a", *(f"H{n}: x" for n in range(100))), CONFIG, ADDRESS, 7)
        is None
    )
    assert check_the_same(head_of("Host: a", *(f"H{n}: x" for n in range(99))))
    assert read_plain(head_of("Host: a", "X: " + "x" * 9000), CONFIG, ADDRESS, 7) is None


NAMES = st.sampled_from(
    [
        *("Host", "content-length", "Content-Length", "Connection", "Transfer-Encoding", "X-A"),
        *("Expect", "Cookie", "Accept", "X_B", "Upgrade", "", "Content-Type", "Authorization"),
    ]
)
VALUES = st.one_of(
    st.sampled_from(["a", "2", "0", "02", "close", "Keep-Alive", "chunked", "", "1,1", "x y"]),
    st.text(st.characters(max_codepoint=255), max_size=8),
)
SEPARATORS = st.sampled_from([": ", ":", ":  ", " : ", ""])
LINES = st.lists(st.tuples(NAMES, SEPARATORS, VALUES).map("".join), max_size=6)
HOSTS = st.one_of(
    st.just("a.test"),
    st.text("ab1.:[]%@/_-~!$&'()*+,;=v", max_size=9),
    st.text(st.characters(max_codepoint=255), max_size=4),
)


@given(HOSTS, LINES)
def test_whatever_is_read_in_one_go_gunicorn_reads_the_same(host: str, lines: list[str]) -> None:
    check_the_same(head_of(f"Host: {host}", *lines))


@given(st.binary(max_size=4), st.integers(0, 80))
def test_one_odd_piece_is_enough(piece: bytes, at: int) -> None:
    raw = post(b"").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    head = raw[:at] + piece + raw[at:]
    try:
        check_the_same(head)
    except (ParseException, GatewayError):
        raise AssertionError("what was taken is refused") from None
