"""When the grace is over every connection ends, and none of these ends looks like a good one."""

import socket
import threading
import time

import pytest

from cache.endpoints import Endpoint
from proxy.failures import BodyDied, ConnectFailed
from proxy.framing import parse_head
from proxy.pool import ConnectionPool
from proxy.steps import carry_out
from proxy.stream import Stream
from tests.harness import wait_for

CLOSE_FRAMED = parse_head(b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream")


def test_a_body_that_ends_with_its_connection_is_not_complete_when_we_end_it(
    listener: socket.socket, endpoint: Endpoint
) -> None:
    pool = ConnectionPool(time.monotonic, per_endpoint=1)
    connection = carry_out(pool.take(endpoint, 1.0, fresh=True))
    stream = Stream(connection, pool, CLOSE_FRAMED, b"half of it", 10.0)
    assert stream.read() == b"half of it"
    failures: list[BaseException] = []

    def read_on() -> None:
        try:
            stream.read()
        except BodyDied as failure:
            failures.append(failure)

    reader = threading.Thread(target=read_on)
    reader.start()
    pool.shut_down_all()
    reader.join(5.0)
    stream.close()

    assert len(failures) == 1
    assert not stream.complete


def test_a_body_that_ends_with_its_connection_is_complete_when_the_endpoint_ends_it(
    listener: socket.socket, endpoint: Endpoint
) -> None:
    pool = ConnectionPool(time.monotonic, per_endpoint=1)
    connection = carry_out(pool.take(endpoint, 1.0, fresh=True))
    served, _ = listener.accept()
    stream = Stream(connection, pool, CLOSE_FRAMED, b"", 10.0)
    served.sendall(b"all of it")
    served.close()
    assert stream.read() == b"all of it"
    assert stream.read() == b""
    assert stream.complete
    stream.close()


def test_no_connection_is_given_out_after_the_end(
    listener: socket.socket, endpoint: Endpoint
) -> None:
    pool = ConnectionPool(time.monotonic, per_endpoint=1)
    kept = carry_out(pool.take(endpoint, 1.0, fresh=True))
    pool.give_back(kept)
    pool.shut_down_all()
    for _ in range(2):  # neither the one that was kept nor a new one
        with pytest.raises(ConnectFailed):
            carry_out(pool.take(endpoint, 1.0, fresh=False))
    served, _ = listener.accept()
    served.settimeout(5.0)
    wait_for(lambda: served.recv(1) == b"", "the endpoint sees the end")
    served.close()
