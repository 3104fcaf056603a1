"""What is written down of one request: its log line and its metrics, once, at its end."""

import logging
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from metrics import (
    CLIENT_ABORTS,
    ERRORS,
    FIRST_BYTE_SECONDS,
    IN_FLIGHT,
    REQUEST_SECONDS,
    REQUESTS,
    STREAM_BYTES,
    UNKNOWN_MODEL,
)
from proxy.errors import KINDS
from proxy.forwarder import Answer
from proxy.trace import OFF, UNTRACED, Trace, Tracing
from routing.inflight import Lease

log = logging.getLogger("gateway.requests")

#: Looked up once for each model, because `labels` takes 2 µs every time. Models come and go.
_SERIES: Final = 16_384
_in_flight = lru_cache(_SERIES)(IN_FLIGHT.labels)
_first_byte_seconds = lru_cache(_SERIES)(FIRST_BYTE_SECONDS.labels)
_requests = lru_cache(_SERIES)(REQUESTS.labels)
_request_seconds = lru_cache(_SERIES)(REQUEST_SECONDS.labels)


def begin_series() -> None:
    """Tell what Prometheus needs before anything happens.

    An error that begins its series with 1 is no increase to it, and a gateway that carries nothing
    must say 0 to its autoscaler rather than nothing.
    """
    for code in KINDS:
        ERRORS.labels(code)
    _in_flight(UNKNOWN_MODEL)


class RequestRecord:
    """One inference request, from its arrival to its last byte. `clock` is monotonic.

    `trace` is its part in a trace, which ends with it. Never holds bodies, keys or query strings.
    """

    def __init__(
        self,
        request_id: str,
        method: str,
        path: str,
        clock: Callable[[], float],
        trace: Trace = UNTRACED,
    ) -> None:
        self.request_id = request_id
        self.trace = trace
        self._clock = clock
        self._started = clock()
        self._first_byte: float | None = None
        self._lock = threading.Lock()  # guards: _finished
        self._finished = False
        self._model = UNKNOWN_MODEL
        self._lease: Lease | None = None  # of a good answer
        self._bytes = 0
        self._in_flight = False
        self._facts: dict[str, object] = {"method": method, "path": path}
        if trace.trace_id:
            self._facts["trace_id"] = trace.trace_id

    def names(self, model: str, strategy: str | None) -> None:
        """The request is for `model`, which exists, with the strategy it asks for."""
        self._model = model
        if strategy:
            self._facts["strategy"] = strategy[:100]

    def is_alias(self, name: str) -> None:
        """The request names its model by the alias `name`."""
        self._facts["alias"] = name

    def held(self, seconds: float) -> None:
        """It waited so long for a first endpoint."""
        self._facts["held_seconds"] = round(seconds, 4)

    def begins(self) -> None:
        """From now on it counts as in flight."""
        self._in_flight = True
        _in_flight(self._model).inc()

    def answered(self, answer: Answer) -> None:
        """An endpoint's answer is being passed on."""
        endpoint = answer.lease.endpoint
        if answer.reply.head.status < 400:  # an error is soon made
            self._lease = answer.lease
        self._facts["endpoint"] = endpoint.authority
        self._facts["pod"] = endpoint.pod
        self._facts["attempts"] = answer.attempts

    def passed(self, size: int) -> None:
        """`size` bytes of the body were handed on."""
        if self._first_byte is None:
            self._began(self._clock())
        self._bytes += size

    def relayed(self, size: int, first: float | None) -> None:
        """`size` bytes of the body were handed on, the first of them at monotonic time `first`."""
        self._bytes += size
        if first is not None and self._first_byte is None:
            self._began(first)

    def _began(self, at: float) -> None:
        """The first byte of the body was handed on."""
        self._first_byte = at - self._started
        _first_byte_seconds(self._model).observe(self._first_byte)
        if self._lease is not None:
            self._lease.first_byte(at)

    def facts(self) -> dict[str, Any]:
        """What `resumed` makes the record of in another worker."""
        return {
            "request_id": self.request_id,
            "started": self._started,
            "first_byte": self._first_byte,
            "bytes": self._bytes,
            "model": self._model,
            "facts": self._facts,
            "trace": self.trace.facts(),
        }

    @classmethod
    def resumed(
        cls, facts: dict[str, Any], clock: Callable[[], float], tracing: Tracing = OFF
    ) -> "RequestRecord":
        """The record that another worker began; in flight here from now on."""
        record = cls(facts["request_id"], "", "", clock, tracing.resumed(facts["trace"]))
        record._started = facts["started"]
        record._first_byte = facts["first_byte"]
        record._bytes = facts["bytes"]
        record._facts = facts["facts"]
        record._model = facts["model"]
        record.begins()
        return record

    def hand_on(self) -> None:
        """Another worker goes on with it: nothing is counted or logged here."""
        with self._lock:
            if self._finished:
                return
            self._finished = True
        if self._in_flight:
            _in_flight(self._model).dec()

    def failed(self, code: str, message: str) -> None:
        """The gateway made an error of `code`."""
        ERRORS.labels(code).inc()
        self._facts["error"] = code
        self._facts["reason"] = message

    def aborted(self, phase: str) -> None:
        """The client left while `sending`, `waiting` or `receiving`, or `stalled`: did not read."""
        CLIENT_ABORTS.labels(phase).inc()
        self._facts["client_left"] = phase

    def finish(self, status: int, at: float | None = None) -> None:
        """Count and log the request, which ended now or `at`. Only the first call does."""
        with self._lock:
            if self._finished:
                return
            self._finished = True
        seconds = (self._clock() if at is None else at) - self._started
        if self._in_flight:
            _in_flight(self._model).dec()
        _requests(self._model, status).inc()
        _request_seconds(self._model).observe(seconds)
        if self._bytes:
            STREAM_BYTES.inc(self._bytes)
        facts = {
            "request_id": self.request_id,
            **self._facts,
            "model": self._model,
            "status": status,
            "bytes": self._bytes,
            "seconds": round(seconds, 4),
            "first_byte_seconds": None if self._first_byte is None else round(self._first_byte, 4),
        }
        # A client's mistake is no trouble of ours; an answer that broke off is.
        broke_off = "error" in facts and status < 400
        level = logging.WARNING if status >= 500 or broke_off else logging.INFO
        log.log(level, "%s %s %d", facts["method"], facts["path"], status, extra={"facts": facts})
        first_byte = None if self._first_byte is None else self._started + self._first_byte
        self.trace.ended(self._started + seconds, first_byte, facts)
