"""Under TLS, where gunicorn reads the connection, the same requests are refused as without."""

import socket
import ssl
from collections.abc import Iterator

import pytest

from simulator.cluster import Cluster
from tests.e2e.expect import INVALID, Expected, check_error
from tests.e2e.hostile import FIRST, HOST, framed, reaching_the_pod, request
from tests.e2e.place import Place, environment_of
from tests.e2e.test_tls import CERTIFICATE, knows
from tests.harness import PATIENCE, gateway_process, wait_for
from tests.wire import CHAT, RawAnswer, chat_body, in_chunks, post


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("hostile-tls")
    tls = ("--certfile", str(CERTIFICATE), "--keyfile", str(CERTIFICATE))
    with (
        Cluster() as cluster,
        gateway_process(directory, *tls, **environment_of(cluster, directory)) as gateway,
    ):
        cluster.model("llama")
        gateway.listening()
        wait_for(lambda: knows(gateway, "llama"), "the pod is known")
        yield Place(cluster, gateway)


def exchange(here: Place, data: bytes) -> RawAnswer:
    """Send a request on a connection of its own and read until the gateway closes it."""
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    with (
        socket.create_connection(("127.0.0.1", here.gateway.port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as wire,
    ):
        wire.sendall(data)
        return RawAnswer(b"".join(iter(lambda: wire.recv(65_536), b"")))


CHUNKS = in_chunks(chat_body())
REFUSED = {
    "no host": (framed(FIRST), 400),
    "two hosts": (framed(FIRST, HOST, "Host: other.test"), 400),
    "an invalid host": (framed(FIRST, "Host: a b"), 400),
    "an invalid target": (framed(f"POST http://a@b{CHAT} HTTP/1.1", HOST), 400),
    "a tunnel": (framed("CONNECT gateway.test:443 HTTP/1.1", HOST), 405),
    "an echo": (framed("TRACE / HTTP/1.1", HOST), 405),
    "a later version": (framed(f"POST {CHAT} HTTP/2.0", HOST), 505),
    "another coding": (request(FIRST, HOST, "Transfer-Encoding: gzip, chunked", body=CHUNKS), 501),
    "both framings": (framed(FIRST, HOST, "Transfer-Encoding: chunked"), 400),
}


@pytest.mark.fault(25)
@pytest.mark.parametrize("case", REFUSED)
def test_what_breaks_the_rules_is_refused_under_tls(here: Place, case: str) -> None:
    raw, status = REFUSED[case]
    with reaching_the_pod(here, 0):
        answer = exchange(here, raw)
    code = "method_not_allowed" if status == 405 else "bad_request"
    check_error(answer, Expected(status, code, INVALID))
    with reaching_the_pod(here, 1):
        assert exchange(here, post()).status == 200
