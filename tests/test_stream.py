"""A response's body closes its own connection, or gives it back if it is good for another."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from proxy.failures import BodyDied, BodyIdle, ResponseInvalid
from proxy.pool import ConnectionPool
from proxy.steps import carry_out
from proxy.stream import Stream
from tests.fakes import Clock, Script, answering, close, reset, sending, upstream
from tests.harness import PATIENCE
from tests.test_connection import exchange
from tests.test_connection_sending import LARGE, Unread

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def length(content: bytes, size: int | None = None, *fields: bytes) -> bytes:
    size = len(content) if size is None else size
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % size, *fields]
    return b"\r\n".join([*lines, b"", content])


class Reading:
    """A stream over a pool of its own."""

    def __init__(self, pool: ConnectionPool, stream: Stream) -> None:
        self.pool = pool
        self.stream = stream

    def all(self) -> bytes:
        return b"".join(iter(self.stream.read, b""))

    def kept(self) -> bool:
        """Close it; whether its connection was kept."""
        self.stream.close()
        self.stream.close()  # a second time changes nothing
        return sum(self.pool.sizes().values()) == 1


@contextmanager
def reading(
    *scripts: Script, idle_timeout: float = PATIENCE, body: bytes = b"{}"
) -> Iterator[Reading]:
    with upstream(*scripts) as server:
        pool = ConnectionPool(Clock(), per_endpoint=4)
        connection = carry_out(pool.take(server.endpoint, PATIENCE, fresh=False))
        try:
            head, received = exchange(connection, body)
            yield Reading(pool, Stream(connection, pool, head, received, idle_timeout))
        finally:
            pool.discard(connection)
            pool.prune(())


@pytest.mark.parametrize(
    ("response", "content"),
    [
        (length(b"hi"), b"hi"),
        (length(b""), b""),
        (length(b"x" * 500_000), b"x" * 500_000),
        (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", b"hi"),
        (CHUNKED + b"0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
        (length(b"hi", None, b"Connection: keep-alive").replace(b"/1.1", b"/1.0"), b"hi"),
    ],
)
def test_after_a_whole_answer_the_connection_is_kept(response: bytes, content: bytes) -> None:
    with reading(answering(response)) as answer:
        assert answer.all() == content
        assert answer.stream.complete
        assert answer.kept()


@pytest.mark.parametrize(
    ("response", "content"),
    [
        (length(b"hi", None, b"Connection: close"), b"hi"),
        (length(b"hi").replace(b"/1.1", b"/1.0"), b"hi"),
        (length(b"hi more", 2), b"hi"),
        (length(b"more", 0), b""),
        (CHUNKED + b"2\r\nhi\r\n0\r\n\r\nmore", b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\nmore", b""),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n0\r\n\r\n", b""),
    ],
)
def test_one_that_must_not_be_used_again_is_closed(response: bytes, content: bytes) -> None:
    with reading(answering(response)) as answer:
        assert answer.all() == content
        assert answer.stream.complete
        assert not answer.kept()


def test_one_that_answered_before_it_had_read_the_request_is_closed() -> None:
    script = Unread(length(b"no"))
    with reading(script, body=LARGE) as answer:
        assert answer.all() == b"no"
        assert not answer.kept()
        script.told.set()


def test_what_comes_is_passed_on_before_there_is_more() -> None:
    more = threading.Event()

    def script(connection: object) -> None:
        assert more.wait(PATIENCE)

    first = CHUNKED + b"5\r\nfirst\r\n"
    with reading(sending(first, then=script)) as answer:
        assert answer.stream.read() == b"first"
        assert not answer.stream.complete
        more.set()


@pytest.mark.parametrize("response", [length(b"hi"), CHUNKED + b"2\r\nhi\r\n0\r\n\r\n"])
def test_an_answer_that_was_not_read_to_its_end_costs_its_connection(response: bytes) -> None:
    with reading(answering(response)) as answer:
        assert not answer.kept()


@pytest.mark.parametrize("how", [close, reset])
@pytest.mark.parametrize(
    "response", [length(b"hi", 3), CHUNKED + b"2\r\nhi\r\n", CHUNKED + b"2\r\nhi\r\n0\r\n", CHUNKED]
)
def test_an_answer_that_breaks_off_has_died(response: bytes, how: Script) -> None:
    with reading(sending(response, then=how)) as answer:
        with pytest.raises(BodyDied):
            answer.all()
        assert not answer.stream.complete
        assert not answer.kept()


def test_what_came_before_a_mistake_is_passed_on_first() -> None:
    with reading(answering(CHUNKED + b"2\r\nhi\r\nnonsense\r\n")) as answer:
        assert answer.stream.read() == b"hi"
        with pytest.raises(BodyDied) as caught:
            answer.stream.read()
        assert caught.value.kind == "protocol_error"
        assert not answer.kept()


def test_an_answer_that_falls_silent_is_idle() -> None:
    with reading(answering(length(b"hi", 3)), idle_timeout=0.05) as answer:
        assert answer.stream.read() == b"hi"
        began = time.monotonic()
        with pytest.raises(BodyIdle):
            answer.stream.read()
        assert 0.05 <= time.monotonic() - began < PATIENCE
        assert not answer.kept()


def test_an_event_stream_that_ends_with_its_connection_needs_its_last_event() -> None:
    with reading(sending(EVENTS, b"data: [DONE]\n\n", then=close)) as answer:
        assert answer.all() == b"data: [DONE]\n\n"
        assert answer.stream.complete
        assert not answer.kept()
    with reading(sending(EVENTS, b"data: {}\n\n", then=close)) as answer:
        assert answer.stream.read() == b"data: {}\n\n"
        with pytest.raises(BodyDied):
            answer.stream.read()


def test_a_body_that_only_our_shut_down_ended_has_died() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    with reading(sending(head + b"all there is so far")) as answer:
        assert answer.stream.read() == b"all there is so far"
        answer.pool.shut_down_all()
        with pytest.raises(BodyDied):
            answer.stream.read()


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Content-Length: 2\r\nContent-Length: 2",
        b"Content-Length: " + b"9" * 5000,
        b"Transfer-Encoding: gzip",
    ],
)
def test_a_framing_that_is_not_valid_is_refused_before_the_body(fields: bytes) -> None:
    with (
        pytest.raises(ResponseInvalid),
        reading(answering(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\nhi")),
    ):
        pass
