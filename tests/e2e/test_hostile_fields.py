"""Header fields that break the rules of HTTP, or try to pass for the gateway's own."""

import re
from collections.abc import Iterator

import pytest

from simulator.pod import Engine
from tests.e2e.hostile import FIRST, HOST, check_refused, framed, reaching_the_pod, request
from tests.e2e.place import Place, place, process_of
from tests.wire import CHAT, body_of, chat_body, head_of, in_chunks, post, values


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("hostile-fields")) as here:
        here.deploy("llama", engine=Engine(tokens=2, token_seconds=0.001))
        yield here


#: RFC 9112 §5, RFC 9110 §5.5 and §5.6.2.
FIELDS = [
    *("X-A : 1", "X-A\t: 1", ": nameless", ":", "no colon", " X-A: leading", "\tX-A: leading"),
    *("X A: 1", "X-\xe9: 1", "X(a): 1", "X@a: 1", '"X-A": 1', "{X-A}: 1", "X-A\x00: 1"),
    *("X-A\x7f: 1", "/X-A: a", "X-A\\: a", "X;A: a", "X-A: a\x00", "X-A: \x01", "X-A: \x7f"),
    *("X-A: a\x0bb", "X-A: a\x0c", "X-A: \x1b[31m", "X-A: a\x08", "X-A: a\r\n b", "X-A: a\r\n\tb"),
    *("X-A:\r\n b", "X-A: a\r\n ", "X-A: a\r\r\n b", "X-A: a\nX-B: b", "X-A: a\n", "\nX-A: a"),
    *("X-A\n: a", "X-A: a\rX-B: b", "X-A: a\r", "\rX-A: a", "X-A: a\n\rX-B: b", "X-A\r: a"),
    "X-A: a\n\nPOST / HTTP/1.1",
]


@pytest.mark.fault(25)
@pytest.mark.parametrize("line", FIELDS)
def test_a_line_that_is_no_field_is_refused(here: Place, line: str) -> None:
    check_refused(here, framed(FIRST, HOST, line), 400)


#: RFC 9110 §8.6: digits and nothing else.
LENGTHS = [
    *("", " ", "-1", "-0", "+{}", "0x{}", "{0}, {0}", "{},6", "{};", "{} {}", "{}\x0b", "\x0c{}"),
    *("{}.0", "{}e0", "1_0", "'{}'", '"{}"', "five", "\xb2", "\xbc", "{}\xa0", "{}\x00"),
    "9" * 5000,
]


@pytest.mark.fault(25)
@pytest.mark.parametrize("value", LENGTHS)
def test_a_length_that_is_no_number_is_refused(here: Place, value: str) -> None:
    length = value.format(len(chat_body()), len(chat_body()))
    raw = request(FIRST, HOST, f"Content-Length: {length}", body=chat_body())
    check_refused(here, raw, 400)


@pytest.mark.fault(25)
@pytest.mark.parametrize("length", [2**31, 2**32, 2**63, 2**64, 10**400])
def test_a_length_beyond_all_limits_is_too_large(here: Place, length: int) -> None:
    raw = request(FIRST, HOST, f"Content-Length: {length}", body=chat_body())
    check_refused(here, raw, 413)


LENGTH = f"Content-Length: {len(chat_body())}"
TWO_LENGTHS = {
    "equal": [LENGTH, LENGTH],
    "different": [LENGTH, "Content-Length: 5"],
    "one of them zero": ["Content-Length: 0", LENGTH],
    "in other letters": [LENGTH, LENGTH.lower()],
    "far from each other": [LENGTH, *["X-A: a"] * 50, "CONTENT-LENGTH: 6"],
    "one of them empty": [LENGTH, "Content-Length:"],
    "one with a space": [LENGTH, "Content-Length : 5"],
    "one folded": [LENGTH, "X-A: a", " Content-Length: 5"],
    "one behind a bare line end": [LENGTH, "X-A: a\nContent-Length: 5"],
    "one behind a carriage return": [LENGTH, "X-A: a\rContent-Length: 5"],
}


@pytest.mark.fault(25)
@pytest.mark.parametrize("case", TWO_LENGTHS)
def test_a_request_with_two_lengths_is_refused(here: Place, case: str) -> None:
    check_refused(here, request(FIRST, HOST, *TWO_LENGTHS[case], body=chat_body()), 400)


#: RFC 9112 §6.1, and how servers were led to see chunks where others saw none; `|` parts fields.
CODINGS = [
    *("xchunked", "chunk", "chunkedx", "x-chunked", "ch unked", '"chunked"', "'chunked'", "none"),
    *("chunked;q=1", "chunked,", ",chunked", "", "identity", "gzip", "\xa0chunked", "chunked\xa0"),
    *("chunked\x00", "\x0bchunked", "chunked\x0c", "chunked\x08", "\xffchunked", "chunked, x"),
    *("chunked, identity", "identity, chunked", "chunked, chunked", "chunked chunked"),
    *("gzip, chunked", "chunked, gzip", "deflate, chunked", "cow, chunked", "\r\n chunked"),
    *("chunked\r\n , identity", "\nchunked", "chunked|chunked", "chunked|identity"),
    *("identity|chunked", "gzip|chunked", "chunked|x", "|chunked", "chunked|"),
]


@pytest.mark.fault(25)
@pytest.mark.parametrize("codings", CODINGS)
@pytest.mark.parametrize("length", [False, True], ids=["alone", "with a length"])
def test_a_coding_other_than_chunks_is_refused(here: Place, codings: str, length: bool) -> None:
    lines = [f"Transfer-Encoding: {coding}" for coding in codings.split("|")]
    raw = request(FIRST, HOST, *[LENGTH] * length, *lines, body=in_chunks(chat_body()))
    check_refused(here, raw, 400, 501)


BOTH_FRAMINGS = {
    "a length first": [LENGTH, "Transfer-Encoding: chunked"],
    "a length last": ["Transfer-Encoding: chunked", LENGTH],
    "no length": ["Transfer-Encoding: chunked", "Content-Length: 0"],
    "a length twice": [LENGTH, LENGTH, "Transfer-Encoding: chunked"],
    "a space before the colon": [LENGTH, "Transfer-Encoding : chunked"],
    "a tab before the colon": [LENGTH, "Transfer-Encoding\t: chunked"],
    "a space before the name": [LENGTH, " Transfer-Encoding: chunked"],
    "a fold before the name": [LENGTH, "X-A: a", " Transfer-Encoding: chunked"],
    "a zero in the name": [LENGTH, "Transfer-Encoding\x00: chunked"],
    "a bare line end before it": [LENGTH, "X-A: a\nTransfer-Encoding: chunked"],
    "a bare carriage return before it": [LENGTH, "X-A: a\rTransfer-Encoding: chunked"],
}


@pytest.mark.fault(25)
@pytest.mark.parametrize("case", BOTH_FRAMINGS)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_length_and_chunks_together_are_refused(here: Place, case: str, version: str) -> None:
    first = f"POST {CHAT} HTTP/{version}"
    raw = request(first, HOST, *BOTH_FRAMINGS[case], body=in_chunks(chat_body()))
    check_refused(here, raw, 400)


@pytest.mark.fault(25)
def test_an_older_request_has_no_chunks(here: Place) -> None:
    lines = (HOST, "Transfer-Encoding: chunked")
    raw = request(f"POST {CHAT} HTTP/1.0", *lines, body=in_chunks(chat_body()))
    check_refused(here, raw, 400)


IN_CHUNKS = post(in_chunks(chat_body()), "Transfer-Encoding:\tCHUNKED \t")
SERVED = {
    "chunks in capitals": IN_CHUNKS,
    "a length with zeros before it": post(None, f"Content-Length: {len(chat_body()):09}"),
    "a length between tabs": post(None, f"Content-Length:\t {len(chat_body())}\t"),
    "another's coding": post(None, "Transfer_Encoding: chunked", "Content_Length: 5"),
}


@pytest.mark.fault(25, 27)
@pytest.mark.parametrize("case", SERVED)
def test_what_is_framed_in_one_way_only_is_served(here: Place, case: str) -> None:
    with reaching_the_pod(here, 1) as seen:
        assert here.exchange(SERVED[case]).status == 200
    assert body_of(seen[0]) == chat_body()
    assert values(seen[0], "content-length") == [str(len(chat_body()))]
    assert not values(seen[0], "transfer-encoding")


FORGED = [
    *("Forwarded: for=forged", "FORWARDED: host=forged", "X-Real-IP: forged", "x-real-ip: forged"),
    *("X-Forwarded-For: forged, 127.0.0.1", "x-FORWARDED-for: forged", "X-Forwarded: forged"),
    *("X_Forwarded_For: forged", "X-Forwarded_For: forged", "X_Real_IP: forged", "_: forged"),
    *("X-Forwarded-Host: forged", "X-Forwarded-Proto: forged", "X-Forwarded-Port: forged"),
    *("X-Forwarded-Scheme: forged", "X-Forwarded-Anything: forged", "X-ForwardedFor: forged"),
    *("Keep-Alive: forged", "Proxy-Connection: forged", "Proxy-Authorization: forged"),
    *("Proxy-Authenticate: forged", "TE: forged", "Trailer: forged", "Upgrade: forged"),
    *("HTTP2-Settings: forged", "Listed: forged", "lISTED-too: forged", "Content_Length: forged"),
    *("Content_Type: forged", "Host_: forged", "X_Request_Id: forged", "Authorization_: forged"),
]
LISTED = [
    *("Connection: listed", "connection: X-Any,LISTED-TOO ,, close", "Connection: host, te"),
    *("Connection: content-length, transfer-encoding", "Connection: x-request-id, connection"),
    *("Connection: x-forwarded-for, X-Forwarded-Host, x-forwarded-proto",),
]
OWN = {
    *("host", "content-length", "x-request-id", "x-forwarded-for", "x-forwarded-host"),
    "x-forwarded-proto",
}
FIELD = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]+: [\t\x20-\x7e\x80-\xff]*")


@pytest.mark.fault(27)
@pytest.mark.parametrize("stream", [False, True])
def test_no_forged_field_reaches_a_pod(here: Place, stream: bool) -> None:
    body = chat_body(stream=stream)
    odd = ["X-Latin: \xe9\xff", "X-Tab: a\tb", "X-Empty:", "!#$%&'*+-.^`|~: odd", 'X-Quoted: "a:b"']
    with reaching_the_pod(here, 1) as seen:
        assert here.exchange(post(body, *odd, *FORGED, *LISTED)).status == 200
    first, *lines = seen[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert first == FIRST.encode()
    assert all(FIELD.fullmatch(line) for line in lines), lines
    assert b"forged" not in seen[0].lower()
    names = [name for name, _ in head_of(seen[0])[1]]
    assert sorted(names) == sorted([*OWN, *(line.partition(":")[0].lower() for line in odd)])
    pod = process_of(here.cluster.models["llama"].pods[0])
    assert values(seen[0], "host") == [f"{pod.address}:{pod.port}"]
    assert values(seen[0], "content-length") == [str(len(body))]
    assert values(seen[0], "x-forwarded-for") == ["127.0.0.1"]


REQUEST_IDS = [
    *("a|b", "good|", "|good", "a, b", "a,b", "a\tb", "a;b", "a%0d%0aX-A: b", "a\\r\\nX-A: b"),
    *("\xe9", "${jndi:x}", "'", '"a"', "<a>", "a" * 129, "a" * 8000),
]


@pytest.mark.fault(27)
@pytest.mark.parametrize("given", REQUEST_IDS)
def test_a_request_id_that_could_mean_something_else_is_replaced(here: Place, given: str) -> None:
    names = ("X-Request-ID", "x-REQUEST-id")
    lines = [f"{name}: {value}" for name, value in zip(names, given.split("|"), strict=False)]
    with reaching_the_pod(here, 1) as seen:
        answer = here.exchange(post(None, *lines))
    (made,) = values(seen[0], "x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert answer.value("x-request-id") == made


@pytest.mark.fault(27)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_host_that_is_told_is_that_of_an_absolute_target(here: Place, version: str) -> None:
    target = f"http://shop.test:81{CHAT}?q"
    with reaching_the_pod(here, 1) as seen:
        here.exchange(post(None, "Host: other.test", target=target, version=version))
    assert values(seen[0], "x-forwarded-host") == ["shop.test:81"]
    assert head_of(seen[0])[0] == f"POST {CHAT}?q HTTP/1.1"
