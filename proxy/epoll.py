"""What the loop waits for: descriptors, and what is called when one of them is ready."""

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
_Watched = tuple[File, Callback, select.epoll]

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

    Those that are `urgent` are looked at again before each of the others. Endpoints' answers are: a
    stream's first token shall not wait for all requests that came before it. So are listeners, as
    new connections shall not wait for all that busy ones ask.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._urgent = select.epoll()
        self._watched: dict[int, _Watched] = {}
        self.register(self._urgent, EVENT_READ, _nothing)

    def register(
        self, file: File, events: int, callback: Callback, *, urgent: bool = False
    ) -> None:
        """Call `callback` with `file` when it is ready for one of `events`.

        Raises `ValueError` for a closed file, `OSError` for one that is watched already.
        """
        number = _number(file)
        epoll = self._urgent if urgent else self._epoll
        former = self._watched.get(number)
        if former is not None and former[2] is not epoll:
            self.unregister(number)  # a file that was closed, whose number is this one's now
        epoll.register(number, _MASKS[events])
        self._watched[number] = file, callback, epoll

    def modify(self, file: File, events: int, callback: Callback) -> None:
        """The same for a file that is watched already; raises `KeyError` for another."""
        number = _number(file)
        if number not in self._watched:
            raise KeyError(number)
        epoll = self._watched[number][2]
        epoll.modify(number, _MASKS[events])
        self._watched[number] = file, callback, epoll

    def unregister(self, file: File) -> None:
        """Watch `file` no more; raises `KeyError` if it was not."""
        number = _number(file)
        epoll = self._watched.pop(number)[2]
        try:
            epoll.unregister(number)
        except OSError:
            pass  # a descriptor that was closed is watched no more

    @property
    def count(self) -> int:
        """How many files are watched."""
        return len(self._watched) - 1

    def turn(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds, and call back for all that are ready; whether any was.

        One that is not watched any more when it is its turn, because of another's callback, is left
        out, also if its descriptor has a new owner by then.
        """
        ready = self._ready(self._epoll, timeout)
        for one in ready:
            for urgent in self._ready(self._urgent, 0):
                self._call(*urgent)
            self._call(*one)
        return bool(ready)

    def _ready(self, epoll: select.epoll, timeout: float) -> list[tuple[int, _Watched]]:
        watched = self._watched
        return [(number, watched[number]) for number, _ in epoll.poll(timeout)]

    def _call(self, number: int, what: _Watched) -> None:
        if self._watched.get(number) is what:
            file, callback, _ = what
            callback(file)

    def close(self) -> None:
        """Watch nothing any more."""
        self._epoll.close()
        self._urgent.close()


def _nothing(_: object) -> None:
    """Those that are urgent are looked at anyway."""


def _number(file: File) -> int:
    number = file if isinstance(file, int) else file.fileno()
    if number < 0:
        raise ValueError("the file is closed")
    return number
