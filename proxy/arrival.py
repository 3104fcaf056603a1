"""A request as it arrives: bytes in, a complete request out, without I/O.

gunicorn's own parser reads a head that is not plain, once and from memory; what it says of the
framing decides how the body is taken.
"""

import io
import re
from collections.abc import Callable
from typing import Any, Final

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import InvalidRequestLine, NoMoreData
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader

from proxy.errors import GatewayError
from proxy.plain_heads import read_plain
from proxy.rules import LawfulRequest
from proxy.upload import not_chunked, too_large
from relay.bodies import ChunkedBody

#: Bytes of a body nobody wants that are read for the sake of keeping the connection; gunicorn reads
#: no more either.
MOST_READ_IN_VAIN: Final = 65_536
_PIECE_BYTES: Final = 8192
#: How no method begins, and no empty line before it: TLS on the wrong port, for one.
_NO_METHOD = re.compile(rb"[^\r!$%&'*+.^_`|~0-9A-Z-]")

#: Whether the body of a request is wanted, by its method, path and `Authorization`.
WantsBody = Callable[[str, str, str | None], bool]


class NotRead:
    """The input of a request whose body is not there; reading it says why."""

    def __init__(self, why: Exception) -> None:
        self._why = why

    def read(self, size: int = -1) -> bytes:
        """Raise the reason."""
        raise self._why

    readline = readlines = __iter__ = read


class Incoming:
    """A request that can be answered without waiting for its client.

    `request` is gunicorn's; `whole` is false if not all of the body was read, so that its
    connection can carry no other request. `expects_continue` says that the client still has to be
    told `100 Continue`.
    """

    __slots__ = ("expects_continue", "request", "whole")

    def __init__(self, request: Any, body: Any, *, whole: bool) -> None:
        request.body = body
        self.expects_continue = whole and request._expected_100_continue
        request._expected_100_continue = False  # gunicorn would wait until it is sent
        self.request = request
        self.whole = whole


class _Memory(Unreader):
    """What gunicorn's parser reads from: bytes, given in pieces of `size`."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__()
        self._data = data
        self._size = size
        self._given = 0

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next piece."""
        if not self._given and self._size >= len(self._data):
            piece = self._data
        else:
            piece = self._data[self._given : self._given + self._size]
        self._given += self._size
        return piece


class Arrival:
    """The requests of one connection, one after the other.

    `config` is gunicorn's and bounds heads, `most` the bytes of a body. `wants_body` is asked
    before more than what came with the head is read.
    """

    __slots__ = (
        *("_address", "_body", "_chunks", "_config", "_held", "_left", "_limit", "_most"),
        *("_most_head", "_number", "_request", "_searched", "_wants_body", "expects_continue"),
    )

    def __init__(self, config: Any, address: Any, most: int, wants_body: WantsBody) -> None:
        self._config = config
        self._address = address
        self._most = most
        self._wants_body = wants_body
        fields = config.limit_request_fields * (config.limit_request_field_size + 2)
        self._most_head = fields + config.limit_request_line + 8
        self._number = 0
        self._held = bytearray()  # a part of a head, or what came before it was asked for
        self._searched = 0  # bytes of it in which no head ends
        self._request: Any = None  # whose body is awaited
        self._clear()

    def _clear(self) -> None:
        self._request = None
        self._chunks: ChunkedBody | None = None
        self._left = 0  # bytes of a body of known length that have not come
        self._body = bytearray()
        self._limit = -1  # bytes of the body that are taken; not asked yet
        self.expects_continue = False  # the client waits for `100 Continue`

    @property
    def in_body(self) -> bool:
        """Whether the head is complete and the body is not."""
        return self._request is not None

    @property
    def held(self) -> int:
        """Bytes kept."""
        return len(self._held) + len(self._body)

    def hold(self, data: bytes) -> None:
        """Keep what came before the request before it was answered."""
        self._held += data

    def feed(self, data: bytes) -> Incoming | None:
        """Take what was received; return the request that is complete with it.

        Raises `gunicorn.http.errors.ParseException` for a head that is none, `GatewayError` for one
        that breaks a rule of `proxy.rules`.
        """
        if self._request is not None:
            return self._feed_body(data)
        if self._held:
            self._held += data
            data = b""
        came: bytes | bytearray = self._held or data
        end = came.find(b"\r\n\r\n", self._searched)
        if end < 0:
            self._held += data
            self._wait_for_head()
            return None
        end += 4
        if self._held:
            self._held, self._searched = bytearray(), 0
        self._begin(bytes(came[:end]))
        return self._feed_body(bytes(came[end:]))

    def give_up(self, why: Exception) -> Incoming | None:
        """The request whose body can't be completed, as far as there is one."""
        return None if self._request is None else self._refused(why)

    def _begin(self, head: bytes) -> None:
        self._number += 1
        plain = read_plain(head, self._config, self._address, self._number)
        if plain is not None:
            self._request, self._left = plain
            return
        memory = _Memory(head, len(head))
        request: Any = LawfulRequest(self._config, memory, self._address, self._number)
        reader = request.body.reader
        if type(reader) is ChunkedReader:
            self._chunks = ChunkedBody(exact=True)
        else:
            self._left = reader.length
        self._request = request

    def _wait_for_head(self) -> None:
        """Keep an unfinished head, unless gunicorn knows by now that it can't become a good one."""
        before = self._searched and self._searched + 3
        self._searched = max(0, len(self._held) - 3)
        new = self._held[before - 1 if before and self._held[before - 1] == 13 else before :]
        bare_line_end = new.count(b"\n") != new.count(b"\r\n")
        line_end = self._held.find(b"\r\n", 2 if self._held.startswith(b"\r\n") else 0)
        line_limit = self._config.limit_request_line + 4
        if not before and _NO_METHOD.match(self._held):
            raise InvalidRequestLine("it begins with no method")
        if (
            bare_line_end
            or line_end > max(before - 2, -1)  # the request line is there now
            or before <= line_limit < len(self._held)
            or len(self._held) > self._most_head
        ):
            try:
                Request(self._config, _Memory(bytes(self._held), _PIECE_BYTES), self._address, 1)
            except NoMoreData:
                pass  # it still may

    def _feed_body(self, data: bytes) -> Incoming | None:
        if self._chunks is not None:
            return self._feed_chunks(self._chunks, data)
        if len(data) >= self._left:
            body = data[: self._left]
            if len(data) > self._left:
                self._held += data[self._left :]
            return self._complete(body)
        if self._limit < 0 and not self._ask(waits=not data):
            return self._refused(_not_wanted())
        if len(self._body) + self._left > self._limit:
            return self._refused(too_large(self._limit))
        self._body += data
        self._left -= len(data)
        return None

    def _feed_chunks(self, chunks: ChunkedBody, data: bytes) -> Incoming | None:
        content = chunks.feed(data)
        if chunks.error is not None:
            return self._refused(not_chunked(chunks.error))
        if chunks.complete and len(self._body) + len(content) <= self._most:
            return self._complete(content, whole=chunks.reusable)
        if self._limit < 0 and not self._ask(waits=not data):
            return self._refused(_not_wanted())
        if len(self._body) + len(content) > self._limit:
            return self._refused(too_large(self._limit))
        self._body += content
        return None

    def _ask(self, *, waits: bool) -> bool:
        """Find out how much of the body is taken; false if the client is better told to stop."""
        request = self._request
        given = next((value for name, value in request.headers if name == "AUTHORIZATION"), None)
        wanted = self._wants_body(request.method, request.path, given)
        self._limit = self._most if wanted else MOST_READ_IN_VAIN
        self.expects_continue = wanted and waits and request._expected_100_continue
        if self.expects_continue:
            request._expected_100_continue = False  # the caller tells it now
        return wanted or not request._expected_100_continue

    def _complete(self, last: bytes, *, whole: bool = True) -> Incoming:
        body = bytes(self._body) + last if self._body else last
        incoming = Incoming(self._request, io.BytesIO(body), whole=whole)
        self._clear()
        return incoming

    def _refused(self, why: Exception) -> Incoming:
        incoming = Incoming(self._request, NotRead(why), whole=False)
        self._clear()
        return incoming


def _not_wanted() -> GatewayError:
    # Read only if what the answer depends on has changed since it was asked: worth another try.
    return GatewayError("gateway_overloaded", "the body was not taken")
