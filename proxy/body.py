"""The plain path: an answer's body as a WSGI iterable, which owns its own closing."""

from collections.abc import Iterator
from contextlib import ExitStack

from metrics import UPSTREAM_FAILURES
from proxy.drain import Drain
from proxy.errors import GatewayError
from proxy.failures import BodyIdle, UpstreamFailure
from proxy.forwarder import Answer
from proxy.record import RequestRecord


class AnswerBroken(Exception):
    """The answer can't be completed: the server must break the client's connection visibly.

    `told` says whether the content ends with an event that tells the client.
    """

    def __init__(self, message: str, *, told: bool) -> None:
        super().__init__(message)
        self.told = told


class AnswerBody:
    """Passes content on as it comes.

    An answer that breaks off gets a last event that says so where it is an event stream, and then
    `AnswerBroken`, so that a truncated answer is never a well-formed one. `cleanup` is closed when
    it is over: at its end, on an error, or when the client has left.
    """

    def __init__(
        self,
        answer: Answer,
        record: RequestRecord,
        drain: Drain,
        cleanup: ExitStack,
    ) -> None:
        head = answer.reply.head
        self._stream = answer.reply.stream
        self._status = head.status
        self._is_event_stream = head.is_event_stream
        # An event can't be added to a compressed stream, and would fill up one of a known length.
        self._takes_event = head.is_event_stream and not (
            head.values("content-encoding") or head.values("content-length")
        )
        self._record = record
        self._drain = drain
        self._cleanup = cleanup
        self._broken = False
        self._ended = False
        self._content = self._pass_on()

    def __iter__(self) -> Iterator[bytes]:
        return self._content

    def _pass_on(self) -> Iterator[bytes]:
        if self._is_event_stream:
            yield b""  # the head is on its way although the first token may take its time
        try:
            while content := self._stream.read():
                self._record.passed(len(content))
                yield content
            self._ended = True  # asked for more, so the last of it has been sent
        except UpstreamFailure as failure:
            self._broken = True
            error = self._error(failure)
            self._record.failed(error.code, error.message)
            if self._takes_event:
                yield error.event()
            raise AnswerBroken(error.message, told=self._takes_event) from failure

    def _error(self, failure: UpstreamFailure) -> GatewayError:
        if self._drain.over:
            return GatewayError("gateway_draining", "the gateway's time to finish is over")
        UPSTREAM_FAILURES.labels(failure.kind).inc()
        if isinstance(failure, BodyIdle):
            return GatewayError("upstream_idle", f"the endpoint fell silent: {failure}")
        return GatewayError("upstream_died", f"the endpoint's answer broke off: {failure}")

    def close(self) -> None:
        """End it, whatever state it is in. Idempotent."""
        if not self._ended and not self._broken:
            self._record.aborted("receiving")
        self._ended = True  # a second close tells nothing new
        self._cleanup.close()
        self._record.finish(self._status)
