"""What a request must obey beyond what gunicorn's parser asks of it.

Whatever stands before or behind the gateway must not read a request differently: what could be
read in two ways is refused, and its connection closed.
"""

import ipaddress
import re
from typing import Any, Final

from gunicorn.http.errors import UnsupportedTransferCoding
from gunicorn.http.message import Request

from proxy.errors import GatewayError

#: Methods that no path takes: a tunnel is no forwarding, and `TRACE` would show a request's fields,
#: credentials included, to whoever made its client send it (RFC 9110 §9.3.6, §9.3.8).
_REFUSED_METHODS: Final = frozenset({"CONNECT", "TRACE"})
_METHODS: Final = "GET, HEAD, POST"

#: `uri-host [":" port]` (RFC 9110 §7.2, RFC 3986 §3.2.2), with a host and no more digits than a
#: port has. Possessive, so that no text takes long.
_AUTHORITY = re.compile(
    r"(?:\[(?:(?P<ipv6>[0-9A-Fa-f:.]+)|[vV][0-9A-Fa-f]++\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\]"
    r"|(?:[A-Za-z0-9._~!$&'()*+,;=-]++|%[0-9A-Fa-f]{2})++)"
    r"(?::[0-9]{0,5})?"
)
#: The absolute form of a target (RFC 9112 §3.2.2) and what its authority is.
_ABSOLUTE = re.compile(r"https?://([^/?]*)(?:[/?].*)?", re.IGNORECASE)


class LawfulRequest(Request):
    """gunicorn's request, which obeys the rules too.

    Making one raises `gunicorn.http.errors.ParseException` or `GatewayError` if it does not.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        obey(self)


def obey(request: Any) -> None:
    """Raise unless gunicorn's parsed `request` obeys the rules that its parser does not ask for.

    The method is none of those that make a tunnel or an echo, the target is a path, an absolute URI
    or `*`, there is one valid `Host`, and nothing but chunks codes the body. `Host` becomes the
    target's authority where that is absolute (RFC 9112 §3.2.2), and the version the highest one
    that is spoken where the client's is higher (RFC 9110 §2.5).

    Raises `GatewayError` with `method_not_allowed` or `bad_request`, `UnsupportedTransferCoding`.
    """
    if request.method in _REFUSED_METHODS:
        raise GatewayError(
            "method_not_allowed", "this method is taken nowhere", (("Allow", _METHODS),)
        )
    _check_coding(request)
    hosts = [value for name, value in request.headers if name == "HOST"]
    if len(hosts) != 1 and (hosts or request.version >= (1, 1)):  # RFC 9112 §3.2
        raise GatewayError("bad_request", f"this request has {len(hosts)} Host fields, not one")
    if hosts and not is_host(hosts[0]):
        raise GatewayError("bad_request", "this request's Host names no host")
    request.version = min(request.version, (1, 1))
    authority = _authority_of(request.uri)
    if authority is not None:
        others = [field for field in request.headers if field[0] != "HOST"]
        request.headers = [("HOST", authority), *others]


def is_host(value: str) -> bool:
    """Whether `Host` may have that value.

    It may be empty: a client has to say so where its URI has no authority (RFC 9112 §3.2).
    """
    return not value or _is_authority(value)


def _is_authority(text: str) -> bool:
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return False
    if found["ipv6"] is None:
        return True
    try:
        ipaddress.IPv6Address(found["ipv6"])
    except ValueError:
        return False
    return True


def _authority_of(target: str) -> str | None:
    """The authority in a target of absolute form; None for the others.

    Raises `GatewayError` for what is none of the forms. That `*` comes with `OPTIONS` only is for
    gunicorn to see.
    """
    if "#" in target:
        raise GatewayError("bad_request", "this request's target has a fragment")
    if target.startswith("/") or target == "*":
        return None
    found = _ABSOLUTE.fullmatch(target)
    # User information is in no authority that `_AUTHORITY` knows: RFC 9110 §4.2.4 has it refused.
    if found is None or not _is_authority(found[1]):
        raise GatewayError("bad_request", "this request's target is no path and no URI of HTTP")
    return found[1]


def _check_coding(request: Any) -> None:
    """Refuse what is not understood (RFC 9112 §6.1).

    gunicorn takes `gzip, chunked` and `identity, chunked` too. The former would reach the endpoint
    compressed and without a word of it, the latter has been none since RFC 7230.
    """
    codings = [value.lower() for name, value in request.headers if name == "TRANSFER-ENCODING"]
    if codings not in ([], ["chunked"]):
        raise UnsupportedTransferCoding(", ".join(codings))
