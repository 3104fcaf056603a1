"""A response's body, read as it arrives from an endpoint's connection."""

import math
import socket
import time

from proxy.connection import Connection
from proxy.failures import BodyDied, BodyIdle, BodyTooLong, ResponseInvalid
from proxy.framing import Head, body_of
from proxy.pool import ConnectionPool
from proxy.steps import Ready, Steps
from relay.bodies import Body, ChunkedBody, ProtocolError, Truncated, whole_chunks

#: Bytes of a body that is passed on in one piece if it is there at once.
_SHORT_BYTES = 65_536


class Stream:
    """A response's body, read as it arrives; it closes or gives back its connection itself.

    It may be silent for `idle_timeout` seconds, and take `total_timeout` in all.
    """

    def __init__(
        self,
        connection: Connection,
        pool: ConnectionPool,
        head: Head,
        received: bytes,
        idle_timeout: float,
        total_timeout: float = math.inf,
    ) -> None:
        """Begin behind `head`; raises `ResponseInvalid` if the framing is not valid."""
        try:
            self._body: Body = body_of(head)
        except ProtocolError as error:
            raise ResponseInvalid("protocol_error", str(error)) from error
        self._head = head
        self._connection = connection
        self._pool = pool
        self._received = received
        self._failure: BodyDied | None = None  # met while looking ahead
        self._idle_timeout = idle_timeout
        self._ends = time.monotonic() + total_timeout
        self._closed = False

    @property
    def complete(self) -> bool:
        """Whether all of the body has been read."""
        return self._body.complete

    def whole(self, patience: float) -> Steps[bytes | None]:
        """All of a body that is short and there within `patience` seconds.

        Else None, and everything is still to be read. Only for a body that nothing was read of.
        """
        content = yield from self._all_of_it(patience)
        if content is None:
            self._body = body_of(self._head)  # from the beginning again
        else:
            self._received = b""
        return content

    def _all_of_it(self, patience: float) -> Steps[bytes | None]:
        body, contents, data = self._body, [], self._received
        deadline = time.monotonic() + patience
        while True:
            contents.append(body.feed(data))
            if body.complete:
                return b"".join(contents)
            if body.error is not None or len(self._received) > _SHORT_BYTES:
                return None
            yield Ready(self._connection.socket.fileno(), deadline)
            more = self._look()
            if more is None:
                return None
            data = more
            if not data:
                try:
                    body.end()
                except Truncated:
                    return None
                return b"".join(contents)

    def early(self, patience: float) -> Steps[tuple[bytes, int]]:
        """Chunks that are there within `patience` seconds, as they came; the content's size.

        Nothing unless they are whole, so that everything after them can be read as from the
        beginning. Only for a body that nothing was read of.
        """
        if type(self._body) is not ChunkedBody:
            return b"", 0
        if not self._received and self._look() is None:
            yield Ready(self._connection.socket.fileno(), time.monotonic() + patience)
            self._look()
        size = whole_chunks(self._received)
        if size <= 0:
            return b"", 0
        chunks, self._received = self._received, b""
        return chunks, size

    def _look(self) -> bytes | None:
        """What more has come, which is kept; empty at the end, None if nothing has or it died."""
        try:
            data = self._connection.receive(0.0)
        except BodyIdle:
            return None
        except BodyDied as failure:
            self._failure = failure
            return None
        self._received += data
        return data

    def read(self) -> bytes:
        """The next content, as soon as there is any; empty at the end.

        Raises `BodyDied`, `BodyIdle` and `BodyTooLong`.
        """
        while not self._body.complete:
            if self._body.error is not None:
                raise BodyDied("protocol_error", str(self._body.error)) from self._body.error
            data, self._received = self._received, b""
            if not data:
                if self._failure is not None:
                    raise self._failure
                data = self._receive()
                if not data:
                    self._end()
                    break
            content = self._body.feed(data)
            if content:
                return content
        return b""

    def _receive(self) -> bytes:
        """Wait for more, as long as it may take; empty at the connection's end."""
        left = self._ends - time.monotonic()
        if left > self._idle_timeout:
            return self._connection.receive(self._idle_timeout)
        try:
            if left > 0:
                return self._connection.receive(left)
        except BodyIdle:
            pass
        raise BodyTooLong("timeout", "the answer took longer than any may")

    def _end(self) -> None:
        try:
            self._body.end()
        except Truncated as error:
            raise BodyDied("died", str(error)) from error

    def lend(self) -> tuple[socket.socket, bytes] | None:
        """The connection and what was received on it, for another process to go on with.

        None if there is nothing more to go on with. `settle` follows when the other has ended.
        """
        if self._failure is not None:
            return None
        self._pool.lend(self._connection)
        return self._connection.socket, self._received

    def take_back(self) -> None:
        """The other process does not want it: all is as before `lend`."""
        self._pool.reclaim(self._connection)

    def shut_down(self) -> None:
        """End the connection under the thread that reads from it."""
        self._connection.shut_down()

    def settle(self, *, reusable: bool) -> None:
        """The other process has read the body, and says what the connection is good for."""
        self._finish(reusable=reusable)

    def close(self) -> None:
        """Give the connection back if it may carry another request, else close it. Idempotent."""
        self._finish(reusable=self._body.complete and self._body.reusable and not self._received)

    def _finish(self, *, reusable: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if reusable and self._head.keeps_alive and self._connection.reusable:
            self._pool.give_back(self._connection)
        else:
            self._pool.discard(self._connection)
