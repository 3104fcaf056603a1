"""Closing towards a client without a reset, which would destroy what it has not read yet."""

import selectors
import socket
import time
from collections.abc import Callable

from proxy.epoll import Epoll

#: Seconds a client has to close its side too.
LINGER_SECONDS = 5.0
#: Bytes thrown away at a time, so that one client that goes on sending holds up nobody.
_RECEIVE_BYTES = 262_144


class Lingering:
    """Connections that have got their last byte and wait for their client to close.

    What a client still sends is read and thrown away: unread bytes would turn the close into a
    reset (RFC 9112 §9.6). Belongs to the loop of `poller`; `closed` is told each end. `clock` is
    monotonic.
    """

    def __init__(
        self,
        poller: Epoll,
        closed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._poller = poller
        self._closed = closed
        self._clock = clock
        self._deadlines: dict[socket.socket, float] = {}  # in their order

    def add(self, client: socket.socket) -> None:
        """Send the FIN and begin to wait; closes at once where there is nobody left."""
        try:
            client.setblocking(False)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            client.close()
            self._closed()
            return
        self._deadlines[client] = self._clock() + LINGER_SECONDS
        self._poller.register(client, selectors.EVENT_READ, self._discard)

    def expire(self) -> None:
        """Close the connections whose time is over."""
        now = self._clock()
        while self._deadlines:
            client, deadline = next(iter(self._deadlines.items()))
            if deadline > now:
                return
            self._end(client)

    def cut(self, after: float, most: int) -> int:
        """Close at most so many that have had `after` seconds; returns how many. The oldest go."""
        latest = self._clock() + LINGER_SECONDS - after
        due = [client for client, deadline in self._deadlines.items() if deadline < latest]
        for client in due[:most]:
            self._end(client)
        return len(due[:most])

    def _discard(self, client: socket.socket) -> None:
        try:
            if client.recv(_RECEIVE_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # a reset is an end too
        self._end(client)

    def _end(self, client: socket.socket) -> None:
        del self._deadlines[client]
        self._poller.unregister(client)
        client.close()
        self._closed()
