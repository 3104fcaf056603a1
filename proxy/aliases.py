"""Aliases: where exactly a body names its model, so that only those bytes need be replaced."""

import json
import re
from collections.abc import Iterator
from typing import Final

from werkzeug.sansio.multipart import Data, Event, Field, MultipartDecoder, NeedData

#: The bytes from the first number to before the second.
Span = tuple[int, int]

#: A key that reads `model`, in whatever spelling, and all that comes before its value, a string.
_KEY: Final = re.compile(
    rb'"(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"'
    rb'[ \t\n\r]*:[ \t\n\r]*(?=")'
)
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
#: What may stand before a key. Not a backslash: that quote would be part of a string.
_BEFORE_A_KEY: Final = b"{, \t\n\r"
#: Bytes whose strings are taken apart at once: some ten times as much memory for that moment.
_SLICE_BYTES: Final = 1 << 20
#: As werkzeug feeds its own parser: in other pieces it could find other parts.
_PIECE_BYTES: Final = 65_536


def span_in_json(body: bytes) -> Span:
    """Where the value of the top-level key `model` is, its quotes included.

    `body` is a valid JSON object with one such key, whose value is a string; else `LookupError`.
    Takes time in proportion to its size, and builds nothing of what it says.
    """
    depth = seen = 0
    for key in _KEY.finditer(body):
        if body[key.start() - 1] in _BEFORE_A_KEY:
            depth += _depth_gained(body[seen : key.start()])
            seen = key.start()
            value = _STRING.match(body, key.end()) if depth == 1 else None
            if value is not None:
                return value.span()
    raise LookupError("there is no model at the top")


def _depth_gained(part: bytes) -> int:
    """How many objects and lists `part` leaves open; it begins and ends outside of strings."""
    part = part.replace(rb"\\", b"").replace(rb"\"", b"")
    gained = quotes = 0
    for start in range(0, len(part), _SLICE_BYTES):
        pieces = part[start : start + _SLICE_BYTES].split(b'"')
        outside = b"".join(pieces[quotes % 2 :: 2])
        quotes += len(pieces) - 1
        opened = outside.count(b"{") + outside.count(b"[")
        gained += opened - outside.count(b"}") - outside.count(b"]")
    return gained


def span_in_form(body: bytes, boundary: bytes) -> Span:
    """Where the content of the field `model` is in a multipart form.

    `body` is a valid form with one such field, which is no file; else `LookupError`.
    """
    wanted, start, size = False, 0, 0
    for event, taken in _parts(body, boundary):
        if isinstance(event, Field):
            wanted = event.name == "model"
            # What was taken ends before the line break that the content follows.
            start = taken + (2 if body.startswith(b"\r\n", taken) else 1)
        elif wanted and isinstance(event, Data):
            size += len(event.data)
            if not event.more_data:
                return start, start + size
    raise LookupError("there is no field model")


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[Event, int]]:
    """What a form consists of, each with the number of bytes that were taken until then."""
    decoder = MultipartDecoder(boundary)
    for start in range(0, len(body), _PIECE_BYTES):
        piece = body[start : start + _PIECE_BYTES]
        decoder.receive_data(piece)
        while not isinstance(event := decoder.next_event(), NeedData):
            yield event, start + len(piece) - len(decoder.buffer)


def replaced(body: bytes, span: Span, value: bytes) -> bytes:
    """`body` with `value` in place of what is in `span`."""
    start, end = span
    whole = memoryview(body)
    return b"".join((whole[:start], value, whole[end:]))


def json_string(text: str) -> bytes:
    """`text` as JSON spells it, in ASCII, which every parser reads alike."""
    return json.dumps(text).encode()
