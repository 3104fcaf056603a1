"""What the workers of one gateway tell each other: each answers on a socket what only it knows.

Asked, not written down: the answer is never older than the question, and a worker that died has
none.
"""

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.endpoints import Key

log = logging.getLogger("gateway.peers")

#: Seconds a worker has to answer; a busy one that does not is left out.
TIMEOUT = 0.25


@dataclass(frozen=True, slots=True)
class Facts:
    """What only one worker knows: its requests in flight, and the endpoints it has set aside."""

    worker: int
    in_flight: Mapping[Key, int]
    set_aside: frozenset[Key]

    @classmethod
    def of(cls, in_flight: Mapping[Key, int], set_aside: Iterable[Key]) -> "Facts":
        """This process's facts."""
        return cls(os.getpid(), in_flight, frozenset(set_aside))

    def to_json(self) -> bytes:
        """As they are sent."""
        in_flight = [[*key, count] for key, count in self.in_flight.items()]
        return json.dumps([self.worker, in_flight, sorted(self.set_aside)]).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Facts":
        """As they are received; raises `ValueError`."""
        try:
            worker, in_flight, set_aside = json.loads(text)
            return cls(
                worker,
                {(address, port): count for address, port, count in in_flight},
                frozenset((address, port) for address, port in set_aside),
            )
        except TypeError as error:
            raise ValueError(str(error)) from error


class Peers:
    """This worker and its peers, which share `directory`; None means there are no others."""

    def __init__(self, directory: Path | None, own: Callable[[], Facts]) -> None:
        self._directory = directory
        self._own = own
        self._socket: socket.socket | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Answer questions, in a daemon thread.

        Where no socket can be had (the directory's path is too long for one), the other workers'
        status lacks this one's facts, and nothing else suffers.
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
            if path.name != _own_name() and (answer := _ask(path)) is not None:
                facts.append(answer)
        return facts

    def _serve(self, listener: socket.socket) -> None:
        with listener:
            while not self._stopped.is_set():
                try:
                    asking, _ = listener.accept()
                except OSError:  # stopped, or for now out of file descriptors
                    self._stopped.wait(TIMEOUT)
                    continue
                with asking, contextlib.suppress(OSError):  # whoever asked may have left
                    asking.settimeout(TIMEOUT)
                    asking.sendall(self._own().to_json())


def _own_name() -> str:
    return f"worker-{os.getpid()}.sock"


def _listen(listener: socket.socket, path: Path) -> None:
    """Listen at `path`; raises `OSError`.

    Under another name first: a socket that is there but does not listen yet looks like that of a
    dead worker, and would be removed.
    """
    starting = path.with_name(f"new-{os.getpid()}")
    starting.unlink(missing_ok=True)  # of a former process with this id
    listener.bind(str(starting))
    listener.listen(16)
    starting.rename(path)


def _ask(path: Path) -> Facts | None:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(TIMEOUT)
        try:
            asking.connect(str(path))
            parts = []
            while part := asking.recv(65_536):
                parts.append(part)
            answer = Facts.from_json(b"".join(parts))
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                path.unlink()  # its worker was killed
            return None
        except (OSError, ValueError) as error:
            log.debug("%s does not answer: %s", path.name, error)
            return None
        return answer
