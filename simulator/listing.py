"""Answers to a list: which slices, as of when, and how many at a time."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulator.registry import Registry
from simulator.selector import Selector
from simulator.serialiser import Refusal, encode, list_body

INCONSISTENT = -1  # the version in a token that goes on with whatever there is now
_TOO_OLD_PAGE = (
    "The provided continue parameter is too old to display a consistent list result. You can "
    "start a new list without the continue parameter, or use the continue token in this response "
    "to retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)
_TOO_OLD_LIST = "The resourceVersion for the provided list is too old."


@dataclass(frozen=True, slots=True)
class Continuation:
    """Where the next page starts, and in which snapshot."""

    version: int
    start: str  # the first name that may be on the page

    def token(self) -> str:
        """It as clients carry it: URL-safe base64 without padding."""
        value = {"v": "meta.k8s.io/v1", "rv": self.version, "start": "/" + self.start}
        return base64.urlsafe_b64encode(encode(value)).rstrip(b"=").decode()

    @classmethod
    def parse(cls, token: str) -> "Continuation":
        """Read a token; raises `Refusal` (400) as the server answers a bad one."""
        text = b""
        try:
            text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            value = json.loads(text)
            return cls(int(value["rv"]), value["start"].removeprefix("/"))
        except binascii.Error:
            problem = "illegal base64 data"
        except (ValueError, KeyError, TypeError):
            problem = f"invalid character '{chr(text[0])}' looking for beginning of value"
        message = f"invalid continue token: continue key is not valid: {problem}"
        raise Refusal(400, message, "BadRequest")


def expired_token(start: str) -> Refusal:
    """The 410 for a page of a forgotten snapshot, with a token that goes on without it."""
    fresh = Continuation(INCONSISTENT, start).token()
    return Refusal(410, _TOO_OLD_PAGE, "Expired", metadata={"continue": fresh})


def list_answer(registry: Registry, query: Mapping[str, str]) -> bytes:
    """The body of a list. Raises `Refusal` for what the server would not answer."""
    selector = Selector.parse(query.get("labelSelector", ""))
    limit = _number(query.get("limit", ""))
    version, start = _place(registry, query, limit)
    if query.get("resourceVersion") == "0":
        limit = 0  # served from the server's cache, which knows no pages
    rest = [
        stored
        for stored in registry.at(version)
        if stored.key >= start and selector.matches(stored.labels)
    ]
    page = rest[:limit] if limit else rest
    metadata: dict[str, Any] = {"resourceVersion": str(version)}
    if len(page) < len(rest):
        metadata["continue"] = Continuation(version, page[-1].key + "\x00").token()
        if not selector.requirements:  # with a selector the server can't know how many are left
            metadata["remainingItemCount"] = len(rest) - len(page)
    return list_body([stored.item for stored in page], metadata)


def _place(registry: Registry, query: Mapping[str, str], limit: int) -> tuple[int, str]:
    """The snapshot's version and the first name to show."""
    if query.get("continue"):
        continuation = Continuation.parse(query["continue"])
        if continuation.version == INCONSISTENT:
            return registry.version, continuation.start
        if continuation.version < registry.compacted:
            raise expired_token(continuation.start)
        return continuation.version, continuation.start
    version = _requested_version(registry, query.get("resourceVersion", ""))
    match = query.get("resourceVersionMatch")
    if match == "Exact" or (version and limit and not match):
        if version < registry.compacted:
            raise Refusal(410, _TOO_OLD_LIST, "Expired")
        return version, ""
    return registry.version, ""


def _number(text: str) -> int:
    """A count in a query; 0 where there is none."""
    try:
        return int(text or 0)
    except ValueError:
        problem = f'strconv.ParseInt: parsing "{text}": invalid syntax'
        raise Refusal(400, problem, "BadRequest") from None


def _requested_version(registry: Registry, text: str) -> int:
    """The resourceVersion asked for; 0 when any will do."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        raise Refusal(400, f"invalid resource version: {invalid_version(text)}", "BadRequest")
    version = int(text)
    if version > registry.version:
        message = f"Timeout: Too large resource version: {text}, current: {registry.version}"
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        details = {"causes": [cause], "retryAfterSeconds": 1}
        raise Refusal(504, message, "Timeout", details=details, retry_after=1)
    return version


def invalid_version(text: str) -> str:
    """How the server words a resourceVersion that is no number."""
    problem = f'strconv.ParseUint: parsing "{text}": invalid syntax'
    return f'resourceVersion: Invalid value: "{text}": {problem}'
