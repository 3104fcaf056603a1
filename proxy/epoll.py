"""What the loop waits for: descriptors, and what is called when one of them is ready."""

import contextlib
import select
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any, Final, Protocol

#: Beside the events of `selectors`: the other side has ended its sending, or the connection.
EVENT_HANG_UP: Final = 4


class HasFileno(Protocol):
    """A socket, for one."""

    def fileno(self) -> int:
        """Its descriptor."""


File = int | HasFileno
Callback = Callable[[Any], object]

_MASKS = {
    EVENT_READ: select.EPOLLIN,
    EVENT_WRITE: select.EPOLLOUT,
    EVENT_READ | EVENT_WRITE: select.EPOLLIN | select.EPOLLOUT,
    EVENT_HANG_UP: select.EPOLLRDHUP,
}


class Epoll:
    """Registers as `selectors.EpollSelector` does, and calls back by itself.

    The former makes an object for each registration and for each event, and costs four times as
    much; the loop needs three of them for every request.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[File, Callback]] = {}

    def register(self, file: File, events: int, callback: Callback) -> None:
        """Call `callback` with `file` when it is ready for one of `events`.

        Raises `ValueError` for a closed file, `OSError` for one that is watched already.
        """
        number = _number(file)
        self._epoll.register(number, _MASKS[events])
        self._watched[number] = file, callback

    def modify(self, file: File, events: int, callback: Callback) -> None:
        """The same for a file that is watched already; raises `KeyError` for another."""
        number = _number(file)
        if number not in self._watched:
            raise KeyError(number)
        self._epoll.modify(number, _MASKS[events])
        self._watched[number] = file, callback

    def unregister(self, file: File) -> None:
        """Watch `file` no more; raises `KeyError` if it was not."""
        number = _number(file)
        del self._watched[number]
        with contextlib.suppress(OSError):  # a descriptor that was closed is watched no more
            self._epoll.unregister(number)

    @property
    def count(self) -> int:
        """How many files are watched."""
        return len(self._watched)

    def turn(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds, and call back for all that are ready; whether any was.

        One that is not watched any more when it is its turn, because of another's callback, is left
        out, also if its descriptor has a new owner by then.
        """
        watched = self._watched
        ready = [(number, watched[number]) for number, _ in self._epoll.poll(timeout)]
        for number, what in ready:
            if watched.get(number) is what:
                file, callback = what
                callback(file)
        return bool(ready)

    def close(self) -> None:
        """Watch nothing any more."""
        self._epoll.close()


def _number(file: File) -> int:
    number = file if isinstance(file, int) else file.fileno()
    if number < 0:
        raise ValueError("the file is closed")
    return number
