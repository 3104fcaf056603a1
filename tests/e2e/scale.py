"""A gateway in front of a big cluster: how fast it answers, at rest and while slices change."""

import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from simulator.pod import ModelPod
from tests.e2e.crowd import p99
from tests.e2e.restless import PODS
from tests.harness import PATIENCE, ROOT, GatewayProcess, gateway_process, wait_for
from tests.podclient import ready_pod
from tests.wire import CHAT, chat_body

MODELS = 100
#: Changes of slices a second.
RATE = 100
BUSY = "busy"
#: Requests a second, by so many clients: enough to count on, too few to wait for each other.
PACE, CLIENTS = 160, 4


class RestlessCluster:
    """The process of `tests.e2e.restless`; a context manager that ends it."""

    def __init__(self, kubeconfig: Path, pods: list[ModelPod]) -> None:
        self.kubeconfig = kubeconfig
        self.changes = 0
        self.ready = 0
        self._pods = [f"{pod.address}:{pod.port}" for pod in pods]

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.e2e.restless", str(self.kubeconfig)]
        self._process = subprocess.Popen(
            [*command, str(MODELS), str(RATE), BUSY, *self._pods],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._hear()
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes its standard input, at whose end it ends
            pass

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Let slices change during this block."""
        self._tell()
        try:
            yield
        finally:
            self._tell()
            self._hear()

    def _tell(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        self.changes += answer["changes"]
        self.ready = answer["ready"]


@dataclass
class Pace:
    """Clients that ask at a steady pace, whatever the answers take; a context manager."""

    port: int
    model: str = BUSY
    pace: float = PACE
    seconds: list[float] = field(default_factory=list)  # that answers took
    failures: list[str] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        """Seconds since they began."""
        return time.monotonic() - self._begun

    def __enter__(self) -> Self:
        self._begun = time.monotonic()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(number,)) for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, number: int) -> None:
        """Ask on one connection, in turn with the other clients."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        due = time.monotonic() + number / self.pace
        first = True
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + CLIENTS / self.pace, time.monotonic())
            asked = time.monotonic()
            try:
                failure = self._ask(connection)
            except (OSError, http.client.HTTPException) as error:
                failure = f"{type(error).__name__}: {error}"
                connection.close()
            if failure:
                self.failures.append(failure)
            elif not first:  # which opened the connection
                self.seconds.append(time.monotonic() - asked)
            first = False
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> str:
        """Ask once; what was wrong with the answer, if anything."""
        body = chat_body(self.model, max_tokens=1)
        connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        good = answer.status == 200 and b'"choices"' in content
        return "" if good else f"{answer.status} {content[:300]!r}"


@dataclass(frozen=True)
class Town:
    """A gateway that knows a big cluster, one model of which answers."""

    cluster: RestlessCluster
    gateway: GatewayProcess

    def quiet(self, seconds: float) -> float:
        """The time that one of a hundred answers exceeds, in a window of so many seconds."""
        with Pace(self.gateway.port) as clients:
            wait_for(lambda: clients.elapsed > seconds, "the window is over", seconds + PATIENCE)
        assert clients.failures == []
        return p99(clients.seconds)

    def restless(self, seconds: float) -> float:
        """The same while slices change."""
        with self.cluster.changing():
            return self.quiet(seconds)

    def endpoints_known(self) -> float:
        """How many endpoints of idle models the gateway takes for ready."""
        metric, model = "gateway_endpoints", {"model": BUSY}
        every = self.gateway.metric(metric, state="ready")
        return every - self.gateway.metric(metric, state="ready", **model)

    def wait_until_known(self) -> None:
        """Until the gateway knows what the cluster says."""
        wait_for(lambda: self.endpoints_known() == self.cluster.ready, "the gateway has caught up")


@dataclass
class Windows:
    """The p99 of each window, in seconds."""

    quiet: list[float] = field(default_factory=list)
    restless: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """How much slower a usual window is while slices change."""
        return statistics.median(self.restless) / statistics.median(self.quiet)

    def __str__(self) -> str:
        quiet, restless = map(statistics.median, (self.quiet, self.restless))
        return f"{quiet * 1000:.1f} ms, {restless * 1000:.1f} ms, {self.ratio:.2f}"


@contextmanager
def big_town(directory: Path) -> Iterator[Town]:
    """A gateway in front of `MODELS` times `PODS` endpoints, and four that answer."""
    with ExitStack() as stack:
        pods = [stack.enter_context(ready_pod(token_seconds=0.0)) for _ in range(4)]
        cluster = stack.enter_context(RestlessCluster(directory / "kubeconfig", pods))
        gateway = stack.enter_context(
            gateway_process(
                directory,
                KUBECONFIG=str(cluster.kubeconfig),
                GATEWAY_ALLOW_LOOPBACK="true",
                GATEWAY_GRACE_SECONDS="10",
            )
        )
        town = Town(cluster, gateway.ready())
        assert cluster.ready == MODELS * PODS
        town.wait_until_known()
        yield town
