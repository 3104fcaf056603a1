"""Requests by the letter of RFC 9112: which bytes are one beyond doubt, and what follows them.

Written apart from what the gateway reads with, so that tests can find where the two differ.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import urlsplit

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_TARGET = rb"(?:https?://[A-Za-z0-9.:\-]+)?/[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*|\*"
_FIRST_LINE = re.compile(rb"(" + _TOKEN + rb") (" + _TARGET + rb") HTTP/1\.([0-9])")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([\t -~\x80-\xff]*)")
_VALUE = rb"(?:" + _TOKEN + rb"|" + _QUOTED + rb")"
_EXTENSION = rb"[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*" + _VALUE + rb")?"
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)(?:" + _EXTENSION + rb")*")
_LENGTH = re.compile(r"[0-9]+")
#: Never in trailers (RFC 9110 §6.5.1): one that believed them would read the message differently.
_NO_TRAILERS = {"authorization", "content-length", "host", "te", "trailer", "transfer-encoding"}
_LARGEST = 1 << 40  # bytes, more than any of these messages have

Fields = list[tuple[str, str]]


class End(Enum):
    """What comes behind the requests that some bytes are."""

    CLEAN = auto()
    CLOSED = auto()  # the last one asked for it: nothing behind it is a request
    INCOMPLETE = auto()
    INVALID = auto()


class _Invalid(Exception):
    pass


class _Incomplete(Exception):
    pass


@dataclass(frozen=True)
class Request:
    """One request; `names` are those of its fields, in lower case."""

    method: str
    target: str
    names: tuple[str, ...]
    body: bytes
    closes: bool

    @property
    def origin(self) -> str:
        """Path and query, whatever form the target has."""
        parts = urlsplit(self.target)
        return parts.path + (f"?{parts.query}" if parts.query else "")


@dataclass(frozen=True)
class Reading:
    requests: tuple[Request, ...]
    end: End


def read_strictly(data: bytes) -> Reading:
    """The requests that a client sends with these bytes, until one can't be told beyond doubt."""
    found: list[Request] = []
    end = End.CLEAN
    try:
        while data := data.removeprefix(b"\r\n"):  # RFC 9112 §2.2 allows an empty line
            request, data = _request(data)
            found.append(request)
            if request.closes:
                end = End.CLOSED
                break
    except _Incomplete:
        end = End.INCOMPLETE
    except _Invalid:
        end = End.INVALID
    return Reading(tuple(found), end)


def _request(data: bytes) -> tuple[Request, bytes]:
    head, rest = _cut(data, b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    parts = _FIRST_LINE.fullmatch(first)
    if parts is None or (parts[2] == b"*" and parts[1] != b"OPTIONS"):
        raise _Invalid
    method, target = parts[1].decode(), parts[2].decode()
    version = int(parts[3])
    fields = [_field(line) for line in lines]
    hosts = len(_values(fields, "host"))
    if hosts > 1 or (hosts == 0 and version > 0):
        raise _Invalid
    body, rest = _body(fields, version, rest)
    options = _members(fields, "connection")
    closes = "close" in options or (version == 0 and "keep-alive" not in options)
    names = tuple(name for name, _ in fields)
    return Request(method, target, names, body, closes or method == "CONNECT"), rest


def _field(line: bytes) -> tuple[str, str]:
    field = _FIELD.fullmatch(line)
    if field is None:
        raise _Invalid
    return field[1].decode().lower(), field[2].strip(b" \t").decode("latin-1")


def _body(fields: Fields, version: int, rest: bytes) -> tuple[bytes, bytes]:
    """RFC 9112 §6: one length or one coding, and never both."""
    codings, lengths = _values(fields, "transfer-encoding"), _values(fields, "content-length")
    if codings:
        if lengths or version == 0 or [coding.lower() for coding in codings] != ["chunked"]:
            raise _Invalid
        return _chunks(rest)
    if not lengths:
        return b"", rest
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        raise _Invalid
    digits = lengths[0].lstrip("0")
    return _take(rest, int(digits or "0") if len(digits) < 20 else _LARGEST)


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    content = b""
    while True:
        line, data = _cut(data, b"\r\n")
        chunk = _CHUNK.fullmatch(line)
        if chunk is None:
            raise _Invalid
        size = int(chunk[1], 16)
        if size == 0:
            break
        part, data = _take(data, size)
        end, data = _take(data, 2)
        if end != b"\r\n":
            raise _Invalid
        content += part
    while True:
        line, data = _cut(data, b"\r\n")
        if not line:
            return content, data
        if _field(line)[0] in _NO_TRAILERS:
            raise _Invalid


def _cut(data: bytes, mark: bytes) -> tuple[bytes, bytes]:
    part, found, rest = data.partition(mark)
    if not found:
        raise _Incomplete
    return part, rest


def _take(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise _Incomplete
    return data[:size], data[size:]


def _values(fields: Fields, name: str) -> list[str]:
    return [value for its_name, value in fields if its_name == name]


def _members(fields: Fields, name: str) -> list[str]:
    """The elements of a list field, in lower case."""
    return [part.strip(" \t").lower() for v in _values(fields, name) for part in v.split(",")]
