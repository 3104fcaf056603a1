"""Where EndpointSlices come from: what a source promises, and the file that is one.

A source gives raw JSON objects; `cache.kubernetes` has the one that asks the API server.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import yaml

#: The events a watch may give.
EVENT_KINDS: Final = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")


class SourceError(Exception):
    """A list or a watch failed.

    `kind` is one of `unauthorized`, `forbidden`, `expired`, `throttled`, `server_error`, `refused`
    (the request as such), `unreachable`, `timeout`, `garbage`, `file`. `retry_after` is the wait
    in seconds that the server asked for, if it did.
    """

    def __init__(self, kind: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Listing:
    """A complete list, all pages, and the resourceVersion a watch may go on from."""

    items: list[object]
    resource_version: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One watch event: its kind, of `EVENT_KINDS`, and its raw object."""

    kind: str
    object: Any


#: What kubectl calls a list, with its own kind or made up of several answers.
_LIST_KINDS: Final = ("List", "EndpointSliceList")


class Source(Protocol):
    """Where slices come from. Implementations raise `SourceError` and nothing else."""

    @property
    def longest_list(self) -> float:
        """Seconds within which a list ends, well or badly; after more of them it never may."""

    def list(self) -> Listing:
        """Return all slices that are selected now."""

    def watch(self, resource_version: str, seconds: float) -> Iterator[Event]:
        """Yield changes since `resource_version` as they happen, for at most about `seconds`."""

    def renew_credentials(self) -> None:
        """Read the credentials again, because the server did not accept them."""


class FileSource:
    """A file with an EndpointSliceList in JSON or YAML, as `kubectl get … -o` prints it.

    Whoever edits it leaves each slice's `resourceVersion` as it is, so that mark is taken off.
    """

    longest_list: Final = 0.0  # nothing bounds it, and nothing needs time that can be told

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def list(self) -> Listing:
        """Read the file; raises `SourceError("file")` if it can't be read or is no list."""
        try:
            text = self._path.read_text(encoding="utf-8")
            document = json.loads(text) if text.lstrip()[:1] == "{" else _as_json(text)
        except (OSError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise SourceError("file", f"{self._path}: {error}") from error
        if (
            not isinstance(document, dict)
            or document.get("kind", "List") not in _LIST_KINDS
            or "items" not in document
        ):
            raise SourceError("file", f"{self._path}: not a list of EndpointSlices")
        items = items_of(document)
        for item in items:
            metadata = item.get("metadata") if isinstance(item, dict) else None
            if isinstance(metadata, dict):
                metadata.pop("resourceVersion", None)
        return Listing(items)

    def watch(self, resource_version: str, seconds: float) -> Iterator[Event]:
        """A file is polled only."""
        raise NotImplementedError

    def renew_credentials(self) -> None:
        """A file needs none."""


def _as_json(text: str) -> Any:
    """A YAML document as JSON has it: dates as text, and neither cycles nor endless numbers."""
    return json.loads(json.dumps(yaml.safe_load(text), default=str))


def items_of(document: dict[str, Any]) -> list[object]:
    """The items of a list; `null` is the API's way to say none. Raises `SourceError`."""
    items = document.get("items")
    if items is None:
        return []
    if not isinstance(items, list):
        raise SourceError("garbage", "the list's items are no list")
    return items
