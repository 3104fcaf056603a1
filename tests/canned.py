"""A pod that says the same bytes to every request, for what no honest engine would say."""

import contextlib
import socket
import threading
from typing import Self

from simulator.cluster import Cluster
from tests.harness import PATIENCE
from tests.wire import body_of, values


class CannedPod:
    """Answers each request with `answer` and closes; a context manager. `seen` are the requests.

    While `may_close` is cleared, it says no more and keeps its connection open.
    """

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.may_close = threading.Event()
        self.may_close.set()
        self.seen: list[bytes] = []
        self._clients: list[tuple[socket.socket, threading.Thread]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for client, thread in self._clients:
            with contextlib.suppress(OSError):  # it may be closed
                client.shutdown(socket.SHUT_RDWR)
            thread.join()

    def deploy(self, cluster: Cluster, model: str, *, slice_name: str = "") -> None:
        """Put it into a slice of its own, by default named like the model."""
        labels = {"model.aibrix.ai/name": model}
        cluster.put_slice(
            {
                "metadata": {"name": slice_name or model, "labels": labels},
                "addressType": "IPv4",
                "endpoints": [
                    {
                        "addresses": ["127.0.0.1"],
                        "conditions": {"ready": True},
                        "targetRef": {"kind": "Pod", "name": f"canned-{self.port}"},
                    }
                ],
                "ports": [{"name": "http", "port": self.port, "protocol": "TCP"}],
            }
        )

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            # Each in a thread, because a connection in reserve asks for nothing.
            thread = threading.Thread(target=self._answer, args=(client,))
            self._clients.append((client, thread))
            thread.start()

    def _answer(self, client: socket.socket) -> None:
        with client:
            request = _request(client)
            if request.startswith(b"GET /metrics "):  # nobody's request; it has no such page
                client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            elif request:
                self.seen.append(request)
                with contextlib.suppress(OSError):  # it has left
                    client.sendall(self.answer)
                self.may_close.wait(PATIENCE)


def _request(client: socket.socket) -> bytes:
    """What is asked on the connection; empty if it ends before that."""
    received = b""
    while b"\r\n\r\n" not in received or len(body_of(received)) < _length(received):
        try:
            data = client.recv(65_536)
        except OSError:
            return b""
        if not data:
            return b""
        received += data
    return received


def _length(received: bytes) -> int:
    return int(values(received, "content-length")[0])
