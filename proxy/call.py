"""A client's request as the handler of inference requests sees it, whatever server took it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from werkzeug.wrappers import Request

from proxy.caller import Caller
from proxy.errors import GatewayError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class Input(Protocol):
    """Where a request's body is read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Read `size` bytes, fewer only at the end."""


@dataclass(slots=True)
class Call:
    """One request.

    `path` is what it was matched by; `uri` is what the request line says. `fields` have names such
    as `Content-Type`; those that came twice are joined by commas (RFC 9110 §5.3). `input` ends by
    itself where `input_ends`, else `Content-Length` says where. Its `repr` shows nothing that could
    be a secret.
    """

    method: str
    path: str
    uri: str = field(repr=False)
    fields: Mapping[str, str] = field(repr=False)
    scheme: str
    remote: str
    input: Input
    input_ends: bool
    surplus: bool = False
    caller: Caller = field(default_factory=Caller)

    @property
    def target(self) -> str:
        """Path and query as received.

        Raises `GatewayError` if the path is spelled differently (`%2f`): matching happened on the
        decoded one, and the endpoint could take the other for another.
        """
        uri = self.uri
        if not uri.startswith("/"):  # absolute form, RFC 9112 §3.2.2
            parts = urlsplit(uri)
            uri = parts.path + (f"?{parts.query}" if parts.query else "")
        if uri.partition("?")[0] != self.path:
            raise GatewayError("unknown_path", f"there is nothing at {self.path}")
        return uri


def call_of(environ: "WSGIEnvironment") -> Call:
    """The call that a WSGI server hands over."""
    request = Request(environ)
    return Call(
        method=request.method,
        path=request.path,
        uri=str(environ.get("RAW_URI") or request.full_path),
        fields=dict(request.headers.items()),
        scheme=request.scheme,
        remote=request.remote_addr or "",
        input=environ["wsgi.input"],
        input_ends=bool(environ.get("wsgi.input_terminated")),
        caller=environ.get("gateway.caller") or Caller(),
    )


def joined(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Fields by name, as `Call` has them; names may be in any case.

    Cookies are joined so that they can be told apart (RFC 6265 §5.4): one may contain a comma.
    """
    together: dict[str, str] = {}
    for name, value in fields:
        titled = name.title()
        if titled in together:
            separator = "; " if titled == "Cookie" else ","
            together[titled] += separator + value
        else:
            together[titled] = value
    return together
