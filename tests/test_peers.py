"""What workers tell each other, over real sockets."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from events import Event
from peers import SPEECH_TIMEOUT, Facts, Peers
from routing.lasterrors import LastError, culprit
from tests.fakes import endpoint
from tests.harness import PATIENCE, wait_for

ONE, TWO = endpoint(1).key, endpoint(2).key
ERROR = LastError("timeout", 3.5)
OWN = Facts(os.getpid(), {ONE: 1}, frozenset())
OTHER = Facts(
    4_194_305,  # no pid is so high
    {ONE: 2, ("fd00::1", 80): 3},
    frozenset([TWO]),
    started=12.5,
    trouble="draining",
    events=(Event(1.5, "m", "pod-1", "10.0.0.1:8000", "ready", "set_aside"),),
    errors={culprit(endpoint(2)): LastError("refused", 2.5), ("fd00::1", 80, None): ERROR},
)
MINE = f"worker-{os.getpid()}.sock"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for a socket's name, which pytest's own are not always."""
    with TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def peers(directory: Path) -> Iterator[Peers]:
    running = Peers(directory, lambda: OWN)
    running.start()
    yield running
    running.stop()


def other_worker(directory: Path, *, says: bytes) -> Callable[[], None]:
    """Another worker that answers one question with `says`; call what is returned to end it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "worker-4194305.sock"))
    listener.listen()
    listener.settimeout(PATIENCE)

    def serve() -> None:
        with listener, listener.accept()[0] as asking:
            asking.recv(16)
            asking.sendall(says)

    thread = threading.Thread(target=serve)
    thread.start()
    return lambda: thread.join(PATIENCE)


def test_facts_survive_the_way() -> None:
    assert Facts.from_json(OTHER.to_json()) == OTHER
    assert Facts.from_json(Facts.of({}, []).to_json()) == Facts(os.getpid(), {}, frozenset())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"1",
        b"null",
        b"[]",
        b"\xff",
        b"{}",
        OWN.to_json().replace(b"1]", b"1,2]"),
        OWN.to_json().replace(b'"errors": []', b'"errors": [[1]]'),
        OWN.to_json().replace(b'"events": []', b'"events": [{"at": 1}]'),
    ],
)
def test_what_are_no_facts_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        Facts.from_json(text)


def test_a_worker_without_peers_knows_its_own_facts() -> None:
    alone = Peers(None, lambda: OWN)
    alone.start()
    assert alone.ask() == [OWN]
    alone.stop()


def test_a_worker_does_not_ask_itself(peers: Peers, directory: Path) -> None:
    assert (directory / MINE).exists()
    assert peers.ask() == [OWN]


def test_a_worker_asks_the_others(peers: Peers, directory: Path) -> None:
    end = other_worker(directory, says=OTHER.to_json())
    assert peers.ask() == [OWN, OTHER]
    end()


def ask_as_another(directory: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(PATIENCE)
        asking.connect(str(directory / MINE))
        asking.sendall(b"facts\n")
        return b"".join(iter(lambda: asking.recv(65_536), b""))


@pytest.mark.usefixtures("peers")
def test_a_worker_answers_with_what_it_knows_now(directory: Path) -> None:
    for _ in range(50):
        assert Facts.from_json(ask_as_another(directory)) == OWN


@pytest.mark.usefixtures("peers")
def test_what_is_no_question_gets_no_answer(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(PATIENCE)
        asking.connect(str(directory / MINE))
        asking.sendall(b"nonsense\n")
        with suppress(ConnectionResetError):  # closed before all of it was read
            assert asking.recv(1) == b""
    assert Facts.from_json(ask_as_another(directory)) == OWN


@pytest.mark.usefixtures("peers")
def test_one_that_asks_and_leaves_disturbs_no_other(directory: Path) -> None:
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(directory / MINE))
    assert Facts.from_json(ask_as_another(directory)) == OWN


@pytest.mark.parametrize("nonsense", [b"", b"[1", b"[1,2]", b'{"a":1}'])
def test_a_peer_that_answers_nonsense_is_left_out(
    peers: Peers, directory: Path, nonsense: bytes
) -> None:
    end = other_worker(directory, says=nonsense)
    assert peers.ask() == [OWN]
    end()


def test_a_peer_that_does_not_answer_is_left_out_and_stays(peers: Peers, directory: Path) -> None:
    path = directory / "worker-4194305.sock"
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(path))
        silent.listen()
        assert peers.ask() == [OWN]
        assert path.exists()


def test_a_peer_whom_many_ask_at_once_answers_them_all(peers: Peers, directory: Path) -> None:
    answers: list[bytes | None] = []
    with closing(socket.socket(socket.AF_UNIX)) as busy:
        busy.bind(str(directory / "worker-4194305.sock"))
        busy.listen(4)  # so that most of them find the queue full
        busy.settimeout(SPEECH_TIMEOUT)
        asking = [
            threading.Thread(target=lambda: answers.append(peers.speech_of(4_194_305)))
            for _ in range(40)
        ]
        for one in asking:
            one.start()
        for _ in asking:
            with suppress(TimeoutError), busy.accept()[0] as asker:
                asker.recv(16)
                asker.sendall(b"I do")
        for one in asking:
            one.join(PATIENCE)
    assert answers == [b"I do"] * 40


@pytest.mark.usefixtures("peers")
def test_a_worker_has_a_queue_for_many_that_ask_it(directory: Path) -> None:
    with ExitStack() as waiting:
        for _ in range(100):  # more than it can have begun with
            asking = waiting.enter_context(socket.socket(socket.AF_UNIX))
            asking.setblocking(False)
            asking.connect(str(directory / MINE))


def test_the_socket_of_a_worker_that_was_killed_is_removed(peers: Peers, directory: Path) -> None:
    path = directory / "worker-4194305.sock"
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    assert peers.ask() == [OWN]
    assert not path.exists()


def test_what_is_no_socket_is_left_out(peers: Peers, directory: Path) -> None:
    (directory / "worker-9.sock").mkdir()
    (directory / "gauge_all_9.db").write_bytes(b"")
    assert peers.ask() == [OWN]


def test_a_worker_that_starts_is_never_seen_before_it_listens(directory: Path) -> None:
    """Else a peer that asks just then takes it for a dead one and removes its socket."""
    asker = Peers(directory, lambda: OTHER)
    ended = threading.Event()

    def ask_on() -> None:
        while not ended.is_set():
            for path in directory.glob("worker-*.sock"):
                with socket.socket(socket.AF_UNIX) as asking:
                    try:
                        asking.connect(str(path))
                        asking.sendall(b"facts\n")
                        asking.recv(1)
                    except ConnectionRefusedError:
                        refused.append(path.name)
                    except (FileNotFoundError, ConnectionResetError, BrokenPipeError):
                        continue  # stopped meanwhile

    refused: list[str] = []
    thread = threading.Thread(target=ask_on)
    thread.start()
    for _ in range(200):
        starting = Peers(directory, lambda: OWN)
        starting.start()
        assert (directory / MINE).exists()
        (directory / MINE).rename(directory / "gone")  # so that its end is not taken for its start
        starting.stop()
    ended.set()
    thread.join(PATIENCE)
    assert asker.ask() == [OTHER]
    assert refused == []


def test_stopping_leaves_nothing_behind(directory: Path) -> None:
    before = set(threading.enumerate())
    worker = Peers(directory, lambda: OWN)
    worker.start()
    worker.stop()
    assert list(directory.iterdir()) == []
    wait_for(lambda: set(threading.enumerate()) <= before, "its thread has ended")
    worker.stop()  # a second time does no harm


def test_a_worker_starts_over_what_a_former_process_of_its_id_left(directory: Path) -> None:
    (directory / MINE).write_bytes(b"")
    (directory / f"new-{os.getpid()}").write_bytes(b"")
    worker = Peers(directory, lambda: OWN)
    worker.start()
    assert Facts.from_json(ask_as_another(directory)) == OWN
    worker.stop()


def test_a_directory_whose_name_is_longer_than_a_socket_s_may_be_costs_nothing(
    directory: Path,
) -> None:
    long = directory / ("d" * 120)
    long.mkdir()
    worker = Peers(long, lambda: OWN)
    worker.start()
    (long / MINE).rename(long / "worker-1.sock")  # as if it were another's
    assert worker.ask() == [OWN, OWN]
    worker.stop()


def test_a_directory_that_is_gone_costs_the_facts_and_nothing_else(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Peers(directory / "gone", lambda: OWN)
    worker.start()
    assert worker.ask() == [OWN]
    assert "other workers can't ask this one" in caplog.text
    worker.stop()
