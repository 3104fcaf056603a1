"""A pod that says the same bytes to every request, for what no honest engine would say."""

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
            with client:
                client.settimeout(5)
                self.seen.append(_request(client))
                client.sendall(self.answer)
                self.may_close.wait(PATIENCE)


def _request(client: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65_536)
    while len(body_of(received)) < int(values(received, "content-length")[0]):
        received += client.recv(65_536)
    return received
