"""Getting an engine's page: what comes of engines that drip, lie, refuse or never end."""

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cache.endpoints import Endpoint
from load.fetch import FetchError
from proxy.pages import BODY_SECONDS, CONNECT_SECONDS, HEAD_SECONDS, MOST_BYTES, MetricsPages
from tests.fakes import Script, answering, close, received, reset, sending, until_closed, upstream

PAGE = b"vllm:num_requests_running 1\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#: Seconds that any engine may cost, with some for a busy machine.
LONGEST = CONNECT_SECONDS + HEAD_SECONDS + BODY_SECONDS + 3


@pytest.fixture
def pages() -> Iterator[MetricsPages]:
    made = MetricsPages(time.monotonic)
    yield made
    made.keep([])


def dripping(connection: socket.socket) -> None:
    """A head that comes byte by byte and never ends."""
    received(connection)
    with contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Name: ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)


def endless(connection: socket.socket) -> None:
    """A body without an end."""
    received(connection)
    with contextlib.suppress(OSError):
        connection.sendall(CHUNKED)
        while True:
            connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")


def trickling(connection: socket.socket) -> None:
    """A body that comes byte by byte."""
    received(connection)
    with contextlib.suppress(OSError):
        connection.sendall(CHUNKED)
        while True:
            connection.sendall(b"1\r\nx\r\n")
            time.sleep(0.05)


def silent(connection: socket.socket) -> None:
    received(connection)
    until_closed(connection)


def test_the_page_comes_back_and_the_connection_is_kept(pages: MetricsPages) -> None:
    with upstream(answering(OK, OK, OK)) as engine:
        assert [pages.fetch(engine.endpoint) for _ in range(3)] == [PAGE.decode()] * 3
        pages.keep([])


def test_a_connection_that_had_closed_is_replaced(pages: MetricsPages) -> None:
    with upstream(sending(OK, then=close), answering(OK)) as engine:
        assert pages.fetch(engine.endpoint) == PAGE.decode()
        assert pages.fetch(engine.endpoint) == PAGE.decode()
        pages.keep([])


def test_the_metrics_port_is_asked_where_there_is_one(pages: MetricsPages) -> None:
    with upstream(answering(OK)) as engine:
        endpoint = replace(engine.endpoint, port=1, metrics_port=engine.endpoint.port)
        assert pages.fetch(endpoint) == PAGE.decode()
        pages.keep([replace(endpoint, metrics_port=None)])


@pytest.mark.parametrize(
    ("script", "result"),
    [
        (silent, "timeout"),
        (dripping, "timeout"),
        (trickling, "timeout"),
        (endless, "too_large"),
        (close, "unreachable"),
        (reset, "unreachable"),
        (sending(b"garbage\r\n\r\n"), "unreachable"),
        (sending(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", then=close), "unreachable"),
        (sending(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), "status"),
        (sending(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), "status"),
    ],
)
def test_an_engine_that_misbehaves_costs_little_time_and_a_word(
    pages: MetricsPages, script: Script, result: str
) -> None:
    with upstream(script) as engine:
        started = time.monotonic()
        with pytest.raises(FetchError) as caught:
            pages.fetch(engine.endpoint)
        assert time.monotonic() - started < LONGEST
        pages.keep([])
    assert caught.value.result == result


def test_nobody_listens(pages: MetricsPages) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        endpoint = Endpoint("127.0.0.1", gone.getsockname()[1])
    with pytest.raises(FetchError, match="unreachable"):
        pages.fetch(endpoint)


def test_bytes_that_are_no_text_are_no_trouble(pages: MetricsPages) -> None:
    body = b"\xff\xfe\x00" + PAGE
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with upstream(answering(head + body)) as engine:
        assert PAGE.decode() in pages.fetch(engine.endpoint)
        pages.keep([])


def test_real_pages_are_far_below_the_limit() -> None:
    assert MOST_BYTES > 10 * 100_000
