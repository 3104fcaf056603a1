"""A real gateway under test: gunicorn in a process of its own, asked over real sockets."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import requests

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
#: Seconds within which anything that is waited for must have happened on a busy machine.
PATIENCE = 20.0


def wait_for(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Poll until `condition` gives something true, and return that."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain: {what}"
        time.sleep(0.005)
    return value


def free_port() -> int:
    """A port that nobody is given by the kernel before it is used: below those it gives itself."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port


class GatewayProcess:
    """One gateway. Settings are environment variables, by their names without `GATEWAY_`."""

    def __init__(self, directory: Path, environment: dict[str, str], *arguments: str) -> None:
        """`arguments` are gunicorn's, such as another application."""
        self._arguments = arguments
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = directory / f"gateway-{self.port}.log"
        self._session = requests.Session()
        self._session.trust_env = False
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "KUBE"))}
        self._environment = clean | {"PORT": str(self.port), "TMPDIR": str(directory)} | environment

    def start(self) -> Self:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / "gunicorn"), *self._arguments],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def stop(self, patience: float = PATIENCE) -> int:
        """End it and return its exit status."""
        self._session.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        for pid in [*self.workers(), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(PATIENCE)

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def listening(self) -> Self:
        def connects() -> bool:
            assert self.process.poll() is None, self.logs()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(connects, "the gateway listens")
        return self

    def ready(self) -> Self:
        self.listening()
        wait_for(lambda: self.get("/healthz").status_code == 200, "the gateway is ready")
        return self

    def get(self, path: str, **options: Any) -> requests.Response:
        options.setdefault("timeout", PATIENCE)
        return self._session.get(self.url + path, **options)

    def chat(
        self, model: str = "llama", *, stream: bool = False, **options: Any
    ) -> requests.Response:
        """Ask for a chat completion; further fields of the body go into `body`."""
        body = {
            "model": model,
            "stream": stream,
            "messages": [{"role": "user", "content": "Hello"}],
            **options.pop("body", {}),
        }
        options.setdefault("timeout", PATIENCE)
        # A session of its own: tests call this from many threads.
        with requests.Session() as session:
            session.trust_env = False
            return session.post(
                f"{self.url}/v1/chat/completions", json=body, stream=stream, **options
            )

    def post_bytes(
        self, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.post(self.url + path, data=body, headers=headers, timeout=PATIENCE)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = self.get("/status.json").json()
        return document

    def endpoints(self, model: str = "llama") -> dict[str, str]:
        """The state of each pod of a model, by name."""
        return {
            endpoint["pod"]: endpoint["state"]
            for entry in self.status()["models"]
            if entry["model"] == model
            for endpoint in entry["endpoints"]
        }

    def in_flight(self) -> int:
        return sum(
            endpoint["in_flight"]
            for entry in self.status()["models"]
            for endpoint in entry["endpoints"]
        )

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of a metric that carry these labels; 0 if there is none."""
        total = 0.0
        for line in self.get("/metrics").text.splitlines():
            sample = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if sample and sample[1] == name:
                found = dict(re.findall(r'(\w+)="([^"]*)"', sample[2] or ""))
                if labels.items() <= found.items():
                    total += float(sample[3])
        return total

    def counted(self, name: str, by: str) -> dict[str, float]:
        """The values of a metric by one of its labels."""
        samples = re.findall(
            rf'^{name}{{.*{by}="([^"]*)".*}} (\S+)$', self.get("/metrics").text, re.M
        )
        return {label: float(value) for label, value in samples}

    def logs(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.logs().splitlines()]

    def send_raw(self, data: bytes, *, patience: float = PATIENCE) -> bytes:
        """Send bytes on a connection of their own and return all that comes until it closes."""
        with socket.create_connection(("127.0.0.1", self.port), patience) as client:
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65_536), b""))


@contextmanager
def gateway_process(
    directory: Path, *arguments: str, **environment: str
) -> Iterator[GatewayProcess]:
    """A gateway that is started, and ended whatever happens; none of its workers may survive."""
    gateway = GatewayProcess(directory, environment, *arguments).start()
    try:
        yield gateway
    finally:
        workers = gateway.workers()
        gateway.stop()
        for pid in workers:
            wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"worker {pid} is gone")  # type: ignore[misc]
        assert "Traceback" not in gateway.logs()
        assert '"internal_error"' not in gateway.logs()
