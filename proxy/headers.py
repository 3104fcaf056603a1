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
    lowered = [(name.lower(), name, value) for name, value in fields]
    dropped = {*_connection_options(lowered), *drop}
    lines = [f"{name}: {value}\r\n" for name, value in own.items()]
    for low, name, value in lowered:
        if not (low in _NEVER_UPSTREAM or low in dropped or low.startswith("x-forwarded")):
            lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1")


def for_client(fields: Fields, *, bodyless: bool = False) -> list[tuple[str, str]]:
    """The fields of an endpoint's response that pass to the client, repeated ones included.

    A `bodyless` one is a 204, which must not tell a length (RFC 9110 §8.6).
    """
    lowered = [(name.lower(), name, value) for name, value in fields]
    # An endpoint that calls its own framing an option is not believed: its client needs it.
    dropped = _connection_options(lowered) - {"content-length"}
    if bodyless:
        dropped.add("content-length")
    return [
        (name, value)
        for low, name, value in lowered
        if not (low in _NEVER_TO_CLIENT or low in dropped)
    ]


def _connection_options(lowered: Iterable[tuple[str, str, str]]) -> set[str]:
    """The fields that `Connection` declares to be about this connection.

    Of each field it is told the name in lower case, the name as it came, and the value.
    """
    return {
        option.strip().lower()
        for low, _, value in lowered
        if low == "connection"
        for option in value.split(",")
    }
