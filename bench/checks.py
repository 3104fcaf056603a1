"""What the project asks of itself: ratios to others in the same run, because machines differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Measures by scenario and target."""
Runs = Mapping[tuple[str, str], Sequence[Mapping[str, float]]]
"""The measures of each time that a target was measured, by scenario and target."""

MEGABYTE = 1e6


@dataclass(frozen=True)
class Check:
    """A finding: `holds` is None where a figure is missing."""

    what: str
    found: str
    allowed: str
    holds: bool | None


@dataclass(frozen=True)
class _Ratio:
    scenario: str
    measure: str
    title: str
    to: str
    allowed: float


_RATIOS = (
    _Ratio("streams-500", "cpu_per_token", "CPU per token", "nginx", 1.25),
    _Ratio("streams-500", "cpu_per_token", "CPU per token", "sglang-router", 1.0),
    _Ratio("streams-500", "delay_p99", "added delay p99", "nginx", 1.5),
    _Ratio("streams-500", "ttft_p50", "time to first token p50", "nginx", 2.0),
    _Ratio("mixed", "delay_p99", "added delay p99", "nginx", 1.0),
    _Ratio("single-1", "cpu_per_request", "CPU per request", "floor", 1.0),
    _Ratio("single-32", "cpu_per_request", "CPU per request", "floor", 1.0),
)

#: Measures of the gateway with the most that is allowed of each: a number, or another measure
#: and how much more than that it may be.
_LIMITS: tuple[tuple[str, str, str, float | tuple[str, float]], ...] = (
    ("streams-1000", "errors", "errors", 0),
    ("streams-1000", "rss_children", "RSS, worker and relay", 140 * MEGABYTE),
    ("streams-1000", "threads", "threads", ("threads_rest", 1.0)),
    ("idle-2000", "errors", "errors", 0),
    ("leak", "errors", "errors", 0),
    ("leak", "in_flight_after", "in flight afterwards", 0),
    ("leak", "descriptors_after", "descriptors afterwards", ("descriptors_before", 1.0)),
    ("leak", "rss_after", "RSS afterwards", ("rss_before", 1.05)),
)


def checks(figures: Figures, runs: Runs) -> list[Check]:
    """Every target of the project, with what was found; a ratio with its least and its greatest."""
    return [_ratio(ratio, figures, runs) for ratio in _RATIOS] + [
        _limit(figures.get(scenario, {}).get("gateway", {}), scenario, measure, title, most)
        for scenario, measure, title, most in _LIMITS
    ]


def _ratio(ratio: _Ratio, figures: Figures, runs: Runs) -> Check:
    measured = figures.get(ratio.scenario, {})
    ours = measured.get("gateway", {}).get(ratio.measure)
    theirs = measured.get(ratio.to, {}).get(ratio.measure)
    what = f"{ratio.scenario}: {ratio.title}, gateway / {ratio.to}"
    if ours is None or not theirs:
        return Check(what, "", f"{ratio.allowed:.2f}", None)
    found = ours / theirs
    text = f"{found:.2f}{_spread(ratio, runs)}"
    return Check(what, text, f"{ratio.allowed:.2f}", found <= ratio.allowed)


def _spread(ratio: _Ratio, runs: Runs) -> str:
    """The least and the greatest ratio of two measurements that followed each other."""
    pairs = zip(
        runs.get((ratio.scenario, "gateway"), ()),
        runs.get((ratio.scenario, ratio.to), ()),
        strict=False,
    )
    found = [ours[ratio.measure] / theirs[ratio.measure] for ours, theirs in pairs]
    return f" ({min(found):.2f}–{max(found):.2f})" if len(found) > 1 else ""  # noqa: RUF001


def _limit(
    run: Mapping[str, float],
    scenario: str,
    measure: str,
    title: str,
    most: float | tuple[str, float],
) -> Check:
    other, factor = most if isinstance(most, tuple) else ("", 1.0)
    limit = run.get(other) if isinstance(most, tuple) else most
    found = run.get(measure)
    what = f"{scenario}: {title}"
    if found is None or limit is None:
        return Check(what, "", "", None)
    limit *= factor
    return Check(what, _plain(found), _plain(limit), found <= limit)


def _plain(value: float) -> str:
    """A count, or megabytes where a number can only be bytes."""
    return f"{value / MEGABYTE:.1f} MB" if value >= MEGABYTE else f"{value:g}"
