"""What went wrong last with each endpoint, for people; nothing is decided by it."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cache.endpoints import Endpoint

#: Errors remembered at most; those that are the longest ago are forgotten first.
MEMORY = 1024

#: Address, port and pod: another pod that gets the address of one that is gone did nothing wrong,
#: even if a stream of the former ends only now.
Culprit = tuple[str, int, str | None]


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
        self._errors: dict[Culprit, LastError] = {}

    def note(self, who: Culprit, kind: str) -> None:
        """An exchange with the endpoint failed in the way that `kind` names."""
        error = LastError(kind, self._wall())
        with self._lock:
            self._errors.pop(who, None)
            self._errors[who] = error  # last in the dict's order
            if len(self._errors) > MEMORY:
                del self._errors[next(iter(self._errors))]

    def forget(self, endpoints: Iterable[Endpoint]) -> None:
        """These are gone, and nobody wants to know any more."""
        with self._lock:
            for endpoint in endpoints:
                self._errors.pop(culprit(endpoint), None)

    def all(self) -> dict[Culprit, LastError]:
        """A copy of what is remembered."""
        with self._lock:
            return dict(self._errors)


def culprit(endpoint: Endpoint) -> Culprit:
    """Whose errors those of `endpoint` are."""
    return endpoint.address, endpoint.port, endpoint.pod
