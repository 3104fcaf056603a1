"""Sources that read a pretend cluster, or one canned answer, over real sockets."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cache.kubeconfig import Access
from cache.kubernetes import KubernetesSource, Limits
from cache.source import SourceError
from simulator.apiserver import TOKEN
from simulator.cluster import Cluster
from simulator.kubeconfig import write_kubeconfig

SELECTOR = "model.aibrix.ai/name"
#: Seconds a bounded call may take on a busy machine, beyond its own limit.
PATIENCE = 3.0


def source_at(kubeconfig: Path, limits: Limits | None, namespace: str = "") -> KubernetesSource:
    """A source as a kubeconfig describes it, whatever else this machine has."""
    access = Access({"KUBECONFIG": str(kubeconfig)}, kubeconfig.parent / "no-account")
    source = KubernetesSource(namespace, SELECTOR, access=access, limits=limits)
    source.connect()
    return source


def put(cluster: Cluster, name: str, labelled: bool = True) -> None:
    """Create an empty slice, or change it."""
    labels = {SELECTOR: "m"} if labelled else {}
    cluster.put_slice({"metadata": {"name": name, "labels": labels}, "addressType": "IPv4"})


def failure_of(call: Callable[[], object]) -> SourceError:
    with pytest.raises(SourceError) as caught:
        call()
    return caught.value


@contextmanager
def canned(
    directory: Path, limits: Limits, body: bytes, headers: str = "", status: int = 200
) -> Iterator[KubernetesSource]:
    """A source whose API server gives one and the same answer to every request."""
    head = f"HTTP/1.1 {status} Odd\r\nContent-Length: {len(body)}\r\n{headers}"
    answer = f"{head}Connection: close\r\n\r\n".encode() + body

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # the listener was shut down
            try:
                with client, client.makefile("rb") as received:
                    while received.readline().strip():
                        pass
                    client.sendall(answer)
            except OSError:
                pass  # the client hung up

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            kubeconfig: Any = directory / "kubeconfig"
            write_kubeconfig(kubeconfig, server=url, namespace="models", token=TOKEN)
            yield source_at(kubeconfig, limits)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join()
