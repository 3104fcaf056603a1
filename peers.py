"""What the workers of one gateway tell each other: each answers on a socket what only it knows.

Asked, not written down: the answer is never older than the question, and a worker that died has
none. One of them, the speaker, is also asked for what all of them show (`views/document.py`).
"""

import contextlib
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cache.endpoints import Key
from events import Event
from relay.sockets import short_name
from routing.lasterrors import Culprit, LastError

log = logging.getLogger("gateway.peers")

#: Seconds a worker has to answer; a busy one that does not is left out.
TIMEOUT = 0.25
#: Seconds the speaker has, which asks the others first.
SPEECH_TIMEOUT = 2.0
#: Askers that may wait until a worker has time for them; the kernel may allow fewer.
_WAITING = 512

_FACTS, _SPEECH = b"facts\n", b"speech\n"


@dataclass(frozen=True, slots=True)
class Facts:
    """What only one worker knows.

    Its requests in flight, the endpoints it has set aside, what it saw of that and which errors
    were their last; why it should get no traffic, if so; and the monotonic time of its start.
    """

    worker: int
    in_flight: Mapping[Key, int]
    set_aside: frozenset[Key]
    started: float = 0.0
    trouble: str | None = None
    events: tuple[Event, ...] = ()
    errors: Mapping[Culprit, LastError] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        in_flight: Mapping[Key, int],
        set_aside: Iterable[Key],
        *,
        started: float = 0.0,
        trouble: str | None = None,
        events: Iterable[Event] = (),
        errors: Mapping[Culprit, LastError] | None = None,
    ) -> "Facts":
        """This process's facts."""
        aside = frozenset(set_aside)
        return cls(os.getpid(), in_flight, aside, started, trouble, tuple(events), errors or {})

    def to_json(self) -> bytes:
        """As they are sent."""
        document = {
            "worker": self.worker,
            "in_flight": [[*key, count] for key, count in self.in_flight.items()],
            "set_aside": sorted(self.set_aside),
            "started": self.started,
            "trouble": self.trouble,
            "events": [asdict(event) for event in self.events],
            "errors": [[*who, error.kind, error.at] for who, error in self.errors.items()],
        }
        return json.dumps(document).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Facts":
        """As they are received; raises `ValueError`."""
        try:
            document = json.loads(text)
            return cls(
                document["worker"],
                {(address, port): count for address, port, count in document["in_flight"]},
                frozenset((address, port) for address, port in document["set_aside"]),
                document["started"],
                document["trouble"],
                tuple(Event(**event) for event in document["events"]),
                {
                    (address, port, pod): LastError(kind, at)
                    for address, port, pod, kind, at in document["errors"]
                },
            )
        except (TypeError, LookupError) as error:
            raise ValueError(str(error)) from error


class Peers:
    """This worker and its peers, which share `directory`; None means there are no others.

    `speak` gives what this worker says for all when it is the speaker.
    """

    def __init__(
        self,
        directory: Path | None,
        own: Callable[[], Facts],
        speak: Callable[[], bytes] = lambda: b"",
    ) -> None:
        self._directory = directory
        self._own = own
        self.speak = speak
        self._socket: socket.socket | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Answer questions, in a daemon thread.

        Where no socket can be had, the other workers' status lacks this one's facts, and nothing
        else suffers.
        """
        if self._directory is None:
            return
        listener = socket.socket(socket.AF_UNIX)
        try:
            _listen(listener, self._directory / _own_name())
        except OSError as error:
            listener.close()
            log.warning("other workers can't ask this one (%s): %s", self._directory, error)
            return
        self._socket = listener
        threading.Thread(target=self._serve, args=(listener,), name="peers", daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        self._stopped.set()
        if self._socket is not None and self._directory is not None:
            (self._directory / _own_name()).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes it

    def ask(self) -> list[Facts]:
        """What each worker knows, this one's own first."""
        facts = [self._own()]
        if self._directory is None:
            return facts
        for path in sorted(self._directory.glob("worker-*.sock")):
            if path.name != _own_name() and (answer := _ask_facts(path)) is not None:
                facts.append(answer)
        return facts

    def speech_of(self, worker: int) -> bytes | None:
        """What the worker of that process id says for all; None if it does not say anything."""
        if self._directory is None:
            return None
        return _ask(self._directory / _name(worker), _SPEECH, SPEECH_TIMEOUT) or None

    def _serve(self, listener: socket.socket) -> None:
        with listener:
            while not self._stopped.is_set():
                try:
                    asking, _ = listener.accept()
                except OSError:  # stopped, or for now out of file descriptors
                    self._stopped.wait(TIMEOUT)
                    continue
                self._heed(asking)

    def _heed(self, asking: socket.socket) -> None:
        """Answer a question; one that takes long in a thread of its own."""
        asking.settimeout(TIMEOUT)
        try:
            question = asking.recv(len(_SPEECH))
        except OSError:
            question = b""
        if question == _SPEECH:
            threading.Thread(target=self._say, args=(asking, self.speak), daemon=True).start()
        elif question == _FACTS:
            self._say(asking, lambda: self._own().to_json())
        else:
            asking.close()

    def _say(self, asking: socket.socket, what: Callable[[], bytes]) -> None:
        with asking:
            try:
                answer = what()
            except Exception:
                log.exception("a bug in what this worker says of itself")
                return
            with contextlib.suppress(OSError):  # whoever asked may have left
                asking.sendall(answer)


def _name(worker: int) -> str:
    return f"worker-{worker}.sock"


def _own_name() -> str:
    return _name(os.getpid())


def _listen(listener: socket.socket, path: Path) -> None:
    """Listen at `path`; raises `OSError`.

    Under another name first: a socket that is there but does not listen yet looks like that of a
    dead worker, and would be removed.
    """
    starting = path.with_name(f"new-{os.getpid()}")
    starting.unlink(missing_ok=True)  # of a former process with this id
    with short_name(str(starting)) as name:
        listener.bind(name)
    listener.listen(_WAITING)
    starting.rename(path)


def _ask_facts(path: Path) -> Facts | None:
    answer = _ask(path, _FACTS, TIMEOUT)
    try:
        return None if answer is None else Facts.from_json(answer)
    except ValueError as error:
        log.debug("%s answers nonsense: %s", path.name, error)
        return None


def _ask(path: Path, question: bytes, seconds: float) -> bytes | None:
    """Its answer; None if it has none within so many seconds, or what listens there is dead."""
    with socket.socket(socket.AF_UNIX) as asking:
        _limit(asking, seconds)
        try:
            with short_name(str(path)) as name:
                asking.connect(name)
            asking.sendall(question)
            return b"".join(iter(lambda: asking.recv(65_536), b""))
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                path.unlink()  # its worker was killed
        except OSError as error:
            log.debug("%s does not answer: %s", path.name, error)
    return None


def _limit(asking: socket.socket, seconds: float) -> None:
    """Let connecting, sending and receiving take no longer than that each; else `OSError`.

    By the kernel: it waits for a place in a full queue, where a socket with Python's timeout, which
    does not block, is told at once that there is none.
    """
    whole = int(seconds)
    limit = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        asking.setsockopt(socket.SOL_SOCKET, option, limit)
