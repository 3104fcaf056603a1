"""Heads of responses are read strictly, and say how the body is framed."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.framing import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    Head,
    body_of,
    parse_head,
)
from relay.bodies import ChunkedBody, ClosedBody, LengthBody, ProtocolError


def head(*fields: str, status: str = "HTTP/1.1 200 OK") -> Head:
    return parse_head("\r\n".join([status, *fields]).encode("latin-1"))


def test_a_head_keeps_its_fields_as_they_came() -> None:
    found = head("Content-Type: text/plain", "X-A:1", "x-a: \t2 3\t ", "X-Empty:", "X-L: \xfc")
    assert (found.minor_version, found.status, found.reason) == (1, 200, "OK")
    assert found.fields == (
        ("Content-Type", "text/plain"),
        ("X-A", "1"),
        ("x-a", "2 3"),
        ("X-Empty", ""),
        ("X-L", "\xfc"),
    )
    assert found.values("x-a") == ["1", "2 3"]


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ("HTTP/1.1 200 OK", 200, "OK"),
        ("HTTP/1.1 200 ", 200, ""),
        ("HTTP/1.1 200", 200, ""),
        ("HTTP/1.0 503 Service Unavailable", 503, "Service Unavailable"),
        ("HTTP/1.1 103 Early Hints", 103, "Early Hints"),
        ("HTTP/1.1 599 \xe9t\xe9", 599, "\xe9t\xe9"),
    ],
)
def test_status_lines_that_are_valid(line: str, status: int, reason: str) -> None:
    found = head(status=line)
    assert (found.status, found.reason) == (status, reason)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "200 OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 Low",
        "HTTP/1.1 600 High",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 200 O\x00K",
        "HTTP/1.1 200 OK\n",
        "HTTP/1.1 200 OK\rX: y",
        "HTTP/1.1 200 OK\x7f",
        "HTTP/1.2 200 OK",
        "HTTP/2 200 OK",
        "HTTP/2.0 200 OK",
        "http/1.1 200 OK",
        " HTTP/1.1 200 OK",
        "ICY 200 OK",
    ],
)
def test_status_lines_that_are_not(line: str) -> None:
    with pytest.raises(ProtocolError, match="status line"):
        head("X: y", status=line)


@pytest.mark.parametrize(
    "line",
    [
        "no colon",
        ": no name",
        "Name : space before the colon",
        "Na me: space within",
        "Näme: not ASCII",
        "Name\x00: control",
        "Name: contr\x00ol",
        "Name: bare\rCR",
        "Name: bare\nLF",
        "Name: delete\x7f",
        " Folded: at the start",
        "\tFolded: at the start",
        "(Name): no token",
        "Name[0]: no token",
        "",
    ],
)
def test_fields_that_are_not_valid(line: str) -> None:
    with pytest.raises(ProtocolError, match="header field"):
        head("Good: 1", line)


def test_a_folded_field_is_not_guessed_at() -> None:
    with pytest.raises(ProtocolError):
        head("X-Long: first", " second")


def test_the_number_of_fields_is_bounded() -> None:
    assert len(head(*["X: y"] * MAX_FIELDS).fields) == MAX_FIELDS
    with pytest.raises(ProtocolError, match="more than 100"):
        head(*["X: y"] * (MAX_FIELDS + 1))


@pytest.mark.parametrize("end", ["", "x", "\x00", "x\x00"])
def test_a_head_full_of_spaces_takes_no_time(end: str) -> None:
    spaces = " " * (MAX_HEAD_BYTES - 100)
    began = time.process_time()
    for line in (f"X:{spaces}{end}", f"X: a{spaces}{end}", f"X{spaces}{end}"):
        try:
            head(line)
        except ProtocolError:
            assert end.endswith("\x00") or line.startswith("X ")
    assert time.process_time() - began < 0.5


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_a_protocol_error(block: bytes) -> None:
    for attempt in (block, b"HTTP/1.1 200 OK\r\n" + block):
        try:
            found = parse_head(attempt)
        except ProtocolError:
            continue
        assert 100 <= found.status <= 599
        try:
            body_of(found)
        except ProtocolError:
            continue


@pytest.mark.parametrize(
    ("fields", "version", "expected"),
    [
        ([], "1.1", True),
        (["Connection: close"], "1.1", False),
        (["Connection: Close"], "1.1", False),
        (["Connection: x, CLOSE"], "1.1", False),
        (["Connection: x", "Connection: close"], "1.1", False),
        (["Connection: keep-alive"], "1.1", True),
        ([], "1.0", False),
        (["Connection: Keep-Alive"], "1.0", True),
        (["Connection: keep-alive, close"], "1.0", False),
    ],
)
def test_whether_a_connection_is_kept(fields: list[str], version: str, expected: bool) -> None:
    assert head(*fields, status=f"HTTP/{version} 200 OK").keeps_alive is expected


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream ; charset=utf-8", True),
        ("text/event-streams", False),
        ("application/json", False),
    ],
)
def test_what_is_an_event_stream(content_type: str, expected: bool) -> None:
    assert head(f"Content-Type: {content_type}").is_event_stream is expected
    assert not head().is_event_stream


# Which framing


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        (["Content-Length: 5"], 200, LengthBody),
        (["Content-Length: 005"], 200, LengthBody),
        (["Transfer-Encoding: chunked"], 200, ChunkedBody),
        (["Transfer-Encoding: Chunked"], 500, ChunkedBody),
        ([], 200, ClosedBody),
        (["Content-Length: 5"], 304, LengthBody),
        ([], 204, LengthBody),
    ],
)
def test_the_framing_follows_from_the_head(fields: list[str], status: int, kind: type) -> None:
    body = body_of(head(*fields, status=f"HTTP/1.1 {status} X"))
    assert type(body) is kind
    assert body.complete is (status in (204, 304))


@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Content-Length: 5", "Content-Length: 5"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5, 5"],
        ["Content-Length:"],
        ["Content-Length: -1"],
        ["Content-Length: +5"],
        ["Content-Length: 5.0"],
        ["Content-Length: 0x5"],
        ["Content-Length: 5_0"],
        ["Content-Length: 5 5"],
        ["Content-Length: \xb2"],
        ["Content-Length: " + "9" * 19],
        ["Content-Length: " + "9" * 5000],
        ["Transfer-Encoding:"],
        ["Transfer-Encoding: identity"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked, chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked,"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding: chunked;q=1"],
        ["Transfer-Encoding: \xa0chunked"],
    ],
)
def test_framings_that_can_be_read_in_two_ways_are_refused(fields: list[str]) -> None:
    with pytest.raises(ProtocolError) as caught:
        body_of(head(*fields))
    assert len(str(caught.value)) < 200


def test_http_1_0_knows_no_chunks() -> None:
    with pytest.raises(ProtocolError):
        body_of(head("Transfer-Encoding: chunked", status="HTTP/1.0 200 OK"))
