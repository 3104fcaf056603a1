"""What is compared, and how each is started: a process, or several, in front of one upstream."""

import http.client
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench import configs, proc, router
from bench.wire import MODEL, PATH, request

ROOT = Path(__file__).parent.parent
#: Seconds within which a proxy must answer its first request, and end when asked to.
START_SECONDS = 60.0
STOP_SECONDS = 10.0
#: Threads where one answers one stream: enough for the streams that such a target gets.
STREAM_THREADS = 600


class Unavailable(Exception):
    """A target can't be had here; the message says why."""


@dataclass(frozen=True)
class Command:
    """How to start a target: its own environment comes on top of ours."""

    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A target that runs. `process` is None where the load goes to the upstream itself."""

    name: str
    port: int
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    def family(self) -> list[int]:
        """Every process of it."""
        return proc.family(self.process.pid, self.directory) if self.process else []

    def usage(self) -> proc.Usage:
        """What they use."""
        return proc.usage(self.family(), self.process.pid if self.process else None)

    def switches(self) -> int:
        """How often their threads were switched so far."""
        return proc.switches(self.family())


def _gunicorn(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).parent / "gunicorn"), *arguments]


def _nginx(port: int, upstream: int, directory: Path) -> Command:
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise Unavailable("nginx is not installed")
    user = pwd.getpwuid(os.getuid()).pw_name if os.geteuid() == 0 else None
    config = directory / "nginx.conf"
    config.write_text(configs.nginx(port, upstream, directory, user))
    return Command([binary, "-p", str(directory), "-c", str(config), "-e", "error.log"])


def _router(port: int, upstream: int, directory: Path) -> Command:
    try:
        program = router.installed(ROOT / ".venv-bench")
    except router.NotInstallable as error:
        raise Unavailable(str(error)) from None
    options = {
        "--worker-urls": f"http://127.0.0.1:{upstream}",
        "--policy": "round_robin",
        "--host": "127.0.0.1",
        "--port": str(port),
        "--prometheus-port": str(free_port()),
    }
    return Command([str(program), "launch", *(part for item in options.items() for part in item)])


def _floor(port: int, upstream: int, directory: Path, *, connect: str = "once") -> Command:
    config = directory / "floor.conf.py"
    config.write_text(configs.floor(port, STREAM_THREADS, ROOT))
    environment = {"FLOOR_UPSTREAM": str(upstream), "FLOOR_CONNECT": connect}
    return Command(_gunicorn("--config", str(config)), environment)


def _floor_connect(port: int, upstream: int, directory: Path) -> Command:
    return _floor(port, upstream, directory, connect="each")


def _gateway(port: int, upstream: int, directory: Path) -> Command:
    slices = directory / "slices.json"
    slices.write_text(configs.slices(MODEL, upstream))
    environment = {
        "PORT": str(port),
        "GATEWAY_SOURCE": f"file:{slices}",
        "GATEWAY_LOG_LEVEL": "info",
        "GATEWAY_RELAY": "true",
        "GATEWAY_NICENESS": "10",  # as the image sets it
    }
    return Command(_gunicorn(), environment)


def _plain(port: int, upstream: int, directory: Path) -> Command:
    command = _gateway(port, upstream, directory)
    own = {"GATEWAY_RELAY": "false", "GATEWAY_THREADS": str(STREAM_THREADS)}
    return Command(command.arguments, command.environment | own)


COMMANDS: dict[str, Callable[[int, int, Path], Command] | None] = {
    "direct": None,
    "nginx": _nginx,
    "sglang-router": _router,
    "floor": _floor,
    "floor-connect": _floor_connect,
    "plain": _plain,
    "gateway": _gateway,
}
#: Those that must be there: without them there is nothing to compare.
OURS = ("plain", "gateway")


def free_port() -> int:
    """A port of the loopback address that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(name: str, upstream: int, directory: Path) -> Iterator[Target]:
    """Start a target in front of the upstream's port, and end it whatever happens.

    Raises `Unavailable` where it is not installed or does not come to answer.
    """
    prepare = COMMANDS[name]
    if prepare is None:
        yield Target(name, upstream, directory)
        return
    port = free_port()
    command = prepare(port, upstream, directory)
    with (directory / "output.log").open("wb") as log:
        process = _start(command, directory, log)
    try:
        _await_answer(name, port, process, directory)
        yield Target(name, port, directory, process)
    finally:
        left = proc.end(process, directory, STOP_SECONDS)
        if left:
            print(f"{name}: {len(left)} processes had to be killed", file=sys.stderr)


def _start(command: Command, directory: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start it in a session of its own: Ctrl-C is for us, who then end it."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "KUBE"))}
    return subprocess.Popen(  # noqa: S603 - arguments are ours
        command.arguments,
        cwd=ROOT,
        env=ours | {"TMPDIR": str(directory)} | command.environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _await_answer(name: str, port: int, process: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            said = (directory / "output.log").read_text(errors="replace")[-2000:]
            raise Unavailable(f"{name} does not answer: {said}")
        time.sleep(proc.GLANCE)


def _answers(port: int) -> bool:
    body = request(port).partition(b"\r\n\r\n")[2]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", PATH, body, {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
