"""A client that is refused while it still sends reads the answer, not a reset."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.place import Place, place
from tests.harness import wait_for
from tests.wire import CHAT, RawAnswer, Wire, in_chunks, post

LARGE = 40_000_000
KEY = "Authorization: Bearer sesame"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("uploads")
    keys = directory / "keys"
    keys.write_text("sesame\n")
    with place(directory, api_keys_file=str(keys)) as here:
        here.deploy("llama")
        yield here


def send_all_then_read(here: Place, request: bytes) -> RawAnswer:
    """What the simplest of clients do: they look for an answer after the last byte only."""
    with Wire(here.gateway.port) as wire:
        return wire.send(request).read_to_the_end()


@pytest.mark.fault(20)
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_that_is_too_large_gets_its_413(here: Place, framing: str) -> None:
    body = bytes(LARGE)
    if framing == "length":
        request = post(body, KEY, close=False)
    else:
        chunked = in_chunks(*[body[:100_000]] * (LARGE // 100_000))
        request = post(chunked, KEY, "Transfer-Encoding: chunked", close=False)
    answer = send_all_then_read(here, request)
    assert (answer.status, answer.value("x-gateway-error")) == (413, "body_too_large")
    assert answer.value("connection") == "close", "the client can stop sending"
    assert not answer.reset


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (post(bytes(LARGE), close=False), 401),
        (post(bytes(LARGE), KEY, target="/v1/nothing", close=False), 404),
        (post(bytes(LARGE), KEY, method="PUT", close=False), 405),
        (post(bytes(LARGE), "bad header: 1", close=False), 400),
    ],
)
def test_a_refusal_for_another_reason_is_read_too(
    here: Place, request_bytes: bytes, status: int
) -> None:
    answer = send_all_then_read(here, request_bytes)
    assert answer.status == status
    assert answer.complete
    assert not answer.reset


def test_pythons_usual_client_reads_the_413(here: Place) -> None:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            here.gateway.url + CHAT, data=bytes(LARGE), headers={"Authorization": "Bearer sesame"}
        )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("expect", ["Expect:", "Expect: 100-continue"])
def test_curl_reads_the_413(here: Place, tmp_path: Path, expect: str) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(LARGE))
    command = ["curl", "-sS", "--noproxy", "*", "-w", " %{http_code}", "-H", expect, "-H", KEY]
    command += ["--data-binary", f"@{upload}", here.gateway.url + CHAT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "body_too_large" in done.stdout
    assert done.stdout.endswith(" 413")


@pytest.mark.fault(20)
def test_a_client_that_never_stops_sending_is_not_listened_to_for_long(here: Place) -> None:
    with Wire(here.gateway.port) as wire:
        wire.send(post(b"", KEY, "Transfer-Encoding: chunked", close=False))

        def refused_for_good() -> bool:
            try:
                wire.send(in_chunks(bytes(1_000_000), end=False))
            except (TimeoutError, ConnectionResetError, BrokenPipeError):
                return True
            return False

        wait_for(refused_for_good, "the gateway closes the connection")
    assert here.gateway.get("/healthz").status_code == 200


def test_a_small_refused_body_costs_no_connection(here: Place) -> None:
    with Wire(here.gateway.port) as wire:
        first = wire.send(post(b"{}", close=False)).read_until(b"}}")
        assert b" 401 " in first
        assert wire.send(post(None, KEY)).read_to_the_end().status == 200
