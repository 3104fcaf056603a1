"""One TCP connection to a model pod: requests come in one after the other, and clients leave."""

import asyncio
import socket
import struct
from typing import Protocol

from simulator.answers import Answer
from simulator.behaviour import Behaviour, Kind
from simulator.exchange import Exchange, Maker
from simulator.http import Request, read_request
from simulator.misbehaviour import perform

_HEAD_BYTES = 1 << 20
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


class Owner(Maker, Protocol):
    """The process that a connection belongs to."""

    @property
    def lingers(self) -> bool:
        """Whether connections may stay open between requests."""

    def opened(self, connection: "Connection") -> None:
        """A client has connected."""

    def closed(self, connection: "Connection") -> None:
        """The connection is no more."""

    def begin(self, request: Request) -> tuple[Answer, Behaviour | None]:
        """A request is complete: what to say, and how badly."""

    def end(self, request: Request) -> None:
        """What began has ended, one way or another."""

    def abandoned(self) -> None:
        """A client left before its answer was finished."""

    def take(self, kind: Kind) -> bool:
        """Whether the next request is to meet `kind`, which is then used up."""


class Connection(asyncio.Protocol):
    """Reads requests, answers each, and notices within a moment when the client is gone."""

    def __init__(self, owner: Owner) -> None:
        self.reset_next = False
        self.answering = False
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=_HEAD_BYTES)
        self._leaving = False  # we are the ones who close
        self._wants_close = False
        self._idle_timer: asyncio.TimerHandle | None = None
        self._flushed = asyncio.Event()
        self._flushed.set()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # as for every TCP server
        self._transport = transport
        transport.set_write_buffer_limits(high=0)
        self._reader.set_transport(transport)
        self._task = self._loop.create_task(self._serve())
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        """Hand on what came in."""
        self._stop_idle_timer()
        if not self.answering and self._owner.take(Kind.RESET_DURING_REQUEST):
            self.reset()
            return
        self._reader.feed_data(data)

    def eof_received(self) -> None:
        """Take a FIN for a client that is gone, as the servers of real engines do."""
        self._client_left()
        self._reader.feed_eof()

    def pause_writing(self) -> None:
        """Remember that the client has something to read."""
        self._flushed.clear()

    def resume_writing(self) -> None:
        """Remember that everything is on its way to the client."""
        self._flushed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up."""
        del exc
        self._client_left()
        self._stop_idle_timer()
        self._reader.feed_eof()
        self._owner.closed(self)

    # What an exchange needs.

    @property
    def linger(self) -> bool:
        """Whether the connection stays open after the answer."""
        return self._owner.lingers and not self._wants_close

    def write(self, data: bytes) -> None:
        """Send without waiting."""
        self._transport.write(data)

    def unread(self) -> int:
        """Bytes the client has left waiting."""
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Send the rest, then a FIN."""
        self._leaving = True
        self._transport.close()

    def reset(self) -> None:
        """Send an RST, now, whatever was still to be sent."""
        self._leaving = True
        sock = self._transport.get_extra_info("socket")
        if sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()
        if self.answering:
            self._task.cancel()

    # The work.

    async def _serve(self) -> None:
        try:
            while (request := await self._next_request()) is not None:
                await self._answer(request)
                if not self.linger or self._leaving:
                    break
                self._idle_timer = self._loop.call_later(
                    self._owner.engine.keep_alive_seconds, self.close
                )
        finally:
            self.close()

    async def _next_request(self) -> Request | None:
        try:
            request = await read_request(self._reader)
        except (ValueError, asyncio.LimitOverrunError):
            self.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            return None
        if request and self.reset_next:
            self.reset()
            return None
        return request

    async def _answer(self, request: Request) -> None:
        self._wants_close = request.headers.get("connection", "").lower() == "close"
        owner = self._owner
        answer, behaviour = owner.begin(request)
        self.answering = True
        try:
            exchange = Exchange(request, answer, self, owner)
            await perform(exchange, behaviour)
            if not self._leaving:
                await self._flushed.wait()
        finally:
            self.answering = False
            owner.end(request)

    def _client_left(self) -> None:
        if self.answering and not self._leaving:
            self._leaving = True
            self._owner.abandoned()
            self._task.cancel()

    def _stop_idle_timer(self) -> None:
        if self._idle_timer:
            self._idle_timer.cancel()
            self._idle_timer = None
