"""An answer's body on its way to the client: whole, through the relay, or as a WSGI iterable.

The last is the plain path, for a server that can't hand over its client's connection.
"""

import socket
from collections.abc import Callable, Iterator
from functools import partial

from metrics import UPSTREAM_FAILURES
from proxy.caller import Caller
from proxy.drain import Drain
from proxy.errors import GatewayError
from proxy.failures import BodyIdle, BodyTooLong, UpstreamFailure
from proxy.forwarder import Answer
from proxy.places import Place
from proxy.record import RequestRecord
from proxy.relayed import BREAKS, StreamRelay
from proxy.steps import BLOCKING, Steps

#: Seconds to wait for the rest of an answer that is no stream: handing over takes longer.
_PATIENCE_SECONDS = 0.02

#: Seconds it waits for a stream's first token; the head waits with it.
_FIRST_TOKEN_SECONDS = 0.001


class AnswerBroken(Exception):
    """The answer can't be completed: the server must break the client's connection visibly.

    `told` says whether the content ends with an event that tells the client.
    """

    def __init__(self, message: str, *, told: bool) -> None:
        super().__init__(message)
        self.told = told


class AnswerBody:
    """Passes content on as it comes, and owns its own closing.

    An answer that breaks off gets a last event that says so where it is an event stream, and then
    `AnswerBroken`, so that a truncated answer is never a well-formed one. `place` is given back
    when the relay has the answer, or at its end.
    """

    def __init__(
        self,
        answer: Answer,
        record: RequestRecord,
        drain: Drain,
        place: Place,
        relay: StreamRelay | None,
        caller: Caller,
    ) -> None:
        head = answer.reply.head
        self._answer = answer
        self._stream = answer.reply.stream
        self._status = head.status
        self._is_event_stream = head.is_event_stream
        self._record = record
        self._drain = drain
        self._place = place
        self._relay = relay
        self._caller = caller
        caller.on_departure(self._stream.shut_down)
        self._broken = False
        self._ended = False
        self._early = 0  # bytes of the content that `early` gave

    @property
    def unsized(self) -> bool:
        """Whether the response's head does not say how long it is."""
        head = self._answer.reply.head
        return head.status not in (204, 304) and not head.values("content-length")

    def whole(self) -> Steps[bytes | None]:
        """All of it, if it is short and there at once; else None, and nothing has been read.

        With that it is over and closed: nobody's place is held while the client's next request may
        be on its way already.
        """
        if self._is_event_stream:
            return None  # its head is on its way although the first token may take its time
        content = yield from self._stream.whole(_PATIENCE_SECONDS)
        if content is None:
            return None
        if content:
            self._record.passed(len(content))
        self._ended = not self._caller.departed
        self.close()
        return content

    def unsent(self) -> None:
        """The client left before it got what `whole` gave."""
        if not self._caller.departed:  # else that has been noted
            self._record.aborted("receiving")

    def early(self) -> Steps[bytes]:
        """What comes of an event stream right after its head, as chunks.

        What follows is read as from the beginning. The first token shall not wait until the relay
        has the stream.
        """
        if not self._is_event_stream:
            return b""
        chunks, size = yield from self._stream.early(_FIRST_TOKEN_SECONDS)
        self._early = size
        return chunks

    def _note_early(self) -> None:
        """Write down what `early` gave, once it is sent: the client need not wait for that."""
        if self._early:
            self._record.passed(self._early)
            self._early = 0

    def hand_over(
        self,
        unsent: bytes,
        client: socket.socket,
        *,
        closes: bool,
        over: Callable[[bool], None],
    ) -> Steps[bool]:
        """Let the relay go on, after `unsent`; false if it can't, and nothing happened.

        The client's part must be chunked unless the answer has a Content-Length. `closes` says that
        its connection is to be closed after it. `over` is called from another thread, maybe before
        this returns, when the connection is the caller's again: with whether it is good for another
        request. Else it is to be closed without ado. Not to be closed after that.
        """
        self._note_early()
        if self._relay is None:
            return False
        self._caller.on_departure(None)  # the relay sees by itself when the client leaves

        def settle(reusable: bool, complete: bool) -> None:
            self._stream.settle(reusable=reusable)
            self._answer.lease.release()
            over(complete and not closes)

        take = partial(self._relay.take, self._answer, self._record, client, unsent)
        taken = take(closes=closes, settle=settle, patient=False)
        if not taken:
            yield BLOCKING
            taken = take(closes=closes, settle=settle, patient=True)
        if taken:
            self._place.close()
        else:
            self._caller.on_departure(self._stream.shut_down)
        return taken

    def __iter__(self) -> Iterator[bytes]:
        if self._is_event_stream:
            yield b""  # the head is on its way although the first token may take its time
        try:
            while content := self._stream.read():
                self._record.passed(len(content))
                yield content
            self._ended = True  # asked for more, so the last of it has been sent
        except UpstreamFailure as failure:
            if self._caller.departed:
                raise ConnectionResetError("the client left") from failure
            self._broken = True
            error = self._error(failure)
            self._record.failed(error.code, str(failure))
            takes_event = self._answer.reply.head.takes_event
            if takes_event:
                yield error.event()
            raise AnswerBroken(error.message, told=takes_event) from failure

    def _error(self, failure: UpstreamFailure) -> GatewayError:
        if self._drain.over:
            return BREAKS["draining"]
        if isinstance(failure, BodyTooLong):
            return BREAKS["timeout"]  # not the endpoint's failure: it has gone on all the time
        UPSTREAM_FAILURES.labels(failure.kind).inc()
        self._answer.note_error(failure.kind)
        return BREAKS["idle" if isinstance(failure, BodyIdle) else "died"]

    def close(self) -> None:
        """End it, whatever state it is in. Idempotent."""
        self._note_early()
        if not self._ended and not self._broken:
            self._record.aborted("receiving")
        self._ended = True  # a second close tells nothing new
        self._caller.on_departure(None)
        self._answer.close()
        self._place.close()
        self._record.finish(self._status)
