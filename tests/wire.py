"""HTTP as bytes: requests exactly as a test wants them, and answers exactly as they came."""

import json
import socket
import time
from dataclasses import dataclass
from typing import Any, Self

from tests.harness import PATIENCE

#: Seconds that any answer takes at most.
LONGEST = 60.0
CHAT = "/v1/chat/completions"
Fields = list[tuple[str, str]]


def chat_body(model: str = "llama", **fields: Any) -> bytes:
    return json.dumps({"model": model, "messages": [], **fields}).encode()


def post(
    body: bytes | None = None,
    *headers: str,
    target: str = CHAT,
    method: str = "POST",
    version: str = "1.1",
    close: bool = True,
) -> bytes:
    """A request's bytes, framed by its length unless a header frames it otherwise."""
    body = chat_body() if body is None else body
    names = {line.partition(":")[0].lower() for line in headers}
    lines = [f"{method} {target} HTTP/{version}", *headers]
    if "host" not in names:
        lines.append("Host: gateway.test")
    if not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def behaving(how: str, model: str = "llama", **fields: Any) -> bytes:
    """A chat request that its pod answers in a way of the simulator's."""
    return post(chat_body(model, **fields), f"x-sim-behaviour: {how}")


def in_chunks(*parts: bytes, end: bool = True) -> bytes:
    framed = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
    return framed + (b"0\r\n\r\n" if end else b"")


def head_of(raw: bytes) -> tuple[str, Fields]:
    """The first line of a message and its header fields, names in lower case."""
    first, *lines = raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    parted = [line.partition(": ") for line in lines]
    return first, [(name.lower(), value) for name, _, value in parted]


def values(raw: bytes, name: str) -> list[str]:
    """All values of a header field of a message, in their order."""
    return [value for its_name, value in head_of(raw)[1] if its_name == name]


def body_of(raw: bytes) -> bytes:
    return raw.partition(b"\r\n\r\n")[2]


@dataclass(frozen=True)
class RawAnswer:
    """All bytes that came until the connection ended, and whether it ended with a reset."""

    raw: bytes
    reset: bool = False

    @property
    def status(self) -> int:
        return int(head_of(self.raw)[0].split(" ")[1])

    @property
    def body(self) -> bytes:
        """The body with its framing."""
        return body_of(self.raw)

    def values(self, name: str) -> list[str]:
        return values(self.raw, name)

    def value(self, name: str) -> str | None:
        found = self.values(name)
        assert len(found) <= 1, f"{name} is there {len(found)} times"
        return found[0] if found else None

    @property
    def content(self) -> bytes:
        """The body without its framing, as far as it came."""
        return self._unframed()[0]

    @property
    def complete(self) -> bool:
        """Whether the framing says that nothing is missing."""
        return self._unframed()[1]

    def _unframed(self) -> tuple[bytes, bool]:
        if self.value("transfer-encoding") == "chunked":
            return unchunked(self.body)
        length = self.value("content-length")
        return self.body, length is None or len(self.body) == int(length)


def unchunked(wire: bytes) -> tuple[bytes, bool]:
    """The content of a chunked body, and whether its final chunk came."""
    content = b""
    while True:
        line, found, rest = wire.partition(b"\r\n")
        if not found:
            return content, False
        size = int(line, 16)
        if size == 0:
            return content, rest == b"\r\n"
        content += rest[:size]
        if rest[size : size + 2] != b"\r\n":
            return content, False
        wire = rest[size + 2 :]


class Wire:
    """One TCP connection to a gateway; a context manager that closes it."""

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:  # before connecting: it decides the window
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def read_until(self, mark: bytes, seen: bytes = b"") -> bytes:
        """Everything from `seen` on, until `mark` is in it."""
        while mark not in seen:
            data = self.socket.recv(65_536)
            assert data, f"the connection ended before {mark!r}: {seen!r}"
            seen += data
        return seen

    def arrivals(self) -> list[tuple[float, bytes]]:
        """What comes until the end, each piece with its monotonic time."""
        pieces = []
        while data := self.socket.recv(65_536):
            pieces.append((time.monotonic(), data))
        return pieces

    def read_to_the_end(self, seen: bytes = b"") -> RawAnswer:
        """Everything until the connection ends, in whichever way; it must within `LONGEST`."""
        parts = [seen]
        deadline = time.monotonic() + LONGEST
        try:
            while data := self.socket.recv(1 << 20):
                assert time.monotonic() < deadline, "the answer goes on and on"
                parts.append(data)
        except ConnectionResetError:
            return RawAnswer(b"".join(parts), reset=True)
        return RawAnswer(b"".join(parts))


def exchange(port: int, request: bytes) -> RawAnswer:
    """Send a request on a connection of its own and read all that comes back."""
    with Wire(port) as wire:
        return wire.send(request).read_to_the_end()
