"""Places: how many requests may be answered at once."""

import threading

from proxy.steps import BLOCKING, Steps

#: Seconds a request waits for a place: one comes back a moment after its client's last byte.
_SECONDS = 0.005
#: How many wait at once. They need a thread each, and whoever is refused must not wait for one.
_MOST_IN_LINE = 4


class Places:
    """`count` of them, and a short line of those who wait.

    A semaphore of `threading` would do, if taking one did not run four functions of Python's.
    """

    def __init__(self, count: int) -> None:
        self.lock = threading.Lock()  # guards: free, waiting
        self.back = threading.Condition(self.lock)  # a place came back while somebody waited
        self.free = count
        self.waiting = 0


class Place:
    """One request's place among `places`, if it has taken one."""

    __slots__ = ("_places", "_taken")

    def __init__(self, places: Places) -> None:
        self._places = places
        self._taken = False

    def take(self) -> bool:
        """Take a free one; false if there is none."""
        places = self._places
        with places.lock:
            if places.free:
                places.free -= 1
                self._taken = True
        return self._taken

    def wait(self) -> Steps[bool]:
        """Wait a moment for one; false if none came back, or others wait already."""
        places = self._places
        with places.lock:
            if places.waiting == _MOST_IN_LINE:
                return False
            places.waiting += 1
        try:
            yield BLOCKING
            with places.lock:
                if places.back.wait_for(lambda: places.free, _SECONDS):
                    places.free -= 1
                    self._taken = True
        finally:
            with places.lock:
                places.waiting -= 1
        return self._taken

    def close(self) -> None:
        """Give it back. Idempotent."""
        if not self._taken:
            return
        self._taken = False
        places = self._places
        with places.lock:
            places.free += 1
            if places.waiting:
                places.back.notify()
