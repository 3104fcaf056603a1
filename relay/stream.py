"""One stream: an endpoint's answer on its way to its client."""

import socket
from collections.abc import Callable, Mapping

from relay.bodies import (
    SHORT_CHUNK_START,
    Body,
    ChunkedBody,
    ClosedBody,
    LengthBody,
    Truncated,
    short_chunk,
    whole_chunks,
)
from relay.messages import Order, Outcome, Report
from relay.sockets import untaken

_RECEIVE_BYTES = 65_536
_LAST = b"0\r\n\r\n"


def chunk(content: bytes) -> bytes:
    """One chunk (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(content), content)


class Stream:
    """Moves bytes when the loop says that there are some, as they come and without waiting.

    `pending` is what the client has not taken yet; while there is some, nothing more is read from
    the endpoint. `outcome` is set once nothing more will be; then the rest of `pending` goes out.
    """

    __slots__ = (
        *("_between_chunks", "_body", "_chunked", "client", "events", "first", "last_moved"),
        *("number", "order", "outcome", "owner", "pending", "reason", "receive", "send", "size"),
        *("timer_at", "untaken", "upstream", "waits"),
    )

    def __init__(
        self,
        order: Order,
        client: socket.socket,
        upstream: socket.socket,
        events: Mapping[str, str],
        now: float,
    ) -> None:
        self.order = order
        self.client = client
        self.upstream = upstream
        self.events = events
        self.receive: Callable[[int], bytes] = upstream.recv
        self.send: Callable[[bytes], int] = client.send
        self.number = 0
        self.owner: object | None = None
        self.pending = b""
        self.outcome: Outcome | None = None
        self.reason = ""
        self.size = 0
        self.first: float | None = None
        self.last_moved = now
        self.timer_at = float("inf")
        self.waits = False
        self.untaken = 0
        self._chunked = order.framing != "length"
        self._between_chunks = order.framing == "chunked"
        self._body: Body
        if order.framing == "length":
            self._body = LengthBody(order.length)
        elif order.framing == "chunked":
            self._body = ChunkedBody()
        else:
            self._body = ClosedBody(event_stream=order.events)

    def begin(self, head: bytes, received: bytes, now: float) -> None:
        """Send the response's head, and what came of the body before the relay had the stream."""
        out = self._take(received, now) if received else b""
        if self._body.complete and self.outcome is None:  # an empty one
            self._end("complete")
        self._pass_on(head + out)

    def pull(self, now: float) -> bool:
        """The endpoint has sent something, or ended.

        False if the stream waits for more of it, as before, and nothing else.
        """
        try:
            data = self.receive(_RECEIVE_BYTES)
            self.last_moved = now
            if self._between_chunks:
                length, size = short_chunk(data[:SHORT_CHUNK_START])
                if length == len(data) and data.endswith(b"\r\n"):  # a token, as nearly always
                    self.size += size
                    if self.first is None:
                        self.first = now
                    self._pass_on(data)
                    return bool(self.pending or self.outcome)
        except BlockingIOError:
            return False
        except OSError as error:
            self.fail("died", f"{error.strerror}", now)
            return True
        if not data:
            self._upstream_closed(now)
        elif out := self._take(data, now):
            self._pass_on(out)
        return bool(self.pending or self.outcome) or len(data) == _RECEIVE_BYTES

    def _take(self, data: bytes, now: float) -> bytes:
        """What of `data` goes to the client, framed for it."""
        if self._between_chunks:
            size = whole_chunks(data)
            if size > 0:
                self.size += size
                if self.first is None:
                    self.first = now
                return data
        body = self._body
        content = body.feed(data)
        if type(body) is ChunkedBody:
            self._between_chunks = body.between_chunks
        if content:
            self.size += len(content)
            if self.first is None:
                self.first = now
        out = chunk(content) if content and self._chunked else content
        if body.complete:
            self._end("complete")
            return out + _LAST if self._chunked else out
        if body.error is not None:
            return out + self._failed("died", f"the endpoint's answer is not valid: {body.error}")
        return out

    def _upstream_closed(self, now: float) -> None:
        try:
            self._body.end()
        except Truncated as error:
            self.fail("died", str(error), now)
            return
        self._end("complete")
        self._pass_on(_LAST)

    def _end(self, outcome: Outcome, reason: str = "") -> None:
        self.outcome = outcome
        self.reason = reason

    def fail(self, outcome: Outcome, reason: str, now: float) -> None:
        """Break it off; an event stream says why in a last event."""
        self.last_moved = now
        self._pass_on(self._failed(outcome, reason))

    def _failed(self, outcome: Outcome, reason: str) -> bytes:
        self._end(outcome, reason)
        event = self.events.get(outcome) if self.order.takes_event else None
        return chunk(event.encode()) if event else b""

    def abandon(self, outcome: Outcome, reason: str) -> None:
        """The client takes nothing more."""
        self._end(outcome, reason)
        self.pending = b""

    def _pass_on(self, data: bytes) -> None:
        if self.pending:
            self.pending += data
            return
        try:
            sent = self.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.abandon("left", f"{error.strerror}")
            return
        if sent != len(data):
            self.pending = data[sent:]

    def wait(self, now: float) -> None:
        """The client has to take something first."""
        self.waits = True
        self.last_moved = now
        self.untaken = untaken(self.client)

    def flush(self, now: float) -> None:
        """The client can take more."""
        data, self.pending = self.pending, b""
        self._pass_on(data)
        if len(self.pending) < len(data):
            self.last_moved = now
            self.untaken = untaken(self.client)

    def deadline(self) -> float:
        """The monotonic time at which it has taken too long, if nothing moves until then."""
        limit = self.order.send if self.pending else self.order.idle
        if self.outcome is not None:  # only the client's part is left, and that has no total
            return self.last_moved + limit
        return min(self.last_moved + limit, self.order.ends)

    def overdue(self, now: float) -> None:
        """The deadline has passed."""
        if self.pending and now >= self.last_moved + self.order.send:
            self._stalled(now)
        elif now >= self.order.ends:
            self.fail("timeout", "the answer took longer than any may", now)
        else:
            self.fail("idle", f"nothing came for {self.order.idle:g} s", now)

    def _stalled(self, now: float) -> None:
        before, self.untaken = self.untaken, untaken(self.client)
        if self.untaken < before:  # it is slow, but it reads
            self.last_moved = now
        elif self.outcome in (None, "complete"):
            self.abandon("stalled", f"the client read nothing for {self.order.send:g} s")
        else:
            self.pending = b""  # it was broken off already

    def report(self, at: float) -> Report:
        """How it ended."""
        reusable = self.outcome == "complete" and self._body.reusable
        assert self.outcome is not None  # noqa: S101 - asked at the end only
        return Report(self.order.id, self.outcome, self.reason, self.size, self.first, at, reusable)
