"""Calls that end when their time is over, however slowly their bytes come in.

A read timeout bounds the silence between two bytes. A server that sends one now and then never
trips it, neither in the head of an answer nor in its body.
"""

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection


class Cutoff:
    """Shuts the socket in use down after `seconds`, which wakes whoever reads from it.

    A context manager around one call, of one thread. `reached` tells whether the time was over:
    whatever the call failed with is then its consequence.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()  # guards: reached, _socket
        self.reached = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._reach)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        """Let the time begin."""
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The call is over: nothing is shut down any more."""
        self._timer.cancel()
        with self._lock:
            self._socket = None

    def uses(self, used: socket.socket) -> None:
        """Tell which socket the call reads from now on."""
        with self._lock:
            self._socket = used
            if self.reached:
                _shut_down(used)

    def _reach(self) -> None:
        with self._lock:
            self.reached = True
            if self._socket is not None:
                _shut_down(self._socket)


def announce_sockets(
    manager: urllib3.PoolManager, announce: Callable[[socket.socket], None]
) -> None:
    """Have `announce` told which socket an answer will be read from, before its first byte is."""

    class Plain(HTTPConnection):
        def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
            announce(self.sock)
            return super().getresponse()

    class Secure(HTTPSConnection):
        def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
            announce(self.sock)
            return super().getresponse()

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}


def _shut_down(used: socket.socket) -> None:
    try:
        # Not `used.shutdown`: that of a TLS socket drops its keys, and its reader sees ciphertext.
        socket.socket.shutdown(used, socket.SHUT_RDWR)
    except OSError:
        pass  # closed already
