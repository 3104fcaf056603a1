"""The figures that the README and the runbook show are those of the benchmark's reports.

After a new run each test that fails prints the lines to put there.
"""

import re

import pytest

from tests.documents import OPERATIONS, README, rows, section
from tests.harness import ROOT

REPORT = (ROOT / "bench" / "report" / "report.md").read_text()
MICRO = (ROOT / "bench" / "report" / "micro.md").read_text()
PAGES = {"README.md": README, "docs/operations.md": OPERATIONS}
TARGETS = ("nginx", "sglang-router", "WSGI floor", "gateway")
CPU_TOKEN, CPU_REQUEST = "CPU per token, µs", "CPU per request, µs"
ALL, LESS_FIRST = "RSS, MB", "without the first process"


def table(text: str) -> list[list[str]]:
    """The cells of the first table in `text`, its head first."""
    found = re.search(r"(?:^\|.*\n)+", text, re.M)
    assert found, "there is no table"
    lines = [line for line in found[0].splitlines() if not line.startswith("|--")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def reported() -> dict[tuple[str, str, str], str]:
    """Every figure of the report, as it is written there, by scenario, target and column.

    Of columns with the same name the first counts: `p99` is that of the added delay.
    """
    found: dict[tuple[str, str, str], str] = {}
    for part in REPORT.partition("\n## Figures\n")[2].split("\n### ")[1:]:
        scenario = part.partition(":")[0]
        (_, *columns), *lines = table(part)
        for target, *figures in lines:
            for column, figure in zip(columns, figures, strict=True):
                found.setdefault((scenario, target, column), figure)
    return found


FIGURES = reported()
FIGURES_SECTION = section(README, "Figures")
#: Of several runs the fastest.
FASTEST = {row[0]: float(row[1]) for row in table(MICRO)[1:]}
SLOWEST = {row[0]: float(row[3]) for row in table(MICRO)[1:]}


def of(scenario: str, column: str, target: str = "gateway") -> str:
    """A figure of the report; a dash where that target was not measured."""
    return FIGURES.get((scenario, target, column), "–")


def number(scenario: str, column: str) -> float:
    return float(of(scenario, column).replace(",", ""))


def compared() -> list[list[str]]:
    """The rows of the README's table of targets."""

    def row(title: str, scenario: str, *columns: str) -> list[str]:
        cells = (" / ".join(of(scenario, c, t) for c in columns) for t in TARGETS)
        return [title, *(cell.replace("– / –", "–") for cell in cells)]

    streams = ("added delay p50, ms", "p99, ms")
    memory = row("memory with 1,000 streams, MB (gateway: worker and relay)", "streams-1000", ALL)
    return [
        row("CPU per token, 500 streams of 50 tokens/s, µs", "streams-500", CPU_TOKEN),
        row("added delay per token p50 / p99, ms", "streams-500", *streams),
        row("time to first token p50, ms", "streams-500", "first token p50, ms"),
        row("added delay p99 beside 8 busy clients (300 streams), ms", "mixed", "p99, ms"),
        row("CPU per request, not streamed, 1 client, µs", "single-1", CPU_REQUEST),
        row("… 32 clients, µs", "single-32", CPU_REQUEST),
        [*memory[:-1], of("streams-1000", LESS_FIRST)],
    ]


def decided() -> list[list[str]]:
    """The rows of the README's table of the parts that decide."""
    simple = ("random", "power-of-two", "round-robin", "least-request", "session-affinity")
    among = "100 endpoints"
    picks = " / ".join(f"{FASTEST[f'pick by {name}, {among}']:.1f}" for name in simple)
    names = " / ".join(f"`{name}`" for name in simple)
    new = FASTEST["list of 1000 models with 10 endpoints, all new"]
    prefix = FASTEST[f"pick by prefix-cache, {among}"]
    unknown = f"pick by prefix-cache, {among}, every prompt new"
    return [
        [
            "1,000 models with 10 endpoints: from the list's bytes to a snapshot",
            f"{new:.0f} ms",
            "250 ms",
        ],
        [
            "the same list again, nothing changed",
            f"{FASTEST['the same list again']:.0f} ms",
            "",
        ],
        ["one watch event among them", f"{FASTEST['one watch event among them']:.1f} ms", ""],
        [f"choosing among 100 endpoints: {names}", f"{picks} µs", "20 µs"],
        ["… `prefix-cache`, a prompt of 32,000 tokens", f"{prefix:.0f} µs", "100 µs"],
        ["… one that nobody has sent before", f"{FASTEST[unknown]:.0f} µs", ""],
    ]


def sized() -> list[list[str]]:
    """The rows of the runbook's table for sizing."""
    busy, alone = of("single-32", CPU_REQUEST), of("single-1", CPU_REQUEST)
    first = number("streams-1000", ALL) - number("streams-1000", LESS_FIRST)
    memory = of("streams-1000", LESS_FIRST)
    return [
        [
            "a token on its way",
            f"{of('streams-500', CPU_TOKEN)} µs of CPU at 500 streams of 50 tokens/s",
        ],
        [
            "a request that is not streamed",
            f"{busy} µs of CPU with 32 clients, {alone} µs with one",
        ],
        [
            "memory of worker and relay with 1,000 streams",
            f"{memory} MB, and {first:.0f} MB for gunicorn's first process",
        ],
        [
            "the same with 2,000 streams of a token a second",
            f"{of('idle-2000', LESS_FIRST)} MB",
        ],
    ]


def quick(target: str) -> str:
    return of("single-1", "answer p50, ms", target)


def cores(target: str) -> str:
    return f"{float(of('mixed', 'cores used', target)):.1f}"


def sentences() -> list[tuple[str, str]]:
    """What follows from the figures, with the page that says it."""
    tokens = 1e6 / number("streams-500", CPU_TOKEN)
    alone, busy = (1e6 / number(f"single-{n}", CPU_REQUEST) for n in (1, 32))
    again = FASTEST["the same list again"]
    longer = max(SLOWEST[what] / fastest for what, fastest in FASTEST.items())
    return [
        ("README.md", f"took up to {longer:.1f} times as long"),
        ("README.md", f"Of a short request's {of('single-32', CPU_REQUEST)} µs with 32 clients"),
        ("README.md", f"with one client ({quick('gateway')} ms against {quick('nginx')})"),
        ("README.md", f"worker and relay use {cores('gateway')} of the two cores"),
        ("README.md", f"where nginx uses {cores('nginx')}"),
        ("docs/operations.md", f"by itself ({of('streams-500-apart', CPU_TOKEN)} µs)"),
        ("docs/operations.md", f"one core moves some {round(tokens, -4):,.0f} tokens a second"),
        (
            "docs/operations.md",
            f"begins some {round(alone, -2):,.0f} to {round(busy, -2):,.0f} requests",
        ),
        ("docs/operations.md", f"a list takes some {round(again, -1):.0f} ms to read again"),
    ]


@pytest.mark.parametrize(
    ("page", "heading", "expected"),
    [
        ("README.md", "| nginx", compared()),
        ("README.md", "what | took", decided()),
        ("docs/operations.md", "what | takes", sized()),
    ],
    ids=["compared", "decided", "sized"],
)
def test_a_table_shows_the_figures_of_the_reports(
    page: str, heading: str, expected: list[list[str]]
) -> None:
    lines = "\n".join(f"| {' | '.join(row)} |" for row in expected)
    assert rows(PAGES[page], heading)[-len(expected) :] == expected, f"{page} should say\n{lines}"


@pytest.mark.parametrize(("page", "sentence"), sentences(), ids=str)
def test_a_sentence_tells_the_figures_of_the_reports(page: str, sentence: str) -> None:
    told = sentence in PAGES[page]
    assert told, f"{page} should say: {sentence}"


def test_the_ratios_that_were_missed_are_told_by_how_much() -> None:
    targets = table(REPORT.partition("\n## Targets\n")[2])[1:]
    missed: list[tuple[str, ...]] = []
    for what, found, _, holds in targets:
        if " / " in what and holds == "**no**":
            ratio, *turns = re.findall(r"\d+\.\d+", found)
            missed.append((f"{float(ratio):.1f} ×", *turns))
    told: list[tuple[str, ...]] = []
    _, *parts = re.split(r"(\d\.\d ×)", FIGURES_SECTION)
    for ratio, text in zip(parts[::2], parts[1::2], strict=True):
        told_of = re.search(r"three turns gave ([\d.]+) to ([\d.]+)", text)
        told.append((ratio, *(told_of.groups() if told_of else ())))
    assert told == missed, f"README.md should tell of {missed} in this order"
