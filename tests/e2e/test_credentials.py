"""The token's file is rotated, half written, or away for a moment: no client notices."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.place import Place, environment_of
from tests.harness import gateway_process, wait_for

#: What the file may be for a moment; None is missing.
SPOILT: dict[str, bytes | None] = {
    "missing": None,
    "empty": b"",
    "blank": b"\n",
    "no token": b"one-confidence\ntwo-confidence \xff",
}


@dataclass(frozen=True)
class Held:
    """A gateway that has its token from a file."""

    place: Place
    file: Path

    def polls(self, result: str) -> float:
        return self.place.gateway.metric("gateway_polls_total", result=result)

    def ask_until_polls(self, result: str, more: int) -> set[int]:
        """Ask without a pause until so many more polls had this result; the statuses."""
        statuses = set()
        enough = self.polls(result) + more

        def asked_enough() -> bool:
            statuses.add(self.place.gateway.chat().status_code)
            return self.polls(result) >= enough

        wait_for(asked_enough, f"{more} more polls are {result}")
        return statuses

    def put(self, content: bytes | None) -> None:
        if content is None:
            self.file.unlink()
        else:
            self.file.write_bytes(content)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    directory = tmp_path_factory.mktemp("held")
    with Cluster() as cluster:
        cluster.model("llama", engine=Engine(tokens=1))
        environment = environment_of(cluster, directory, poll_seconds="0.1", watch="false")
        file = directory / "token"
        cluster.kubeconfig(environment["KUBECONFIG"], token_file=file)
        with gateway_process(directory, **environment) as gateway:
            yield Held(Place(cluster, gateway.ready()), file)


@pytest.mark.fault(8)
@pytest.mark.parametrize("content", SPOILT.values(), ids=SPOILT)
def test_a_token_file_that_is_spoilt_for_a_moment_costs_no_request(
    held: Held, content: bytes | None, request: pytest.FixtureRequest
) -> None:
    api, gateway = held.place.cluster.api, held.place.gateway
    failed = held.polls("unauthorized")
    held.put(content)
    assert held.ask_until_polls("ok", 2) == {200}
    assert held.polls("unauthorized") == failed, "the token it has is good yet"

    token = f"confidence-of-{request.node.callspec.id.replace(' ', '-')}"
    api.tokens = {token}
    assert held.ask_until_polls("unauthorized", 2) == {200}
    assert gateway.get("/healthz").status_code == 200

    held.file.write_text(f"{token}\n")
    assert held.ask_until_polls("ok", 1) == {200}
    assert {seen.token for seen in api.requests} >= {token}
    assert None not in {seen.token for seen in api.requests}, "never without credentials"
    assert "confidence" not in gateway.logs()


@pytest.mark.fault(3, 8)
def test_a_token_is_rotated_under_load_and_no_request_is_lost(held: Held) -> None:
    api = held.place.cluster.api
    for number in range(3):
        failed = held.polls("unauthorized")
        held.file.write_text(f"confidence-{number}")
        api.tokens = {f"confidence-{number}"}
        assert held.ask_until_polls("ok", 2) == {200}
        assert held.polls("unauthorized") <= failed + 1, "once refused, it was read at once"
    held.place.wait_until_idle()
