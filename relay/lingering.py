"""Closing towards a client without a reset, which would destroy what it has not read yet."""

import select
import socket
from typing import Final

#: Seconds a client has to close its side too.
LINGER_SECONDS: Final = 5.0
_RECEIVE_BYTES = 65_536


class Lingering:
    """Connections that have got their last byte and wait for their client to close.

    What a client still sends is read and thrown away: unread bytes would turn the close into a
    reset (RFC 9112 §9.6).
    """

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._waiting: dict[int, tuple[float, socket.socket]] = {}  # in the order of deadlines

    @property
    def any(self) -> bool:
        """Whether some client is waited for."""
        return bool(self._waiting)

    def add(self, client: socket.socket, now: float) -> None:
        """Send the FIN and begin to wait."""
        try:
            client.shutdown(socket.SHUT_WR)
        except OSError:
            client.close()  # it has left
            return
        self._waiting[client.fileno()] = (now + LINGER_SECONDS, client)
        self._epoll.register(client, select.EPOLLIN)

    def handles(self, fd: int) -> bool:
        """Read what a client that is waited for has sent; false if `fd` is none's."""
        if fd not in self._waiting:
            return False
        client = self._waiting[fd][1]
        try:
            if client.recv(_RECEIVE_BYTES):
                return True
        except BlockingIOError:
            return True
        except OSError:
            pass  # a reset is an end too
        self._close(fd)
        return True

    def expire(self, now: float) -> None:
        """Close the connections whose time is over."""
        for fd, (deadline, _) in list(self._waiting.items()):
            if deadline > now:
                return
            self._close(fd)

    def _close(self, fd: int) -> None:
        self._epoll.unregister(fd)
        self._waiting.pop(fd)[1].close()
