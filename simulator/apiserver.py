"""The EndpointSlice API of a cluster over real sockets: list, watch, and faults on demand."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Literal, NamedTuple, TypeAlias

from simulator.apicall import ApiCall, reset
from simulator.faults import (
    ANSWERS,
    SCOPES,
    Fault,
    FaultKind,
    Faults,
    forbidden,
    refuse_by,
    unauthorized,
)
from simulator.http import Request, read_request
from simulator.listing import list_answer
from simulator.loop import BackgroundLoop
from simulator.registry import Registry
from simulator.serialiser import Refusal, error_line
from simulator.watching import TRUE, Watch

TOKEN = "simulator-token"  # noqa: S105 - it opens nothing but this
USER = "system:serviceaccount:models:gateway"
_SLICES = re.compile(
    r"/apis/discovery\.k8s\.io/v1(?:/namespaces/([^/]+))?/endpointslices(?:/([^/]+))?$"
)
_WRITING_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
READING_VERBS = ("list", "watch")  # all that the gateway's Role grants
_NOT_FOUND = "the server could not find the requested resource"

SideDoor: TypeAlias = Callable[[ApiCall], Awaitable[None]]


class SeenRequest(NamedTuple):
    """One request to the API: when (monotonic seconds), list or watch, with what."""

    at: float
    verb: str
    query: dict[str, str]
    token: str | None


class ApiServer:
    """Serves one registry. Everything public may be called from any thread.

    `tokens` are the bearer tokens that open it. `expired_watch` chooses how a watch from a
    forgotten resourceVersion is told: an ERROR event, as current servers do, or HTTP 410.
    `bookmark_seconds` is the time between bookmarks of watches opened from now on. `retry_after`
    is what a 429 and a 503 ask clients to wait, in seconds.
    """

    def __init__(
        self, loop: BackgroundLoop, registry: Registry, address: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.tokens = {TOKEN}
        self.expired_watch: Literal["event", "http"] = "event"
        self.bookmark_seconds = 60.0
        self.retry_after = 1
        self.requests: list[SeenRequest] = []
        self.address, self.port = address, port
        self._loop = loop
        self._registry = registry
        self._side_door: SideDoor | None = None
        # all of these are touched on the loop's thread only
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._watches: set[Watch] = set()
        self._faults = Faults()
        self._forbidden_verbs: set[str] = set()
        self._thawed = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.address}:{self.port}"

    @property
    def open_watches(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    def start(self) -> None:
        """Listen. Raises `OSError` when the port is taken."""
        self._loop.run(self._listen())

    def stop(self) -> None:
        """Close the listener and break every connection. Safe to call twice."""
        self._loop.run(self._shut())

    def open_side_door(self, handler: SideDoor) -> None:
        """Let `handler` answer every request below /simulator, without a token."""
        self._side_door = handler

    def fault(self, kind: str, on: str = "all", times: int | None = None) -> None:
        """Misbehave from now on, or for the next `times` requests; see `FaultKind`.

        `on` is all, list or watch. Raises `ValueError` for an unknown fault or scope, and for
        faults of the whole server or of open watches that are asked for a scope or a number.
        """
        chosen = FaultKind(kind)
        at_once = (FaultKind.REFUSE, FaultKind.FREEZE_WATCH, FaultKind.BREAK_WATCH)
        if on not in SCOPES or times == 0:
            raise ValueError(f"on must be one of {', '.join(SCOPES)}, times at least 1")
        if chosen in at_once and (on, times) not in (("all", None), ("watch", None)):
            raise ValueError(f"{kind} takes neither a scope nor a number of times")
        self._loop.run(self._strike(Fault(chosen, on, times)))

    def heal(self) -> None:
        """End every fault; frozen watches go on, a closed listener opens again."""
        self._loop.run(self._recover())

    def forbid(self, verb: str) -> None:
        """Take away the right to list or watch. Open watches go on, as with a real server."""
        self._loop.call(self._forbidden_verbs.add, verb)

    def allow(self, verb: str) -> None:
        """Give a right back."""
        self._loop.call(self._forbidden_verbs.discard, verb)

    def compact(self) -> None:
        """Expire every resourceVersion and `continue` token that is not the newest."""
        self._loop.call(self._registry.compact)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, self.address, self.port, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._writers):
            reset(writer)

    async def _strike(self, fault: Fault) -> None:
        if fault.kind is FaultKind.REFUSE:
            await self._shut()
        elif fault.kind is FaultKind.FREEZE_WATCH:
            for watch in self._watches:
                watch.freeze(self._thawed)
        elif fault.kind is FaultKind.BREAK_WATCH:
            for watch in self._watches:
                watch.call.reset()
        else:
            self._faults.add(fault)

    async def _recover(self) -> None:
        self._faults.clear()
        self._thawed.set()
        self._thawed = asyncio.Event()
        if self._server is None:
            await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            keep_alive = True
            while keep_alive and (request := await read_request(reader)) is not None:
                keep_alive = await self._handle(request, reader, writer)
        except ConnectionError:
            pass  # the client left in the middle of an answer: nobody to tell
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _handle(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; whether the connection can take another."""
        verb = "watch" if request.parameter("watch") in TRUE else "list"
        call = ApiCall(request, verb, reader, writer)
        call.retry_after = self.retry_after
        if self._side_door and request.path.startswith("/simulator"):
            await self._side_door(call)
            return call.keep_alive
        seen = SeenRequest(time.monotonic(), verb, dict(call.query), call.token)
        self.requests.append(seen)
        try:
            await self._answer(call)
        except Refusal as refusal:
            await call.refuse(refusal)
        return call.keep_alive

    async def _answer(self, call: ApiCall) -> None:
        fault = self._faults.take(call)
        if fault in ANSWERS:
            await ANSWERS[fault](call)
            return
        call.dripping = fault is FaultKind.DRIP
        try:
            refuse_by(fault, call, self._registry)
            self._authorise(call)
            if call.verb == "list":
                await call.answer(200, list_answer(self._registry, call.query))
                return
            watch = Watch(call, self._registry, self.bookmark_seconds)
        except Refusal as refusal:
            told_inside = call.verb == "watch" and self.expired_watch == "event"
            if refusal.code != HTTPStatus.GONE or not told_inside:
                raise
            await call.start_stream()
            await call.send_chunk(error_line(refusal))
            await call.send_chunk(b"")
        else:
            await self._follow(watch)

    async def _follow(self, watch: Watch) -> None:
        self._watches.add(watch)
        try:
            await watch.run()
        finally:
            self._watches.discard(watch)

    def _authorise(self, call: ApiCall) -> None:
        """Raise `Refusal` for what this client may not do, in the order a server asks."""
        if call.token is not None and call.token not in self.tokens:
            raise unauthorized()
        place = _SLICES.match(call.request.path)
        if place is None:
            raise Refusal(404, _NOT_FOUND, "NotFound", details={})
        namespace, name = place.groups()
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        user = "system:anonymous" if call.token is None else USER
        verb = "get" if name else call.verb
        if call.request.method != "GET":
            verb = _WRITING_VERBS.get(call.request.method, call.request.method.lower())
        denied = user != USER or namespace != self._registry.namespace
        if denied or verb not in READING_VERBS or verb in self._forbidden_verbs:
            raise forbidden(user, verb, where)
