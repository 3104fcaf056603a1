"""Connections to endpoints, kept for reuse."""

import threading
from collections import deque
from collections.abc import Callable, Collection

from cache.endpoints import Endpoint, Key
from proxy.connection import Connection
from proxy.failures import ConnectFailed
from proxy.spares import Spares
from proxy.steps import Steps


class ConnectionPool:
    """All connections to endpoints: those in use, and idle ones, the most recently used first.

    At most `per_endpoint` idle ones are kept for each endpoint and `most_idle` in all, none longer
    than `max_idle` seconds. `clock` is monotonic.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        per_endpoint: int,
        most_idle: int = 8192,
        max_idle: float = 30.0,
        spare_timeout: float = 1.0,
    ) -> None:
        self._clock = clock
        self._per_endpoint = per_endpoint
        self._most_idle = most_idle
        self._max_idle = max_idle
        self._lock = threading.Lock()  # guards: _idle, _idle_count, _in_use, _ended
        self._idle: dict[Key, deque[Connection]] = {}
        self._idle_count = 0
        self._in_use: set[Connection] = set()
        self._ended = False
        self.spares = Spares(self.give_back, spare_timeout)

    def take(self, endpoint: Endpoint, connect_timeout: float, *, fresh: bool) -> Steps[Connection]:
        """An idle connection that is still good, unless it is to be `fresh`; else a new one.

        Raises `ConnectFailed`, after `shut_down_all` always.
        """
        connection = None if fresh else self._take_idle(endpoint.key)
        if connection is None:
            connection = yield from Connection.open(endpoint, connect_timeout)
        with self._lock:
            if not self._ended:
                self._in_use.add(connection)
                return connection
        connection.close()
        raise ConnectFailed("shut_down", "connections have been shut down for good")

    def _take_idle(self, key: Key) -> Connection | None:
        while True:
            with self._lock:
                idle = self._idle.get(key)
                if not idle:
                    return None
                connection = idle.pop()
                self._idle_count -= 1
            young = self._clock() - connection.idle_since < self._max_idle
            if young and connection.is_clean():
                connection.reused = True
                return connection
            connection.close()

    def discard(self, connection: Connection) -> None:
        """Close a connection that is not to be used again."""
        with self._lock:
            self._in_use.discard(connection)
        connection.close()

    def give_back(self, connection: Connection) -> None:
        """Keep `connection` for the next request."""
        connection.idle_since = self._clock()
        surplus = None
        with self._lock:
            self._in_use.discard(connection)
            idle = self._idle.setdefault(connection.key, deque())
            idle.append(connection)
            self._idle_count += 1
            if len(idle) > self._per_endpoint or self._idle_count > self._most_idle:
                surplus = idle.popleft()
                self._idle_count -= 1
        if surplus is not None:
            surplus.close()

    def lend(self, connection: Connection) -> None:
        """Another process uses it now; `give_back` or `discard` follow when it is done."""
        with self._lock:
            self._in_use.discard(connection)
            another = not self._idle.get(connection.key)
        if another:
            self.spares.want(connection.endpoint)

    def reclaim(self, connection: Connection) -> None:
        """It was not lent after all. Shut down if all are by now."""
        with self._lock:
            self._in_use.add(connection)
            ended = self._ended
        if ended:
            connection.shut_down()

    def prune(self, keys: Collection[Key]) -> None:
        """Close what idles too long, and all connections to endpoints other than `keys`."""
        oldest = self._clock() - self._max_idle
        closing: list[Connection] = []
        with self._lock:
            for key, idle in list(self._idle.items()):
                while idle and (key not in keys or idle[0].idle_since < oldest):
                    closing.append(idle.popleft())
                    self._idle_count -= 1
                if not idle:
                    del self._idle[key]
        for connection in closing:
            connection.close()

    def shut_down_all(self) -> None:
        """End all connections in use under the threads that use them, and give out no more."""
        with self._lock:
            self._ended = True
            in_use = list(self._in_use)
        for connection in in_use:
            connection.shut_down()

    def sizes(self) -> dict[Key, int]:
        """How many connections idle for each endpoint."""
        with self._lock:
            return {key: len(idle) for key, idle in self._idle.items()}
