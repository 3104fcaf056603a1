"""What docs/strategies.md and the README say of gains is what the simulation's report shows."""

import re
from collections.abc import Callable
from statistics import geometric_mean, median

import pytest

from bench.strategies import workloads as simulated
from bench.strategies.report import BEGIN, END
from tests.harness import ROOT

GUIDE = (ROOT / "docs" / "strategies.md").read_text()
README = (ROOT / "README.md").read_text()
REPORT = (ROOT / "bench" / "strategies" / "report" / "report.md").read_text()
GATEWAYS = (1, 2, 4, 8)
MIX = "prefix-cache:2,least-busy:1"
WORKLOADS = set(simulated.WORKLOADS)
#: Where most of the engines are busy: elsewhere the median waits for nobody.
BUSY = WORKLOADS - {"slow-engine", "other-clients"}
#: Those that see half the load, and those whose view of it is old.
HALF_OR_OLD = ("least-request", "round-robin", "least-busy", "least-kv-cache", "throughput")
MUCH_SHARED = ("shared-prefix", "multi-turn")


def cells(line: str) -> list[str]:
    return [cell.strip(" `") for cell in line.strip("|").split("|")]


def tables() -> dict[tuple[str, str, str], float]:
    """Every figure of the report, by workload, column (as `p99, 8`) and strategy."""
    found = {}
    for section in REPORT.partition("\n## Figures\n")[2].split("\n### ")[1:]:
        workload, _, text = section.partition("\n")
        head, _, *rows = [cells(line) for line in text.splitlines() if line.startswith("|")]
        for row in rows:
            for column, figure in zip(head[1:], row[1:], strict=True):
                found[workload, column, row[0]] = float(figure.replace(",", "").rstrip("%"))
    return found


FIGURES = tables()


def of(strategy: str, workload: str, what: str, gateways: int) -> float:
    return FIGURES[workload, f"{what}, {gateways}", strategy]


def lead(strategy: str, workload: str, what: str, gateways: int) -> float:
    """By how much it is ahead of `random`, as a part of the latter's time."""
    return 1 - of(strategy, workload, what, gateways) / of("random", workload, what, gateways)


def others(strategy: str) -> set[str]:
    return {name for _, _, name in FIGURES} - {strategy}


def mix_is_as_good(gateways: int) -> bool:
    return all(
        of(MIX, workload, what, gateways) <= 1.1 * of("prefix-cache", workload, what, gateways)
        for workload in WORKLOADS
        for what in ("p50", "p99")
        if (workload, what) != ("skewed", "p99")
    )


def mix_is_behind(gateways: int) -> bool:
    return all(
        of(MIX, workload, what, gateways) > of("prefix-cache", workload, what, gateways)
        for workload in MUCH_SHARED
        for what in ("p50", "p99")
    )


def kept(workload: str, what: str, *strategies: str) -> float:
    """What part of the lead that these have with one gateway they have with eight."""
    few, many = (sum(lead(name, workload, what, n) for name in strategies) for n in (1, 8))
    return many / few


CLAIMS: list[tuple[str, Callable[[], bool]]] = [
    (
        "is less than a tenth of `random`'s, with one gateway or eight",
        lambda: all(lead("prefix-cache", "shared-prefix", "p50", n) > 0.9 for n in (1, 8)),
    ),
    (
        "with eight some of the lead is left, least of it for conversations",
        lambda: (
            lead("least-request", "multi-turn", "p50", 8)
            < min(lead("least-request", workload, "p50", 8) for workload in BUSY - {"multi-turn"})
        ),
    ),
    (
        "it finds as much in the caches with any number of gateways",
        lambda: len({of("session-affinity", "multi-turn", "cached", n) for n in GATEWAYS}) == 1,
    ),
    (
        "Its slowest answers (p99) begin the soonest there, with any number of gateways.",
        lambda: all(
            of("least-latency", "slow-engine", "p99", n) < of(name, "slow-engine", "p99", n)
            for n in GATEWAYS
            for name in others("least-latency")
        ),
    ),
    (
        "its slowest answers (p99) begin in about half of the time that `least-request`'s take, or "
        "less, with any number of gateways",
        lambda: all(
            of("least-busy", "other-clients", "p99", n)
            < 0.6 * of("least-request", "other-clients", "p99", n)
            for n in GATEWAYS
        ),
    ),
    (
        "it is on the whole about as good as `least-busy`",
        lambda: (
            0.95
            < geometric_mean(
                of("least-kv-cache", workload, what, n) / of("least-busy", workload, what, n)
                for workload in WORKLOADS
                for what in ("p50", "p99")
                for n in GATEWAYS
            )
            < 1.05
        ),
    ),
    (
        "its slowest answers take twice as long with eight gateways as with one",
        lambda: (
            round(
                of("round-robin", "slow-engine", "p99", 8)
                / of("round-robin", "slow-engine", "p99", 1)
            )
            == 2
        ),
    ),
    (
        f"`{MIX}` is about as good as `prefix-cache` or better with one gateway, but for the "
        "slowest answers where lengths differ much; with four or eight `prefix-cache` alone does "
        "better where much of a prompt is shared.",
        lambda: (
            mix_is_as_good(1)
            and of(MIX, "skewed", "p99", 1) > 1.1 * of("prefix-cache", "skewed", "p99", 1)
            and mix_is_behind(4)
            and mix_is_behind(8)
        ),
    ),
    (
        "| keeps more of its lead in the median than the three above, but for conversations |",
        lambda: all(
            lead("least-latency", workload, "p50", 8) > lead(name, workload, "p50", 8)
            for workload in BUSY - {"multi-turn"}
            for name in ("least-busy", "least-kv-cache", "throughput")
        ),
    ),
    (
        "its median is mostly no better than `least-request`'s",
        lambda: (
            median(
                of("throughput", workload, "p50", n) / of("least-request", workload, "p50", n)
                for workload in BUSY
                for n in GATEWAYS
            )
            >= 1
        ),
    ),
    (
        "its slowest answers begin sooner, as those of all strategies do that go by reports",
        lambda: all(
            of(name, "other-clients", "p99", n)
            < 0.75 * of("least-request", "other-clients", "p99", n)
            for name in ("least-busy", "least-kv-cache", "least-latency", "throughput")
            for n in GATEWAYS
        ),
    ),
    (
        "less than half is left with eight, of its p99 more than of its median",
        lambda: (
            kept("uniform", "p50", "least-request")
            < min(1 / 2, kept("uniform", "p99", "least-request"))
        ),
    ),
    (
        "of the median of conversations nearly nothing does",
        lambda: all(
            lead(name, "multi-turn", "p50", 8) < 0.05
            for name in ("least-request", "round-robin", "power-of-two", "least-busy", "throughput")
        ),
    ),
    (
        "Where lengths differ much most of the lead stays, also in the median",
        lambda: all(kept("skewed", what, *HALF_OR_OLD) > 1 / 2 for what in ("p50", "p99")),
    ),
    (
        "None is worse than `random` by more than noise",
        lambda: len(re.findall(r"\n\| the worst of .* \| yes \|", REPORT)) == 2,
    ),
]


def test_the_report_is_read_whole() -> None:
    assert {workload for workload, _, _ in FIGURES} == WORKLOADS
    assert len({name for _, _, name in FIGURES}) == 12


@pytest.mark.parametrize(("words", "holds"), CLAIMS, ids=[words for words, _ in CLAIMS])
def test_what_the_guide_says_of_gains_holds(words: str, holds: Callable[[], bool]) -> None:
    assert words in GUIDE
    assert holds()


def test_the_readme_has_the_report_s_summary_and_says_what_the_guide_does() -> None:
    summary = README.partition(BEGIN)[2].partition(END)[0]
    assert summary.count("\n| `") == 2 * 12
    assert summary in REPORT
    assert "to less than a tenth of `random`'s, with one gateway or eight;" in README
    assert "several gateways `session-affinity` keeps the caches whole" in README
