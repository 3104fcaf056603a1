"""What may be tried again after an attempt failed, and where."""

from enum import Enum, auto

from cache.endpoints import Key


class Failure(Enum):
    """How an attempt ended, told by what the endpoint may have seen of the request."""

    NOTHING_SENT = auto()
    """No connection came about."""
    STALE_CONNECTION = auto()
    """A connection that had been idle closed before any byte of a response."""
    DIED = auto()
    """The request was sent and the connection ended before any byte of a response."""
    UNAVAILABLE = auto()
    """The endpoint answered 503, so it did not run the request."""
    FINAL = auto()
    """Anything else: a time-out, an invalid response. Never tried again."""


class Step(Enum):
    """What to do after a failure."""

    GIVE_UP = auto()
    RESEND = auto()
    """The same endpoint, on a fresh connection."""
    ELSEWHERE = auto()
    """Another endpoint."""


class RetryRules:
    """The rules for one request.

    A request that may have run is a suspect's: it is replayed once only, so that at most two
    endpoints ever see one that kills whatever runs it. `retries` bounds further attempts after
    connections that did not come about; `replay` says whether the request may run twice at all.
    """

    def __init__(self, *, retries: int, replay: bool) -> None:
        self.replay = replay
        self._connects_left = retries
        self._resent = False
        self._tried_after_503 = False
        self._suspects: set[Key] = set()

    @property
    def may_have_run(self) -> bool:
        """Whether an endpoint that failed may have begun with the request."""
        return bool(self._suspects)

    def after(self, failure: Failure, endpoint: Key) -> Step:
        """What the attempt on `endpoint` that ended in `failure` may be followed by."""
        match failure:
            case Failure.NOTHING_SENT if endpoint in self._suspects:
                # It died of nothing or of the request, and this only shows that it is dead.
                return Step.ELSEWHERE if self._may_go_elsewhere() else Step.GIVE_UP
            case Failure.NOTHING_SENT:
                self._connects_left -= 1
                allowed = self._connects_left >= 0 and self._may_go_elsewhere()
                return Step.ELSEWHERE if allowed else Step.GIVE_UP
            case Failure.STALE_CONNECTION if not self._resent:
                self._resent = True
                self._suspects.add(endpoint)
                return Step.RESEND
            case Failure.STALE_CONNECTION | Failure.DIED:
                self._suspects.add(endpoint)
                return Step.ELSEWHERE if self._may_go_elsewhere() else Step.GIVE_UP
            case Failure.UNAVAILABLE if not self._tried_after_503:
                self._tried_after_503 = True
                return Step.ELSEWHERE if self._may_go_elsewhere() else Step.GIVE_UP
        return Step.GIVE_UP

    def _may_go_elsewhere(self) -> bool:
        return not self._suspects or (self.replay and len(self._suspects) == 1)
