"""The wall clock jumps by a day, forth and back, under a gateway that runs: nothing notices."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.expect import counted_once
from tests.e2e.place import Place, environment_of, process_of
from tests.harness import PATIENCE, GatewayProcess, gateway_process, wait_for
from tests.wire import Wire, behaving, chat_body, post

HERE = "+0"
DAY = 86_400.0
TTL = 4  # seconds


@dataclass(frozen=True)
class WallClock:
    """The wall clock of processes that are started with `environment`."""

    library: Path
    offset_file: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.offset_file),
            "FAKETIME_NO_CACHE": "1",  # a jump is there at once
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # files keep the times that they were given
        }

    def jump(self, offset: str) -> None:
        """Let it be off by `offset` from now on."""
        new = self.offset_file.with_suffix(".new")
        new.write_text(f"{offset}\n")
        new.rename(self.offset_file)

    def works(self) -> bool:
        """Whether a process on this machine can be told another time."""
        self.jump("+1d")
        asked = subprocess.run(
            [sys.executable, "-c", "import time; print(time.time())"],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        self.jump(HERE)
        return abs(float(asked.stdout) - time.time() - DAY) < DAY / 2


def libraries() -> Iterator[Path]:
    """Where libfaketime may be: the package's, or Debian's."""
    package = importlib.util.find_spec("libfaketime")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    yield from Path("/usr/lib").glob("*/faketime/libfaketime.so.1")


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> WallClock:
    offset_file = tmp_path_factory.mktemp("clock") / "offset"
    for library in libraries():
        found = WallClock(library, offset_file)
        if library.exists() and found.works():
            return found
    pytest.skip("the wall clock can't be moved: there is no libfaketime for this machine")


@pytest.fixture(scope="module")
def running(clock: WallClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway that has seen no list yet when its clock jumps for the first time."""
    directory = tmp_path_factory.mktemp("town")
    with Cluster() as cluster:
        cluster.model("llama", pods=2, engine=Engine(tokens=1))
        cluster.api.fault("500", on="list")
        settings = {"poll_seconds": "0.2", "cache_ttl": str(TTL), "idle_timeout": "1"}
        environment = environment_of(cluster, directory, **settings) | clock.environment
        with gateway_process(directory, **environment) as gateway:
            gateway.listening()
            wait_for(lambda: polls(gateway, "server_error"), "a list has failed")
            clock.jump("-1d")
            assert gateway.get("/healthz").status_code == 503
            cluster.api.heal()
            gateway.ready()
            yield Place(cluster, gateway)


@pytest.fixture
def town(running: Place, clock: WallClock) -> Iterator[Place]:
    """Nothing is wrong before a test, nor after it."""
    clock.jump(HERE)
    running.gateway.ready()
    (worker,) = running.gateway.workers()
    yield running
    clock.jump(HERE)
    running.cluster.api.heal()
    assert running.gateway.workers() == [worker], "it was not taken for dead"


def polls(gateway: GatewayProcess, result: str) -> float:
    return gateway.metric("gateway_polls_total", result=result)


def failed_polls(gateway: GatewayProcess) -> dict[str, float]:
    results = gateway.counted("gateway_polls_total", "result")
    return {result: count for result, count in results.items() if result != "ok"}


def ask_until(gateway: GatewayProcess, condition: Callable[[], object], what: str) -> list[int]:
    """Ask without a pause until `condition` holds; the statuses."""
    statuses = []

    def asked_enough() -> object:
        statuses.append(gateway.chat().status_code)
        return condition()

    wait_for(asked_enough, what)
    return statuses


def days_off(gateway: GatewayProcess) -> int:
    """How far the wall clock of the gateway is from ours, by the `Date` of an answer."""
    answer = gateway.get("/v1/models")
    said = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    return round((said - time.time()) / DAY)


@pytest.mark.fault(9)
@pytest.mark.parametrize(("jump", "days"), [("+1d", 1), ("-1d", -1)])
def test_requests_lists_and_watches_go_on(
    town: Place, clock: WallClock, jump: str, days: int
) -> None:
    gateway, model = town.gateway, town.cluster.models["llama"]
    probe = post(b"", target="/livez", method="GET", close=False)
    with Wire(gateway.port) as kept:
        kept.send(probe).read_until(b"alive")
        good, failures = polls(gateway, "ok"), failed_polls(gateway)
        clock.jump(jump)
        assert days_off(gateway) == days
        statuses = ask_until(gateway, lambda: polls(gateway, "ok") >= good + 4, "lists go on")
        new = model.add_pod()
        wait_for(lambda: gateway.endpoints().get(new.name) == "ready", "changes are seen")
        kept.send(probe).read_until(b"alive")
    assert set(statuses) == {200}
    assert failed_polls(gateway) == failures
    assert gateway.get("/healthz").status_code == 200
    assert 0 <= gateway.status()["snapshot_age_seconds"] < TTL


@pytest.mark.fault(9)
def test_a_stream_runs_through_all_jumps(town: Place, clock: WallClock) -> None:
    town.deploy("slow", engine=Engine(tokens=20, token_seconds=0.05))
    with Wire(town.gateway.port) as wire:
        seen = wire.send(post(chat_body("slow", stream=True))).read_until(b"data: ")
        for jump in ("+1d", "-1d", HERE):
            clock.jump(jump)
            seen += wire.read_until(b"data: ")
        answer = wire.read_to_the_end(seen)
    assert answer.complete
    assert answer.content.rstrip().endswith(b"data: [DONE]")


@pytest.mark.fault(9, 14)
def test_a_silent_stream_is_cut_although_the_clock_went_back(town: Place, clock: WallClock) -> None:
    with Wire(town.gateway.port) as wire, counted_once(town.gateway, "upstream_idle"):
        wire.send(behaving("stall-after-tokens=1", stream=True))
        seen = wire.read_until(b"data: ")
        clock.jump("-1d")
        answer = wire.read_to_the_end(seen)
    assert b"upstream_idle" in answer.content
    assert not answer.complete


@pytest.mark.fault(1, 9)
def test_the_last_good_list_serves_for_as_long_as_it_would_have(
    town: Place, clock: WallClock
) -> None:
    gateway = town.gateway
    town.cluster.api.fault("refuse")
    away = time.monotonic()
    clock.jump("+1d")
    statuses = ask_until(gateway, lambda: time.monotonic() - away > TTL / 4, "some of its time")
    assert set(statuses) == {200}, "it is no day older"
    clock.jump("-1d")
    wait_for(lambda: gateway.chat().status_code == 503, "it becomes too old all the same")
    assert gateway.chat().headers["x-gateway-error"] == "endpoints_stale"


@pytest.mark.fault(9)
def test_an_endpoint_that_is_set_aside_comes_back_although_the_clock_went_back(
    town: Place, clock: WallClock
) -> None:
    process = process_of(town.deploy("aside", pods=2, engine=Engine(tokens=1)).pods[0])
    process.kill()

    def set_aside() -> bool:
        assert town.gateway.chat("aside").status_code == 200
        return town.gateway.endpoints("aside")[process.name] == "set_aside"

    wait_for(set_aside, "it is set aside")
    clock.jump("-1d")
    process.start()
    process.become_ready()

    def back() -> object:
        assert town.gateway.chat("aside").status_code == 200
        return process.requests

    wait_for(back, "it gets requests again")


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.fault(9, 22)
def test_a_stream_runs_to_its_end_in_a_gateway_that_stops(clock: WallClock, tmp_path: Path) -> None:
    clock.jump(HERE)
    with Cluster() as cluster:
        cluster.model("llama", engine=Engine(tokens=40, token_seconds=0.05))
        environment = environment_of(cluster, tmp_path) | clock.environment
        with (
            gateway_process(tmp_path, **environment) as gateway,
            Wire(gateway.ready().port) as wire,
        ):
            seen = wire.send(post(chat_body(stream=True))).read_until(b"data: ")
            gateway.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refuses(gateway.port), "its worker is told to stop")
            clock.jump("+1d")
            answer = wire.read_to_the_end(seen)
            assert gateway.process.wait(PATIENCE) == 0
    assert answer.complete
    assert answer.content.rstrip().endswith(b"data: [DONE]")
