"""What is expected of strategies, and whether runs bear it out."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.strategies.figures import (
    ALLOWED,
    HITS,
    P50,
    Case,
    Results,
    against_random,
    middle,
)


@dataclass(frozen=True, slots=True)
class Expectation:
    """One of them: what was found, what would be allowed, and whether that holds."""

    what: str
    found: str
    allowed: str
    holds: bool


def expectations(results: Results) -> list[Expectation]:
    """Those that there are figures for."""
    return [*_shared_prefix(results), *_multi_turn(results), *_none_worse(results)]


def _shared_prefix(results: Results) -> Iterator[Expectation]:
    """Prefixes that many requests share are worth following."""
    for gateways in sorted({case.gateways for case in results}):
        ours = Case("shared-prefix", gateways, "prefix-cache")
        if ours in results:
            random = Case("shared-prefix", gateways, "random")
            ratio = middle(results[ours], P50) / middle(results[random], P50)
            yield Expectation(f"{ours}; p50 / `random`'s", f"{ratio:.2f}", "0.50", ratio <= 0.5)


def _multi_turn(results: Results) -> Iterator[Expectation]:
    """Conversations find what was said before; more often with gateways that agree."""
    for gateways in sorted({case.gateways for case in results}):
        random = Case("multi-turn", gateways, "random")
        for strategy in ("prefix-cache", "session-affinity"):
            ours = Case("multi-turn", gateways, strategy)
            if ours in results:
                hits, luck = middle(results[ours], HITS), middle(results[random], HITS)
                yield Expectation(
                    f"{ours}; cached",
                    f"{hits:.0%}",
                    f"{2 * luck:.0%}, twice `random`'s",
                    hits >= 2 * luck,
                )


def _none_worse(results: Results) -> Iterator[Expectation]:
    """Nobody is better off without a strategy."""
    for what, allowed in ALLOWED.items():
        compared = [one for one in against_random(results) if one.what == what]
        if compared:
            worst = max(compared, key=lambda one: one.ratio)
            yield Expectation(
                f"the worst of {len(compared)} cases, {worst.case}; {what} / `random`'s",
                f"{worst.ratio:.2f}",
                f"{allowed:.2f}",
                not worst.is_worse,
            )
