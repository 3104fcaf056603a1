"""The little statistics that a benchmark needs."""

from collections.abc import Iterable, Sequence
from statistics import median


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of all lie; NaN if there are none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def medians(rounds: Iterable[dict[str, float]]) -> dict[str, float]:
    """The median of each measure over the rounds that have it."""
    collected: dict[str, list[float]] = {}
    for measures in rounds:
        for name, value in measures.items():
            collected.setdefault(name, []).append(value)
    return {name: median(values) for name, values in collected.items()}
