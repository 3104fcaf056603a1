"""The report: tables and charts of what strategies come to."""

from collections.abc import Sequence
from pathlib import Path

from bench.charts import Bar, chart
from bench.strategies.expectations import Expectation
from bench.strategies.figures import (
    ALLOWED,
    HITS,
    P50,
    P99,
    TOKENS,
    UTILISATION,
    Case,
    Measure,
    Results,
    middle,
    spread,
)
from bench.strategies.workloads import ENGINES, WORKLOADS

FOLDER = Path(__file__).parent / "report"
#: The README has the summary between these lines.
BEGIN, END = "<!-- strategies: make bench-strategies writes this -->\n", "<!-- /strategies -->\n"
#: File, workload, measure and its name of each chart.
CHARTS = (
    ("shared-prefix-p50", "shared-prefix", P50, "median"),
    ("multi-turn-p50", "multi-turn", P50, "median"),
    ("skewed-p99", "skewed", P99, "p99"),
)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _milliseconds(results: Results, case: Case, of: Measure) -> str:
    return f"{middle(results[case], of) * 1e3:,.0f}"


def _part(results: Results, case: Case, of: Measure) -> str:
    return f"{middle(results[case], of):.0%}"


class Report:
    """Writes what was found. The summary is of the fewest and the most `gateways`."""

    def __init__(self, results: Results, requests: int, seeds: Sequence[int]) -> None:
        self._results = results
        self._requests = requests
        self._seeds = seeds
        self.workloads = list(dict.fromkeys(case.workload for case in results))
        self.gateways = sorted({case.gateways for case in results})
        self.strategies = list(dict.fromkeys(case.strategy for case in results))

    def summary(self) -> str:
        """The short tables: one for the fewest gateways, and one for the most."""
        counts = dict.fromkeys((self.gateways[0], self.gateways[-1]))
        return "\n\n".join(self._short(count) for count in counts)

    def _short(self, gateways: int) -> str:
        """Times to the first token, and what was found in caches where they help."""
        helped = [name for name in self.workloads if WORKLOADS[name].repeats]
        many = "gateways" if gateways > 1 else "gateway"
        head = [f"{gateways} {many}", *self.workloads, *(f"{name}, cached" for name in helped)]
        rows = []
        for strategy in self.strategies:
            cases = {name: Case(name, gateways, strategy) for name in self.workloads}
            times = (
                f"{_milliseconds(self._results, case, P50)} / "
                f"{_milliseconds(self._results, case, P99)}"
                for case in cases.values()
            )
            found = (_part(self._results, cases[name], HITS) for name in helped)
            rows.append([f"`{strategy}`", *times, *found])
        return _table(head, rows)

    def workload(self, name: str) -> str:
        """All figures of one workload."""
        head = [
            "gateways",
            *(f"p50, {count}" for count in self.gateways),
            *(f"p99, {count}" for count in self.gateways),
            *(f"cached, {count}" for count in self.gateways if WORKLOADS[name].repeats),
            "tokens/s",
        ]
        rows = []
        for strategy in self.strategies:
            of = [Case(name, count, strategy) for count in self.gateways]
            rows.append(
                [
                    f"`{strategy}`",
                    *(_milliseconds(self._results, case, P50) for case in of),
                    *(_milliseconds(self._results, case, P99) for case in of),
                    *(_part(self._results, case, HITS) for case in of if WORKLOADS[name].repeats),
                    f"{middle(self._results[of[-1]], TOKENS):,.0f}",
                ]
            )
        return "\n\n".join([f"### {name}", self._about(name), _table(head, rows)])

    def _about(self, name: str) -> str:
        runs = [self._results[Case(name, count, "random")] for count in self.gateways]
        busy = max(middle(of, UTILISATION) for of in runs)
        return (
            f"Here: {WORKLOADS[name].title}. With `random`, engines read prompts for "
            f"{busy:.0%} of their time, and its seeds differ by "
            f"{max(spread(of, P50) for of in runs):.0%} (p50) and "
            f"{max(spread(of, P99) for of in runs):.0%} (p99) at most."
        )

    def markdown(self, expectations: Sequence[Expectation]) -> str:
        """The whole report."""
        verdicts = [
            [one.what, one.found, one.allowed, "yes" if one.holds else "**no**"]
            for one in expectations
        ]
        parts = [
            "# Strategies, simulated",
            _EXPLANATION.format(
                engines=ENGINES,
                requests=f"{self._requests:,}",
                seeds=", ".join(map(str, self._seeds)),
                gateways=", ".join(map(str, self.gateways)),
                p50=ALLOWED["p50"],
                p99=ALLOWED["p99"],
            ),
            "## Summary",
            "Milliseconds to the first token, p50 / p99, and the part of the prompts' tokens that "
            "was found in caches.",
            self.summary(),
            *(f"![{title}]({file}.svg)" for file, title, _ in self._charts()),
            "## Expectations",
            _table(["expectation", "found", "allowed", "holds"], verdicts),
            "## Figures",
            "By the number of gateways: milliseconds to the first token, and the part of all "
            "prompts' tokens that was found in caches. Tokens a second are those made with the "
            "most gateways.",
            *(self.workload(name) for name in self.workloads),
        ]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path, expectations: Sequence[Expectation]) -> Path:
        """Write the report and its charts; returns where the report is."""
        folder.mkdir(parents=True, exist_ok=True)
        for file, _, picture in self._charts():
            (folder / f"{file}.svg").write_text(picture)
        path = folder / "report.md"
        path.write_text(self.markdown(expectations))
        return path

    def _charts(self) -> list[tuple[str, str, str]]:
        """File, title and picture of each chart there are figures for."""
        many = self.gateways[-1]
        charts = []
        for file, name, of, word in CHARTS:
            if name not in self.workloads:
                continue
            title = f"Time to the first token, {word}: {name}"
            bars = [
                Bar(
                    strategy,
                    middle(self._results[Case(name, many, strategy)], of),
                    f"{_milliseconds(self._results, Case(name, many, strategy), of)} ms",
                    strategy != "random",
                )
                for strategy in self.strategies
                if ":" not in strategy
            ]
            bars.sort(key=lambda bar: bar.value)
            subtitle = f"{WORKLOADS[name].title}; gateways: {many}; shorter is better"
            charts.append((file, title, chart(title, subtitle, bars)))
        return charts


def with_summary(page: str, summary: str) -> str:
    """The README with another summary in its place; ValueError if it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no place for the summary: {BEGIN.strip()} … {END.strip()}")
    return f"{before}{begin}{summary}\n{end}{after}"


_EXPLANATION = """\
{engines} modelled engines (continuous batching, a queue, a KV cache in blocks of 16 tokens that
shares prefixes and forgets the least recently used) behind {gateways} gateways, in virtual time.
The gateways are the product's own router, strategies and counts; each asks the engines for their
load once a second, at a time of its own, and knows nothing of the others. Requests arrive at
random (Poisson), at the gateways by chance, all strategies get the same ones, and each run is of
about {requests}, of which the first tenth is not counted. Each figure is the median of the seeds
{seeds}.

A strategy is *worse than `random` by more than noise* where its p50 is more than {p50} times as
long, or its p99 more than {p99} times: the geometric mean of the seeds, each compared with `random`
for the same requests. Two runs of `random` itself, with other dice, can differ by nearly as much.

The speed of the engines and the rates are made up; what one strategy gains over another is what to
look at. `make bench-strategies` writes this page, and the summary in the README."""
