"""A small file that may change at any time: rewritten, renamed over, or swapped behind a link."""

import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from proxy.failures import NO_DESCRIPTOR

T = TypeVar("T")

#: What tells one state of a file from the next.
_Version = tuple[int, ...]

#: Bytes that a file may have.
MOST_BYTES: Final = 1_048_576
#: Nanoseconds after a change within which the next one may leave the same time behind it, because
#: file systems' clocks tick slowly.
_SETTLES_NS: Final = 1_000_000_000


class Unusable(Exception):
    """A file can't be used. The message says why, and nothing of what is in the file."""


class WatchedFile(Generic[T]):
    """What the file at `path` means: `make` says it, anew when what is in the file has changed.

    `make` gets the content, or why there is none, and what was made before, which is `first` in the
    beginning. It is called for each change once, whichever thread finds it, and by one at a time.
    Until the file can be read again, and for a second after a change, it is read at each question.
    That no file descriptor is left says nothing of the file: `current` raises `OSError` then.
    """

    def __init__(self, path: str, first: T, make: Callable[[bytes | Unusable, T], T]) -> None:
        self._path = path
        self._make = make
        self._lock = threading.Lock()  # guards: _trace
        self._trace: bytes | str | None = None  # of what was found last; the content is not kept
        # The version, None if it need not stay the same, and what was made of it; replaced as one.
        self._known: tuple[_Version | None, T] = (None, first)

    def current(self) -> T:
        """What the file means now. May be called from any thread. Raises `OSError`."""
        version, made = self._known
        return made if version is not None and version == _version(self._path) else self._look()

    @property
    def last(self) -> T:
        """What it meant when it was looked at last."""
        return self._known[1]

    def _look(self) -> T:
        with self._lock:
            version, found = _read(self._path)
            _, made = self._known
            trace: bytes | str
            if isinstance(found, Unusable):
                trace = str(found)
            else:
                trace = hashlib.sha256(found).digest()
            if trace != self._trace:
                made = self._make(found, made)
                self._trace = trace
            self._known = (version, made)
            return made


def _version(path: str) -> _Version | None:
    try:
        return _version_of(os.stat(path))
    except OSError:
        return None


def _version_of(found: os.stat_result) -> _Version:
    # The ctime too: a file may keep its mtime, and may become readable without a new one.
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (found.st_dev, found.st_ino, found.st_size, *times)


def _read(path: str) -> tuple[_Version | None, bytes | Unusable]:
    """What is there, and its version if another change will show in that."""
    try:
        with open(path, "rb", opener=_open) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return None, Unusable("is no regular file")
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        if error.errno in NO_DESCRIPTOR:
            raise
        return None, Unusable(f"can't be read ({error.strerror})")
    if len(content) > MOST_BYTES:
        return None, Unusable(f"has more than {MOST_BYTES} bytes")
    settled = abs(time.time_ns() - found.st_ctime_ns) > _SETTLES_NS
    return _version_of(found) if settled else None, content


def _open(path: str, flags: int) -> int:
    """Open it without waiting, which a pipe would make its readers do."""
    return os.open(path, flags | os.O_NONBLOCK)
