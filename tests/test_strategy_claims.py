"""What docs/strategies.md says of gains is what the simulation's report shows."""

import re
from collections.abc import Callable

import pytest

from tests.harness import ROOT

GUIDE = (ROOT / "docs" / "strategies.md").read_text()
REPORT = (ROOT / "bench" / "strategies" / "report" / "report.md").read_text()
GATEWAYS = (1, 2, 4, 8)
MIX = "prefix-cache:2,least-busy:1"
WORKLOADS = {"uniform", "short-prefix", "skewed", "shared-prefix", "multi-turn", "slow-engine"}
ALIKE = ("short-prefix", "shared-prefix", "multi-turn")


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
        of(MIX, workload, what, gateways) <= of("prefix-cache", workload, what, gateways)
        for workload in WORKLOADS
        for what in ("p50", "p99")
    )


def mix_is_behind(gateways: int) -> bool:
    return all(
        of(MIX, workload, what, gateways) > of("prefix-cache", workload, what, gateways)
        for workload in ALIKE
        for what in ("p50", "p99")
    )


def is_told(template: str, *figures: tuple[str, str, str, int]) -> bool:
    """Whether the guide gives these figures, in these words."""
    numbers = [f"{of(*figure):,.0f}" for figure in figures]
    return template.format(*numbers) in GUIDE


CLAIMS: list[tuple[str, Callable[[], bool]]] = [
    (
        "is less than a tenth of `random`'s, with one gateway or eight",
        lambda: all(lead("prefix-cache", "shared-prefix", "p50", n) > 0.9 for n in (1, 8)),
    ),
    (
        "with eight some of the lead is left, least of it for conversations",
        lambda: (
            lead("least-request", "multi-turn", "p50", 8)
            < min(
                lead("least-request", workload, "p50", 8)
                for workload in WORKLOADS - {"multi-turn", "slow-engine"}
            )
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
        "it is about as good as `least-busy`, for equal prompts somewhat behind",
        lambda: all(
            of("least-kv-cache", "uniform", what, n) >= of("least-busy", "uniform", what, n)
            for n in GATEWAYS
            for what in ("p50", "p99")
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
        f"`{MIX}` is as good as `prefix-cache` or better in everything with one gateway; with four "
        "or eight `prefix-cache` alone does better wherever prompts begin alike.",
        lambda: mix_is_as_good(1) and mix_is_behind(4) and mix_is_behind(8),
    ),
    (
        "| keeps more of its lead in the median than the three above |",
        lambda: all(
            lead("least-latency", workload, "p50", 8) > lead(name, workload, "p50", 8)
            for workload in WORKLOADS - {"slow-engine"}
            for name in ("least-busy", "least-kv-cache", "throughput")
        ),
    ),
    (
        "its median is no better than `least-request`'s by more than a few percent anywhere",
        lambda: all(
            of("throughput", workload, "p50", n) > 0.95 * of("least-request", workload, "p50", n)
            for workload in WORKLOADS
            for n in GATEWAYS
        ),
    ),
    (
        "where lengths differ much its p99 with eight gateways is",
        lambda: is_told(
            "with eight gateways is {} ms against {}, with one gateway it is {} against {}.",
            *[(s, "skewed", "p99", n) for n in (8, 1) for s in ("throughput", "least-request")],
        ),
    ),
    (
        "of the median of conversations nearly nothing does",
        lambda: all(
            lead(name, "multi-turn", "p50", 8) < 0.02
            for name in ("least-request", "round-robin", "power-of-two", "least-busy", "throughput")
        ),
    ),
    (
        "Where lengths differ much most of the lead stays, also in the median",
        lambda: all(
            lead(name, "skewed", what, 8) > lead(name, "skewed", what, 1) / 2
            for name in others("random")
            for what in ("p50", "p99")
        ),
    ),
    ("None is worse than `random` by more than noise.", lambda: "| 0 | 0 | yes |" in REPORT),
]


def test_the_report_is_read_whole() -> None:
    assert {workload for workload, _, _ in FIGURES} == WORKLOADS
    assert len({name for _, _, name in FIGURES}) == 12


@pytest.mark.parametrize(("words", "holds"), CLAIMS, ids=[words for words, _ in CLAIMS])
def test_what_the_guide_says_of_gains_holds(words: str, holds: Callable[[], bool]) -> None:
    assert words in GUIDE
    assert holds()


def test_the_leads_that_are_told_are_the_report_s() -> None:
    page = " ".join(GUIDE.split())
    told = re.search(
        r"Of the (\d+) % .* (\d+) % are left .* the (\d+) % of its p99 .* (\d+) %", page
    )
    assert told
    ends = [lead("least-request", "uniform", what, n) for what in ("p50", "p99") for n in (1, 8)]
    assert [int(number) for number in told.groups()] == [round(100 * end) for end in ends]
