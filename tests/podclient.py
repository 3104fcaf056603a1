"""What tests of model pods share: a pod that runs, and ways to talk to it."""

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from simulator.loop import BackgroundLoop
from simulator.pod import Engine, ModelPod

ADDRESS = "127.83.12.4"
CHAT = "/v1/chat/completions"
Response = tuple[int, dict[str, str], bytes]
MakePod = Callable[..., ModelPod]


@contextmanager
def new_pod(**settings: Any) -> Iterator[ModelPod]:
    """A pod that is gone, with an engine of these settings; stopped at the end."""
    loop = BackgroundLoop()
    pod = ModelPod(loop, "pod-a", ADDRESS, 0, "chat", settings=Engine(**settings))
    try:
        yield pod
    finally:
        pod.kill()
        loop.stop()


@contextmanager
def ready_pod(**settings: Any) -> Iterator[ModelPod]:
    """A pod that is ready."""
    with new_pod(**settings) as pod:
        pod.start()
        pod.become_ready()
        yield pod


def eventually(condition: Callable[[], object], seconds: float = 3.0) -> None:
    """Wait for a condition; fails when it has not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


def ask(pod: ModelPod, path: str = CHAT, method: str = "POST", **fields: Any) -> Response:
    """One request with these JSON fields, answered in full."""
    connection = http.client.HTTPConnection(pod.address, pod.port, timeout=3)
    try:
        connection.request(method, path, json.dumps(fields) if method == "POST" else None)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read()
    finally:
        connection.close()


def connect(pod: ModelPod) -> socket.socket:
    """A connection to the pod."""
    return socket.create_connection((pod.address, pod.port), timeout=3)


def request(*headers: str, **fields: Any) -> bytes:
    """A chat request's bytes; streamed unless the fields say otherwise."""
    body = json.dumps({"stream": True, **fields})
    lines = [f"POST {CHAT} HTTP/1.1", "host: pod", f"content-length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def begin(pod: ModelPod, *headers: str, **fields: Any) -> socket.socket:
    """Send a chat request; return the socket once the pod works on it."""
    before = len(pod.requests)
    client = connect(pod)
    client.sendall(request(*headers, **fields))
    eventually(lambda: len(pod.requests) > before)
    return client


def read_to_the_end(client: socket.socket) -> bytes:
    """Everything up to the FIN; ConnectionResetError where it ends with an RST."""
    received = b""
    with client:
        while data := client.recv(65536):
            received += data
    return received


def read_until(error: type[OSError], client: socket.socket) -> bytes:
    """Everything up to this error; fails on an orderly end."""
    received = b""
    with client:
        try:
            while data := client.recv(65536):
                received += data
        except error:
            return received
    raise AssertionError(f"the connection was closed after {received!r}")


def events(body: bytes) -> list[Any]:
    """The payloads of a stream's data lines; `[DONE]` as it stands."""
    texts = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]
