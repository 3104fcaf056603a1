"""A pretend world for the poller: a source that follows a script, and time that only it moves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import REGISTRY

from cache.endpoints import Snapshot
from cache.poller import Poller
from cache.slices import Reading, SliceSet
from cache.source import Event, Listing, Source, SourceError
from cache.store import SnapshotStore
from tests.slices import entry, raw_slice

POLL_SECONDS = 2.0


def listing(*pods: str, version: str | None = None, **conditions: Any) -> Listing:
    """A list of one slice of model `m` with these pods."""
    return Listing([raw_slice(*(entry(pod, **conditions) for pod in pods))], version)


def event(kind: str, *pods: str, version: str = "2") -> Event:
    """An event for that slice."""
    return Event(kind, raw_slice(*map(entry, pods), version=version))


@dataclass
class Watch:
    """One scripted watch: events, the seconds until each and until the end, and how it ends."""

    events: list[Event] = field(default_factory=list)
    seconds: float = 0.0
    error: Exception | None = None
    lasts: bool = True  # as long as was asked for, where no `error` ends it


class World:
    """The script, the time, and what happened."""

    longest_list = 3.0

    def __init__(self) -> None:
        self.now = 1000.0
        self.lists: list[Listing | Exception] = []
        self.listing_takes = 0.0
        self.watches: list[Watch] = []
        self.waits: list[float] = []
        self.calls: list[tuple[Any, ...]] = []
        self.renewal: SourceError | None = None
        self.at_the_end: Callable[[], None] = lambda: None  # of a wait, of a watch

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        self.at_the_end()
        return False

    def watched_from(self) -> list[str]:
        """The versions from which it was watched."""
        return [call[1] for call in self.calls if call[0] == "watch"]

    def called(self) -> list[str]:
        """What was called, in order."""
        return [call[0] for call in self.calls]

    def list(self) -> Listing:
        self.calls.append(("list", self.now))
        self.now += self.listing_takes
        answer = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def watch(self, resource_version: str, seconds: float) -> Iterator[Event]:
        self.calls.append(("watch", resource_version, seconds))
        script = self.watches.pop(0) if self.watches else Watch()
        ends = self.now + seconds
        for change in script.events:
            self.now += script.seconds
            yield change
        if script.error is not None:
            self.now += script.seconds
            raise script.error
        if script.lasts:
            self.now = max(self.now, ends)
        self.at_the_end()

    def renew_credentials(self) -> None:
        self.calls.append(("renew", self.now))
        if self.renewal is not None:
            raise self.renewal


class Polled:
    """A poller in a pretend world, and what it published."""

    def __init__(
        self,
        world: World,
        *,
        source: Source | None = None,
        watch: bool = True,
        jitter: float = 1.0,
        poll: float = POLL_SECONDS,
    ) -> None:
        self.published: list[Snapshot] = []
        self.store = SnapshotStore(600.0, world.clock)
        self.poller = Poller(
            source or world,
            self.store,
            SliceSet(Reading()),
            poll_seconds=poll,
            watch=watch,
            jitter=lambda: jitter,
            on_change=self.published.append,
            clock=world.clock,
            wait=world.wait,
        )

    def steps(self, number: int) -> None:
        for _ in range(number):
            self.poller.step()

    def addresses(self) -> list[str]:
        pool = self.store.snapshot().pools.get("m")
        return [endpoint.address for endpoint in pool.routable] if pool else []


def counted(name: str, label: str, value: str) -> float:
    """How far a counter of the process has come."""
    return REGISTRY.get_sample_value(name, {label: value}) or 0.0
