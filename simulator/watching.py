"""One watch from its first event to its end."""

import asyncio
import time

from simulator.apicall import ApiCall
from simulator.listing import invalid_version
from simulator.registry import Registry
from simulator.selector import Selector
from simulator.serialiser import Refusal, bookmark_line, error_line, event_line

LONGEST_SECONDS = 3600.0
LAST_BOOKMARK_SECONDS = 2.0  # before the end
TRUE = ("1", "true", "True")


class Watch:
    """Follows the registry from one resourceVersion on, for one client.

    Raises `Refusal` on construction where the server would not even start. Used on the loop's
    thread only.
    """

    def __init__(self, call: ApiCall, registry: Registry, bookmark_seconds: float) -> None:
        query = call.query
        self.call = call
        self._registry = registry
        self._bookmark_seconds = bookmark_seconds
        self._selector = Selector.parse(query.get("labelSelector", ""))
        self._wants_bookmarks = query.get("allowWatchBookmarks") in TRUE
        self._marks_initial_end = query.get("sendInitialEvents") in TRUE and self._wants_bookmarks
        self._version = _start(registry, query.get("resourceVersion", ""))
        seconds = _seconds(query.get("timeoutSeconds", ""))
        now = time.monotonic()
        self._end = now + seconds
        self._next_bookmark = self._bookmark_due(now)
        self._thawed: asyncio.Event | None = None

    def freeze(self, thawed: asyncio.Event) -> None:
        """Fall silent until `thawed` is set, past the end if need be."""
        self._thawed = thawed

    async def run(self) -> None:
        """Tell what happens until the time is over or the client leaves."""
        leaves = asyncio.create_task(self.call.client_leaves())
        try:
            await self.call.start_stream()
            await self._tell_initial()
            while not leaves.done():
                news = self._registry.news()
                if await self._tell_changes():
                    continue
                now = time.monotonic()
                if now >= self._end:
                    await self.call.send_chunk(b"")
                    return
                await self._tell_bookmark(now)
                until = min(self._end, self._next_bookmark) - time.monotonic()
                await _either(leaves, news, max(0.0, until))
                await self._stay_frozen(leaves)
            self.call.keep_alive = False
        except Refusal as refusal:
            await self.call.send_chunk(error_line(refusal))
            await self.call.send_chunk(b"")
        finally:
            leaves.cancel()
            # the connection's next request may be read only when nobody else reads any more
            await asyncio.wait({leaves})

    async def _tell_initial(self) -> None:
        if self._version:
            return
        self._version = self._registry.version
        for stored in self._registry.at(self._version):
            if self._selector.matches(stored.labels):
                await self.call.send_chunk(event_line("ADDED", stored.item))
        if self._marks_initial_end:
            line = bookmark_line(self._version, initial_events_end=True)
            await self.call.send_chunk(line)

    async def _tell_changes(self) -> bool:
        """Send what has happened since; whether that was anything."""
        changes = self._registry.since(self._version)
        for change in changes:
            line = change.event(self._selector)
            if line:
                await self.call.send_chunk(line)
            self._version = change.version
        return bool(changes)

    async def _tell_bookmark(self, now: float) -> None:
        if now < self._next_bookmark:
            return
        self._next_bookmark = self._bookmark_due(now)
        if self._wants_bookmarks:
            await self.call.send_chunk(bookmark_line(self._version))

    def _bookmark_due(self, now: float) -> float:
        regular, last = now + self._bookmark_seconds, self._end - LAST_BOOKMARK_SECONDS
        return min(regular, last) if now < last else regular

    async def _stay_frozen(self, leaves: "asyncio.Task[None]") -> None:
        while self._thawed and not leaves.done():
            await _either(leaves, self._thawed, None)
            if self._thawed.is_set():
                self._thawed = None


async def _either(
    leaves: "asyncio.Task[None]", event: asyncio.Event, timeout: float | None
) -> None:
    """Wait until the client leaves, the event is set or `timeout` seconds are over."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({leaves, waiting}, timeout=timeout, return_when="FIRST_COMPLETED")
    finally:
        waiting.cancel()


def _start(registry: Registry, text: str) -> int:
    """The version to follow from; 0 when the current objects come first."""
    if text in ("", "0"):
        return 0
    if not text.isascii() or not text.isdigit():
        raise Refusal(500, invalid_version(text))
    version = int(text)
    registry.since(version)  # refuses what is forgotten
    return version


def _seconds(text: str) -> float:
    try:
        return float(text or LONGEST_SECONDS)
    except ValueError:
        problem = f'strconv.ParseInt: parsing "{text}": invalid syntax'
        raise Refusal(400, problem, "BadRequest") from None
