"""Responses of endpoints: the same however they are cut, and never whole if they are not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fuzz.promises import cut, expect, pieces
from proxy.framing import MAX_FIELDS, Head, body_of, parse_head
from proxy.headers import HOP_BY_HOP, for_client
from proxy.heads import head_of, in_one_chunk
from proxy.response import Response
from relay.bodies import (
    SHORT_CHUNK_START,
    Body,
    ChunkedBody,
    ProtocolError,
    Truncated,
    short_chunk,
    whole_chunks,
)
from relay.stream import chunk

_OURS: Final = {"x-gateway-error", "x-request-id", "target-pod", "routing-strategy"}
#: Fields that `head_of` adds to those it is given.
_ADDED: Final = 4
#: Beginnings of a body that are looked at alone, at most.
_MOST_PREFIXES: Final = 64

_CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
)
_EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
_SEEDS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellohello",
    b"HTTP/1.1 204 No Content\r\nConnection: x-hop, close\r\nX-Hop: 1\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nServer: engine\r\nDate: now\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nRIFF",
    _CHUNKED + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
    _CHUNKED + b"00A ; x=y\r\n0123456789\r\n1;z\r\n!\r\n0\r\nX-Sum: 1\r\n\r\nHTTP/1.1 200 OK\r\n",
    _CHUNKED + b"5\r\nhelloX\r\n",
    _CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    _EVENTS + b"data: {}\n\ndata: [DONE]\n\n",
    _EVENTS + b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    _EVENTS + b"event: response.completed\r\ndata: {}\r\n\r\n",
    _EVENTS + b"event: error\ndata: [DONE]",
)

#: What means something in a response.
WORDS: Final = (
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n"),
    *(b"Content-Type: text/event-stream\r\n", b"Connection: ", b"close", b", ", b"\r\n\r\n"),
    *(b"data: [DONE]", b"\ndata:[DONE]\n", b"event: error\n", b"\nevent:message_stop\r\n"),
    *(b"event: response.completed\n", b"\n\n", b"\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b';a="b"'),
)


@dataclass(frozen=True)
class Outcome:
    """What was made of a body: its content, how it ended, and whether its connection is good."""

    content: bytes
    end: str  # "complete", "closed", "truncated" or "error"
    reusable: bool


def seeds() -> list[bytes]:
    """Where a search begins; the first byte says how the rest is cut."""
    return [bytes([size]) + seed for seed in _SEEDS for size in (2, 16)]


def check(data: bytes) -> None:
    """Check what an endpoint answered and then closed its connection; raises `Broken`."""
    size, wire = cut(data)
    block, _, rest = wire.partition(b"\r\n\r\n")
    try:
        head = parse_head(block)
        body_of(head)
    except ProtocolError:
        return  # the client gets a 502
    check_head(head)
    check_body(lambda: body_of(head), rest, pieces(rest, size))
    check_quick_readers(rest)
    check_quick_readers(chunk(rest) if rest else b"")
    check_coding(pieces(rest, size))


def outcome(body: Body, parts: list[bytes]) -> Outcome:
    """Feed `parts` and close."""
    content = b""
    behind = False
    for part in parts:
        if body.complete or body.error is not None:
            behind = behind or bool(part)
        else:
            content += body.feed(part)
    if body.error is not None:
        return Outcome(content, "error", reusable=False)
    if body.complete:
        return Outcome(content, "complete", reusable=body.reusable and not behind)
    try:
        body.end()
    except Truncated:
        return Outcome(content, "truncated", reusable=False)
    return Outcome(content, "closed", reusable=body.reusable)


def check_body(make: Callable[[], Body], wire: bytes, parts: list[bytes]) -> None:
    """Check a body that comes at once, in `parts` and byte by byte; raises `Broken`."""
    whole = outcome(make(), [wire])
    expect(outcome(make(), parts) == whole, "cuts change nothing", parts, whole)
    expect(outcome(make(), pieces(wire, 1)) == whole, "byte by byte is the same", wire, whole)
    expect(len(whole.content) <= len(wire), "nothing is made up", wire, whole)

    least = _bytes_until_complete(make(), wire)
    for length in range(0, len(wire), 1 + len(wire) // _MOST_PREFIXES):
        part = outcome(make(), [wire[:length]])
        expect(whole.content.startswith(part.content), "content only grows", wire[:length], part)
        if part.end == "complete":
            expect(least is not None and least <= length, "a cut one looks cut", wire[:length])
        elif part.end == "closed":
            expect(whole.end == "closed", "what is whole stays so", wire, length)
        elif part.end == "error":
            expect(whole.end == "error", "more bytes mend nothing", wire, length)


def _bytes_until_complete(body: Body, wire: bytes) -> int | None:
    """How many bytes it takes until it says that it is complete; None if it never does."""
    for position in range(len(wire) + 1):
        if body.complete:
            return position
        if position == len(wire) or body.error is not None:
            return None
        body.feed(wire[position : position + 1])
    return None


def check_quick_readers(wire: bytes) -> None:
    """Check that what is passed on without being taken apart is what it is taken for."""
    claims = [whole_chunks(wire)]
    length, size = short_chunk(wire[:SHORT_CHUNK_START])
    if length == len(wire) and wire.endswith(b"\r\n"):
        claims.append(size)
    for claim in claims:
        if claim < 0:
            continue
        body = ChunkedBody()
        content = body.feed(wire)
        expect(len(content) == claim, "the quick readers count right", wire, claim)
        expect(
            body.between_chunks and body.error is None and not body.complete,
            "the quick readers see whole chunks and no end",
            wire,
        )


def check_coding(parts: list[bytes]) -> None:
    """Check that what is written in chunks is read again; raises `Broken`."""
    content = b"".join(parts)
    expected = Outcome(content, "complete", reusable=True)
    chunked = b"".join(chunk(part) for part in parts) + in_one_chunk(b"")
    expect(outcome(ChunkedBody(), [chunked]) == expected, "chunks hold their content", parts)
    single = in_one_chunk(content)
    expect(outcome(ChunkedBody(), [single]) == expected, "a chunk holds its content", content)
    for wire in (chunked, single):
        found = outcome(ChunkedBody(), [wire[:-1]])
        expect(found.end == "truncated", "what lacks its last byte is cut", wire)


def check_head(head: Head) -> None:
    """Check what of a head goes to the client; raises `Broken`."""
    bodyless = head.status == 204
    fields = for_client(head.fields, bodyless=bodyless)
    expect(for_client(fields, bodyless=bodyless) == fields, "a second look drops no more", fields)
    hops = HOP_BY_HOP | (set(head.tokens("connection")) - {"content-length"})
    for name, value in fields:
        expect((name, value) in head.fields, "no field is made up", name, value)
        expect(name.lower() not in hops | _OURS, "fields of one hop and ours stay", name)

    response = Response(f"{head.status} {head.reason}", fields, (b"",))
    wire = head_of(response, closes=True, chunked=False)
    expect(wire.endswith(b"\r\n\r\n"), "a head ends with an empty line", wire)
    first, *lines = wire[:-4].decode("latin-1").split("\r\n")
    expect(first == f"HTTP/1.1 {head.status} {head.reason}", "a status line is one line", first)
    said = [f"{name}: {value}" for name, value in fields]
    expect(lines[len(lines) - len(said) :] == said, "a field is one line", wire)
    expect(len(lines) - len(said) <= _ADDED, "no line more than the server's", wire)
    expect(not any(byte in "".join(lines) for byte in "\r\n\0"), "no line is hidden", wire)
    if len(lines) <= MAX_FIELDS:
        again = parse_head(wire[:-4])
        expect(again.status == head.status, "a client reads what we read", wire)
        expect(again.fields[len(lines) - len(said) :] == tuple(fields), "and its fields", wire)
