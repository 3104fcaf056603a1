"""What holds of any bytes that a client sends, and of what an endpoint gets of them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.arrival import Seen, check, check_passed_on, reading, seeds
from fuzz.promises import Broken

SIZES = st.integers(1, 20)
LINES = st.sampled_from(
    [
        *(b"POST / HTTP/1.1", b"GET /v1/models?a=b HTTP/1.1", b"POST /\x01 HTTP/1.1", b"POST  / "),
        *(b"POST http://a/ HTTP/1.1", b"POST / HTTP/1.0", b"OPTIONS * HTTP/1.1", b"P / HTTP/3"),
    ]
)
NAMES = st.sampled_from(
    [
        *(b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"X-Hop"),
        *(b"X-Forwarded-For", b"x-forwarded-x", b"Forwarded", b"X-Request-Id", b"Cookie", b"X_B"),
        *(
            b"Upgrade",
            b"TE",
            b"Keep-Alive",
            b"Content-Type",
            b"",
            b" X",
            b"X\0",
            b"Proxy-Connection",
        ),
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            *(b"a", b"2", b"0", b"2, 2", b"+2", b"chunked", b"Chunked, gzip", b"close", b"x-hop"),
            *(b"keep-alive, X-HOP ,", b"100-continue", b"a\r\n b", b"a\nb", b"a\rb", b"host, te"),
        ]
    ),
    st.binary(max_size=6),
)
SEPARATORS = st.sampled_from([b": ", b": ", b": ", b":", b":\t", b" : "])
WELL_FORMED = st.sampled_from(
    [
        *(b"Connection: X-HOP, close", b"Connection: x-hop, te", b"X-Hop: 1", b"X-HOP: 2"),
        *(b"Content-Length: 2", b"Transfer-Encoding: chunked", b"Expect: 100-continue"),
        *(b"X-Forwarded-For: 1.2.3.4", b"Cookie: a=b", b"X-A:  b ", b"Proxy-Authorization: x"),
    ]
)
FIELDS = st.lists(WELL_FORMED | st.tuples(NAMES, SEPARATORS, VALUES).map(b"".join), max_size=5)
ENDS = st.sampled_from([*([b"\r\n"] * 20), b"\n", b"\r"])
BODIES = st.lists(
    st.sampled_from(
        [b"{}", b"2\r\n{}\r\n", b"0\r\n\r\n", b"0", b"\r\n", b"\n", b";x", b"X: 1\r\n"]
    ),
    max_size=5,
).map(b"".join)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Bytes that are, or nearly are, a request."""
    lines = [draw(LINES), *draw(st.sampled_from([[b"Host: a"], [b"Host: a"], []])), *draw(FIELDS)]
    framed = b"".join(line + draw(ENDS) for line in lines)
    return framed + b"\r\n" + draw(BODIES)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(sent=st.lists(requests(), min_size=1, max_size=2), size=SIZES)
def test_any_bytes_are_the_same_requests_however_they_are_cut(sent: list[bytes], size: int) -> None:
    check(bytes([size]) + b"".join(sent))


TOKENS = st.from_regex(r"[A-Za-z0-9!#$%&'*+.^`|~-]+", fullmatch=True).map(str.encode)
OWN_NAMES = st.sampled_from([b"hOST", b"X-FORWARDED-HOST", b"connection", b"x-request-id", b"x-a"])
WHATEVER = st.binary(max_size=12).map(lambda value: value.translate(None, b"\r\n\0"))


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(FIELDS, st.lists(st.tuples(TOKENS | OWN_NAMES | NAMES, WHATEVER | VALUES), max_size=5))
def test_whatever_fields_are_read_an_endpoint_gets_whole_lines_and_ours_once(
    lines: list[bytes], fields: list[tuple[bytes, bytes]]
) -> None:
    head = b"".join(b"%b\r\n" % line for line in lines)
    head += b"".join(b"%b: %b\r\n" % field for field in fields)
    check(b"\x04POST /v1/completions HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n")


def test_what_a_search_begins_with_keeps_all_promises() -> None:
    assert len(seeds()) > 10
    for seed in seeds():
        check(seed)


def test_the_requests_of_a_search_are_read() -> None:
    bodies = [seen.body for seed in seeds() for seen in reading([seed[1:]]).requests]
    assert {b"{}", b"[1]", b""} <= set(bodies)


@pytest.mark.parametrize(
    ("uri", "name", "value"),
    [
        ("/ HTTP/1.1\r\nX: y", "A", "b"),
        ("/\0", "A", "b"),
        ("/", "A", "b\r\nC: d"),
        ("/", "A", "b\n"),
        ("/", "A", "b\0"),
        ("/", "A\r\nB", "c"),
        ("/", "A B", "c"),
    ],
)
def test_what_hides_a_line_is_noticed(uri: str, name: str, value: str) -> None:
    with pytest.raises(Broken):
        check_passed_on(Seen("POST", uri, ((name, value),), b""))
    check_passed_on(Seen("POST", "/", (("A", "b"),), b""))
