"""What spans are called, and what stands in them, by OpenTelemetry's semantic conventions."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from metrics import UNKNOWN_MODEL
from proxy.call import Call
from proxy.trace import Attempt, Story

Attributes = dict[str, str | int | float]

#: As the conventions for HTTP have it: any other would be a name that a client chose.
_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
#: The conventions' names for what models do; an operation without one goes by its path.
_OPERATIONS: Final = {
    "chat/completions": "chat",
    "messages": "chat",
    "responses": "chat",
    "completions": "text_completion",
}
#: What of a request's log line is told, and under which name.
_TOLD: Final = {
    "request_id": "gateway.request_id",
    "strategy": "gateway.strategy",
    "pod": "k8s.pod.name",
    "error": "gateway.error",
    "client_left": "gateway.client_left",
    "alias": "gateway.alias",
    "held_seconds": "gateway.held_seconds",
    "bytes": "http.response.body.size",
}


def name_of(call: Call) -> str:
    """A span's name: inference paths are few, so that names are, too."""
    method = call.method if call.method in _METHODS else "HTTP"
    return f"{method} {call.path}"


def of_call(call: Call) -> Attributes:
    """What is known of a request when it comes; never its query."""
    found: Attributes = {
        "http.request.method": call.method if call.method in _METHODS else "_OTHER",
        "http.route": call.path,
        "url.path": call.path,
        "url.scheme": call.scheme,
        **_server(call.fields.get("Host", "")),
    }
    operation = call.path.removeprefix("/v1/")
    found["gen_ai.operation.name"] = _OPERATIONS.get(operation, operation)
    return found


def _server(host: str) -> Attributes:
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname, parts.port
    except ValueError:  # it came past our worker, which would have refused it
        return {}
    found: Attributes = {"server.address": name} if name else {}
    if name and port:
        found["server.port"] = port
    return found


def of_end(story: Story, facts: Mapping[str, object]) -> Attributes:
    """What is known of a request when it is over; `facts` are what its log line says."""
    found: Attributes = {"gateway.attempts": len(story.attempts)}
    for name, attribute in _TOLD.items():
        value = facts.get(name)
        if isinstance(value, str | int | float):
            found[attribute] = value
    model, status = facts.get("model"), facts.get("status")
    if isinstance(model, str) and model != UNKNOWN_MODEL:
        found["gen_ai.request.model"] = model
    if isinstance(status, int) and facts.get("client_left") != "waiting":  # else none was sent
        found["http.response.status_code"] = status
    if error := error_of(facts):
        found["error.type"] = error
    return found


def error_of(facts: Mapping[str, object]) -> str:
    """The error a request ended with, if it is not its client's: those are none of a server's."""
    status = facts.get("status")
    assert isinstance(status, int)  # noqa: S101 - every log line has one
    if status >= 500 or (status < 400 and "error" in facts):
        return str(facts.get("error", status))
    return ""


def of_attempt(story: Story, number: int) -> Attributes:
    """What is known of the attempt `number`, of which the first is 1."""
    attempt = story.attempts[number - 1]
    host = f"[{attempt.address}]" if ":" in attempt.address else attempt.address
    found: Attributes = {
        "http.request.method": story.attributes["http.request.method"],
        "url.full": f"http://{host}:{attempt.port}{story.attributes['url.path']}",
        "server.address": attempt.address,
        "server.port": attempt.port,
    }
    if attempt.pod:
        found["k8s.pod.name"] = attempt.pod
    if number > 1:
        found["http.request.resend_count"] = number - 1
    if attempt.status is not None:
        found["http.response.status_code"] = attempt.status
    return found


def of_further(story: Story, number: int) -> Attributes:
    """What the event says that tells of the further attempt `number`."""
    before = story.attempts[number - 2]
    found: Attributes = {"gateway.attempt": number, "gateway.reason": failure_of(before)}
    if pod := story.attempts[number - 1].pod:
        found["k8s.pod.name"] = pod
    return found


def failure_of(attempt: Attempt) -> str:
    """Why an attempt gave no good answer: the kind of failure, or the status; else empty."""
    refused = attempt.status is not None and attempt.status >= 400
    return attempt.failure or (str(attempt.status) if refused else "")
