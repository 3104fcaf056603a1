"""One worker says for all what is shown; the others ask it, over real sockets."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from peers import Facts, Peers
from tests.harness import PATIENCE

OWN = Facts(os.getpid(), {}, frozenset())


@contextmanager
def speaker(speak: Callable[[], bytes]) -> Iterator[tuple[Peers, Path]]:
    with TemporaryDirectory() as directory:  # short enough for a socket's name
        running = Peers(Path(directory), lambda: OWN, speak)
        running.start()
        yield running, Path(directory)
        running.stop()


def facts_from(directory: Path) -> Facts:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(PATIENCE)
        asking.connect(str(directory / f"worker-{os.getpid()}.sock"))
        asking.sendall(b"facts\n")
        return Facts.from_json(b"".join(iter(lambda: asking.recv(65_536), b"")))


def test_a_worker_is_asked_to_speak_for_all() -> None:
    with speaker(lambda: b"x" * 1_000_000) as (running, _):
        assert running.speech_of(os.getpid()) == b"x" * 1_000_000


def test_a_speech_that_takes_long_holds_up_no_question() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def speak() -> bytes:
        begun.set()
        may_end.wait(2 * PATIENCE)
        return b"at last"

    with speaker(speak) as (running, directory):
        listening = threading.Thread(target=running.speech_of, args=(os.getpid(),))
        listening.start()
        assert begun.wait(PATIENCE)
        assert facts_from(directory) == OWN
        may_end.set()
        listening.join(PATIENCE)


def test_a_speaker_that_stumbles_says_nothing_and_its_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def stumble() -> bytes:
        raise ValueError("a slip of the tongue")

    with speaker(stumble) as (running, _):
        assert running.speech_of(os.getpid()) is None
    assert "a bug in what this worker says" in caplog.text


def test_nobody_speaks_where_nobody_is() -> None:
    with speaker(lambda: b"I do") as (running, _):
        assert running.speech_of(4_194_305) is None  # no pid is so high
    assert Peers(None, lambda: OWN).speech_of(os.getpid()) is None
