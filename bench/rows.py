"""Rows of the table of lists and choices."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

RUNS = 7


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Row:
    """Some runs of one thing, in seconds, shown in `unit`; the fastest may be `allowed` of these.

    The fastest, because the others tell what else the machine did meanwhile.
    """

    what: str
    times: Sequence[float]
    unit: Literal["ms", "µs"]
    allowed: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is within what is allowed."""
        return self.allowed is None or min(self.times) * _IN[self.unit] <= self.allowed

    def after(self, earlier: "Row | None") -> "Row":
        """The same with earlier runs before it."""
        return self if earlier is None else replace(self, times=(*earlier.times, *self.times))

    def __str__(self) -> str:
        """A line of the table."""
        scale = _IN[self.unit]
        low, middle, high = (
            scale * t for t in (min(self.times), median(self.times), max(self.times))
        )
        allowed = "" if self.allowed is None else f"{self.allowed:g}"
        verdict = "" if self.holds else " **too long**"
        return (
            f"| {self.what} | {low:.2f} | {middle:.2f} | {high:.2f} | {self.unit} "
            f"| {allowed}{verdict} |"
        )


_IN = {"ms": 1e3, "µs": 1e6}
