"""One request to the API and the connection it came over: how answers get out, well or badly."""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping

from simulator.http import Request, chunk, response_head
from simulator.serialiser import Refusal

DRIP_SECONDS = 0.5  # between two bytes of a dripping answer
_LINGER_NOT = struct.pack("ii", 1, 0)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection with a RST, as a killed process does."""
    raw = writer.get_extra_info("socket")
    if raw is not None and not writer.transport.is_closing():
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()


class ApiCall:
    """A request with the means to answer it. `verb` is list or watch.

    Sending raises `ConnectionError` when the client has left.
    """

    def __init__(
        self,
        request: Request,
        verb: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.request = request
        self.verb = verb
        self.query: Mapping[str, str] = {name: each[0] for name, each in request.query.items()}
        self.token = _bearer_token(request)
        self.dripping = False
        self.retry_after = 1  # seconds that an overloaded server asks for
        self.keep_alive = request.headers.get("connection", "").lower() != "close"
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes, or drip them."""
        if not self.dripping:
            self._writer.write(data)
            await self._writer.drain()
            return
        for byte in data:
            self._writer.write(bytes([byte]))
            await self._writer.drain()
            await asyncio.sleep(DRIP_SECONDS)

    async def answer(
        self,
        status: int,
        body: bytes,
        *,
        content_type: str = "application/json",
        retry_after: int | None = None,
        sent: int | None = None,
    ) -> None:
        """Send a whole answer, or with `sent` only that many bytes of its body."""
        headers = [("Cache-Control", "no-cache, private"), ("Content-Type", content_type)]
        if retry_after is not None:
            headers.append(("Retry-After", str(retry_after)))
        headers.append(("Content-Length", str(len(body))))
        await self.send(response_head(status, headers) + body[:sent])

    async def answer_json(self, value: object, status: int = 200) -> None:
        """Send `value` as JSON for a reader who is not a Kubernetes client."""
        await self.answer(status, json.dumps(value).encode() + b"\n")

    async def refuse(self, refusal: Refusal) -> None:
        """Send a refusal with its Status."""
        await self.answer(refusal.code, refusal.body(), retry_after=refusal.retry_after)

    async def start_stream(self) -> None:
        """Send the head of a watch."""
        headers = [
            ("Cache-Control", "no-cache, private"),
            ("Content-Type", "application/json"),
            ("Transfer-Encoding", "chunked"),
        ]
        await self.send(response_head(200, headers))

    async def send_chunk(self, data: bytes) -> None:
        """Send a piece of a watch; empty data ends it."""
        await self.send(chunk(data))

    async def client_leaves(self) -> None:
        """Return when the client has closed the connection."""
        try:
            while await self._reader.read(4096):
                self.keep_alive = False  # a pipelined request is lost to us: say so by closing
        except ConnectionError:
            return

    def reset(self) -> None:
        """Break the connection."""
        self.keep_alive = False
        reset(self._writer)


def _bearer_token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
