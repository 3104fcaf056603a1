"""Logs that can't be written: nobody waits for them, and they tell what was lost."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.crowd import alive, relay_of, workers
from tests.e2e.place import environment_of
from tests.harness import PATIENCE, ROOT, GatewayProcess, wait_for
from tests.wire import chat_body, exchange, post

CLOSED = -1
#: Good requests whose log lines fill a page; one bad one follows.
ASKED = 16


class Redirected(GatewayProcess):
    """A gateway whose standard output is a descriptor, or closed; its errors are in its log."""

    stdout: int

    def start(self) -> "Redirected":
        command = [str(Path(sys.executable).parent / "gunicorn")]
        if self.stdout == CLOSED:
            command = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *command]
        with self.log_file.open("ab") as errors:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdout=None if self.stdout == CLOSED else self.stdout,
                stderr=errors,
            )
        return self


@contextmanager
def writing_to(stdout: int, directory: Path) -> Iterator[GatewayProcess]:
    """A gateway with a model, ended with an exit status and without a word on standard error."""
    with Cluster() as cluster:
        cluster.model("llama", pods=2, engine=Engine(tokens=3))
        gateway = Redirected(directory, environment_of(cluster, directory))
        gateway.stdout = stdout
        gateway.start()
        try:
            yield gateway.ready()
            assert gateway.stop() == 0
            assert gateway.logs() == ""
        finally:
            gateway.kill()


def check_all_is_well(gateway: GatewayProcess) -> None:
    for number in range(ASKED):
        answer = exchange(gateway.port, post(chat_body(stream=number % 2 == 0)))
        assert (answer.status, answer.complete, answer.reset) == (200, True, False)
    assert exchange(gateway.port, post(b"{")).status == 400
    assert gateway.get("/healthz").status_code == 200


def check_a_killed_worker_is_replaced(gateway: GatewayProcess) -> None:
    relay_of(gateway)
    (worker,) = workers(gateway)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not alive(worker), "it is dead")
    check_all_is_well(gateway)
    assert worker not in workers(gateway)


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def nobody() -> int:
    """A pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def closed() -> int:
    return CLOSED


UNWRITABLE: dict[str, Callable[[], int]] = {
    "a full disk": full_disk,
    "nobody": nobody,
    "closed": closed,
}


@pytest.mark.fault(21)
@pytest.mark.parametrize("where", UNWRITABLE)
def test_without_logs_everything_is_answered_and_a_dead_worker_replaced(
    tmp_path: Path, where: str
) -> None:
    stdout = UNWRITABLE[where]()
    with writing_to(stdout, tmp_path) as gateway:
        if stdout != CLOSED:
            os.close(stdout)
        check_all_is_well(gateway)
        check_a_killed_worker_is_replaced(gateway)


@pytest.fixture
def stalled() -> Iterator[int]:
    """A pipe that nobody reads, and that takes a page."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield writer
    os.close(reader)
    os.close(writer)


@pytest.mark.fault(21)
def test_a_reader_of_the_logs_that_stalls_holds_up_neither_requests_nor_new_workers_nor_the_end(
    tmp_path: Path, stalled: int
) -> None:
    with writing_to(stalled, tmp_path) as gateway:
        check_all_is_well(gateway)
        check_a_killed_worker_is_replaced(gateway)
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < PATIENCE / 2


class Collector:
    """Who reads the logs from a named pipe: it may go, and another come in its place."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self.come()
        self.writer = os.open(path, os.O_WRONLY)

    def come(self) -> None:
        self._reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        self.text = ""

    def leave(self) -> None:
        os.close(self._reader)

    def messages(self) -> list[str]:
        """What the lines say that came since it came; each is whole."""
        try:
            self.text += os.read(self._reader, 1 << 20).decode()
        except BlockingIOError:
            pass
        whole = self.text[: self.text.rfind("\n") + 1]
        return [json.loads(line)["message"] for line in whole.splitlines()]

    def wait_for(self, what: Callable[[str], bool]) -> str:
        return wait_for(lambda: next(filter(what, self.messages()), ""), "the line comes")


@pytest.mark.fault(21)
def test_logs_that_can_be_written_again_are_whole_and_say_how_many_lines_were_lost(
    tmp_path: Path,
) -> None:
    collector = Collector(tmp_path / "logs")
    with writing_to(collector.writer, tmp_path) as gateway:
        os.close(collector.writer)
        check_all_is_well(gateway)
        collector.wait_for(lambda message: message.endswith("400"))
        collector.leave()
        check_all_is_well(gateway)
        collector.come()
        check_all_is_well(gateway)
        told = collector.wait_for(lambda message: "could not be written" in message)
        lost = int(told.split()[0])
        assert 0 < lost <= ASKED + 2, "one of the others may have been written meanwhile"
        collector.wait_for(lambda message: message.endswith("400"))
    collector.leave()
