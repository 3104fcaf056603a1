"""Work that may have to wait, in steps, so that whoever carries it out decides where it waits.

A thread waits for each (`carry_out`). The loop goes on with other work instead, and leaves to a
thread only what can't be waited for on a loop.
"""

import select
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True, slots=True)
class Ready:
    """Go on when the descriptor can be read (or `to_write`), or soon after monotonic `deadline`."""

    descriptor: int
    deadline: float
    to_write: bool = False


class Blocking:
    """What follows may block: not to be done on a loop."""


BLOCKING = Blocking()

T = TypeVar("T")
Steps = Generator[Ready | Blocking, None, T]


def carry_out(steps: Steps[T]) -> T:
    """Do it on this thread, which waits where there is something to wait for."""
    try:
        while True:
            step = next(steps)
            if isinstance(step, Ready):
                is_ready(step)
    except StopIteration as end:
        result: T = end.value
        return result


def is_ready(step: Ready) -> bool:
    """Wait here; whether it is ready in time."""
    poll = select.poll()
    poll.register(step.descriptor, select.POLLOUT if step.to_write else select.POLLIN)
    return bool(poll.poll(max(0.0, step.deadline - time.monotonic()) * 1000))
