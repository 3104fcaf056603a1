"""A call ends when its time is over, over TLS too, as real API servers speak it."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cache.cutoff import Cutoff
from cache.kubernetes import KubernetesSource, Limits
from cache.source import SourceError
from simulator.kubeconfig import write_kubeconfig
from tests.harness import wait_for
from tests.kube_source import PATIENCE, source_at

#: A key and its certificate for 127.0.0.1; they protect nothing.
CERTIFICATE = Path(__file__).parent / "data" / "tls" / "test-only.pem"
BODY = b'{"kind":"EndpointSliceList","metadata":{"resourceVersion":"7"},"items":null}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
LIMITS = Limits(read=0.8, listing=0.8)


def at_once(client: ssl.SSLSocket, over: threading.Event) -> None:
    client.sendall(HEAD + BODY)


def dripping_from(start: int) -> Callable[[ssl.SSLSocket, threading.Event], None]:
    """Answer with the first bytes at once and then one every tenth of a second."""

    def answer(client: ssl.SSLSocket, over: threading.Event) -> None:
        client.sendall((HEAD + BODY)[:start])
        for byte in (HEAD + BODY)[start:]:
            if over.wait(0.1):
                return
            client.sendall(bytes([byte]))

    return answer


@contextmanager
def tls_source(
    directory: Path,
    answer: Callable[[ssl.SSLSocket, threading.Event], None],
    limits: Limits | None = None,
) -> Iterator[KubernetesSource]:
    """A source whose API server speaks TLS and answers one request."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    over = threading.Event()

    def serve() -> None:
        try:
            with context.wrap_socket(listener.accept()[0], server_side=True) as client:
                client.recv(65_536)
                answer(client, over)
                over.wait(10)
        except OSError:
            pass  # the client hung up

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        path = write_kubeconfig(directory / "kubeconfig", server=url, namespace="n", token="t")
        config = json.loads(path.read_text())
        config["clusters"][0]["cluster"]["certificate-authority"] = str(CERTIFICATE)
        path.write_text(json.dumps(config))
        source = source_at(path, limits)
        try:
            yield source
        finally:
            over.set()
            source.close()
            listener.close()
            server.join()


def test_a_list_over_tls_is_read(tmp_path: Path) -> None:
    with tls_source(tmp_path, at_once) as source:
        assert source.list().resource_version == "7"


@pytest.mark.parametrize("start", [5, len(HEAD) + 5], ids=["head", "body"])
def test_an_answer_that_drips_over_tls_is_cut_off(tmp_path: Path, start: int) -> None:
    with tls_source(tmp_path, dripping_from(start), LIMITS) as source:
        began = time.monotonic()
        with pytest.raises(SourceError, match=r"took over 0\.8 s") as caught:
            source.list()
        assert caught.value.kind == "timeout"
        assert 0.8 <= time.monotonic() - began < 0.8 + PATIENCE


def test_a_certificate_that_is_not_trusted_is_an_unreachable_server(tmp_path: Path) -> None:
    with tls_source(tmp_path, at_once):
        path = tmp_path / "kubeconfig"
        config = json.loads(path.read_text())
        del config["clusters"][0]["cluster"]["certificate-authority"]
        path.write_text(json.dumps(config))
        with pytest.raises(SourceError, match="no TLS with the API server") as caught:
            source_at(path, None).list()
        assert caught.value.kind == "unreachable"


def test_a_reader_that_waits_is_woken_when_the_time_is_over() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Cutoff(0.05) as cutoff:
        cutoff.uses(ours)
        assert ours.recv(1) == b""
        assert cutoff.reached


def test_a_socket_that_comes_when_the_time_is_over_is_shut_down_all_the_same() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Cutoff(0.0) as cutoff:
        wait_for(lambda: cutoff.reached, "the time is over")
        cutoff.uses(ours)
        assert ours.recv(1) == b""


def test_a_call_that_is_over_in_time_leaves_its_socket_alone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with Cutoff(0.1) as cutoff:
            cutoff.uses(ours)
        assert not cutoff.reached
        ours.settimeout(0.3)
        with pytest.raises(TimeoutError):
            ours.recv(1)
