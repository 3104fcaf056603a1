"""HTTP/1.1 bodies as bytes (RFC 9112): the framings, read strictly, without I/O."""

import functools
import re
from typing import Final, Protocol

_MAX_CHUNK_LINE: Final = 4096
_MAX_TRAILER_BYTES: Final = 65_536
#: Bytes by which the lines between a request's chunks may go beyond `_FAIR_LINE` each and twice the
#: content: extensions, which nobody needs, are work for nothing (RFC 9112 §7.1.1).
_MAX_EXCESS: Final = 16_384
_FAIR_LINE: Final = 16

_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")

# A request's chunk, by the letter of RFC 9112 §7.1: space only around extensions, and these whole.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_VALUE = rb"(?:" + _TOKEN + rb"|" + _QUOTED + rb")"
_EXTENSION = rb"[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*" + _VALUE + rb")?"
_EXACT_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:" + _EXTENSION + rb")*")
#: Fields by which a message is framed, routed or admitted: never in trailers (RFC 9110 §6.5.1).
_NEVER_TRAILERS: Final = frozenset(
    {b"authorization", b"content-length", b"host", b"te", b"trailer", b"transfer-encoding"}
)

#: A chunk's size without extensions; what is longer goes through the strict reader.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,7})\r\n")
_NOT_WHOLE: Final = -1


class ProtocolError(Exception):
    """What was received is not valid HTTP/1.1."""


class Truncated(Exception):
    """The connection ended before the response did."""


class Body(Protocol):
    """A body as it arrives.

    `complete` says that all of it has been fed, `error` that what came can't be right; after
    either nothing more is to be fed. `reusable` says whether its connection may carry another
    exchange then: not if bytes followed that nobody asked for.
    """

    complete: bool
    error: ProtocolError | None
    reusable: bool

    def feed(self, data: bytes) -> bytes:
        """Take what was received, return the content in it; what came before an error counts."""

    def end(self) -> None:
        """The connection was closed; raises `Truncated` unless the body may end so."""


class LengthBody:
    """A body of a known number of bytes."""

    error: ProtocolError | None = None

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = length == 0
        self.reusable = True

    def feed(self, data: bytes) -> bytes:
        """Take what was received, return the content in it."""
        content = data[: self._left]
        self.reusable = len(data) <= self._left
        self._left -= len(content)
        self.complete = self._left == 0
        return content

    def end(self) -> None:
        """The connection was closed."""
        raise Truncated(f"{self._left} bytes short of Content-Length")


class ClosedBody:
    """A body that ends with the connection, so that no framing tells whether all of it came.

    An event stream tells it itself: OpenAI's ends with `[DONE]`, the Responses API's and
    Anthropic's with an event of their own, which counts once the empty line after it has come. One
    that ends without is truncated.
    """

    error: ProtocolError | None = None
    reusable = False

    _DONE = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)
    _LAST_EVENT = re.compile(
        rb"^event: ?(?:error|message_stop|response\.(?:completed|incomplete|failed))\r?\n",
        re.MULTILINE,
    )
    _EMPTY_LINE = re.compile(rb"\n\r?\n")
    _LONGEST_LINE = 64  # of those looked for; what follows in a longer one says nothing

    def __init__(self, *, event_stream: bool) -> None:
        self.complete = False
        self._sees_end = not event_stream
        self._in_last_event = False
        self._seen = b""  # the end of what came, as far as it matters

    def feed(self, data: bytes) -> bytes:
        """Take what was received, return the content in it."""
        if not self._sees_end:
            self._look_for_end(self._seen + data)
        return data

    def _look_for_end(self, seen: bytes) -> None:
        if not self._in_last_event:
            last_event = self._LAST_EVENT.search(seen)
            before = len(seen) if last_event is None else last_event.start()
            self._sees_end = self._DONE.search(seen, 0, before) is not None
            if last_event is None:
                self._seen = seen[seen.rfind(b"\n") + 1 :][: self._LONGEST_LINE]
                return
            self._in_last_event = True
            seen = seen[last_event.end() - 1 :]
        self._sees_end = self._sees_end or self._EMPTY_LINE.search(seen) is not None
        self._seen = seen[-2:]

    def end(self) -> None:
        """The connection was closed, which is how it ends."""
        if not self._sees_end:
            raise Truncated("the event stream ended without its last event")
        self.complete = True


class ChunkedBody:
    """A chunked body (RFC 9112 §7.1); extensions and trailers are checked and dropped.

    An `exact` one, which is a request's, has nothing that the grammar lacks and no trailer that
    would change how it is read: before its client may stand a proxy that reads it differently, and
    what is left over between the two is a request that nobody sent.
    """

    def __init__(self, *, exact: bool = False) -> None:
        self._exact = exact
        self._chunk = _EXACT_CHUNK if exact else _CHUNK
        self.complete = False
        self.error: ProtocolError | None = None
        self.reusable = True
        self._pending = b""  # a line of which only a part has come
        self._left = 0  # bytes left of the present chunk
        self._ends_chunk = False  # the CRLF after a chunk's data comes next
        self._in_trailers = False
        self._trailer_bytes = 0
        self._excess = 0

    @property
    def between_chunks(self) -> bool:
        """Whether a chunk, or the last one, comes next, and nothing of it has come yet."""
        return not (self._pending or self._left or self._ends_chunk or self._in_trailers)

    def feed(self, data: bytes) -> bytes:
        """Take what was received, return the content in it."""
        content: list[bytes] = []
        data = self._pending + data
        self._pending = b""
        position = 0
        try:
            while position < len(data) and not self.complete:
                if self._left:
                    part = data[position : position + self._left]
                    content.append(part)
                    self._left -= len(part)
                    self._ends_chunk = not self._left
                    position += len(part)
                    continue
                line_end = data.find(b"\n", position)
                if line_end < 0:
                    self._hold(data[position:])
                    break
                self._line(data[position : line_end + 1])
                position = line_end + 1
            else:
                self.reusable = position == len(data)
        except ProtocolError as error:
            self.error = error
        return content[0] if len(content) == 1 else b"".join(content)

    def end(self) -> None:
        """The connection was closed."""
        raise Truncated("the chunked body has no end")

    def _hold(self, part: bytes) -> None:
        """Keep an unfinished line, if it can still become a good one."""
        self._pending = part
        if self._ends_chunk and part != b"\r":
            raise ProtocolError("a chunk is longer than its size")
        if len(part) >= _MAX_CHUNK_LINE:
            raise ProtocolError("a line of the chunked coding is too long")

    def _line(self, line: bytes) -> None:
        if len(line) > _MAX_CHUNK_LINE:
            raise ProtocolError("a line of the chunked coding is too long")
        if not line.endswith(b"\r\n"):
            raise ProtocolError("a line of the chunked coding ends without CRLF")
        text = line[:-2]
        if self._ends_chunk:
            if text:
                raise ProtocolError("a chunk is longer than its size")
            self._ends_chunk = False
        elif self._in_trailers:
            self._trailer(text)
        else:
            size = self._chunk.fullmatch(text)
            if size is None:
                raise ProtocolError(f"invalid chunk size {text[:40]!r}")
            self._left = int(size[1], 16)
            self._in_trailers = self._left == 0
            if self._exact:
                self._bound_excess(len(text))

    def _bound_excess(self, length: int) -> None:
        self._excess = max(0, self._excess + length - _FAIR_LINE - 2 * self._left)
        if self._excess > _MAX_EXCESS:
            raise ProtocolError("the chunk extensions are too long")

    def _trailer(self, text: bytes) -> None:
        self._trailer_bytes += len(text)
        if not text:
            self.complete = True
            return
        field = _FIELD.fullmatch(text)
        if field is None or self._trailer_bytes > _MAX_TRAILER_BYTES:
            raise ProtocolError("invalid trailers")
        if self._exact and field[1].lower() in _NEVER_TRAILERS:
            raise ProtocolError(f"a trailer named {field[1].decode()}")


#: Bytes of a chunk's beginning that `short_chunk` looks at: a size line of up to three digits.
SHORT_CHUNK_START: Final = 5


@functools.lru_cache(4096)
def short_chunk(start: bytes) -> tuple[int, int]:
    """How long the plain chunk that begins with `start` is: with its framing, and its content.

    (-1, -1) if its size line is not in these few bytes whole, or says that it is the last one.
    Remembered: the sizes of an answer's tokens are always the same few.
    """
    found = _SIZE.match(start)
    size = int(found[1], 16) if found else 0
    return (found.end() + size + 2, size) if found and size else (_NOT_WHOLE, _NOT_WHOLE)


def whole_chunks(data: bytes) -> int:
    """How many bytes of content `data` has, if it is nothing but whole plain chunks; else -1.

    Such data needs no taking apart: an endpoint mostly sends a token as one chunk.
    """
    position, size, end = 0, 0, len(data)
    while position < end:
        found = _SIZE.match(data, position)
        if found is None:
            return _NOT_WHOLE
        length = int(found[1], 16)
        position = found.end() + length
        if not length or not data.startswith(b"\r\n", position):
            return _NOT_WHOLE
        position += 2
        size += length
    return size
