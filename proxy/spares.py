"""A connection in reserve: opened before it is needed, where the last idle one has been taken."""

import logging
import queue
import threading
from collections.abc import Callable

from cache.endpoints import Endpoint, Key
from proxy.connection import Connection
from proxy.failures import UpstreamFailure
from proxy.steps import carry_out

log = logging.getLogger("gateway.proxy")


class Spares:
    """Opens connections in a daemon thread of its own, one at a time for each endpoint.

    A stream occupies its connection for a minute, so the next one would find none, and its first
    token would wait for a handshake: 0.1 of 0.8 ms on loopback, more on a network. `give` gets each
    connection; `timeout` is in seconds.
    """

    def __init__(self, give: Callable[[Connection], None], timeout: float) -> None:
        self._give = give
        self._timeout = timeout
        self._wanted: queue.SimpleQueue[Endpoint] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards: _pending
        self._pending: set[Key] = set()

    def start(self) -> None:
        """Begin to open what is wanted."""
        threading.Thread(target=self._run, name="spares", daemon=True).start()

    def want(self, endpoint: Endpoint) -> None:
        """Open one to `endpoint`, unless that is being done."""
        with self._lock:
            if endpoint.key in self._pending:
                return
            self._pending.add(endpoint.key)
        self._wanted.put(endpoint)

    def _run(self) -> None:
        while True:
            endpoint = self._wanted.get()
            try:
                connection = carry_out(Connection.open(endpoint, self._timeout))
            except UpstreamFailure as failure:  # the request that needs one finds out, and counts
                log.debug("no connection in reserve: %s", failure)
                connection = None
            with self._lock:
                self._pending.discard(endpoint.key)
            if connection is not None:
                self._give(connection)
