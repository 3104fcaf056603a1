"""Connections are kept for reuse while they are good, and no longer."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self

import pytest

from proxy.connection import Connection
from proxy.failures import ConnectFailed, ConnectionDied
from proxy.pool import ConnectionPool
from proxy.steps import carry_out
from tests.fakes import Clock, Script, Upstream, close, received, reset, until_closed, upstream
from tests.harness import PATIENCE, wait_for
from tests.test_connection import REQUEST_HEAD, soon


class Setting:
    """A pool with a clock set by hand, and one endpoint that accepts and waits."""

    def __init__(self, server: Upstream, *, per_endpoint: int = 4, most_idle: int = 9) -> None:
        self.clock = Clock()
        self.endpoint = server.endpoint
        self.pool = ConnectionPool(
            self.clock, per_endpoint=per_endpoint, most_idle=most_idle, max_idle=30
        )
        self._taken: set[Connection] = set()

    def take(self, *, fresh: bool = False) -> Connection:
        connection = carry_out(self.pool.take(self.endpoint, PATIENCE, fresh=fresh))
        self._taken.add(connection)
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._taken:
            connection.close()

    def take_and_give_back(self, count: int) -> list[Connection]:
        connections = [self.take() for _ in range(count)]
        for connection in connections:
            self.pool.give_back(connection)
        return connections

    def idle(self) -> int:
        return sum(self.pool.sizes().values())


def closed(connection: Connection) -> bool:
    return connection.socket.fileno() < 0


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def setting(running: ExitStack) -> Iterator[Setting]:
    with Setting(running.enter_context(upstream())) as made:
        yield made


def test_a_connection_given_back_is_taken_again(setting: Setting) -> None:
    first = setting.take()
    assert not first.reused
    setting.pool.give_back(first)
    assert setting.idle() == 1
    again = setting.take()
    assert again is first
    assert again.reused
    assert setting.idle() == 0


def test_the_most_recently_used_is_taken_first(setting: Setting) -> None:
    older, newer = setting.take_and_give_back(2)
    assert setting.take() is newer
    assert setting.take() is older
    assert setting.take() not in (older, newer)


def test_a_fresh_one_is_a_new_one(setting: Setting) -> None:
    (idle,) = setting.take_and_give_back(1)
    fresh = setting.take(fresh=True)
    assert fresh is not idle
    assert not fresh.reused
    assert setting.idle() == 1


def test_a_connection_belongs_to_its_endpoint(running: ExitStack, setting: Setting) -> None:
    setting.take_and_give_back(1)
    other = running.enter_context(upstream())
    connection = carry_out(setting.pool.take(other.endpoint, PATIENCE, fresh=False))
    connection.close()
    assert connection.key == other.endpoint.key
    assert setting.pool.sizes() == {setting.endpoint.key: 1}


def test_one_that_idled_too_long_is_closed_not_taken(setting: Setting) -> None:
    (idle,) = setting.take_and_give_back(1)
    setting.clock.now += 30
    assert setting.take() is not idle
    assert closed(idle)
    assert setting.idle() == 0


def test_one_that_idled_almost_too_long_is_taken(setting: Setting) -> None:
    (idle,) = setting.take_and_give_back(1)
    setting.clock.now += 29.9
    assert setting.take() is idle


def test_a_discarded_connection_is_closed_and_not_kept(setting: Setting) -> None:
    connection = setting.take()
    setting.pool.discard(connection)
    setting.pool.discard(connection)
    assert closed(connection)
    assert setting.idle() == 0


def test_of_too_many_the_one_that_idles_the_longest_is_closed(setting: Setting) -> None:
    connections = setting.take_and_give_back(5)
    assert setting.idle() == 4
    assert [closed(one) for one in connections] == [True, False, False, False, False]


def test_pruning_closes_what_idles_too_long(setting: Setting) -> None:
    old, young = setting.take(), setting.take()
    setting.pool.give_back(old)
    setting.clock.now += 20
    setting.pool.give_back(young)
    setting.clock.now += 11
    setting.pool.prune([setting.endpoint.key])
    assert closed(old)
    assert not closed(young)
    assert setting.idle() == 1


def test_pruning_closes_idle_connections_to_endpoints_that_are_gone(setting: Setting) -> None:
    in_use, idle = setting.take(), setting.take()
    setting.pool.give_back(idle)
    setting.pool.prune([("10.0.0.1", 8000)])
    assert closed(idle)
    assert not closed(in_use), "what runs on an endpoint finishes there"
    assert setting.pool.sizes() == {}


def speak(connection: socket.socket) -> None:
    connection.sendall(b"?")
    until_closed(connection)


@pytest.mark.parametrize("how", [close, reset, speak])
def test_one_that_the_endpoint_ended_or_spoke_on_is_not_taken(
    running: ExitStack, how: Script
) -> None:
    connected = threading.Event()

    def script(connection: socket.socket) -> None:
        assert connected.wait(PATIENCE)
        how(connection)

    with Setting(running.enter_context(upstream(script, until_closed))) as setting:
        idle = setting.take()
        connected.set()
        wait_for(lambda: not idle.is_clean(), "the endpoint's end arrives")
        setting.pool.give_back(idle)
        taken = setting.take()
        assert taken is not idle
        assert not taken.reused
        assert closed(idle)


def test_when_no_connection_comes_about_nothing_is_kept() -> None:
    with upstream() as server:
        setting = Setting(server)
    with pytest.raises(ConnectFailed):
        setting.take()
    assert setting.idle() == 0


def test_shutting_down_ends_what_is_in_use_under_its_thread(running: ExitStack) -> None:
    asked = threading.Event()

    def script(connection: socket.socket) -> None:
        assert received(connection)
        asked.set()
        until_closed(connection)

    with Setting(running.enter_context(upstream(script))) as setting:
        connection = setting.take()
        carry_out(connection.send(REQUEST_HEAD % 0, b"", soon(), time.monotonic))

        def end() -> None:
            asked.wait(PATIENCE)
            setting.pool.shut_down_all()

        ending = threading.Thread(target=end)
        ending.start()
        with pytest.raises(ConnectionDied):
            carry_out(connection.receive_head(soon(), time.monotonic))
        ending.join(PATIENCE)


def test_after_that_no_connection_is_given_out(setting: Setting) -> None:
    (idle,) = setting.take_and_give_back(1)
    setting.pool.shut_down_all()
    for fresh in (False, True):
        with pytest.raises(ConnectFailed):
            setting.take(fresh=fresh)
    assert closed(idle)


def test_no_two_threads_ever_have_the_same_connection(setting: Setting) -> None:
    held: set[Connection] = set()
    twice: list[Connection] = []
    start = threading.Barrier(6)

    def work() -> None:
        start.wait(PATIENCE)
        for _ in range(100):
            connection = setting.take()
            if connection in held:
                twice.append(connection)
            held.add(connection)
            held.discard(connection)
            setting.pool.give_back(connection)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert not twice
    assert 1 <= setting.idle() <= 4


def test_no_more_idle_in_all_than_there_may(running: ExitStack) -> None:
    setting = Setting(running.enter_context(upstream()), most_idle=2)
    running.enter_context(setting)
    setting.take_and_give_back(3)
    assert setting.idle() == 2
    again = [setting.take(), setting.take()]
    assert all(connection.reused for connection in again)
    for connection in again:
        setting.pool.give_back(connection)
    assert setting.idle() == 2
    setting.pool.prune(set())
    setting.take_and_give_back(2)
    assert setting.idle() == 2, "what was closed does not count"
