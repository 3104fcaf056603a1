"""What can go wrong with an API server, on demand."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from simulator.apicall import ApiCall
from simulator.listing import Continuation, expired_token
from simulator.registry import Registry
from simulator.serialiser import Refusal, event_line, list_body


class FaultKind(StrEnum):
    """The faults by name."""

    REFUSE = "refuse"  # the server is gone: no listener, connections reset
    HANG = "hang"  # accepts, reads, never answers
    UNAUTHORIZED = "401"
    FORBIDDEN = "403"
    EXPIRED = "410"
    THROTTLED = "429"
    INTERNAL = "500"
    UNAVAILABLE = "503"
    GARBAGE = "garbage"  # 200 with a body that is not JSON
    TRUNCATED = "truncated"  # cut in the middle of its JSON
    DRIP = "drip"  # a byte every half second
    ENDLESS = "endless"  # 200 and white space, as fast as it is read, for ever
    EXPIRE_MID_PAGES = "expire-mid-pages"  # 410 for the second page and later ones
    FREEZE_WATCH = "freeze-watch"  # open watches fall silent until healed: no event, no end
    BREAK_WATCH = "break-watch"  # open watches are reset, now and once


SCOPES = ("all", "list", "watch")
_SPACE = b" " * 2**20


@dataclass(slots=True)
class Fault:
    """One fault in force; `left` counts the requests it will still hit, None means all."""

    kind: FaultKind
    on: str
    left: int | None

    def hits(self, call: ApiCall) -> bool:
        """Whether this request gets it."""
        if self.kind is FaultKind.EXPIRE_MID_PAGES:
            return bool(call.query.get("continue"))
        return self.on in ("all", call.verb)


class Faults:
    """The faults in force, oldest first. Used on the loop's thread only."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Put a fault in force."""
        self._faults.append(fault)

    def clear(self) -> None:
        """End all of them."""
        self._faults.clear()

    def take(self, call: ApiCall) -> FaultKind | None:
        """The fault this request gets, if any; counts it down."""
        for fault in self._faults:
            if fault.hits(call):
                if fault.left is not None:
                    fault.left -= 1
                    if not fault.left:
                        self._faults.remove(fault)
                return fault.kind
        return None


def unauthorized() -> Refusal:
    """The 401 for a token that is not (or no longer) valid."""
    return Refusal(401, "Unauthorized", "Unauthorized")


def forbidden(user: str, verb: str, scope: str) -> Refusal:
    """The 403 for a user who may not do this; `scope` ends the sentence."""
    resource = 'resource "endpointslices" in API group "discovery.k8s.io"'
    message = (
        f'endpointslices.discovery.k8s.io is forbidden: User "{user}" cannot {verb} {resource} '
        f"{scope}"
    )
    details = {"group": "discovery.k8s.io", "kind": "endpointslices"}
    return Refusal(403, message, "Forbidden", details=details)


def refuse_by(fault: FaultKind | None, call: ApiCall, registry: Registry) -> None:
    """Raise the `Refusal` that a fault stands for, if it stands for one."""
    if fault is FaultKind.UNAUTHORIZED:
        raise unauthorized()
    if fault is FaultKind.FORBIDDEN:
        user = f"system:serviceaccount:{registry.namespace}:gateway"
        raise forbidden(user, call.verb, f'in the namespace "{registry.namespace}"')
    if fault not in (FaultKind.EXPIRED, FaultKind.EXPIRE_MID_PAGES):
        return
    if call.verb == "watch":
        asked = call.query.get("resourceVersion", "0")
        message = f"too old resource version: {asked} ({registry.version})"
        raise Refusal(410, message, "Expired")
    token = call.query.get("continue")
    raise expired_token(Continuation.parse(token).start if token else "")


async def _hang(call: ApiCall) -> None:
    await call.client_leaves()
    call.keep_alive = False


async def _throttled(call: ApiCall) -> None:
    text = b"Too many requests, please try again later.\n"
    seconds = call.retry_after
    await call.answer(429, text, content_type="text/plain; charset=utf-8", retry_after=seconds)


async def _internal(call: ApiCall) -> None:
    cause = "etcdserver: leader changed"
    details = {"causes": [{"message": cause}]}
    message = f"Internal error occurred: {cause}"
    await call.refuse(Refusal(500, message, "InternalError", details=details))


async def _unavailable(call: ApiCall) -> None:
    message = "the server is currently unable to handle the request"
    await call.refuse(Refusal(503, message, "ServiceUnavailable", retry_after=call.retry_after))


async def _garbage(call: ApiCall) -> None:
    text = b"<html><body>It works!</body></html>\n"
    if call.verb == "list":
        await call.answer(200, text)
        return
    await call.start_stream()
    await call.send_chunk(text)
    await call.send_chunk(b"")


async def _truncated(call: ApiCall) -> None:
    call.keep_alive = False
    if call.verb == "list":
        body = list_body([b'{"metadata":{"name":"cut"}}'], {"resourceVersion": "1"})
        await call.answer(200, body, sent=len(body) // 2)
        return
    line = event_line("ADDED", b'{"metadata":{"name":"cut"}}')
    await call.start_stream()
    await call.send_chunk(line[: len(line) // 2])


async def _endless(call: ApiCall) -> None:
    await call.start_stream()
    while True:  # until the client has had enough, which ends the call
        await call.send_chunk(_SPACE)


ANSWERS: dict[FaultKind, Callable[[ApiCall], Awaitable[None]]] = {
    FaultKind.HANG: _hang,
    FaultKind.THROTTLED: _throttled,
    FaultKind.INTERNAL: _internal,
    FaultKind.UNAVAILABLE: _unavailable,
    FaultKind.GARBAGE: _garbage,
    FaultKind.TRUNCATED: _truncated,
    FaultKind.ENDLESS: _endless,
}
