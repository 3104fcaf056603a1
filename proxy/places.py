"""Places: how many requests may be answered at once."""

import threading


class Place:
    """One request's place among `places`, if it has taken one."""

    __slots__ = ("_places", "_taken")

    def __init__(self, places: threading.Semaphore) -> None:
        self._places = places
        self._taken = False

    def take(self, seconds: float) -> bool:
        """Wait so long for a place; false if there is none."""
        self._taken = self._places.acquire(timeout=seconds)
        return self._taken

    def close(self) -> None:
        """Give it back. Idempotent."""
        if self._taken:
            self._taken = False
            self._places.release()
