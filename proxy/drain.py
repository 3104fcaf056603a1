"""The end of a worker's life: what runs goes on until the grace is over, then breaks visibly."""

import threading
from collections.abc import Callable


class Drain:
    """Whether this worker is draining, and what happens when its grace is over.

    `at_end` is called once, from a thread of its own, `grace` seconds after `begin`; it ends the
    connections of whatever still runs.
    """

    def __init__(self, grace: float, at_end: Callable[[], None]) -> None:
        self._at_end = at_end
        self._timer = threading.Timer(grace, self._end)
        self._timer.daemon = True
        self._lock = threading.Lock()  # guards: the step from not begun to begun
        self._begun = threading.Event()
        #: Whether the grace is over, so that everything still running is being ended.
        self.over = False

    @property
    def begun(self) -> bool:
        """Whether the worker was told to stop."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Start to drain. Idempotent: a second signal does not change the first one's deadline."""
        with self._lock:
            if self._begun.is_set():
                return
            self._begun.set()
        self._timer.start()

    def _end(self) -> None:
        self.over = True
        self._at_end()
