"""What a worker and the relay say to each other over a `SOCK_SEQPACKET` socket.

A message is a JSON object, preceded by its length, and raw bytes after it. From the worker:

- `hello`: what a broken stream's last event says, by outcome, and whether the worker is stopping;
  with the descriptor of a tally of the `ended` items it has accounted for;
- `stream`: a stream, with its client's and its endpoint's socket;
- `leave`: this worker is stopping, another may take over its streams;
- `cut`: end this worker's streams now;
- `ping`: say something.

From the relay, with `items`: `ended` tells how streams ended, `adopt` that streams of a worker
which stopped or died are now the receiver's to account for, `moved` that streams are another
worker's now. `left` answers `leave`: no `adopt` comes after it. `pong` answers `ping`.
"""

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

#: Bytes a message may have. The kernel's usual limit for such sockets is 212,992.
MAX_MESSAGE_BYTES: Final = 180_000
#: Bytes of the items one message carries, unless it is a single one: a stream came in one as well.
_BATCH_BYTES: Final = 60_000
_SIZE = struct.Struct("!I")

#: How a stream may end: as it should; the endpoint's connection broke off, or what it sent can't be
#: right; it fell silent; the stream took longer than any may; the gateway is stopping; the client
#: left, or did not read; the relay had no descriptors left for it.
Outcome = Literal["complete", "died", "idle", "timeout", "draining", "left", "stalled", "refused"]
Framing = Literal["length", "chunked", "closed"]


@dataclass(slots=True)
class Order:
    """A stream to be relayed.

    `framing` and `length` are of the endpoint's body; the client gets a chunked one unless it is
    `length`. `events` says that it is an event stream, `takes_event` that one may be added to it.
    `idle` and `send` are the seconds for which the endpoint may be silent, and the client may not
    read; `ends` is the monotonic time at which any stream ends. `closes` says that the client's
    connection is closed after it. `facts` are for whoever accounts for the stream.
    """

    id: int
    framing: Framing
    length: int
    events: bool
    takes_event: bool
    idle: float
    send: float
    ends: float
    closes: bool
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """How a stream ended.

    `size` counts the content's bytes; `first` and `at` are the monotonic times of its first byte
    and its end. `reusable` says whether the endpoint's connection may carry another request.
    """

    id: int
    outcome: Outcome
    reason: str
    size: int
    first: float | None
    at: float
    reusable: bool


def values(message: Order | Report) -> dict[str, Any]:
    """As it is written in a message."""
    return {item.name: getattr(message, item.name) for item in fields(message)}


def pack(document: dict[str, Any], raw: bytes = b"") -> bytes:
    """A message."""
    text = _dumps(document).encode()
    return _SIZE.pack(len(text)) + text + raw


def pack_items(kind: str, items: Iterable[Any]) -> Iterator[bytes]:
    """As few messages of a kind as carry these items."""
    batch: list[str] = []
    size = 0
    for item in items:
        text = _dumps(item)
        if batch and size + len(text) > _BATCH_BYTES:
            yield _pack_batch(kind, batch)
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield _pack_batch(kind, batch)


def _pack_batch(kind: str, texts: list[str]) -> bytes:
    text = f'{{"kind":"{kind}","items":[{",".join(texts)}]}}'.encode()
    return _SIZE.pack(len(text)) + text


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The document and the raw bytes of a message; raises `ValueError`."""
    if len(message) < _SIZE.size:
        raise ValueError("a message without a document")
    end = _SIZE.size + _SIZE.unpack_from(message)[0]
    return json.loads(message[_SIZE.size : end]), message[end:]
