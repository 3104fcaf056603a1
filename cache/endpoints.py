"""What the cluster looks like, as plain immutable values: `Endpoint`, `Pool`, `Snapshot`."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

#: An endpoint's identity across slice updates.
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pod's address as its slice entry tells it, every optional field made plain.

    `routable` is the verdict on the three conditions (ready, serving, not
    terminating); two entries that differ in any field are different values, which is how a
    change of an entry is noticed.
    """

    address: str
    port: int
    pod: str | None = None
    zone: str | None = None
    node: str | None = None
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    routable: bool = True
    #: Where its engine tells its load, if not at `port`.
    metrics_port: int | None = None
    #: The trigger time of its slice, as it is written there: for people, and no part of the value.
    triggered: str | None = field(default=None, repr=False, compare=False)
    #: Address and port: what in-flight counts and connections belong to.
    key: Key = field(init=False, repr=False, compare=False)
    #: `address:port` as a URL or `Host` header carries it (RFC 3986 §3.2.2).
    authority: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Put these together once here: every request needs them."""
        object.__setattr__(self, "key", (self.address, self.port))
        host = f"[{self.address}]" if ":" in self.address else self.address
        object.__setattr__(self, "authority", f"{host}:{self.port}")

    @property
    def name(self) -> str:
        """The pod's name, or where none is known its address and port."""
        return self.pod or self.authority

    @property
    def state(self) -> str:
        """`ready`, `terminating` or `not_ready`."""
        if self.routable:
            return "ready"
        return "terminating" if self.terminating else "not_ready"


@dataclass(frozen=True, slots=True)
class Pool:
    """All endpoints of one model, sorted by address and port."""

    model: str
    endpoints: tuple[Endpoint, ...] = ()
    routable: tuple[Endpoint, ...] = field(init=False)
    #: The identities of its endpoints.
    keys: frozenset[Key] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Filter once here, so that no request and no change of another pool has to."""
        routable = tuple(endpoint for endpoint in self.endpoints if endpoint.routable)
        object.__setattr__(self, "routable", routable)
        object.__setattr__(self, "keys", frozenset(e.key for e in self.endpoints))

    @property
    def terminating_but_serving(self) -> tuple[Endpoint, ...]:
        """Endpoints that finish their work and would still answer (KEP-1669)."""
        return tuple(e for e in self.endpoints if e.terminating and e.serving)

    def describe(self) -> str:
        """`model 'm': 3 endpoints, 2 not ready, 1 terminating`."""
        states = Counter(endpoint.state for endpoint in self.endpoints)
        total = len(self.endpoints)
        parts = [f"{total} endpoint{'' if total == 1 else 's'}"]
        for state in ("ready", "not_ready", "terminating"):
            if states[state]:
                parts.append(f"{states[state]} {state.replace('_', ' ')}")
        return f"model {self.model!r}: " + ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster at one moment: every known model with its pool, sorted by model.

    `listed_at` is the monotonic time, in seconds, at which the full list began that this
    snapshot rests on; a watch event changes the pools and leaves it as it is.
    """

    pools: Mapping[str, Pool]
    listed_at: float

    def __post_init__(self) -> None:
        """Make the mapping as read-only as the rest."""
        object.__setattr__(self, "pools", MappingProxyType(dict(sorted(self.pools.items()))))

    def known(self, keys: Iterable[Key]) -> frozenset[Key]:
        """Those of `keys` that an endpoint has.

        Asked at every change: it costs what `keys` are, not what the cluster is.
        """
        wanted = frozenset(keys)
        return frozenset[Key]().union(*(pool.keys & wanted for pool in self.pools.values()))
