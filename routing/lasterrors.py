"""What went wrong last with each endpoint, for people; nothing is decided by it."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cache.endpoints import Key

#: Errors remembered at most; those that are the longest ago are forgotten first.
MEMORY = 1024


@dataclass(frozen=True, slots=True)
class LastError:
    """How an exchange failed, by the names that metrics count, and when (since the epoch)."""

    kind: str
    at: float


class LastErrors:
    """The last error of each endpoint. `wall` is the time since the epoch, in seconds."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._lock = threading.Lock()  # guards: _errors
        self._errors: dict[Key, LastError] = {}

    def note(self, key: Key, kind: str) -> None:
        """An exchange with the endpoint failed in the way that `kind` names."""
        error = LastError(kind, self._wall())
        with self._lock:
            self._errors.pop(key, None)
            self._errors[key] = error  # last in the dict's order
            if len(self._errors) > MEMORY:
                del self._errors[next(iter(self._errors))]

    def forget(self, keys: Iterable[Key]) -> None:
        """These endpoints are gone: another pod may get their address."""
        with self._lock:
            for key in keys:
                self._errors.pop(key, None)

    def all(self) -> dict[Key, LastError]:
        """A copy of what is remembered."""
        with self._lock:
            return dict(self._errors)
