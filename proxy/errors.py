"""The kinds of failure, and the one table that gives each its status, code and retry headers."""

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of failure is answered. `type` is OpenAI's name for the class of error."""

    status: int
    type: str
    retry: bool = False
    param: str | None = None


_OVERLOADED, _INVALID, _API = "overloaded_error", "invalid_request_error", "api_error"

#: Every error the gateway makes, by its code.
KINDS: Final = MappingProxyType(
    {
        "no_ready_endpoints": Kind(503, _OVERLOADED, retry=True),
        "endpoints_unknown": Kind(503, _OVERLOADED, retry=True),
        "endpoints_stale": Kind(503, _OVERLOADED, retry=True),
        "upstream_unreachable": Kind(503, _OVERLOADED, retry=True),
        "upstream_key_unknown": Kind(503, _OVERLOADED, retry=True),
        "gateway_overloaded": Kind(503, _OVERLOADED, retry=True),
        "gateway_draining": Kind(503, _OVERLOADED, retry=True),
        "model_not_found": Kind(404, _INVALID, param="model"),
        "unknown_path": Kind(404, _INVALID),
        "method_not_allowed": Kind(405, _INVALID),
        "missing_model": Kind(400, _INVALID, param="model"),
        "invalid_body": Kind(400, _INVALID),
        "bad_request": Kind(400, _INVALID),
        "unknown_strategy": Kind(400, _INVALID, param="routing-strategy"),
        "body_too_large": Kind(413, _INVALID),
        "request_timeout": Kind(408, _INVALID),
        "invalid_api_key": Kind(401, "authentication_error"),
        "upstream_reset": Kind(502, _API),
        "upstream_protocol_error": Kind(502, _API),
        "upstream_timeout": Kind(504, _API),
        # After the head has gone out there is no status left to give, only the event's code.
        "upstream_died": Kind(502, _API),
        "upstream_idle": Kind(504, _API),
        "relay_died": Kind(502, _API),
        "internal_error": Kind(500, _API),
    }
)


class GatewayError(Exception):
    """A failure with its place in the table; `code` is one of `KINDS`.

    `headers` are added to the answer's own.
    """

    def __init__(self, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.kind = KINDS[code]
        self.headers = headers

    def body(self) -> bytes:
        """The JSON object OpenAI's clients understand."""
        error = {
            "message": self.message,
            "type": self.kind.type,
            "param": self.kind.param,
            "code": self.code,
        }
        return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")

    def event(self) -> bytes:
        """The same as the last event of a `text/event-stream`.

        The empty line before it ends an event that broke off in the middle.
        """
        return b"\n\ndata: " + self.body() + b"\n\n"

    def response_headers(self, request_id: str, retry_after: int) -> list[tuple[str, str]]:
        """All headers of the answer; `retry_after` is in seconds."""
        headers = [
            ("Content-Type", "application/json"),
            ("x-request-id", request_id),
            ("x-gateway-error", self.code),
            ("x-should-retry", "true" if self.kind.retry else "false"),
        ]
        if self.kind.retry:
            headers.append(("Retry-After", str(retry_after)))
            headers.append(("retry-after-ms", str(retry_after * 1000)))
        return [*headers, *self.headers]
