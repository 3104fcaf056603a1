"""What an endpoint may do while a request is sent to it, and between two requests."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

from proxy.connection import Connection
from proxy.failures import BodyDied, BodyIdle, ConnectionDied, ResponseBroken, ResponseTimeout
from proxy.steps import carry_out
from tests.fakes import (
    OK,
    Script,
    answering,
    close,
    read_request,
    received,
    reset,
    sending,
    until_closed,
    upstream,
)
from tests.harness import PATIENCE
from tests.test_connection import REQUEST_HEAD, connected, exchange, soon

#: More than the buffers of both ends take.
LARGE = b"x" * 16_000_000


def test_a_large_body_arrives_whole() -> None:
    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        seen.append(read_request(connection))
        connection.sendall(OK)
        until_closed(connection)

    with connected(script, receive_buffer=4096) as connection:
        assert exchange(connection, LARGE[:3_000_000])[0].status == 200
        assert connection.reusable
    assert seen == [REQUEST_HEAD % 3_000_000 + LARGE[:3_000_000]]


REFUSAL = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"


def refusing_early(then: Callable[[socket.socket], None], *, before: bytes = b"") -> Script:
    """Answer before the body has been read."""

    def script(connection: socket.socket) -> None:
        assert connection.recv(100)
        connection.sendall(before + REFUSAL)
        then(connection)

    return script


def half_close(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    until_closed(connection)


@pytest.mark.parametrize("then", [close, half_close, until_closed])
def test_an_answer_that_comes_while_the_body_is_sent_is_the_answer(then: Script) -> None:
    with connected(refusing_early(then), receive_buffer=4096) as connection:
        head, content = exchange(connection, LARGE)
        assert head.status == 413
        assert content or connection.receive(PATIENCE) == b"no"


class Unread:
    """A script that reads nothing, and ends when it is told to."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer
        self.told = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        connection.sendall(self.answer)
        assert self.told.wait(PATIENCE)


def test_an_answer_is_seen_also_where_the_endpoint_never_reads_the_body() -> None:
    script = Unread(REFUSAL)
    with connected(script, receive_buffer=4096) as connection:
        assert exchange(connection, LARGE)[0].status == 413
        assert not connection.reusable
        script.told.set()


def test_an_informational_response_does_not_stop_the_body() -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 103 Early ")
        connection.sendall(b"Hints\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
        read_request(connection)
        connection.sendall(OK)
        until_closed(connection)

    with connected(script) as connection:
        assert exchange(connection, LARGE)[0].status == 200
        assert connection.reusable


@pytest.mark.parametrize("how", [close, reset])
def test_one_that_dies_after_an_informational_response_was_at_work(how: Script) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        for _ in range(10):  # so that the gateway has seen it
            assert received(connection)
        how(connection)

    with connected(script) as connection, pytest.raises(ResponseBroken):
        exchange(connection, LARGE)


def test_an_endpoint_that_does_not_read_times_out() -> None:
    script = Unread()
    with connected(script, receive_buffer=4096) as connection:
        began = time.monotonic()
        with pytest.raises(ResponseTimeout):
            exchange(connection, LARGE, seconds=0.2)
        assert time.monotonic() - began >= 0.2
        script.told.set()


@pytest.mark.parametrize("how", [close, reset])
def test_an_endpoint_that_dies_while_the_body_is_sent_has_died(how: Script) -> None:
    def script(connection: socket.socket) -> None:
        assert connection.recv(100)
        how(connection)

    with connected(script, receive_buffer=4096) as connection:
        with pytest.raises(ConnectionDied):
            exchange(connection, LARGE)
        assert not connection.reusable


def test_an_idle_connection_is_clean_without_waiting() -> None:
    with connected(answering(OK)) as connection:
        exchange(connection)
        began = time.monotonic()
        assert all(connection.is_clean() for _ in range(100))
        assert time.monotonic() - began < 1


def silent_until_told(then: Callable[[socket.socket], None]) -> Script:
    def script(connection: socket.socket) -> None:
        assert received(connection) == b"!"
        then(connection)

    return script


@pytest.mark.parametrize("how", [close, reset, lambda c: c.sendall(b"?")])
def test_an_idle_connection_that_ended_or_spoke_is_not_clean(how: Script) -> None:
    with connected(silent_until_told(how)) as connection:
        assert connection.is_clean()
        carry_out(connection.send(b"!", b"", soon(), time.monotonic))
        ends = soon()
        while connection.is_clean():
            assert time.monotonic() < ends


def test_a_silent_body_is_idle() -> None:
    with connected(answering(OK[:-1])) as connection:
        exchange(connection)
        with pytest.raises(BodyIdle, match=r"0\.05 s"):
            connection.receive(0.05)


def test_a_reset_body_has_died() -> None:
    told = threading.Event()

    def then(connection: socket.socket) -> None:
        assert told.wait(PATIENCE)
        reset(connection)

    with connected(sending(OK[:-2], then=then)) as connection:
        exchange(connection)
        told.set()
        with pytest.raises(BodyDied):
            connection.receive(PATIENCE)


def test_a_shut_down_wakes_the_thread_that_waits_for_the_head() -> None:
    with upstream(sending()) as server:
        connection = carry_out(Connection.open(server.endpoint, PATIENCE))
        carry_out(connection.send(REQUEST_HEAD % 2, b"{}", soon(), time.monotonic))
        threading.Timer(0.05, connection.shut_down).start()
        with pytest.raises(ConnectionDied):
            carry_out(connection.receive_head(soon(), time.monotonic))
        connection.close()


def test_after_a_shut_down_no_body_has_a_good_end() -> None:
    with connected(answering(OK)) as connection:
        exchange(connection)
        connection.shut_down()
        with pytest.raises(BodyDied):
            connection.receive(PATIENCE)
        assert not connection.reusable


def test_closing_and_shutting_down_twice_does_no_harm() -> None:
    with connected(answering()) as connection:
        connection.shut_down()
        connection.close()
        connection.close()
        connection.shut_down()
