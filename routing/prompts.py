"""Where a prompt begins: what an engine reads first, found without reading all of a body."""

import json
import re
from collections.abc import Iterable
from itertools import islice
from typing import Final

#: What prompts are made of, in about the order in which engines read it. The instructions are the
#: first message of a chat of OpenAI's; in its Responses and in Anthropic's Messages they have a
#: member of their own, which clients write after the messages as often as before them.
_ORDER: Final = ("system", "instructions", "tools", "messages", "prompt", "input")
#: Those that may be too long to be read to their end.
_LONG: Final = frozenset(_ORDER[3:])
#: Where a long member is followed by one that comes before it is looked for in so many bytes from
#: its beginning, and in as many before the body's end. To look through all of 128 KB would cost as
#: much as all the rest of a choice.
WINDOW: Final = 16_384
#: Mostly a long member begins in so many bytes: no more of a body is made text before that.
FIRST_LOOK: Final = 1_024
#: What is no longer than so many bytes is read to its end in any case. Reading takes 1 µs for a
#: thousand bytes of words, and up to four where there are many quotes.
_SHORT: Final = 8_192
#: So many places that may be followed by the rest of the body are tried; there are others only
#: where the same names are used within tools or answers.
_TRIES: Final = 8
#: About so many blanks may stand before and after a member's name; with more it is not found.
_BLANKS: Final = 64
_MEMBER: Final = re.compile(
    r'[ \t\r\n]*[{,][ \t\r\n]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL
)
_END: Final = re.compile(r"[ \t\r\n]*\}[ \t\r\n]*\Z")
#: A member, of whatever object, that may come before the messages. It is no part of a string, where
#: its quotes would be escaped.
_LATER: Final = re.compile(rb',[ \t\r\n]*"(?:system|instructions|tools)"[ \t\r\n]*:[ \t\r\n]*["[]')
#: Numbers don't matter here, and one of a million digits would take its time.
_DECODER: Final = json.JSONDecoder(parse_int=len, parse_float=len, strict=False)

#: Where the values of members begin and end, by name.
_Spans = dict[str, tuple[int, int]]


def beginning(body: bytes, most: int) -> bytes:
    """Up to `most` bytes of what `body`, a JSON object, gives an engine to read; empty if nothing.

    Only members of the object itself count, and the same ones give the same bytes in whatever order
    they come. A long one that is not read to its end is taken to go on to the next that matters, or
    to the body's end. Bytes that are no JSON give something or nothing, but no error.
    """
    spans = _spans(body, most)
    ordered = [spans[name] for name in _ORDER if name in spans]
    parts = [body[start : min(end, start + most)] for start, end in ordered]
    return b"".join(parts)[:most]


def _spans(body: bytes, most: int) -> _Spans:
    """The members that matter, as far as `most` bytes tell; mostly the first thousand do."""
    for size in (FIRST_LOOK, most):
        spans: _Spans = {}
        text, at, later = _text(body, size), 0, -1
        is_all = size >= min(len(body), most)
        while member := _MEMBER.match(text, at):
            name, start = member[1], member.end()
            if start == len(text) and not is_all:
                break  # there may be blanks before the value
            reads = name not in _LONG or len(body) - start <= _SHORT
            if not reads:
                if later < start:  # else what was found before is still to come
                    window = _later(body, start, start + WINDOW)
                    later = next((member.start() for member in window), -1)
                reads = later >= 0
            at = _after(text, start) if reads else 0
            if reads and not at and not is_all:
                break
            spans[name] = start, at or len(body)
            if not at:
                _add_from_the_end(body, name, spans)
                return spans
        if is_all:
            break
    return spans


def _text(body: bytes, size: int) -> str:
    return str(memoryview(body)[:size], "latin-1")  # a character for each byte


def _later(body: bytes, start: int, end: int) -> Iterable[re.Match[bytes]]:
    """The members there that may come before the messages.

    They are between two quotes, which are found ten times as fast; plain text has none.
    """
    first = body.find(b'"', start, end)
    if first < 0:
        return ()
    last = body.rfind(b'"', first, end)
    return _LATER.finditer(body, max(start, first - _BLANKS), min(end, last + _BLANKS))


def _after(text: str, start: int) -> int:
    """Where the value that begins at `start` is over; 0 if it is not whole."""
    try:
        return _DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return 0


def _add_from_the_end(body: bytes, long: str, spans: _Spans) -> None:
    """Add to `spans` what follows the member `long`, as far as it is near the body's end."""
    begun = max(spans[long][0], len(body) - WINDOW)
    for found in islice(_later(body, begun, len(body)), _TRIES):
        text, at = body[found.start() :].decode("latin-1"), 0
        later: _Spans = {}
        while (member := _MEMBER.match(text, at)) and (end := _after(text, member.end())):
            later[member[1]] = found.start() + member.end(), found.start() + end
            at = end
        if _END.match(text, at):  # so it is a member of the body itself
            spans[long] = spans[long][0], found.start()
            spans |= later
            return
