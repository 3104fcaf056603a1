"""`make demo`: a pretend cluster, the real gateway in front of it, and lines to paste."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from simulator.cluster import Cluster
from simulator.model import Model
from simulator.pod import Engine

ROOT = Path(__file__).parent.parent
#: Seconds between two events of the story.
PACE = 3.0
START_SECONDS = 20.0

JSON = "-H 'Content-Type: application/json'"
LINES = """
The gateway listens on {url} in front of {pods} pods.

  Its status page, for a browser: {url}/status

In another terminal, paste:

  # a chat, plain and streamed
  curl {url}/v1/chat/completions {json} \\
    -d '{{"model": "chat", "messages": [{{"role": "user", "content": "Hello"}}]}}'
  curl -N {url}/v1/chat/completions {json} \\
    -d '{{"model": "chat", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'

  # what the gateway knows
  curl {url}/v1/models
  curl {url}/status.json

  # a model whose only pod is terminating: a 503 that says so, and when to come back
  curl -i {url}/v1/chat/completions {json} \\
    -d '{{"model": "leaving", "messages": [{{"role": "user", "content": "Hello"}}]}}'

Pods now come and go by themselves. Ctrl-C ends everything.
"""


class DemoError(Exception):
    """The demo can't run; one line says why."""


def main() -> int:
    """Run the demo until Ctrl-C or SIGTERM; returns the exit status."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder, Cluster() as cluster:
            _run(cluster, Path(folder), stopped)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


def _run(cluster: Cluster, folder: Path, stopped: threading.Event) -> None:
    chat = cluster.model("chat", pods=2, engine=Engine(tokens=30, token_seconds=0.05))
    leaving = cluster.model("leaving", engine=Engine(refuses_when_terminating=False))
    leaving.pods[0].terminate(grace=1e9)
    port = _port()
    url = f"http://127.0.0.1:{port}"
    log = folder / "gateway.log"
    with _gateway(cluster, folder, log, port) as gateway:
        _wait_until_ready(url, gateway, log, stopped)
        if stopped.is_set():
            return
        print(LINES.format(url=url, json=JSON, pods=len(chat.pods) + 1), flush=True)
        told = threading.Thread(target=_tell, args=(cluster, log, stopped))
        told.start()
        try:
            for event in _story(chat):
                if stopped.wait(PACE) or gateway.poll() is not None:
                    break
                event()
        finally:
            stopped.set()
            told.join()
    if gateway.returncode:
        raise DemoError(f"the gateway ended with status {gateway.returncode}")


def _port() -> int:
    """`PORT`, else 8080, else any that is free."""
    wanted = int(os.environ.get("PORT") or 8080)
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
                return int(probe.getsockname()[1])
            except OSError as error:
                if "PORT" in os.environ:
                    raise DemoError(f"PORT={wanted} can't be used: {error.strerror}") from error
    raise DemoError("there is no free port")


@contextmanager
def _gateway(
    cluster: Cluster, folder: Path, log: Path, port: int
) -> Iterator["subprocess.Popen[bytes]"]:
    """The gateway in a session of its own, so that Ctrl-C reaches it through us only."""
    environment = os.environ | {
        "KUBECONFIG": str(cluster.kubeconfig(folder / "kubeconfig")),
        "GATEWAY_ALLOW_LOOPBACK": "true",
        "GATEWAY_GRACE_SECONDS": "2",
        "PORT": str(port),
    }
    with log.open("wb") as output:
        gateway = subprocess.Popen(
            [sys.executable, "-m", "gunicorn"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield gateway
    finally:
        gateway.terminate()
        try:
            gateway.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(gateway.pid, signal.SIGKILL)
            gateway.wait()


def _wait_until_ready(
    url: str, gateway: "subprocess.Popen[bytes]", log: Path, stopped: threading.Event
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not stopped.wait(0.05):
        if gateway.poll() is not None or time.monotonic() > deadline:
            raise DemoError(f"the gateway does not start:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=1):  # noqa: S310 - our own
                return
        except (urllib.error.URLError, OSError):
            continue


def _story(model: Model) -> Iterator[Callable[[], object]]:
    """An old pod terminates, a new one starts, loads, becomes ready; now and then one crashes."""
    for round_number in itertools.count(1):
        oldest = next(pod for pod in model.pods if pod.condition == "ready")
        if round_number % 3:
            yield oldest.terminate
        else:
            yield oldest.crash
            yield oldest.remove
        fresh = model.create_pod()
        yield fresh.start
        yield fresh.load
        yield fresh.become_ready


def _tell(cluster: Cluster, log: Path, stopped: threading.Event) -> None:
    """One line for each change of a pod and each request, as they happen."""
    told = len(cluster.history)
    with log.open() as lines:
        lines.seek(0, os.SEEK_END)
        while not stopped.wait(0.1):
            changes = cluster.history[told:]
            told += len(changes)
            for change in changes:
                _say(f"pod {change.pod}: {change.what}")
            for line in lines:
                _say_request(line)


def _say_request(line: str) -> None:
    try:
        facts = json.loads(line)
    except ValueError:
        return  # half a line; requests are told whole
    if facts.get("logger") == "gateway.requests":
        by = facts.get("pod") or facts.get("error")
        _say(f"    {facts['message']} · model {facts['model']} · {by} · {facts['seconds']} s")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
