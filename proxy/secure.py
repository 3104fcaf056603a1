"""Connections under TLS: each has a thread, as in gthread, because the loop can't read them."""

import socket
from collections.abc import Callable
from typing import Any

from gunicorn import util
from gunicorn.workers.gthread import TConn

from proxy.arrival import MOST_READ_IN_VAIN
from proxy.rules import LawfulRequest


class ClientConnection(TConn):
    """A client's connection, which the loop closes without waiting for the client."""

    def __init__(
        self,
        config: Any,
        client: socket.socket,
        address: Any,
        server: Any,
        linger: Callable[[socket.socket], None],
    ) -> None:
        super().__init__(config, client, address, server)
        self._linger = linger

    def init(self) -> None:
        """Make it ready to be read; its requests obey our rules too."""
        super().init()
        parser: Any = self.parser
        parser.mesg_class = LawfulRequest

    def close(self, graceful: bool = False) -> None:
        """Close it; `graceful` lets the client read what was sent."""
        if graceful:
            self._linger(self.sock)
        else:
            util.close(self.sock)


def much_is_left(reader: Any) -> bool:
    """Whether so much of a request's body is unread that its client is told to stop sending."""
    chunked_and_unfinished = getattr(reader, "parser", None) is not None
    return chunked_and_unfinished or getattr(reader, "length", 0) > MOST_READ_IN_VAIN
