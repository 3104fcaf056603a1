"""Room for connections: how many there may be, and which go when others come."""

import heapq
from collections.abc import Set
from typing import Final

from proxy.clients import Client
from proxy.lingering import Lingering

#: Seconds that each connection may take to its request, or to its end, although others wait; and
#: when there is no room at all for these.
SPARED_SECONDS: Final = 1.0
HASTE_SECONDS: Final = 0.01
#: Seconds between two looks at all connections that found none to close.
PAUSE_SECONDS: Final = 0.05
#: The part of all connections that is kept for saying that there is no room, and for probes; it is
#: also what is closed at once. At least so many.
_RESERVE: Final = 1 / 16
_LEAST_RESERVE: Final = 4


class Room:
    """There may be `most` connections, of which `usual` may carry what lasts.

    Those beyond get their answer, which is that there is no room unless they ask for something
    short, and are closed. `clients` and `lingering` are all there are; both belong to the loop.
    """

    def __init__(self, most: int, clients: Set[Client], lingering: Lingering) -> None:
        self.most = most
        self._reserve = max(_LEAST_RESERVE, int(most * _RESERVE))
        self.usual = max(1, most - self._reserve)
        self._clients = clients
        self._lingering = lingering

    def make(self, spared: float) -> bool:
        """Close connections that have kept us waiting for `spared` seconds; false if none was.

        They idle, or their request comes too slowly. A server may at any time (RFC 9112 §9.5). Else
        whoever holds connections without a request could keep everybody out. The longest go first.
        """
        waiting = [client for client in self._clients if client.waited > spared]
        longest = heapq.nlargest(self._reserve, waiting, key=lambda client: client.waited)
        late = [client for client in longest if client.is_silent]
        for client in late:
            client.expired()
        return bool(self._lingering.cut(spared, self._reserve) or late)
