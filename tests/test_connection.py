"""One connection to an endpoint, against tiny servers that behave in every way."""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from cache.endpoints import Endpoint
from proxy.connection import Connection
from proxy.failures import (
    ConnectFailed,
    ConnectionDied,
    ResponseBroken,
    ResponseInvalid,
    ResponseTimeout,
    UpstreamFailure,
)
from proxy.framing import Head
from proxy.steps import carry_out
from tests.fakes import OK, Script, answering, close, read_request, reset, sending, upstream
from tests.harness import PATIENCE

REQUEST_HEAD = b"POST / HTTP/1.1\r\nHost: pod\r\nContent-Length: %d\r\n\r\n"


def soon(seconds: float = PATIENCE) -> float:
    return time.monotonic() + seconds


@contextmanager
def connected(*scripts: Script, receive_buffer: int | None = None) -> Iterator[Connection]:
    with upstream(*scripts, receive_buffer=receive_buffer) as server:
        connection = carry_out(Connection.open(server.endpoint, PATIENCE))
        try:
            yield connection
        finally:
            connection.close()


def exchange(
    connection: Connection, body: bytes = b"{}", *, seconds: float = PATIENCE
) -> tuple[Head, bytes]:
    deadline = soon(seconds)
    carry_out(connection.send(REQUEST_HEAD % len(body), body, deadline, time.monotonic))
    return carry_out(connection.receive_head(deadline, time.monotonic))


def test_an_answer_that_is_there_is_not_waited_for() -> None:
    with connected(sending(OK)) as connection:
        carry_out(connection.send(REQUEST_HEAD % 2, b"{}", soon(), time.monotonic))
        assert select.select([connection.socket], [], [], PATIENCE)[0]
        waits = connection.receive_head(soon(), time.monotonic)
        with pytest.raises(StopIteration) as end:
            next(waits)
    assert end.value.value[0].status == 200


def failure_of(
    script: Script, *, seconds: float = PATIENCE, reused: bool = False
) -> UpstreamFailure:
    with connected(script) as connection:
        connection.reused = reused
        with pytest.raises(UpstreamFailure) as caught:
            exchange(connection, seconds=seconds)
    return caught.value


def test_a_port_that_nobody_listens_on_refuses() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", taken.getsockname()[1], pod="absent")
        with pytest.raises(ConnectFailed, match="absent") as caught:
            carry_out(Connection.open(endpoint, PATIENCE))
    assert caught.value.kind == "refused"


def test_a_port_that_does_not_answer_times_out() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:  # fill its queue, so that the kernel ignores the next
            one.setblocking(False)
            one.connect_ex(address)
        try:
            with pytest.raises(ConnectFailed) as caught:
                carry_out(Connection.open(Endpoint(*address), 0.1))
        finally:
            for one in waiting:
                one.close()
    assert caught.value.kind == "connect_timeout"


@pytest.mark.parametrize("address", ["255.255.255.255", "fe80::1"])
def test_an_address_without_a_way_to_it_is_unreachable(address: str) -> None:
    with pytest.raises(ConnectFailed) as caught:
        carry_out(Connection.open(Endpoint(address, 80), 0.1))
    assert caught.value.kind == "unreachable"


def test_ipv6_is_spoken() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        carry_out(Connection.open(Endpoint("::1", listener.getsockname()[1]), PATIENCE)).close()


def test_a_head_and_what_came_with_it() -> None:
    with connected(answering(OK)) as connection:
        head, received = exchange(connection)
    assert (head.status, received) == (200, b"hi")


def test_a_head_may_come_byte_by_byte() -> None:
    parts = [OK[i : i + 1] for i in range(len(OK))]
    with connected(sending(*parts)) as connection:
        assert exchange(connection)[0].values("content-length") == ["2"]


@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 7,
    ],
)
def test_informational_responses_are_skipped(before: bytes) -> None:
    for parts in ((before + OK,), (before, OK), (before[:-2], before[-2:] + OK)):
        with connected(sending(*parts)) as connection:
            assert exchange(connection) == (exchange_of(OK), b"hi")


def exchange_of(response: bytes) -> Head:
    with connected(answering(response)) as connection:
        return exchange(connection)[0]


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 102 Processing\r\n\r\n" * 20,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Header: x\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\n\n",
        b"HTTP/2 200\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b'{"not":"http"}',
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 101 + b"\r\n",
    ],
)
def test_what_is_no_response_is_told_at_once(response: bytes) -> None:
    assert isinstance(failure_of(sending(response)), ResponseInvalid)


@pytest.mark.parametrize("how", [close, reset])
def test_an_end_before_a_response_is_a_death(how: Script) -> None:
    failure = failure_of(sending(then=how))
    assert isinstance(failure, ConnectionDied)
    assert (failure.idle, failure.kind) == (False, "reset")


@pytest.mark.parametrize("how", [close, reset])
@pytest.mark.parametrize(
    "part", [b"H", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 103 Early Hints\r\n\r\n"]
)
def test_an_end_after_a_byte_of_a_response_is_no_death_without_one(
    part: bytes, how: Script
) -> None:
    failure = failure_of(sending(part, then=how), reused=True)  # nor a stale connection
    assert isinstance(failure, ResponseBroken)


def test_an_idle_connection_that_was_closed_is_told_apart() -> None:
    failure = failure_of(sending(then=reset), reused=True)
    assert isinstance(failure, ConnectionDied)
    assert (failure.idle, failure.kind) == (True, "stale")


def test_one_that_dies_after_a_while_was_not_closed_before() -> None:
    """The request may have killed the endpoint, however the connection came about."""
    with connected(sending(then=close)) as connection:
        connection.reused = True
        later = iter([0.0, 2.0])  # sent at 0, ended at 2
        carry_out(connection.send(REQUEST_HEAD % 2, b"{}", soon(), lambda: next(later)))
        with pytest.raises(ConnectionDied) as caught:
            carry_out(connection.receive_head(soon(), lambda: next(later)))
    assert not caught.value.idle


def test_an_endpoint_that_says_nothing_times_out() -> None:
    began = time.monotonic()
    failure = failure_of(sending(), seconds=0.2)
    assert isinstance(failure, ResponseTimeout)
    assert time.monotonic() - began >= 0.2


def test_the_limit_is_for_the_whole_head_not_for_each_read() -> None:
    def drip(connection: socket.socket) -> None:
        read_request(connection)
        ended = select.poll()
        ended.register(connection, select.POLLIN)
        with suppress(ConnectionError):
            for byte in OK * 1000:
                connection.sendall(bytes([byte]))
                if ended.poll(50):
                    return

    began = time.monotonic()
    assert isinstance(failure_of(drip, seconds=0.4), ResponseTimeout)
    assert time.monotonic() - began < PATIENCE / 2
