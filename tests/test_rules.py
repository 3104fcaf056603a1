"""What a request must obey beyond what gunicorn's parser asks."""

import inspect
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from gunicorn import http
from gunicorn.http.errors import InvalidHeader, ParseException, UnsupportedTransferCoding
from gunicorn.http.parser import Parser
from gunicorn.http.unreader import IterUnreader
from gunicorn.workers.gthread import TConn
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import GatewayError
from proxy.rules import LawfulRequest, is_host
from tests.test_arrival import ADDRESS, CONFIG
from tests.wire import post


def read(raw: bytes) -> Any:
    return LawfulRequest(CONFIG, IterUnreader([raw]), ADDRESS, 1)


def refusal_of(raw: bytes) -> str:
    """The code under which a request is refused."""
    with pytest.raises(GatewayError) as raised:
        read(raw)
    return raised.value.code


HOSTS = [
    *("", "a", "a.test", "a.test:80", "a.test:", "A-b_c~1.test.:65535", "127.0.0.1:8000"),
    *("[::1]", "[2001:DB8::7]:443", "[::ffff:192.0.2.1]", "[v1.a:b]", "%61.test", "a!$&'()*+,;=b"),
]
NO_HOSTS = [
    *(" ", "a b", "a,b c", "a/b", "a?b", "a#b", "a\\b", "u@a", "u:p@a", "a:b", "a:-1", "a:1:2"),
    *(":80", "a:123456", "::1", "[::1", "::1]", "[]", "[a]", "[::g]", "[1::2::3]", "[::1]x"),
    *("[fe80::1%25eth0]", "[v.a]", "[v1.]", "%", "%6", "%zz", "a\t", "a\x00", "\xe9", "<a>", '"a"'),
]


@pytest.mark.parametrize("value", HOSTS)
def test_a_host_and_perhaps_a_port_may_stand_in_host(value: str) -> None:
    assert is_host(value)
    assert dict(read(post(None, f"Host: {value}")).headers)["HOST"] == value


@pytest.mark.parametrize("value", NO_HOSTS)
def test_nothing_else_may(value: str) -> None:
    assert not is_host(value)


@given(st.text(st.sampled_from("aZ09.:[]%@/?#\\_-~!$&'()*+,;=v \t\xe9"), max_size=12))
def test_what_is_a_host_is_one_in_a_uri_too(text: str) -> None:
    if text and is_host(text):
        parts = urlsplit(f"http://{text}/path")
        assert (parts.netloc, parts.path, parts.username) == (text, "/path", None)
        assert parts.hostname


def test_no_host_takes_long_to_be_refused() -> None:
    began = time.process_time()
    for hostile in ("a" * 8000 + "/", "%41" * 2600 + "%", "[" + ":" * 8000 + "]"):
        assert not is_host(hostile)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("hosts", [[], ["a", "a"], ["a", "b"]])
def test_a_request_has_one_host(hosts: list[str]) -> None:
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    with pytest.raises((GatewayError, InvalidHeader)):
        read(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())


def test_an_older_one_may_have_none_but_no_invalid_one() -> None:
    assert read(b"GET / HTTP/1.0\r\n\r\n").headers == []
    assert refusal_of(b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n") == "bad_request"


@pytest.mark.parametrize(("given", "spoken"), [("1.0", (1, 0)), ("1.1", (1, 1)), ("1.2", (1, 1))])
def test_a_later_version_is_taken_for_the_latest_that_is_spoken(
    given: str, spoken: tuple[int, int]
) -> None:
    assert read(post(version=given)).version == spoken


@pytest.mark.parametrize("target", ["/", "/a?b#", "a.test:80", "http://u@a/"])
@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_there_are_no_tunnels_and_no_echoes(method: str, target: str) -> None:
    with pytest.raises((GatewayError, ParseException)) as raised:
        read(post(method=method, target=target))
    if isinstance(raised.value, GatewayError):
        assert raised.value.code == "method_not_allowed"
        assert raised.value.headers == (("Allow", "GET, HEAD, POST"),)
    else:
        assert (method, target) == ("TRACE", "a.test:80")


@pytest.mark.parametrize(
    ("target", "authority"),
    [
        ("http://a.test/x", "a.test"),
        ("HTTPS://[::1]:8/x?y=http://b", "[::1]:8"),
        ("http://a.test:", "a.test:"),
        ("http://a.test?x", "a.test"),
        ("/http://b/", "gateway.test"),
        ("//b/", "gateway.test"),
        ("/x?http://b/", "gateway.test"),
    ],
)
def test_the_host_is_what_the_target_says_if_it_says_one(target: str, authority: str) -> None:
    request = read(post(None, "X-A: 1", "Host: gateway.test", target=target))
    assert [value for name, value in request.headers if name == "HOST"] == [authority]
    assert ("X-A", "1") in request.headers


def test_an_older_request_gets_the_host_of_its_target_too() -> None:
    assert read(b"GET http://a.test/ HTTP/1.0\r\n\r\n").headers == [("HOST", "a.test")]


@pytest.mark.parametrize(
    "target",
    [
        *("/a#b", "/a?b#c", "/#", "http://a/#", "http:///a", "http://?a", "http://u@a/"),
        *("http://u:p@a/", "http://@a/", "http://a:b/", "http://a\\@b/", "http://a b/", "ftp://a/"),
        *("a://a/", "http://[::1/", "http://[::g]/", "://a/", "x/http://a/", "http://%/"),
    ],
)
def test_any_other_target_is_refused(target: str) -> None:
    with pytest.raises((GatewayError, ParseException)) as raised:
        read(post(target=target))
    if isinstance(raised.value, GatewayError):
        assert raised.value.code == "bad_request"
        assert target not in raised.value.message


def test_all_there_is_has_a_target_for_options_only() -> None:
    assert read(post(b"", method="OPTIONS", target="*")).path == "*"
    with pytest.raises(ParseException):
        read(post(b"", method="GET", target="*"))


@pytest.mark.parametrize("value", ["chunked", "Chunked", "CHUNKED", "\t chunked \t"])
def test_chunks_are_the_one_coding(value: str) -> None:
    assert read(post(b"0\r\n\r\n", f"Transfer-Encoding: {value}")).headers


@pytest.mark.parametrize(
    "values",
    [["gzip, chunked"], ["identity, chunked"], ["identity", "chunked"], ["deflate", "chunked"],
     ["xchunked"], ["chunked;q=1"], ['"chunked"'], ["chunked,"]],
)  # fmt: skip
def test_any_other_coding_is_not_understood(values: list[str]) -> None:
    with pytest.raises(UnsupportedTransferCoding):
        read(post(b"0\r\n\r\n", *(f"Transfer-Encoding: {value}" for value in values)))


def test_under_tls_gunicorns_own_parser_makes_the_requests_that_its_connection_says() -> None:
    made = "self.mesg_class(self.cfg, self.unreader, self.source_addr, self.req_count)"
    assert made in inspect.getsource(Parser.__next__)
    assert "self.parser = http.get_parser(" in inspect.getsource(TConn.init)
    assert type(http.get_parser(CONFIG, [b""], ADDRESS)) is http.RequestParser
