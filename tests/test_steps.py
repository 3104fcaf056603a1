"""Work in steps, carried out by a thread or by a loop."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxy.clients import Client
from proxy.deadlines import STEP_SECONDS
from proxy.sending import End
from proxy.steps import BLOCKING, Ready, Steps, carry_out, is_ready
from proxy.tasks import Answered, Soon, Task
from tests.test_clients import Loop as ClientsLoop
from tests.test_clients import Visit


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def test_a_thread_waits_until_there_is_something_or_the_time_is_over(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair

    def steps(deadline: float) -> Steps[bytes]:
        yield BLOCKING
        yield Ready(near.fileno(), deadline)
        near.setblocking(False)
        try:
            return near.recv(10)
        except BlockingIOError:
            return b"nothing"

    began = time.monotonic()
    assert carry_out(steps(soon(0.05))) == b"nothing"
    assert time.monotonic() - began >= 0.05
    far.send(b"x")
    assert carry_out(steps(soon())) == b"x"
    assert is_ready(Ready(near.fileno(), 0.0, to_write=True))
    assert not is_ready(Ready(near.fileno(), 0.0))


class Loop(ClientsLoop):
    """A loop with tasks; what may block is done at once, and noted."""

    def __init__(self) -> None:
        super().__init__()
        self.soon = Soon(self.clock)
        self.on_thread = 0

    def run_on_thread(self, job: Callable[..., None], *arguments: Any) -> None:
        self.on_thread += 1
        job(*arguments)

    def turn(self) -> None:
        super().turn()
        self.soon.expire()


class Setting:
    """A client whose request is answered in the steps a test gives."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.visit = Visit(self.loop)
        self.visit.ask()

    def begin(self, steps: Steps[Answered]) -> None:
        Task(self.loop, self.visit.client, steps, self._finish).go_on()

    def _finish(self, client: Client, steps: Steps[Answered]) -> None:
        client.answered(*carry_out(steps))

    @property
    def answered(self) -> bool:
        """Whether the client's connection can carry its next request."""
        before = len(self.loop.requests)
        self.visit.ask()
        return len(self.loop.requests) > before


@pytest.fixture
def setting() -> Iterator[Setting]:
    setting = Setting()
    yield setting
    setting.visit.peer.close()
    setting.visit.client.socket.close()
    setting.loop.poller.close()


def waiting(near: socket.socket, deadline: float, seen: list[str]) -> Steps[Answered]:
    yield Ready(near.fileno(), deadline)
    seen.append("ready" if is_ready(Ready(near.fileno(), 0.0)) else "late")
    return End.KEEP, b""


def test_the_loop_goes_on_when_there_is_something(
    setting: Setting, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    seen: list[str] = []
    watched = setting.loop.watched
    setting.begin(waiting(near, setting.loop.now + 100, seen))
    assert setting.loop.watched == watched + 1
    setting.loop.turn()
    assert not seen
    far.send(b"x")
    setting.loop.turn_until(lambda: seen, "it went on")
    assert seen == ["ready"]
    assert setting.loop.watched == watched
    assert setting.answered
    setting.loop.pass_time(200)
    assert seen == ["ready"], "its deadline means nothing any more"


@pytest.mark.parametrize("seconds", [0.002, 5.0], ids=["soon", "later"])
def test_the_loop_goes_on_when_the_time_is_over(
    setting: Setting, pair: tuple[socket.socket, socket.socket], seconds: float
) -> None:
    near, _ = pair
    seen: list[str] = []
    setting.begin(waiting(near, setting.loop.now + seconds, seen))
    setting.loop.pass_time(seconds / 2)
    assert not seen
    setting.loop.pass_time(seconds / 2 + (STEP_SECONDS if seconds > STEP_SECONDS else 0))
    assert seen == ["late"]
    assert setting.answered


def test_what_may_block_is_a_thread_s_concern(
    setting: Setting, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair

    def steps() -> Steps[Answered]:
        yield BLOCKING
        far.send(b"x")
        yield Ready(near.fileno(), soon())
        return End.KEEP, b""

    watched = setting.loop.watched
    setting.begin(steps())
    assert setting.loop.on_thread == 1
    assert setting.loop.watched == watched, "the thread waits itself"
    assert setting.answered


def test_steps_that_need_no_waiting_are_done_at_once(setting: Setting) -> None:
    def steps() -> Steps[Answered]:
        yield from ()
        return End.KEEP, b"the answer"

    setting.begin(steps())
    assert setting.visit.peer.recv(100) == b"the answer"
    assert setting.loop.on_thread == 0


def test_short_deadlines_say_how_long_to_wait() -> None:
    now = 10.0
    soon = Soon(lambda: now)
    assert soon.wait(1.0) == 1.0
    task: Any = type("Timed", (), {})()
    soon.set(task, 10.25)
    assert soon.wait(1.0) == 0.25
    assert soon.wait(0.1) == 0.1
