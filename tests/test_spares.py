"""A stream that takes the last connection leaves one in reserve for the next."""

import socket
import time
from collections.abc import Iterator

import pytest

from cache.endpoints import Endpoint
from proxy.pool import ConnectionPool
from proxy.steps import carry_out
from tests.harness import free_port, wait_for


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    pool = ConnectionPool(time.monotonic, per_endpoint=4)
    pool.spares.start()
    yield pool
    pool.shut_down_all()
    pool.prune(())


def test_one_is_opened_when_the_last_is_lent_and_the_next_takes_it(
    pool: ConnectionPool, endpoint: Endpoint
) -> None:
    lent = carry_out(pool.take(endpoint, 1.0, fresh=False))
    assert pool.sizes() == {}
    pool.lend(lent)
    wait_for(lambda: pool.sizes() == {endpoint.key: 1}, "one is in reserve")
    following = carry_out(pool.take(endpoint, 1.0, fresh=False))
    assert following.reused, "as one that may have been closed meanwhile"
    pool.discard(following)
    lent.close()


@pytest.fixture
def listener_of_another() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_none_is_opened_while_another_idles(
    pool: ConnectionPool, endpoint: Endpoint, listener_of_another: socket.socket
) -> None:
    lent, other = (carry_out(pool.take(endpoint, 1.0, fresh=True)) for _ in range(2))
    pool.give_back(other)
    pool.lend(lent)
    another = Endpoint("127.0.0.1", listener_of_another.getsockname()[1])
    pool.spares.want(another)  # what was wanted before it has been opened by then
    wait_for(lambda: another.key in pool.sizes(), "the other is opened")
    assert pool.sizes()[endpoint.key] == 1
    lent.close()


def test_an_endpoint_that_refuses_gets_another_chance(
    pool: ConnectionPool, endpoint: Endpoint
) -> None:
    nobody = Endpoint("127.0.0.1", free_port())
    pool.spares.want(nobody)
    pool.spares.want(endpoint)
    wait_for(lambda: endpoint.key in pool.sizes(), "the next is opened")
    assert nobody.key not in pool.sizes()
    with socket.create_server(("127.0.0.1", nobody.port)):
        pool.spares.want(nobody)
        wait_for(lambda: nobody.key in pool.sizes(), "it is opened now")
