"""Model pods for callers that are not asynchronous: the tests, the demo, the benchmark."""

import asyncio

from simulator.behaviour import Behaviour, Engine, Kind
from simulator.loop import BackgroundLoop
from simulator.process import PodProcess, SeenRequest, State

__all__ = ["Behaviour", "Engine", "Kind", "ModelPod", "SeenRequest", "State"]


class ModelPod:
    """A model server over real sockets; any thread may call it, its work happens on the loop.

    It is "gone" until it is started, and can be started again each time it is gone. What it has
    seen is kept through restarts. Whoever runs on the loop uses `process` instead.
    """

    def __init__(
        self,
        loop: BackgroundLoop,
        name: str,
        address: str,
        port: int,
        model: str,
        *,
        settings: Engine = Engine(),  # noqa: B008  # frozen, so that sharing it is harmless
        metrics_port: int | None = None,
    ) -> None:
        self._loop = loop
        self.process = PodProcess(name, address, port, model, settings, metrics_port)

    def start(self) -> None:
        """Make the process; its port stays closed. RuntimeError unless it is gone."""
        self._loop.run(self.process.start())

    def load(self) -> None:
        """Open the port, on which everything answers 503. OSError when the port is taken."""
        self._loop.run(self.process.load())

    def become_ready(self) -> None:
        """Answer, and say so on `/health`; loads first if that is still to be done."""
        self._loop.run(self.process.become_ready())

    def fail_probe(self) -> None:
        """Answer 503 on `/health` only, like an engine under too much load."""
        self._loop.run(self.process.fail_probe())

    def hurry(self) -> None:
        """Make the rest of all tokens without pauses, also of streams that run."""
        self._loop.run(self.process.hurry())

    def sigterm(self, *, linger: bool = False) -> None:
        """Do what the engine does at SIGTERM.

        It dies at once, or finishes the running requests and ends by itself; with `linger`, and
        where the engine goes on accepting, it takes a `kill` to end it.
        """
        self._loop.run(self.process.sigterm(stays=linger))

    def kill(self) -> None:
        """End at once: connections are reset, the port is closed when this returns."""
        self._loop.run(self.process.kill())

    def crash(self) -> None:
        """End at once, as `kill` does, by no one's wish."""
        self.kill()

    def wait_gone(self, timeout: float = 10.0) -> None:
        """Wait until the process has ended; TimeoutError after `timeout` seconds."""
        self._loop.run(asyncio.wait_for(self.process.until_gone(), timeout), timeout + 1.0)

    def behave(self, behaviour: Behaviour | str, times: int = 1) -> None:
        """Let the next `times` requests meet `behaviour`; ValueError when it is not known."""
        wanted = Behaviour.parse(behaviour) if isinstance(behaviour, str) else behaviour
        self._loop.run(self.process.behave(wanted, times))

    def report_load(
        self, *, running: int | None = None, waiting: int = 0, cache_usage: float = 0.0
    ) -> None:
        """Set what `/metrics` says of requests and of the cache's use (0 to 1).

        Without `running` the true number of those being answered is told.
        """
        self.process.work.pretend(running, waiting, cache_usage)

    @property
    def name(self) -> str:
        """The pod's name."""
        return self.process.name

    @property
    def address(self) -> str:
        """The pod's IP address."""
        return self.process.address

    @property
    def port(self) -> int:
        """The port it listens on; where 0 was asked for, the one it got."""
        return self.process.port

    @property
    def metrics_port(self) -> int | None:
        """The port that serves `/metrics` and nothing else, if there is one."""
        return self.process.metrics_port

    @property
    def model(self) -> str:
        """The model it serves."""
        return self.process.model

    @property
    def state(self) -> State:
        """Where in its life the process is."""
        return self.process.state

    @property
    def requests(self) -> list[SeenRequest]:
        """The requests that arrived in full, probes and scrapes aside, in their order."""
        return self.process.requests

    @property
    def closed_early(self) -> list[float]:
        """When (monotonic seconds) clients left before their answer was finished."""
        return self.process.closed_early

    @property
    def active(self) -> int:
        """Requests being answered now."""
        return self.process.active

    @property
    def connections(self) -> int:
        """Open TCP connections."""
        return self.process.connections

    @property
    def accepted(self) -> int:
        """TCP connections accepted since the pod was made."""
        return self.process.accepted
