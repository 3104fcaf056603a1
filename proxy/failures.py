"""How an exchange with an endpoint can fail, told by what was sent and what came back."""

import errno
from typing import Final

#: Errors of a process, and of a machine, that has no file descriptor left.
NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})


class UpstreamFailure(Exception):
    """An exchange with an endpoint failed; `kind` names it in the metrics."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ConnectFailed(UpstreamFailure):
    """No connection came about, so nothing was sent."""


class OutOfResources(UpstreamFailure):
    """This process or machine has nothing left to connect with; the endpoint has no part in it."""


class ConnectionDied(UpstreamFailure):
    """The connection ended before any byte of a response.

    `idle` if it had idled before, and ended so soon that it must have been closed already then.
    """

    def __init__(self, message: str, *, idle: bool) -> None:
        super().__init__("stale" if idle else "reset", message)
        self.idle = idle


class ClientLeft(UpstreamFailure):
    """The exchange was ended because nobody waits for its answer any more."""


class ResponseTimeout(UpstreamFailure):
    """No response head came within the limit."""


class ResponseBroken(UpstreamFailure):
    """The connection ended within the response's head, or after an informational response."""


class ResponseInvalid(UpstreamFailure):
    """The response is not valid HTTP/1.1."""


class BodyDied(UpstreamFailure):
    """The response's body broke off or can't be right."""


class BodyIdle(UpstreamFailure):
    """Nothing came of the response's body for too long."""


class BodyTooLong(UpstreamFailure):
    """The response's body still came when it had taken longer than any may."""
