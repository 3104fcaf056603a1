"""Answers as values: a status with a body, or a stream of events serialised once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from simulator.http import chunk

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
# Padded to a fixed width, which JSON allows, so that a chunk's size is known beforehand.
_SIM_FIELDS = b'"n":%(n)-8d,"t":%(t)-18.6f}'


class Event:
    """One event of a stream, serialised once; only its number and its time are filled in later."""

    __slots__ = ("_chunk", "_plain")

    def __init__(self, plain: bytes) -> None:
        self._plain = plain
        size = len(self.render(0, 0.0))
        self._chunk = f"{size:x}\r\n".encode() + plain + b"\r\n"

    @classmethod
    def of(cls, pod: str, payload: Mapping[str, Any], name: str = "") -> Self:
        """`payload` with a field `sim`: the pod, the event's number, the monotonic seconds."""
        marked = json.dumps({**payload, "sim": {"pod": pod}}, separators=(",", ":"))
        template = marked.encode().replace(b"%", b"%%").removesuffix(b"}}") + b"," + _SIM_FIELDS
        label = f"event: {name}\n".encode() if name else b""
        return cls(label + b"data: " + template + b"}\n\n")

    def render(self, n: int, at: float) -> bytes:
        """The event's bytes, as the `n`th of its stream, sent at `at` (monotonic seconds)."""
        return self._plain % {b"n": n, b"t": at}

    def render_chunk(self, n: int, at: float) -> bytes:
        """The same as one chunk of a chunked body."""
        return self._chunk % {b"n": n, b"t": at}


@dataclass(frozen=True, slots=True)
class Stream:
    """The events of a streamed answer: some first, one per token, some last, one that closes."""

    first: tuple[Event, ...]
    token: Event
    tokens: int
    last: tuple[Event, ...]
    closing: Event  # tells the client that nothing is missing

    def opening(self, at: float, *, chunked: bool) -> bytes:
        """The bytes before the first token; its events are numbered 0 and downwards."""
        return _join(self.first, 1 - len(self.first), at, chunked)

    def ending(self, at: float, *, chunked: bool, closed: bool = True) -> bytes:
        """The bytes after the last token, the framing's end included; `closed` with `closing`."""
        events = (*self.last, self.closing) if closed else self.last
        return _join(events, self.tokens + 1, at, chunked) + (chunk(b"") if chunked else b"")

    def whole(self, at: float) -> bytes:
        """Every event at once, without framing."""
        events = (*self.first, *[self.token] * self.tokens, *self.last, self.closing)
        return _join(events, 1 - len(self.first), at, chunked=False)


def _join(events: tuple[Event, ...], start: int, at: float, chunked: bool) -> bytes:
    render = Event.render_chunk if chunked else Event.render
    return b"".join(render(event, n, at) for n, event in enumerate(events, start))


@dataclass(frozen=True, slots=True)
class Answer:
    """A status with a complete body, or a stream."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    tokens: int = 0  # to be generated before a complete body is known
    stream: Stream | None = None
    at_once: bool = False  # without the time an engine takes for a prompt

    @classmethod
    def json(cls, payload: Mapping[str, Any], status: int = 200, tokens: int = 0) -> Self:
        """A complete JSON answer."""
        return cls(status, json.dumps(payload).encode(), tokens=tokens)

    @classmethod
    def error(cls, status: int, message: str) -> Self:
        """An error in the form engines use; with `Retry-After` where it makes sense."""
        kind = "BadRequestError" if status < 500 else "InternalServerError"
        payload = {"error": {"message": message, "type": kind, "param": None, "code": status}}
        retry = (("retry-after", "7"),) if status in (429, 503) else ()
        return cls(status, json.dumps(payload).encode(), headers=retry)
