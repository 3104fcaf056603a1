"""The discovery thread hangs or dies: probes are told, and clients are served on, up to a point."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simulator.cluster import Cluster
from simulator.fleet import Pod
from simulator.model import Model
from simulator.pod import Engine
from tests.e2e.expect import OVERLOADED, Expected, check_error, counted_once
from tests.e2e.odd_sources import LISTING_SECONDS
from tests.e2e.place import environment_of, seen_by
from tests.harness import GatewayProcess, gateway_process, wait_for
from tests.slices import entry, raw_slice
from tests.wire import chat_body, exchange, post

POLL_SECONDS = "0.2"
Record = Callable[[str, object], None]


@contextmanager
def gateway_with(
    cluster: Cluster, directory: Path, source: str, **settings: str
) -> Iterator[GatewayProcess]:
    """A gateway whose source is one of `tests.e2e.odd_sources`."""
    environment = environment_of(cluster, directory, poll_seconds=POLL_SECONDS, **settings)
    environment["SIGN_OF_DEATH"] = str(directory / "dies")
    application = f"tests.e2e.odd_sources:{source}()"
    with gateway_process(directory, application, **environment) as gateway:
        yield gateway.ready()


def polls(gateway: GatewayProcess, result: str) -> float:
    return gateway.metric("gateway_polls_total", result=result)


def reason(gateway: GatewayProcess) -> str:
    """Why the gateway is not ready, empty where it is."""
    return str(gateway.get("/healthz").json()["reason"] or "")


def check_served(gateway: GatewayProcess, pod: Pod, model: str = "llama") -> None:
    """A client gets its answer, from this pod."""
    before = len(seen_by(pod))
    assert exchange(gateway.port, post(chat_body(model, max_tokens=1))).status == 200
    assert len(seen_by(pod)) == before + 1


def check_stale(gateway: GatewayProcess, model: Model) -> None:
    """The last good list becomes too old: no pod is asked, and clients are told to come back."""
    wait_for(lambda: "answered" not in served(gateway), "the list is too old")
    before = len(seen_by(*model.pods))
    with counted_once(gateway, "endpoints_stale"):
        answer = exchange(gateway.port, post())
    check_error(answer, Expected(503, "endpoints_stale", OVERLOADED, says="s old"), retry_after=1)
    assert len(seen_by(*model.pods)) == before
    assert gateway.get("/livez").status_code == 200


def served(gateway: GatewayProcess) -> str:
    answer = gateway.chat()
    return "answered" if answer.status_code == 200 else answer.headers["x-gateway-error"]


class Slices:
    """A file of slices; while it is held, whoever opens it waits for ever."""

    def __init__(self, path: Path, pod: Pod) -> None:
        self.path = path
        items = [raw_slice(entry(pod.address, pod.name), model="llama")]
        self._text = json.dumps({"kind": "List", "items": items})
        path.write_text(self._text)

    def hold(self) -> None:
        """Replace the file by a pipe that nobody writes to."""
        pipe = self.path.with_name("pipe")
        os.mkfifo(pipe)
        pipe.rename(self.path)

    def release(self) -> None:
        """Let the reader have what it waits for, and those that come later."""
        content = self.path.with_name("content")
        content.write_text(self._text)
        # It does not wait for a reader: there is one, or it fails.
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK), "w") as pipe:
            content.rename(self.path)
            pipe.write(self._text)


@pytest.mark.fault(10)
def test_a_thread_that_is_stuck_is_told_while_clients_are_served_until_the_list_is_too_old(
    tmp_path: Path, record_property: Record
) -> None:
    with Cluster() as cluster:
        model = cluster.model("llama", engine=Engine(tokens=1))
        slices = Slices(tmp_path / "slices.json", model.pods[0])
        environment = environment_of(
            cluster,
            tmp_path,
            source=f"file:{slices.path}",
            poll_seconds=POLL_SECONDS,
            cache_ttl="6",
        )
        with gateway_process(tmp_path, **environment) as gateway:
            gateway.ready()
            slices.hold()
            try:
                wait_for(lambda: "stuck for" in reason(gateway), "it is told")
                assert gateway.get("/healthz").status_code == 503
                age = gateway.status()["snapshot_age_seconds"]
                check_served(gateway, model.pods[0])
                check_stale(gateway, model)
            finally:
                slices.release()
            gateway.ready()
            check_served(gateway, model.pods[0])
    record_property("row 10: a stuck discovery thread is told after", f"{age:.1f} s")


@pytest.mark.fault(10)
def test_a_thread_that_died_is_told_while_clients_are_served_until_the_list_is_too_old(
    tmp_path: Path,
) -> None:
    with Cluster() as cluster:
        model = cluster.model("llama", engine=Engine(tokens=1))
        with gateway_with(cluster, tmp_path, "mortal", cache_ttl="3") as gateway:
            (tmp_path / "dies").touch()
            wait_for(lambda: reason(gateway), "it is told")
            assert gateway.get("/healthz").status_code == 503
            assert reason(gateway) == "the discovery thread died: ZeroDivisionError: a bug"
            check_served(gateway, model.pods[0])
            assert polls(gateway, "internal_error") == 1
            check_stale(gateway, model)
            critical = [line for line in gateway.log_lines() if line["level"] == "critical"]
    assert ["needs a restart" in line["message"] for line in critical] == [True]


@pytest.mark.fault(2, 10)
def test_a_list_that_drips_in_for_ever_is_given_up_when_its_time_is_over(tmp_path: Path) -> None:
    with Cluster() as cluster:
        model = cluster.model("llama", engine=Engine(tokens=1))
        with gateway_with(cluster, tmp_path, "impatient") as gateway:
            before = polls(gateway, "timeout")
            cluster.api.fault("drip", on="list")
            wait_for(lambda: polls(gateway, "timeout") > before, "the list is given up")
            check_served(gateway, model.pods[0])
            assert not reason(gateway)
            assert f"took over {LISTING_SECONDS:g} s" in gateway.logs()
            cluster.api.heal()
            new = model.add_pod()
            wait_for(lambda: new.name in gateway.endpoints(), "changes are seen again")
