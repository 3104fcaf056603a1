"""Which header fields pass through, and which are the gateway's own."""

import random
import re
from collections.abc import Iterable, Mapping
from typing import Final

Fields = Iterable[tuple[str, str]]

#: Fields about one connection only (RFC 9110 §7.6.1, RFC 7540 §3.2.1).
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: Fields of a request that the gateway sets itself, or that were answered already (`expect`).
_REPLACED: Final = frozenset(
    {
        "content-length",
        "expect",
        "forwarded",
        "host",
        "x-real-ip",
        "x-request-id",
    }
)
#: Fields of a response that are only ever the gateway's.
_OURS: Final = frozenset({"x-gateway-error", "x-request-id", "target-pod", "routing-strategy"})

_NEVER_UPSTREAM: Final = HOP_BY_HOP | _REPLACED
_NEVER_TO_CLIENT: Final = HOP_BY_HOP | _OURS

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id(given: str | None) -> str:
    """The client's id if it is harmless everywhere it will be written, else a new one."""
    if given is not None and _SANE_REQUEST_ID.fullmatch(given):
        return given
    return f"{random.getrandbits(128):032x}"


def for_upstream(fields: Fields, own: Mapping[str, str], *, drop: Iterable[str] = ()) -> bytes:
    """The header lines of a request to an endpoint, without the empty line after them.

    `own` are the gateway's fields; `drop` names further ones that don't pass, in lower case.
    """
    lines, passing, dropped = [], [], set(drop)
    for name, value in own.items():
        lines.append(f"{name}: {value}\r\n")
    for name, value in fields:
        low = name.lower()
        if low == "connection":
            dropped.update(_options(value))
        elif not (low in _NEVER_UPSTREAM or low.startswith("x-forwarded")):
            passing.append((low, f"{name}: {value}\r\n"))
    for low, line in passing:
        if low not in dropped:
            lines.append(line)
    return "".join(lines).encode("latin-1")


def for_client(fields: Fields, *, bodyless: bool = False) -> list[tuple[str, str]]:
    """The fields of an endpoint's response that pass to the client, repeated ones included.

    A `bodyless` one is a 204, which must not tell a length (RFC 9110 §8.6).
    """
    passing: list[tuple[str, tuple[str, str]]] = []
    dropped: set[str] = set()
    for name, value in fields:
        low = name.lower()
        if low == "connection":
            dropped.update(_options(value))
        elif low not in _NEVER_TO_CLIENT:
            passing.append((low, (name, value)))
    # An endpoint that calls its own framing an option is not believed: its client needs it.
    dropped.discard("content-length")
    if bodyless:
        dropped.add("content-length")
    return [field for low, field in passing if low not in dropped]


def _options(connection: str) -> Iterable[str]:
    """The fields that a value of `Connection` declares to be about this connection."""
    return (option.strip().lower() for option in connection.split(","))
