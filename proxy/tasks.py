"""Requests that are answered on a loop: it goes on with each when there is something to receive."""

import heapq
import itertools
import selectors
from collections.abc import Callable
from typing import Any, Protocol

from proxy.clients import Client
from proxy.deadlines import NEVER, STEP_SECONDS, Deadlines
from proxy.epoll import Epoll
from proxy.sending import End
from proxy.steps import Ready, Steps

Answered = tuple[End, bytes]


class Loop(Protocol):
    """What a task needs of its loop."""

    poller: Epoll
    clock: Callable[[], float]
    deadlines: Deadlines
    soon: "Soon"

    def run_on_thread(self, job: Callable[..., None], *arguments: Any) -> None:
        """Do it on a thread."""


class Task:
    """A request that is being answered. `finish` carries out, on a thread, what may block."""

    __slots__ = ("_finish", "_loop", "_source", "_steps", "client", "deadline", "slot")

    def __init__(
        self,
        loop: Loop,
        client: Client,
        steps: Steps[Answered],
        finish: Callable[[Client, Steps[Answered]], None],
    ) -> None:
        self.client = client
        self.deadline = float("inf")
        self.slot = NEVER
        self._loop = loop
        self._steps = steps
        self._finish = finish
        self._source = -1  # the descriptor that is watched

    def go_on(self, _: object = None) -> None:
        """Go on until there is something to wait for, or the request is answered."""
        self._rest()
        try:
            step = next(self._steps)
        except StopIteration as over:
            self.client.answered(*over.value)
            return
        if isinstance(step, Ready):
            self._wait(step)
        else:
            self._loop.run_on_thread(self._finish, self.client, self._steps)

    def _wait(self, step: Ready) -> None:
        loop = self._loop
        self._source = step.descriptor
        events = selectors.EVENT_WRITE if step.to_write else selectors.EVENT_READ
        loop.poller.register(self._source, events, self.go_on, urgent=True)
        if step.deadline - loop.clock() < STEP_SECONDS:
            loop.soon.set(self, step.deadline)
        else:
            loop.deadlines.set(self, step.deadline)

    def _rest(self) -> None:
        """Wait for nothing any more."""
        if self._source >= 0:
            self._loop.poller.unregister(self._source)
            self._source = -1
            self.deadline = float("inf")
            self._loop.deadlines.forget(self)

    def expired(self) -> None:
        """The time to wait is over."""
        self.go_on()


class Soon:
    """Deadlines of a few milliseconds, which the wheel is too coarse for."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self.due: list[tuple[float, int, Task]] = []

    def set(self, task: Task, when: float) -> None:
        """Tell `task` then, unless it has another deadline by that time."""
        task.deadline = when
        heapq.heappush(self.due, (when, next(self._numbers), task))

    def wait(self, most: float) -> float:
        """Seconds until the first, but no more than `most`."""
        return min(most, max(0.0, self.due[0][0] - self._clock())) if self.due else most

    def expire(self) -> None:
        """Tell those whose deadline has passed."""
        now = self._clock()
        while self.due and self.due[0][0] <= now:
            when, _, task = heapq.heappop(self.due)
            if task.deadline == when:
                task.expired()
