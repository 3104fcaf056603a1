"""What the loop waits for: who is called back, and who is not any more."""

import os
import socket
from collections.abc import Iterator
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from proxy.epoll import Epoll

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def epoll() -> Iterator[Epoll]:
    waiting = Epoll()
    yield waiting
    waiting.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_who_waits_to_read_is_called_with_the_file_when_something_came(
    epoll: Epoll, pair: Pair
) -> None:
    ours, theirs = pair
    called: list[object] = []
    epoll.register(ours, EVENT_READ, called.append)
    assert not epoll.turn(0)
    theirs.send(b"x")
    assert epoll.turn(5)
    assert called == [ours]


def test_what_is_waited_for_can_change(epoll: Epoll, pair: Pair) -> None:
    ours, _ = pair
    called: list[str] = []
    epoll.register(ours.fileno(), EVENT_READ, lambda _: called.append("read"))
    epoll.modify(ours.fileno(), EVENT_WRITE, lambda _: called.append("write"))
    assert epoll.turn(5)
    epoll.modify(ours, EVENT_READ | EVENT_WRITE, lambda _: called.append("either"))
    assert epoll.turn(5)
    assert called == ["write", "either"]


def test_one_that_another_took_out_in_the_same_turn_is_not_called(epoll: Epoll) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[socket.socket] = []

    def first(file: socket.socket) -> None:
        called.append(file)
        (other,) = [ours for ours, _ in pairs if ours is not file]
        epoll.unregister(other)

    for ours, theirs in pairs:
        epoll.register(ours, EVENT_READ, first)
        theirs.send(b"x")
    epoll.turn(5)
    assert len(called) == 1
    for one in (one for both in pairs for one in both):
        one.close()


def test_a_new_owner_of_a_descriptor_does_not_get_the_former_one_s_event(epoll: Epoll) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[str] = []

    def first(file: socket.socket) -> None:
        called.append("first")
        ((other, _),) = [both for both in pairs if both[0] is not file]
        number = other.fileno()
        epoll.unregister(other)
        os.dup2(pairs[0][1].fileno(), number)  # the descriptor is another file's now
        epoll.register(number, EVENT_READ, lambda _: called.append("new owner"))

    for ours, theirs in pairs:
        epoll.register(ours, EVENT_READ, first)
        theirs.send(b"x")
    epoll.turn(5)
    assert called == ["first"]
    for one in (one for both in pairs for one in both):
        one.close()


def test_what_is_urgent_comes_before_each_of_the_others(epoll: Epoll) -> None:
    pairs = [socket.socketpair() for _ in range(4)]
    called: list[str] = []
    early, late = (ours for ours, _ in pairs[2:])

    def other(file: socket.socket) -> None:
        called.append("other")
        epoll.unregister(file)
        pairs[3][1].send(b"x")  # the late one is ready only now, within this very turn

    def urgent(file: socket.socket) -> None:
        called.append("early" if file is early else "late")
        epoll.unregister(file)

    for ours, theirs in pairs[:2]:
        epoll.register(ours, EVENT_READ, other)
        theirs.send(b"x")
    for ours in (early, late):
        epoll.register(ours, EVENT_READ, urgent, urgent=True)
    pairs[2][1].send(b"x")
    assert epoll.turn(5)
    assert called == ["early", "other", "late", "other"]
    for one in (one for both in pairs for one in both):
        one.close()


def test_what_is_urgent_ends_the_wait_by_itself(epoll: Epoll, pair: Pair) -> None:
    ours, theirs = pair
    called: list[object] = []
    epoll.register(ours, EVENT_READ, called.append, urgent=True)
    assert not epoll.turn(0)
    theirs.send(b"x")
    assert epoll.turn(5)
    assert called == [ours]
    epoll.modify(ours, EVENT_WRITE, lambda _: called.append("write"))
    assert epoll.turn(5)
    assert called == [ours, "write"]
    epoll.unregister(ours)
    assert not epoll.turn(0)


def test_a_descriptor_that_was_closed_can_be_taken_out(epoll: Epoll, pair: Pair) -> None:
    number = os.dup(pair[0].fileno())
    epoll.register(number, EVENT_READ, lambda _: None)
    os.close(number)
    epoll.unregister(number)
    assert epoll.count == 0


def test_mistakes_are_told(epoll: Epoll, pair: Pair) -> None:
    ours, theirs = pair
    epoll.register(ours, EVENT_READ, lambda _: None)
    with pytest.raises(OSError, match="exists"):
        epoll.register(ours, EVENT_READ, lambda _: None)
    with pytest.raises(KeyError):
        epoll.unregister(theirs)
    with pytest.raises(KeyError):
        epoll.modify(theirs, EVENT_READ, lambda _: None)
    theirs.close()
    with pytest.raises(ValueError, match="closed"):
        epoll.register(theirs, EVENT_READ, lambda _: None)
    assert epoll.count == 1
