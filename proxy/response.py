"""What goes back to the client of an inference request: an endpoint's answer, or an error."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.body import AnswerBody

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


@dataclass(frozen=True, slots=True)
class Response:
    """A status line's end, header fields and body; also a WSGI application.

    Werkzeug's own response would rewrite `Location` and give an answer without a Content-Type one.
    """

    status: str
    fields: list[tuple[str, str]]
    body: AnswerBody | tuple[bytes]

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Start the response and return its body, which the server must close."""
        start_response(self.status, self.fields)
        return self.body
