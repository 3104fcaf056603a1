"""Whom a request came from, and whether they still wait for its answer."""

import threading
from collections.abc import Callable


class Caller:
    """One request's client. Its loop says when it has left, its thread asks what to do then."""

    def __init__(self) -> None:
        self.departed = False
        self._lock = threading.Lock()  # guards: departed, _callback
        self._callback: Callable[[], None] | None = None

    def on_departure(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` when the client leaves: at once if it has, else from the loop's thread.

        It replaces the one before; None takes it back, and then it doesn't run any more. It must
        neither block nor ask anything of this object.
        """
        with self._lock:
            self._callback = callback
            if self.departed and callback is not None:
                callback()

    def depart(self) -> None:
        """The client has left. Idempotent."""
        with self._lock:
            if self.departed:
                return
            self.departed = True
            if self._callback is not None:
                # Under the lock, because a callback that ran after it was taken back would end
                # what may be another request's connection by then.
                self._callback()
