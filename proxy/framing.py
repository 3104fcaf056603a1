"""HTTP/1.1 response heads as bytes (RFC 9112), read strictly, without I/O.

Strictly, because a response that two parsers could read differently must not be passed on as if it
were well: such a one is a `ProtocolError`, never a guess.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from relay.bodies import Body, ChunkedBody, ClosedBody, LengthBody, ProtocolError

#: Bytes a response head may have, and fields in it.
MAX_HEAD_BYTES: Final = 65_536
MAX_FIELDS: Final = 100

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")
_LENGTH = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Head:
    """A response's status line and header fields, names as they came."""

    minor_version: int
    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    _values: dict[str, list[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort the fields by name once; a response is asked for five of them."""
        values: dict[str, list[str]] = {}
        for name, value in self.fields:
            values.setdefault(name.lower(), []).append(value)
        object.__setattr__(self, "_values", values)

    def values(self, name: str) -> list[str]:
        """All values of a field; `name` in lower case."""
        return self._values.get(name, [])

    def tokens(self, name: str) -> list[str]:
        """The elements of a comma-separated list field, in lower case."""
        values = self._values.get(name)
        if values is None:
            return []
        return [part.strip(" \t").lower() for part in ",".join(values).split(",")]

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is a stream of server-sent events."""
        types = self.values("content-type")
        return bool(types) and types[0].partition(";")[0].strip().lower() == "text/event-stream"

    @property
    def takes_event(self) -> bool:
        """Whether an event can be added to the body.

        Not to a compressed stream; and it would fill up one of a known length.
        """
        return self.is_event_stream and not (
            self.values("content-encoding") or self.values("content-length")
        )

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may carry another request (RFC 9112 §9.3)."""
        connection = self.tokens("connection")
        if "close" in connection:
            return False
        return self.minor_version == 1 or "keep-alive" in connection


def parse_head(block: bytes) -> Head:
    """Read a head, without the empty line that ends it; raises `ProtocolError`."""
    first, *lines = block.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise ProtocolError(f"invalid status line {first[:60]!r}")
    if len(lines) > MAX_FIELDS:
        raise ProtocolError(f"more than {MAX_FIELDS} header fields")
    fields = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:  # also obsolete folding (RFC 9112 §5.2) and a bare CR or LF
            raise ProtocolError(f"invalid header field {line[:60]!r}")
        fields.append((field[1].decode("ascii"), field[2].strip(b" \t").decode("latin-1")))
    reason = (status_line[3] or b"").decode("latin-1")
    return Head(int(status_line[1]), int(status_line[2]), reason, tuple(fields))


def body_of(head: Head) -> Body:
    """The framing of the body of an answer to a POST (RFC 9112 §6.3); raises `ProtocolError`."""
    lengths = head.values("content-length")
    codings = head.tokens("transfer-encoding")
    if lengths and codings:
        raise ProtocolError("both Content-Length and Transfer-Encoding")
    if codings and (codings != ["chunked"] or head.minor_version == 0):
        raise ProtocolError(f"unsupported transfer coding {', '.join(codings)[:40]!r}")
    if len(lengths) > 1 or (lengths and _LENGTH.fullmatch(lengths[0]) is None):
        raise ProtocolError(f"invalid Content-Length {', '.join(lengths)[:40]!r}")
    if head.status in (204, 304):
        return LengthBody(0)
    if codings:
        return ChunkedBody()
    if lengths:
        return LengthBody(int(lengths[0]))
    return ClosedBody(event_stream=head.is_event_stream)
