"""The process in a model pod: its port, its connections and its death. Lives on one event loop."""

import asyncio
import socket
from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

from simulator import openai
from simulator.answers import Answer
from simulator.behaviour import Behaviour, Engine, Kind
from simulator.connection import Connection, Owner
from simulator.http import Request
from simulator.metrics import MetricsPort, Work, page

State = Literal["starting", "loading", "ready", "terminating", "gone"]
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request that reached a pod in full."""

    at: float  # monotonic seconds
    raw: bytes
    target: str
    request_id: str | None
    state: State  # of the pod when the request came


class PodProcess:
    """A model server's process; every method runs on the loop, and none blocks it."""

    def __init__(
        self,
        name: str,
        address: str,
        port: int,
        model: str,
        engine: Engine,
        metrics_port: int | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.port = port
        self.metrics_port = metrics_port
        self.model = model
        self.engine = engine
        self.state: State = "gone"
        self.requests: list[SeenRequest] = []
        self.closed_early: list[float] = []
        self.accepted = 0
        self.work = Work(engine)
        self._healthy = True
        self._stays = False  # after SIGTERM, although there is nothing left to do
        self._behaviours: deque[Behaviour] = deque()
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._gone = asyncio.Event()

    @property
    def connections(self) -> int:
        """Open TCP connections."""
        return len(self._connections)

    @property
    def active(self) -> int:
        """Requests being answered now, probes and scrapes aside."""
        return self.work.active

    # Life.

    async def start(self) -> None:
        """Make the process; RuntimeError when there is one already."""
        if self.state != "gone":
            raise RuntimeError(f"pod {self.name} is {self.state}: only a gone one can start")
        self.state = "starting"
        self._healthy = True
        self._stays = False
        self._gone.clear()

    async def load(self) -> None:
        """Open the port, or both; OSError when one cannot be bound."""
        if self.state != "starting":
            raise RuntimeError(f"pod {self.name} is {self.state}: only a starting one can load")
        self.state = "loading"
        try:
            self.port = await self._listen(self.port, self)
            if self.metrics_port is not None:
                self.metrics_port = await self._listen(self.metrics_port, MetricsPort(self))
        except OSError:
            self._close_ports()
            self.state = "starting"
            raise

    async def _listen(self, port: int, owner: Owner) -> int:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        listener = socket.create_server((self.address, port), family=family, backlog=_BACKLOG)
        # asyncio sets it only on sockets that name their protocol, which accepted ones don't
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        self._servers.append(
            await loop.create_server(lambda: Connection(owner), sock=listener, backlog=_BACKLOG)
        )
        return int(listener.getsockname()[1])

    async def become_ready(self) -> None:
        """Answer from now on, whatever had to be done before."""
        if self.state in ("gone", "terminating"):
            raise RuntimeError(f"pod {self.name} is {self.state}: it cannot become ready")
        if self.state == "starting":
            await self.load()
        self._healthy = True
        self.state = "ready"

    async def fail_probe(self) -> None:
        """Answer 503 to `/health`, and everything else as before."""
        self._healthy = False

    async def hurry(self) -> None:
        """Make the rest of all tokens without pauses, also of streams that run."""
        self.engine = replace(self.engine, token_seconds=0.0)

    async def sigterm(self, *, stays: bool = False) -> None:
        """Die, or finish what runs, as the engine does; `stays`: until killed, in any case."""
        if self.state in ("gone", "terminating"):
            return
        if self.engine.dies_at_sigterm or self.state != "ready":
            await self.kill()
            return
        self.state = "terminating"
        self._stays = stays
        if self.engine.refuses_when_terminating:
            self._close_ports()
            for connection in list(self._connections):
                if not connection.answering:
                    connection.close()
            self._exit_when_done()

    async def kill(self) -> None:
        """End at once: every connection is reset, the port is closed."""
        self._close_ports()
        self.state = "gone"
        for connection in list(self._connections):
            connection.reset()
        while self._connections:  # asyncio closes their sockets in its next round
            await asyncio.sleep(0)
        self._gone.set()

    async def until_gone(self) -> None:
        """Wait for the end of the process."""
        await self._gone.wait()

    def _close_ports(self) -> None:
        for server in self._servers:
            server.close()
        self._servers = []

    def _exit_when_done(self) -> None:
        refuses = self.engine.refuses_when_terminating
        if self.state == "terminating" and refuses and not self._stays and not self._connections:
            self.state = "gone"
            self._gone.set()

    # What connections ask and tell.

    @property
    def lingers(self) -> bool:
        """Whether connections may stay open between requests."""
        return bool(self._servers)

    def opened(self, connection: Connection) -> None:
        """Count a new connection, or refuse one that was too late."""
        self._connections.add(connection)
        self.accepted += 1
        if not self._servers:
            connection.reset()

    def closed(self, connection: Connection) -> None:
        """Forget a connection; a process that was only waiting for it ends."""
        self._connections.discard(connection)
        self._exit_when_done()

    def abandoned(self) -> None:
        """Note when a client left before its answer was finished."""
        self.closed_early.append(asyncio.get_running_loop().time())

    def take(self, kind: Kind) -> bool:
        """Whether the next request is to meet `kind`, which is then used up."""
        if self._behaviours and self._behaviours[0].kind is kind:
            self._behaviours.popleft()
            return True
        return False

    def begin(self, request: Request) -> tuple[Answer, Behaviour | None]:
        """Note the request; say what it gets and how."""
        if request.path not in ("/health", "/metrics"):
            self._note(request)
        if self.state == "loading":
            return Answer.error(503, "the model is being loaded"), None
        if request.path == "/health":
            return Answer(200 if self._healthy else 503, at_once=True), None
        if request.path == "/metrics":
            return self.metrics() if self.metrics_port is None else Answer(404), None
        wanted = request.headers.get("x-sim-behaviour")
        try:
            behaviour = Behaviour.parse(wanted) if wanted else self._next_behaviour()
        except ValueError as error:
            return Answer.error(400, str(error)), None
        answer = openai.answer(self.name, self.model, request, self.engine.tokens)
        self.work.begin(request, answer)
        return answer, behaviour

    def end(self, request: Request) -> None:
        """Count a request as over."""
        self.work.end(request)

    def metrics(self) -> Answer:
        """What the engine says of its load."""
        return page(self.model, self.work.load(), self.engine.metrics)

    def _note(self, request: Request) -> None:
        now = asyncio.get_running_loop().time()
        ident = request.headers.get("x-request-id")
        self.requests.append(SeenRequest(now, request.raw, request.target, ident, self.state))

    # Behaviour.

    async def behave(self, behaviour: Behaviour, times: int) -> None:
        """Let the next `times` requests meet `behaviour`."""
        self._behaviours.extend([behaviour] * times)

    def _next_behaviour(self) -> Behaviour | None:
        return self._behaviours.popleft() if self._behaviours else None
