"""The relay's side of its connection to one worker."""

import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

from relay.messages import MAX_MESSAGE_BYTES, Report, pack, values

#: Items a message carries at most, so that it stays below the kernel's limit.
_BATCH = 100


class Link:
    """A worker that gives streams to the relay and is told of their ends.

    `active` says that it is not stopping, so that it can take over others' streams.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.events: dict[str, str] = {}
        self.greeted = False
        self.active = False
        self.gone = False
        self._waiting: deque[bytes] = deque()

    def receive(self) -> tuple[bytes, list[int]] | None:
        """The next message and the descriptors with it; None if there is none now.

        At the worker's end the message is empty.
        """
        try:
            message, descriptors, _, _ = socket.recv_fds(self.socket, MAX_MESSAGE_BYTES, 2)
        except BlockingIOError:
            return None
        except OSError:
            return b"", []
        return message, descriptors

    def report(self, reports: list[Report]) -> None:
        """Tell the ends of streams."""
        self._send_all("ended", [values(report) for report in reports])

    def adopt(self, streams: Iterable[tuple[int, dict[str, Any]]]) -> None:
        """Tell that these streams, by id and facts, are this worker's now."""
        self._send_all("adopt", [list(stream) for stream in streams])

    def moved(self, ids: Iterable[int]) -> None:
        """Tell that these streams are another worker's now."""
        self._send_all("moved", list(ids))

    def _send_all(self, kind: str, items: list[Any]) -> None:
        for start in range(0, len(items), _BATCH):
            self._waiting.append(pack({"kind": kind, "items": items[start : start + _BATCH]}))

    def flush(self) -> bool:
        """Send what waits; false if the worker has to read first."""
        while self._waiting and not self.gone:
            try:
                self.socket.send(self._waiting[0])
            except BlockingIOError:
                return False
            except OSError:
                self.gone = True  # its end is seen, and dealt with, where messages are read
            else:
                self._waiting.popleft()
        return True
