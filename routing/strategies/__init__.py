"""The strategies by name, as `GATEWAY_STRATEGY` and the header `routing-strategy` give them."""

import random
from collections.abc import Callable, Iterable, Mapping

from cache.endpoints import Key
from routing.strategies.base import Strategy
from routing.strategies.load import LeastBusy, LeastKvCache, LeastLatency, Throughput
from routing.strategies.mix import Mix
from routing.strategies.prefix import PrefixCache
from routing.strategies.session import SessionAffinity
from routing.strategies.simple import LeastRequest, PowerOfTwo, Random, RoundRobin

STRATEGIES: Mapping[str, Callable[[random.Random], Strategy]] = {
    "least-busy": LeastBusy,
    "least-kv-cache": LeastKvCache,
    "least-latency": LeastLatency,
    "least-request": LeastRequest,
    "power-of-two": PowerOfTwo,
    "prefix-cache": PrefixCache,
    "random": Random,
    "round-robin": RoundRobin,
    "session-affinity": SessionAffinity,
    "throughput": Throughput,
}
#: Names that AIBrix' users know, and what comes nearest to them here.
ALIASES: Mapping[str, str] = {
    "least-busy-time": "least-busy",
    "least-gpu-cache": "least-kv-cache",
    "least-utilization": "least-busy",
    "load-balance": "least-busy",
    "prefix-cache-preble": "prefix-cache",
}
#: Strategies in one mix, and the greatest weight of each.
_MOST_PARTS, _MOST_WEIGHT = 8, 1000.0


class UnknownStrategy(ValueError):
    """There is no strategy of that name; the message lists those there are."""

    def __init__(self, name: str) -> None:
        shown = name if len(name) <= 100 else name[:100] + "…"
        super().__init__(f"unknown routing strategy {shown!r}; known are: {self.allowed}")

    @property
    def allowed(self) -> str:
        """What may be named instead."""
        return (
            f"{', '.join(STRATEGIES)}, or a mix of up to {_MOST_PARTS} of them with weights above "
            f"0 and up to {_MOST_WEIGHT:g}, such as prefix-cache:2,least-busy:1"
        )


class Strategies:
    """One of each, with its memory, and mixes of them."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._made = {name: make(rng) for name, make in STRATEGIES.items()}

    def get(self, name: str) -> Strategy:
        """The strategy, or mix, of that name. Raises `UnknownStrategy`."""
        strategy = self._made.get(name)
        if strategy is not None:
            return strategy
        if name in ALIASES:
            return self._made[ALIASES[name]]
        return Mix(self._rng, [(self._made[part], weight) for part, weight in _parts(name)])

    def forget(self, keys: Iterable[Key]) -> None:
        """These endpoints are gone, and all that they had. Called as `Strategy.chosen` is."""
        for strategy in self._made.values():
            if isinstance(strategy, PrefixCache):  # the only one that remembers what they have
                strategy.forget(keys)


def check(name: str) -> str:
    """Return `name` if it is a strategy's or a mix'. Raises `UnknownStrategy`."""
    if name not in STRATEGIES and name not in ALIASES:
        _parts(name)
    return name


def _parts(name: str) -> list[tuple[str, float]]:
    """The strategies of a mix and their weights; a weight left out is 1."""
    texts = name.split(",", _MOST_PARTS)
    parts = []
    for text in texts:
        part, colon, weight = text.partition(":")
        part = part.strip()
        part = ALIASES.get(part, part)
        try:
            parts.append((part, float(weight) if colon else 1.0))
        except ValueError:
            raise UnknownStrategy(name) from None
    known = all(part in STRATEGIES and 0 < weight <= _MOST_WEIGHT for part, weight in parts)
    if not known or len(parts) > _MOST_PARTS or len({part for part, _ in parts}) < len(parts):
        raise UnknownStrategy(name)
    return parts
