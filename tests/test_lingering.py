"""A client's connection is closed so that the client can read everything first."""

import socket
import time
from collections.abc import Iterator

import pytest

from proxy.epoll import Epoll
from proxy.lingering import LINGER_SECONDS, Lingering
from tests.harness import wait_for


class Loop:
    """As much of a worker's loop as lingering needs, with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ended = 0
        self.poller = Epoll()
        self.lingering = Lingering(self.poller, self._count, lambda: self.now)

    def _count(self) -> None:
        self.ended += 1

    def turn(self) -> None:
        self.poller.turn(0.01)
        self.lingering.expire()

    def turn_until_ended(self, count: int) -> None:
        def ended() -> bool:
            self.turn()
            return self.ended == count

        wait_for(ended, "it is over", 5.0)

    @property
    def watched(self) -> int:
        return self.poller.count


@pytest.fixture
def loop() -> Iterator[Loop]:
    running = Loop()
    yield running
    running.poller.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's end of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 5.0)
        server, _ = listener.accept()
    with server, client:
        yield server, client


Pair = tuple[socket.socket, socket.socket]


def test_the_client_sees_the_end_at_once_and_may_close_when_it_likes(
    loop: Loop, pair: Pair
) -> None:
    server, client = pair
    server.sendall(b"the answer")
    loop.lingering.add(server)
    assert client.recv(100) == b"the answer"
    assert client.recv(100) == b""
    loop.turn()
    assert loop.ended == 0

    client.close()
    loop.turn_until_ended(1)
    assert loop.watched == 0
    assert server.fileno() == -1


def test_what_the_client_still_sends_does_not_cost_it_the_answer(loop: Loop, pair: Pair) -> None:
    server, client = pair
    client.setblocking(False)
    server.sendall(b"too large")
    loop.lingering.add(server)
    left = 20_000_000
    deadline = time.monotonic() + 10
    while left:
        try:
            left -= client.send(bytes(min(left, 1_000_000)))
        except BlockingIOError:
            loop.turn()
        assert time.monotonic() < deadline
    client.setblocking(True)
    assert client.recv(100) == b"too large"
    assert client.recv(100) == b""


def test_a_client_that_never_closes_is_left_after_a_while(loop: Loop, pair: Pair) -> None:
    server, _ = pair
    loop.lingering.add(server)
    loop.now += LINGER_SECONDS - 0.1
    loop.turn()
    assert loop.ended == 0
    loop.now += 0.2
    loop.turn()
    assert loop.ended == 1
    assert loop.watched == 0


def test_a_client_that_has_reset_the_connection_is_forgotten_at_once(
    loop: Loop, pair: Pair
) -> None:
    server, client = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    loop.lingering.add(server)
    loop.turn_until_ended(1)
    assert server.fileno() == -1


def test_a_connection_that_is_closed_already_is_over(loop: Loop, pair: Pair) -> None:
    server, _ = pair
    server.close()
    loop.lingering.add(server)
    assert loop.ended == 1
    assert loop.watched == 0


def test_those_that_have_lingered_longest_are_cut_where_room_is_needed(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pairs = []
        for _ in range(3):
            client = socket.create_connection(listener.getsockname(), 5.0)
            pairs.append((listener.accept()[0], client))
            loop.lingering.add(pairs[-1][0])
            loop.now += 1
    assert loop.lingering.cut(after=1.5, most=1) == 1
    assert loop.lingering.cut(after=1.5, most=9) == 1
    assert loop.ended == 2
    assert [server.fileno() == -1 for server, _ in pairs] == [True, True, False]
    for server, client in pairs:
        server.close()
        client.close()
