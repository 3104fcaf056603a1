"""A request is taken from the bytes as they come, however they are cut."""

import io
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import errors

from proxy.arrival import MOST_READ_IN_VAIN, Arrival, Incoming
from proxy.errors import GatewayError
from tests.wire import chat_body, in_chunks, post

MOST = 200_000
ADDRESS = ("127.0.0.1", 50_000)


def config() -> Config:
    made = Config()
    made.set("http_parser", "python")
    made.set("forwarded_allow_ips", "")
    return made


CONFIG = config()


def arrival(*, wants: bool = True) -> Arrival:
    return Arrival(CONFIG, ADDRESS, MOST, lambda *_: wants)


def body_of(incoming: Incoming) -> bytes:
    body: bytes = incoming.request.body.read()
    return body


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def fed(one: Arrival, *parts: bytes) -> Incoming:
    """The request that is complete with the last of the parts, and not before."""
    *before, last = parts
    assert [one.feed(part) for part in before] == [None] * len(before)
    incoming = one.feed(last)
    assert incoming is not None
    return incoming


REQUESTS = {
    "with a length": post(),
    "in chunks": post(in_chunks(chat_body()[:5], chat_body()[5:]), "Transfer-Encoding: chunked"),
    "without a body": post(b"", method="GET"),
    "after an empty line": b"\r\n" + post(),
    "without fields": b"GET / HTTP/1.0\r\n\r\n",
}


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("size", [1, 2, 7, 1_000_000])
def test_a_request_in_pieces_is_the_request(kind: str, size: int) -> None:
    raw = REQUESTS[kind]
    incoming = fed(arrival(), *pieces(raw, size))
    assert incoming.whole
    assert body_of(incoming) == (chat_body() if b"POST" in raw else b"")
    assert incoming.request.method == ("POST" if b"POST" in raw else "GET")


@pytest.mark.parametrize("cut", range(1, len(post())))
def test_it_does_not_matter_where_a_request_is_cut(cut: int) -> None:
    raw = post()
    assert body_of(fed(arrival(), raw[:cut], raw[cut:])) == chat_body()


def test_what_comes_after_a_request_is_the_next_one() -> None:
    one = arrival()
    first = fed(one, post(b"first") + post(b"second") + post(b"third")[:30])
    second = fed(one, b"")
    third = fed(one, post(b"third")[30:])
    assert [body_of(x) for x in (first, second, third)] == [b"first", b"second", b"third"]
    assert [x.request.req_number for x in (first, second, third)] == [1, 2, 3]
    assert one.held == 0


def test_what_comes_before_an_answer_is_kept_for_later() -> None:
    one = arrival()
    fed(one, post())
    one.hold(post(b"later")[:20])
    one.hold(post(b"later")[20:])
    assert one.held == len(post(b"later"))
    assert body_of(fed(one, b"")) == b"later"


def test_bytes_behind_a_chunked_body_end_the_connection_rather_than_be_guessed_at() -> None:
    raw = post(in_chunks(b"{}"), "Transfer-Encoding: chunked")
    assert not fed(arrival(), raw + post()).whole


MALFORMED = {
    b"GET / HTTP/9\r\n\r\n": errors.InvalidHTTPVersion,
    b"\r\n\r\n": errors.InvalidRequestLine,
    b"GET / HTTP/1.1\n": errors.InvalidRequestLine,
    b"GET / HTTP/1.1\r\nX: a\n": errors.InvalidHeader,
    b"GET /" + b"a" * 9000: errors.LimitRequestLine,
    b"GET /\r\n": errors.InvalidRequestLine,
    b"\r\nGET / HTTP/2.0\r\n": errors.InvalidHTTPVersion,
    b"\x16\x03\x01\x02\x00\x01": errors.InvalidRequestLine,
    b" GET /": errors.InvalidRequestLine,
    b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 101 + b"\r\n": errors.LimitRequestHeaders,
    b"GET / HTTP/1.1\r\nX: " + b"a" * 900_000: errors.LimitRequestHeaders,
    b"GET / HTTP/1.1\r\nExpect: more\r\n\r\n": errors.ExpectationFailed,
    b"POST / HTTP/1.1\r\nTransfer-Encoding: new\r\n\r\n": errors.UnsupportedTransferCoding,
    b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n": errors.InvalidHeader,
}


@pytest.mark.parametrize("raw", MALFORMED, ids=lambda raw: repr(raw[:30]))
@pytest.mark.parametrize("size", [11, 8192, 1_000_000])
def test_a_head_that_is_none_is_refused_as_gunicorn_does_and_without_waiting_for_its_end(
    raw: bytes, size: int
) -> None:
    one = arrival()

    def feed_all() -> None:
        for part in pieces(raw, size):
            assert one.feed(part) is None

    with pytest.raises(MALFORMED[raw]):
        feed_all()


def test_a_carriage_return_at_the_end_of_a_piece_is_no_bare_line_end() -> None:
    one = arrival()
    assert fed(one, b"GET / HTTP/1.1\r", b"\nHost: a\r", b"\n\r", b"\n").request.path == "/"


def refusal(incoming: Incoming) -> Exception:
    assert not incoming.whole
    with pytest.raises(Exception) as raised:
        incoming.request.body.read(10)
    return raised.value


@pytest.mark.parametrize("coding", ["length", "chunks"])
def test_a_body_over_the_limit_is_not_waited_for(coding: str) -> None:
    body = bytes(MOST + 1)
    if coding == "length":
        incoming = fed(arrival(), post(body)[:500])
    else:
        head = post(in_chunks(body), "Transfer-Encoding: chunked")
        incoming = fed(arrival(), *pieces(head[: MOST + 300], 65_536))
    error = refusal(incoming)
    assert isinstance(error, GatewayError)
    assert error.code == "body_too_large"


@pytest.mark.parametrize("coding", ["length", "chunks"])
def test_a_body_of_exactly_the_limit_is_taken(coding: str) -> None:
    body = bytes(MOST)
    if coding == "length":
        raw = post(body)
    else:
        raw = post(in_chunks(body[:7], body[7:]), "Transfer-Encoding: chunked")
    assert body_of(fed(arrival(), *pieces(raw, 65_536))) == body


def test_a_body_nobody_wants_is_read_only_if_it_is_small() -> None:
    small, large = bytes(MOST_READ_IN_VAIN), bytes(MOST_READ_IN_VAIN + 1)
    assert fed(arrival(wants=False), post(small)[:300], post(small)[300:]).whole
    refusal(fed(arrival(wants=False), post(large)[:300]))


def test_what_is_asked_about_a_body_is_method_path_and_key() -> None:
    asked = []

    def wants(*about: str | None) -> bool:
        asked.append(about)
        return True

    one = Arrival(CONFIG, ADDRESS, MOST, wants)
    fed(one, post(None, "Authorization: Bearer k", target="/v1/x?q")[:-1], chat_body()[-1:])
    fed(one, post())
    assert asked == [("POST", "/v1/x", "Bearer k")], "not where the body is there already"


@pytest.mark.parametrize("bad", [b"zz\r\n{}\r\n", b"2\r\n{}x", b"0\r\nbad\r\n\r\n"])
def test_a_chunked_body_that_is_none_is_the_clients_mistake(bad: bytes) -> None:
    error = refusal(fed(arrival(), post(bad, "Transfer-Encoding: chunked")))
    assert isinstance(error, GatewayError)
    assert error.code == "invalid_body"


def test_a_client_that_waits_for_a_continue_is_told_if_its_body_is_wanted() -> None:
    head, body = post(None, "Expect: 100-continue"), chat_body()
    head = head.removesuffix(body)
    one = arrival()
    assert one.feed(head) is None
    assert one.expects_continue
    assert not fed(one, body).expects_continue, "it was told"
    assert fed(one, head + body).expects_continue
    assert not fed(one, post()).expects_continue

    refused = fed(arrival(wants=False), head)
    assert not refused.expects_continue
    refusal(refused)


def test_gunicorn_does_not_answer_the_expectation_itself() -> None:
    incoming = fed(arrival(), post(None, "Expect: 100-continue"))
    assert incoming.request._expected_100_continue is False


def test_a_request_that_is_given_up_says_why_when_its_body_is_read() -> None:
    one = arrival()
    assert one.give_up(ConnectionResetError()) is None, "there is none yet"
    assert one.feed(post()[:-1]) is None
    incoming = one.give_up(ConnectionResetError("gone"))
    assert incoming is not None
    assert isinstance(refusal(incoming), ConnectionResetError)
    assert body_of(fed(one, post())) == chat_body()


def test_the_bytes_that_are_kept_are_counted() -> None:
    one = arrival()
    assert one.feed(post()[:10]) is None
    assert one.held == 10
    body = bytes(1000)
    assert one.feed(post(body)[10:-600]) is None
    assert one.held == 400
    fed(one, bytes(600))
    assert one.held == 0


def test_the_body_is_an_input_as_wsgi_has_it() -> None:
    body: Any = fed(arrival(), post(b"a\nb\n")).request.body
    assert isinstance(body, io.BytesIO)
    assert list(body) == [b"a\n", b"b\n"]
