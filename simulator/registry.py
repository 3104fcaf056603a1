"""The API server's store: every slice now, and how it came to be so."""

import asyncio
import uuid
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from simulator.selector import Selector
from simulator.serialiser import Refusal, encode, event_line, slice_content, timestamp

HISTORY = 5000  # changes kept for watches and pages; as many again before the older half goes


@dataclass(frozen=True, slots=True)
class Stored:
    """One slice as it is stored; `item` is its JSON as it stands in a list.

    `labels` is None where the content is too malformed to have any.
    """

    key: str
    content: Any
    item: bytes
    labels: Mapping[str, str] | None

    @classmethod
    def of(cls, key: str, content: Any) -> "Stored":
        """Encode `content` once, for every list and watch that will show it."""
        metadata = content.get("metadata") if isinstance(content, dict) else None
        labels = metadata.get("labels", {}) if isinstance(metadata, dict) else None
        return cls(key, content, encode(content), labels if isinstance(labels, dict) else None)

    def last_words(self, version: int) -> bytes:
        """The item as a DELETED event shows it: the old content, the new resourceVersion."""
        if self.labels is None:
            return self.item
        metadata = {**self.content["metadata"], "resourceVersion": str(version)}
        return encode({**self.content, "metadata": metadata})


@dataclass(frozen=True, slots=True)
class Change:
    """One slice before and after the change that made `version`; None where it was absent."""

    version: int
    key: str
    before: Stored | None
    after: Stored | None

    def event(self, selector: Selector) -> bytes | None:
        """What a watch on `selector` sees of it: an event line, or nothing."""
        was = self.before if self.before and selector.matches(self.before.labels) else None
        now = self.after if self.after and selector.matches(self.after.labels) else None
        if now:
            return event_line("MODIFIED" if was else "ADDED", now.item)
        if was:
            return event_line("DELETED", was.last_words(self.version))
        return None


class Registry:
    """Slices of one namespace with resourceVersions. Used on the loop's thread only."""

    def __init__(self, namespace: str, version: int = 1000) -> None:
        self.namespace = namespace
        self.version = version
        self.compacted = version  # what happened up to here can't be told any more
        self._items: dict[str, Stored] = {}
        self._log: list[Change] = []
        self._news = asyncio.Event()

    def put(self, raw: Mapping[str, Any], manager: str = "kubectl") -> None:
        """Create or update a slice; the server's own metadata is filled in.

        Raises `KeyError` when `metadata.name` is missing.
        """
        version = self.version + 1
        given = {name: value for name, value in raw["metadata"].items() if value is not None}
        before = self._items.get(given["name"])
        known = before.content["metadata"] if before and before.labels is not None else {}
        metadata = {
            "uid": known.get("uid") or str(uuid.uuid4()),
            "creationTimestamp": known.get("creationTimestamp") or timestamp(),
            **given,
            "namespace": self.namespace,
            "labels": dict(sorted(given.get("labels", {}).items())),
            "resourceVersion": str(version),
            "generation": known.get("generation", 0) + 1,
        }
        content = slice_content(metadata, raw, manager)
        self._record(version, Stored.of(given["name"], content), given["name"])

    def put_verbatim(self, key: str, content: Any, version: int | None = None) -> None:
        """Store anything at all, as it is; lists and watches show it unchanged."""
        self._record(version or self.version + 1, Stored.of(key, content), key)

    def delete(self, key: str, version: int | None = None) -> None:
        """Remove a slice. Raises `KeyError` when there is none."""
        if key not in self._items:
            raise KeyError(key)
        self._record(version or self.version + 1, None, key)

    def restore(self, items: Iterable[Mapping[str, Any]], version: int) -> None:
        """Become a server that holds exactly `items`, verbatim, and remembers no history."""
        self._items = {
            item["metadata"]["name"]: Stored.of(item["metadata"]["name"], item) for item in items
        }
        self.version = version
        self.compact()

    def at(self, version: int) -> list[Stored]:
        """All slices as they were at `version`, by name. Raises `Refusal` (410) if forgotten."""
        then = dict(self._items)
        for change in reversed(self.since(version)):
            if change.before:
                then[change.key] = change.before
            else:
                then.pop(change.key, None)
        return [then[key] for key in sorted(then)]

    def since(self, version: int) -> list[Change]:
        """What changed after `version`, in order. Raises `Refusal` (410) if forgotten."""
        if version < self.compacted:
            message = f"too old resource version: {version} ({self.compacted})"
            raise Refusal(410, message, "Expired")
        return self._log[bisect_right(self._log, version, key=lambda change: change.version) :]

    def compact(self) -> None:
        """Forget the past: older resourceVersions and `continue` tokens have expired."""
        self._log.clear()
        self.compacted = self.version

    def news(self) -> asyncio.Event:
        """What the next change will set; take it before looking, and no change is missed."""
        return self._news

    def _record(self, version: int, after: Stored | None, key: str) -> None:
        self._log.append(Change(version, key, self._items.get(key), after))
        self.version = version
        if after:
            self._items[key] = after
        else:
            self._items.pop(key, None)
        if len(self._log) > 2 * HISTORY:
            self.compacted = self._log[-HISTORY - 1].version
            del self._log[:-HISTORY]
        self._news.set()
        self._news = asyncio.Event()
