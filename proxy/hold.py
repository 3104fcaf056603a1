"""Requests that wait for a first endpoint: a model that is scaled to zero may be on its way."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from cache.store import EndpointsStale, EndpointsUnknown
from metrics import HELD_REQUESTS, HOLDS
from proxy.caller import Caller
from proxy.failures import ClientLeft
from proxy.steps import BLOCKING, Steps
from routing.router import ModelUnknown, NoReadyEndpoints

T = TypeVar("T")

_MAY_PASS = (NoReadyEndpoints, EndpointsUnknown)
#: What ends a wait before its time, and how that is counted; what else does is a bug.
_ENDS: Mapping[type[Exception], str] = {
    ModelUnknown: "model_gone",
    EndpointsStale: "stale",
    ClientLeft: "left",
}
_RESULTS = ("ready", "timeout", "full", "draining", *_ENDS.values(), "internal_error")


class Told(Protocol):
    """Who is told how long a request was held."""

    def held(self, seconds: float) -> None:
        """It was, for so long."""


class Hold:
    """Lets requests wait up to `seconds` for an endpoint, at most `most` of them at once.

    No model may have more of these places than it leaves free, so that another always finds some:
    one alone has half of them. With 0 seconds nobody waits. `clock` is monotonic, in seconds. Each
    that waits is on a thread of its own, and keeps the place it has among all requests, so that
    threads never run out.
    """

    def __init__(
        self, seconds: float, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()  # guards: _waiting, _over
        self._waiting: dict[threading.Event, str] = {}  # for which model each waits
        self._over = False
        if seconds:
            for result in _RESULTS:
                HOLDS.labels(result)  # a counter that begins with 1 is no increase to Prometheus

    def until_ready(
        self, model: str, choose: Callable[[], T], caller: Caller, told: Told
    ) -> Steps[T]:
        """What `choose` returns, as soon as it raises neither of what may pass.

        That is `NoReadyEndpoints` and `EndpointsUnknown`: the last of them is raised, its message
        extended, when the time is over or too many wait already. Raises `ClientLeft`, and what else
        `choose` raises. Between two attempts there is a change of the endpoints. `model` is what
        the request waits for, as it names it: nobody may know yet whether there is such a one.
        """
        try:
            return choose()
        except _MAY_PASS as error:
            if not self._seconds:
                raise
            woken, others = self._enter(model)
            if woken is None:
                HOLDS.labels("full").inc()
                message = f"{error}, and {others} requests wait for an endpoint already"
                raise type(error)(message) from None
        began = self._clock()
        HELD_REQUESTS.inc()
        try:
            yield BLOCKING
            return self._wait(choose, caller, woken, began)
        finally:
            HELD_REQUESTS.dec()
            self._leave(woken)
            told.held(self._clock() - began)

    def changed(self) -> None:
        """The endpoints have changed: everybody who waits looks again."""
        with self._lock:
            waiting = list(self._waiting)
        for woken in waiting:
            woken.set()

    def end(self) -> None:
        """Nobody waits from now on."""
        with self._lock:
            self._over = True
        self.changed()

    def _enter(self, model: str) -> tuple[threading.Event | None, int]:
        """Take a place, if there is one for `model`; and how many were taken."""
        with self._lock:
            taken = len(self._waiting)
            if list(self._waiting.values()).count(model) >= self._most - taken:
                return None, taken
            woken = threading.Event()
            self._waiting[woken] = model
            return woken, taken

    def _leave(self, woken: threading.Event) -> None:
        with self._lock:
            del self._waiting[woken]

    def _wait(
        self, choose: Callable[[], T], caller: Caller, woken: threading.Event, began: float
    ) -> T:
        result = "internal_error"
        caller.on_departure(woken.set)
        try:
            while True:
                woken.clear()  # before looking: what changes from now on wakes
                try:
                    chosen = _unless_left(caller, choose)
                except _MAY_PASS as error:
                    left = began + self._seconds - self._clock()
                    if self._over or left <= 0:
                        result = "draining" if self._over else "timeout"
                        waited = f"{error}, after {self._clock() - began:.1f} s of waiting for one"
                        raise type(error)(waited) from None
                else:
                    result = "ready"
                    return chosen
                woken.wait(left)
        except Exception as error:
            result = _ENDS.get(type(error), result)
            raise
        finally:
            caller.on_departure(None)
            HOLDS.labels(result).inc()


def _unless_left(caller: Caller, choose: Callable[[], T]) -> T:
    if caller.departed:
        raise ClientLeft("client_left", "the client left while it waited")
    return choose()
