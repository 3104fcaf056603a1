"""Just enough HTTP/1.1 for a server in a test: requests are kept raw, answers are written raw."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

_KNOWN_STATUSES = frozenset(HTTPStatus)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: Mapping[str, str]  # names in lower case; of repeated ones the last
    body: bytes
    raw: bytes  # request line, headers and body, untouched
    query: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def parameter(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return self.query.get(name, [default])[0]


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Read one request with `Content-Length` framing; None when the client is gone."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    query = parse_qs(urlsplit(target).query, keep_blank_values=True)
    return Request(method, target, headers, body, head + body, query)


def response_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """The bytes of a status line and headers, the empty line included."""
    reason = HTTPStatus(status).phrase if status in _KNOWN_STATUSES else "Unknown"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """`data` as one chunk of a chunked body; empty data is the final chunk."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
