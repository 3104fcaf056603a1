"""The relay's side of its connection to one worker."""

import contextlib
import os
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

from relay.messages import MAX_MESSAGE_BYTES, Order, Report, pack, pack_items, values
from relay.sockets import shut_down
from relay.tally import Tally

#: A stream that has ended, and how.
Ending = tuple[Order, Report]


class Link:
    """A worker that gives streams to the relay and is told of their ends.

    `active` says that it is not stopping, so that it can take over others' streams.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.events: dict[str, str] = {}
        self.active = False
        self._gone = False
        self._waiting: deque[bytes] = deque()
        self._heard: Tally | None = None
        self._known = 0  # of those it has heard
        self._endings: deque[Ending] = deque()  # told, but maybe not heard

    def greet(self, events: dict[str, str], descriptors: list[int], *, leaves: bool) -> None:
        """The worker has said hello; with a descriptor, unless there was none left for it."""
        self.events, self.active = events, not leaves
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                self._heard = Tally(descriptor)
            os.close(descriptor)

    def receive(self) -> tuple[bytes, list[int]] | None:
        """The next message and the descriptors with it; None if there is none now.

        At the worker's end the message is empty.
        """
        try:
            message, descriptors, _, _ = socket.recv_fds(self.socket, MAX_MESSAGE_BYTES, 2)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return self.receive()  # it died with something unread, but what it gave comes first
        except OSError:
            return b"", []
        return message, descriptors

    def report(self, endings: list[Ending]) -> None:
        """Tell the ends of streams."""
        if self._heard is not None:
            self._forget(self._heard.count)
            self._endings.extend(endings)
        self._send_all("ended", (values(report) for _, report in endings))

    def unheard(self) -> list[Ending]:
        """The worker has died: the ends of streams that it did not account for."""
        if self._heard is not None:
            self._forget(self._heard.count)
        return list(self._endings)

    def _forget(self, heard: int) -> None:
        while self._known < heard:
            self._known += 1
            self._endings.popleft()

    def adopt(self, streams: Iterable[tuple[int, dict[str, Any]]]) -> None:
        """Tell that these streams, by id and facts, are this worker's now."""
        self._send_all("adopt", streams)

    def moved(self, ids: Iterable[int]) -> None:
        """Tell that these streams are another worker's now."""
        self._send_all("moved", ids)

    def answer(self, kind: str) -> None:
        """Tell that what it said was read, and all before it."""
        self._waiting.append(pack({"kind": kind, "items": []}))

    def _send_all(self, kind: str, items: Iterable[Any]) -> None:
        self._waiting.extend(pack_items(kind, items))

    def flush(self) -> bool:
        """Send what waits; false if the worker has to read first."""
        while self._waiting and not self._gone:
            try:
                self.socket.send(self._waiting[0])
            except BlockingIOError:
                return False
            except OSError:
                # Its end is seen, and dealt with, where messages are read.
                self._gone = True
                shut_down(self.socket)
            else:
                self._waiting.popleft()
        return True
