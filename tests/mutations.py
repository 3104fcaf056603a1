"""Requests that carry a second one where two readers may disagree about the end of the first.

Each is made of a way to say how long a body is, and of a body in which the other way finds more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.spellings import (
    ASIDES,
    BREAKS,
    CHUNK_LINES,
    CODINGS,
    LENGTHS,
    SEPARATORS,
    SIZE,
    TRAILERS,
    VERSIONS,
    names,
)

#: Stands for the mutation's number, which keeps its width so that no length depends on it.
_NUMBER = b"%%%%"
OUTER, HIDDEN = "/v1/chat/completions?outer=", "/v1/completions?hidden="
_FIRST = b"POST " + OUTER.encode() + _NUMBER + b" HTTP/1.1"
_SECOND = (
    b"POST " + HIDDEN.encode() + _NUMBER + b" HTTP/1.1\r\n"
    b"Host: gateway.test\r\nContent-Length: 2\r\n\r\n{}"
)
_CHUNKED = b"Transfer-Encoding: chunked"
_LAST = b"0\r\n\r\n"
_AS_CHUNK = b"%x\r\n%b\r\n" % (len(_SECOND), _SECOND)


@dataclass(frozen=True)
class Mutation:
    """What a client sends: `raw` has `OUTER` and `HIDDEN` with its number of four digits."""

    number: int
    family: str
    raw: bytes


def mutations() -> list[Mutation]:
    """All of them, always the same and in the same order; no two are alike but for the number."""
    families: dict[bytes, str] = {}
    for family, template in _templates():
        families.setdefault(template, family)
    return [
        Mutation(number, family, template.replace(_NUMBER, b"%04d" % number))
        for number, (template, family) in enumerate(families.items())
    ]


def _templates() -> Iterator[tuple[str, bytes]]:
    for line in _coding_lines():
        yield from _two_ways(line)
    yield from _two_codings()
    yield from _lengths()
    yield from _chunk_lines()
    yield from _chunk_ends()
    yield from _line_ends()
    yield from _versions()
    yield from _folded_in()
    yield from _asides()
    yield from _unwanted_bodies()


def _head(*lines: bytes, first: bytes = _FIRST, eol: bytes = b"\r\n") -> bytes:
    return eol.join([first, b"Host: gateway.test", *lines, b"", b""])


def _length(size: int) -> bytes:
    return b"Content-Length: %d" % size


def _coding_lines() -> Iterator[bytes]:
    name = b"Transfer-Encoding"
    yield from (odd + b": chunked" for odd in names(name))
    yield from (name + separator + b"chunked" for separator in SEPARATORS)
    yield from (name + b": " + value for value in CODINGS)


def _two_ways(coding: bytes) -> Iterator[tuple[str, bytes]]:
    """A body that ends earlier by its coding than by its length, and the other way round."""
    ended, held = _LAST + _SECOND, _AS_CHUNK + _LAST
    for family, size, body in (("CL.TE", len(ended), ended), ("TE.CL", held.find(b"\n") + 1, held)):
        yield family, _head(_length(size), coding) + body
        yield family, _head(coding, _length(size)) + body
        yield "TE.0", _head(coding) + body


def _two_codings() -> Iterator[tuple[str, bytes]]:
    name = b"Transfer-Encoding"
    lines = [name + b": " + value for value in CODINGS[:24:2]]
    lines += [b"transfer-encoding: chunked", name + b" : chunked", name + b":\x0bchunked"]
    for one in lines:
        for other in lines:
            yield "TE.TE", _head(one, other) + _LAST + _SECOND
            yield "TE.TE", _head(one, _length(4), other) + _AS_CHUNK + _LAST


def _lengths() -> Iterator[tuple[str, bytes]]:
    name = b"Content-Length"
    lines = [[odd + b": @"] for odd in names(name)]
    lines += [[name + separator + b"@"] for separator in SEPARATORS]
    lines += [[name + b": " + value] for value in LENGTHS]
    for other in (b"@", b"0", b"1", b"@@", b"", b"x", b"-1"):
        for spelled in (name, name.lower(), name + b" ", b"Content_Length", b"X-Content-Length"):
            pair = [name + b": @", spelled + b": " + other]
            lines += [pair, pair[::-1], [pair[0], b"X: y", pair[1]]]
    for some in lines:
        for size, body in ((len(_SECOND), _SECOND), (2, b"{}" + _SECOND), (0, _SECOND)):
            sized = [line.replace(SIZE, b"%d" % size) for line in some]
            yield ("CL.0" if size else "0.CL"), _head(*sized) + body


def _chunk_lines() -> Iterator[tuple[str, bytes]]:
    """Odd lines before a chunk that is all, the second, the first, and the last."""
    head = _head(_CHUNKED)
    for line in CHUNK_LINES:
        family = "chunk extensions" if b";" in line else "chunk sizes"
        sizes = (len(_SECOND), 2, 0)
        large, small, last = (line.replace(SIZE, b"%x" % size) + b"\r\n" for size in sizes)
        yield family, head + large + _SECOND + b"\r\n" + _LAST
        yield family, head + b"2\r\n{}\r\n" + large + _SECOND + b"\r\n" + _LAST
        yield family, head + small + b"{}\r\n" + _LAST + _SECOND
        yield family, head + b"2\r\n{}\r\n" + last + b"\r\n" + _SECOND


def _chunk_ends() -> Iterator[tuple[str, bytes]]:
    head = _head(_CHUNKED)
    for end in (b"", *BREAKS, *(b + b"\r\n" for b in (b"X", b"\r\n", b" ", b"\x00", b"\r", b"0"))):
        yield "chunk ends", head + b"2\r\n{}" + end + _LAST + _SECOND
        yield "chunk ends", head + b"2\r\n{}" + end + _AS_CHUNK + _LAST
        yield "chunk ends", head + b"2\r\n{}\r\n0" + end + b"\r\n" + _SECOND
        yield "chunk ends", head + b"2\r\n{}\r\n0\r\n" + end + _SECOND
    for trailer in TRAILERS:
        for begun in (b"0\r\n", b"2\r\n{}\r\n0\r\n"):
            yield "trailers", head + begun + trailer + b"\r\n\r\n" + _SECOND
            yield "trailers", head + begun + b"A: b\r\n" + trailer + b"\r\n\r\n" + _SECOND


def _framings() -> Iterator[tuple[list[bytes], bytes]]:
    """The plain ways to frame a body, alone and together."""
    coding, ended = _CHUNKED, _LAST + _SECOND
    yield [_length(len(_SECOND))], _SECOND
    yield [_length(2)], b"{}" + _SECOND
    yield [coding], ended
    yield [_length(len(ended)), coding], ended
    yield [coding, _length(4)], _AS_CHUNK + _LAST


def _line_ends() -> Iterator[tuple[str, bytes]]:
    for lines, body in _framings():
        for end in BREAKS:
            yield "line ends", _head(*lines, eol=end) + body
            yield "line ends", _head(*lines).removesuffix(b"\r\n") + end + body
            yield "line ends", _head(*lines).replace(b"\r\n", end, 1) + body
            yield "line ends", end + _head(*lines) + body


def _versions() -> Iterator[tuple[str, bytes]]:
    for version in VERSIONS:
        first = _FIRST.removesuffix(b" HTTP/1.1") + version
        for lines, body in _framings():
            for option in ([], [b"Connection: keep-alive"], [b"Connection: close"]):
                yield "versions", _head(*option, *lines, first=first) + body


def _folded_in() -> Iterator[tuple[str, bytes]]:
    """A field that a lenient reader finds within the target, or within another field."""
    for lines, body in _framings():
        for end in (*BREAKS, b"\r\n ", b"\r\n\t"):
            hidden = end + lines[-1]
            yield "injections", _head(*lines[:-1], b"X: a" + hidden) + body
            yield "injections", _head(*lines, b"X: a" + hidden) + body
            target = _FIRST.replace(b" HTTP", b"&a=" + hidden.replace(b" ", b"") + b" HTTP")
            yield "injections", _head(*lines[:-1], first=target) + body


def _asides() -> Iterator[tuple[str, bytes]]:
    for field in ASIDES:
        for lines, body in _framings():
            yield "asides", _head(field, *lines) + body
            yield "asides", _head(*lines, field, field) + body


def _unwanted_bodies() -> Iterator[tuple[str, bytes]]:
    """Bodies where none is expected: one that leaves them unread takes them for a request."""
    targets = (b"/healthz", b"/livez", b"/v1/models", b"/status.json", b"/nothing")
    own = [target + b"?outer=" + _NUMBER for target in targets]
    inference = OUTER.encode() + _NUMBER
    absolute = b"http://gateway.test" + inference
    for method in (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"PATCH", b"POST"):
        for target in (inference, absolute, b"*", *own):
            for lines, body in _framings():
                yield "CL.0", _head(*lines, first=method + b" " + target + b" HTTP/1.1") + body
