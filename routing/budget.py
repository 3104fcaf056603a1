"""The retry budget: a dying fleet is not hit by a storm of retries."""

import threading
from collections import deque
from collections.abc import Callable


class RetryBudget:
    """Allows retries up to a share of the requests of a sliding window.

    At most `ratio` of the requests of the last `window` seconds may be retries, and at least
    `minimum` always may. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        ratio: float = 0.2,
        minimum: int = 3,
        window: float = 10.0,
    ) -> None:
        self._clock = clock
        self._ratio = ratio
        self._minimum = minimum
        self._window = window
        self._lock = threading.Lock()  # guards: _seconds, _requests, _retries
        self._seconds: deque[list[int]] = deque()  # of [second, requests, retries]
        self._requests = 0
        self._retries = 0

    def request(self) -> None:
        """Count a request that came in."""
        with self._lock:
            self._now()[1] += 1
            self._requests += 1

    def allows_retry(self, *, to_sound: bool = False) -> bool:
        """Take one retry out of the budget.

        False if there is none left, unless the retry goes `to_sound`: to an endpoint that has
        nothing held against it. A fleet of which one pod has died is not a dying fleet; in one that
        is, soon no endpoint is sound.
        """
        with self._lock:
            now = self._now()
            left = self._retries + 1 <= max(self._minimum, self._ratio * self._requests)
            if not left and not to_sound:
                return False
            now[2] += 1
            self._retries += 1
            return True

    def _now(self) -> list[int]:
        """The counts of this second; what has left the window is forgotten."""
        second = int(self._clock())
        while self._seconds and self._seconds[0][0] <= second - self._window:
            _, requests, retries = self._seconds.popleft()
            self._requests -= requests
            self._retries -= retries
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
        return self._seconds[-1]
