"""Places: how many requests may be answered at once."""

import threading

from proxy.steps import BLOCKING, Steps

#: Seconds a request waits for a place: one comes back a moment after its client's last byte.
_SECONDS = 0.005
#: How many wait at once. They need a thread each, and whoever is refused must not wait for one.
_MOST_IN_LINE = 4


class Places:
    """`count` of them, and a short line of those who wait."""

    def __init__(self, count: int) -> None:
        self.free = threading.BoundedSemaphore(count)
        self.line = threading.BoundedSemaphore(_MOST_IN_LINE)


class Place:
    """One request's place among `places`, if it has taken one."""

    __slots__ = ("_places", "_taken")

    def __init__(self, places: Places) -> None:
        self._places = places
        self._taken = False

    def take(self) -> bool:
        """Take a free one; false if there is none."""
        self._taken = self._places.free.acquire(blocking=False)
        return self._taken

    def wait(self) -> Steps[bool]:
        """Wait a moment for one; false if none came back, or others wait already."""
        line = self._places.line
        if not line.acquire(blocking=False):
            return False
        try:
            yield BLOCKING
            self._taken = self._places.free.acquire(timeout=_SECONDS)
        finally:
            line.release()
        return self._taken

    def close(self) -> None:
        """Give it back. Idempotent."""
        if self._taken:
            self._taken = False
            self._places.free.release()
