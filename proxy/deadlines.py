"""Deadlines of many connections, which cost next to nothing as long as they are kept."""

import math
from collections.abc import Callable
from typing import Any, Final, Protocol

#: Seconds by which a deadline may be passed before it is noticed.
STEP_SECONDS: Final = 0.25
#: No slot at all.
NEVER: Final = 1 << 60


class Timed(Protocol):
    """What can have one deadline, in seconds of the clock; `slot` is for `Deadlines` alone."""

    deadline: float
    slot: int

    def expired(self) -> None:
        """The deadline has passed."""


class Deadlines:
    """A wheel of slots, each with those whose deadline falls into it.

    Putting a deadline off, which happens with every request and every piece of a body, changes a
    number and nothing else: the slot that comes too early finds out. `clock` is monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slots: dict[int, set[Any]] = {}
        self._passed = self._slot_of(clock()) - 1

    def set(self, timed: Timed, when: float) -> None:
        """Give `timed` a deadline in place of the one it has; `math.inf` is none."""
        timed.deadline = when
        if when == math.inf:
            return
        slot = max(self._slot_of(when), self._passed + 1)
        if slot < timed.slot:
            self.forget(timed)
            timed.slot = slot
            self._slots.setdefault(slot, set()).add(timed)

    def forget(self, timed: Timed) -> None:
        """It has no deadline any more, and is not held on to."""
        if timed.slot != NEVER:
            if timed.slot in self._slots:  # else its slot is being told, and skips it
                self._slots[timed.slot].discard(timed)
            timed.slot = NEVER

    def wait(self, most: float) -> float:
        """Seconds until the first deadline may have passed, but no more than `most`.

        Whoever calls `expire` sleeps no longer: else a deadline is noticed with the next event.
        """
        now = self._clock()
        for slot in range(self._passed + 1, int((now + most) / STEP_SECONDS) + 1):
            if self._slots.get(slot):
                return max(0.0, slot * STEP_SECONDS - now)
        return most

    def expire(self) -> None:
        """Tell those whose deadline has passed."""
        now = self._clock()
        while self._passed < int(now / STEP_SECONDS):
            self._passed += 1
            for timed in self._slots.pop(self._passed, ()):
                if timed.slot != self._passed:
                    continue  # one that was told before has taken this one's deadline back
                timed.slot = NEVER
                if timed.deadline > now:
                    self.set(timed, timed.deadline)
                else:
                    timed.deadline = math.inf
                    timed.expired()

    @staticmethod
    def _slot_of(when: float) -> int:
        return int(when / STEP_SECONDS) + 1
