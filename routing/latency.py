"""How soon endpoints begin to answer: a moving average for each, which fades."""

import math
from collections.abc import Callable, Iterable

from cache.endpoints import Key

#: An observation counts half after as many seconds: an engine's pace changes with its load.
HALF_LIFE_SECONDS = 10.0
#: The part of a new observation in the average, beside what is left of the former ones. Some twenty
#: requests tell how quick an engine is; three, with 0.3, told of their luck with its cache, and all
#: requests went to the luckiest engine (bench/strategies: its median was 16 % above random's).
_SHARE = 0.05


class Latencies:
    """Seconds from a request's sending to the first byte of its answer, by endpoint.

    `clock` is monotonic. Not thread-safe: guarded by the lock of the in-flight counts.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._averages: dict[Key, tuple[float, float]] = {}  # seconds, when they were observed

    def observed(self, key: Key, seconds: float) -> None:
        """An endpoint took `seconds` to begin an answer."""
        now = self._clock()
        before = self._averages.get(key)
        if before is not None:
            average, at = before
            kept = (1 - _SHARE) * _faded(now - at)
            seconds = (kept * average + _SHARE * seconds) / (kept + _SHARE)
        self._averages[key] = (seconds, now)

    def expected(self, keys: Iterable[Key]) -> list[float | None]:
        """The average of each; None where nothing was ever observed.

        An old average fades towards the best of the others, so that an endpoint that was slow once
        is tried again.
        """
        found = [self._averages.get(key) for key in keys]
        known = [entry[0] for entry in found if entry is not None]
        if not known:
            return [None] * len(found)
        best, now = min(known), self._clock()
        return [
            None if entry is None else best + (entry[0] - best) * _faded(now - entry[1])
            for entry in found
        ]

    def forget(self, keys: Iterable[Key]) -> None:
        """Forget the endpoints that are gone."""
        for key in keys:
            self._averages.pop(key, None)

    def keys(self) -> list[Key]:
        """The endpoints something is known of."""
        return list(self._averages)


def _faded(seconds: float) -> float:
    return math.exp2(-max(0.0, seconds) / HALF_LIFE_SECONDS)
