"""A thread sends to a client as long as the client takes something."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from proxy.sending import Collected, Outlet, send

PATIENCE = 0.2
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The server's end, which does not block, and the client's with a small buffer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    server.setblocking(False)
    with server, client:
        yield server, client


def test_everything_arrives_however_slowly_it_is_read(pair: Pair) -> None:
    server, client = pair
    data = bytes(range(256)) * 20_000
    sending = threading.Thread(target=Outlet(server, 5.0).sendall, args=(data,))
    sending.start()
    received = b""
    while len(received) < len(data):
        received += client.recv(100_000)
    sending.join(5)
    assert received == data


def test_a_client_that_reads_nothing_has_left(pair: Pair) -> None:
    server, _ = pair
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        Outlet(server, PATIENCE).sendall(bytes(20_000_000))
    assert PATIENCE <= time.monotonic() - began < 20 * PATIENCE


def test_a_client_that_closes_has_left(pair: Pair) -> None:
    server, client = pair
    client.close()
    with pytest.raises(OSError):
        Outlet(server, 5.0).sendall(bytes(20_000_000))


def test_what_goes_at_once_is_sent_and_the_rest_is_returned(pair: Pair) -> None:
    server, client = pair
    assert send(server, b"all of it") == b""
    assert client.recv(100) == b"all of it"
    data = bytes(20_000_000)
    rest = send(server, data)
    assert 0 < len(rest) < len(data)
    assert send(server, rest) == rest or len(rest) < len(data)


def test_an_answer_can_be_collected_instead() -> None:
    collected = Collected()
    collected.sendall(b"a")
    collected.sendall(b"b")
    assert collected.take() == b"ab"
    assert collected.take() == b""
