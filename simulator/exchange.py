"""One request being answered: the steps that a good answer and a spoilt one are made of."""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from simulator.answers import EVENT_STREAM, Answer, Stream
from simulator.behaviour import Engine
from simulator.http import Request, response_head

# A client that does not read stops the engine once this many bytes wait for it.
_UNREAD_BYTES = 65536
Headers = Iterable[tuple[str, str]]


class Wire(Protocol):
    """The connection, as far as an answer needs it."""

    reset_next: bool  # a further request on this connection is met with a reset

    @property
    def linger(self) -> bool:
        """Whether the connection stays open after the answer."""

    def write(self, data: bytes) -> None:
        """Send without waiting."""

    def unread(self) -> int:
        """Bytes the client has left waiting."""

    def close(self) -> None:
        """Send the rest, then a FIN."""

    def reset(self) -> None:
        """Send an RST, now."""


class Maker(Protocol):
    """The pod that answers. Its engine may be replaced meanwhile."""

    name: str
    engine: Engine


class Exchange:
    """A request, the answer it deserves, and the wire to put it on."""

    def __init__(self, request: Request, answer: Answer, wire: Wire, maker: Maker) -> None:
        self.request = request
        self.answer = answer
        self.wire = wire
        self._maker = maker

    @property
    def stream(self) -> Stream | None:
        """The answer's stream; None when it has a complete body."""
        return self.answer.stream

    @property
    def chunked(self) -> bool:
        """Whether a good answer is chunked."""
        return self.stream is not None

    def whole(self) -> bytes:
        """The body without its framing, complete at once."""
        now = asyncio.get_running_loop().time()
        return self.stream.whole(now) if self.stream else self.answer.body

    def framing(self) -> Headers:
        """The header that frames a good answer's body."""
        if self.chunked:
            return [("transfer-encoding", "chunked")]
        if self.answer.status in (204, 304):
            return []
        return [("content-length", str(len(self.answer.body)))]

    def head(self, extra: Headers = (), framing: Headers | None = None) -> bytes:
        """Status line and headers; `framing` replaces the honest one."""
        headers = [
            ("server", "simulator"),
            ("content-type", EVENT_STREAM if self.stream else self.answer.content_type),
            ("x-sim-pod", self._maker.name),
            *self.answer.headers,
            *(self.framing() if framing is None else framing),
            *extra,
        ]
        if not self.wire.linger:
            headers.append(("connection", "close"))
        return response_head(self.answer.status, headers)

    async def think(self) -> None:
        """Spend the time up to the first byte: of a complete answer, all of its tokens' too."""
        if self.answer.at_once:
            return
        engine = self._maker.engine
        seconds = engine.first_token_seconds + engine.token_seconds * self.answer.tokens
        if seconds > 0:
            await asyncio.sleep(seconds)

    async def next_token(self) -> None:
        """Spend the time of one token, at least as long as a client needs to read the last one."""
        await asyncio.sleep(max(self._maker.engine.token_seconds, 0.005))

    async def send_tokens(self, most: int | None = None, *, chunked: bool = True) -> None:
        """Send the beginning and at most `most` tokens; of a complete body, the first half."""
        if not self.stream:
            self.wire.write(self.answer.body[: len(self.answer.body) // 2])
            return
        now = asyncio.get_running_loop().time()
        self.wire.write(self.stream.opening(now, chunked=chunked))
        tokens = self.stream.tokens if most is None else min(most, self.stream.tokens)
        if tokens > 0:
            await _Playback(self.wire, self.stream, chunked, self._maker).run(tokens)

    async def send_body(self, *, chunked: bool = True, closed: bool = True) -> None:
        """Send the body from beginning to end; `closed` with the event that says so."""
        if not self.stream:
            self.wire.write(self.answer.body)
            return
        await self.send_tokens(chunked=chunked)
        now = asyncio.get_running_loop().time()
        self.wire.write(self.stream.ending(now, chunked=chunked, closed=closed))

    async def answer_well(self, extra: Headers = ()) -> None:
        """The whole good answer."""
        await self.think()
        if self.stream:
            self.wire.write(self.head(extra))
            await self.send_body()
        else:
            self.wire.write(self.head(extra) + self.answer.body)


class _Playback:
    """The tokens of a stream, each sent by a timer: waking a task for each costs twice as much."""

    def __init__(self, wire: Wire, stream: Stream, chunked: bool, maker: Maker) -> None:
        self._wire = wire
        self._maker = maker
        self._render = stream.token.render_chunk if chunked else stream.token.render
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._sent = 0

    async def run(self, tokens: int) -> None:
        """Send `tokens` tokens, the first at once and the others at the engine's pace."""
        self._step(tokens, self._loop.time())
        try:
            await self._done
        finally:
            if self._timer:
                self._timer.cancel()

    def _step(self, tokens: int, due: float) -> None:
        now = self._loop.time()
        pause = self._maker.engine.token_seconds
        if self._wire.unread() < _UNREAD_BYTES:
            self._sent += 1
            self._wire.write(self._render(self._sent, now))
        else:
            pause = max(pause, 0.005)
        if self._sent == tokens:
            self._done.set_result(None)
            return
        due = max(due + pause, now)  # keeps the rate, and makes up for no time lost
        self._timer = self._loop.call_at(due, self._step, tokens, due)
