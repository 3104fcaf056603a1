"""The report: Markdown tables and charts of what was measured."""

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import proc
from bench.charts import Bar, chart
from bench.checks import MEGABYTE, Check, Figures
from bench.scenarios import SCENARIOS, Scenario

FOLDER = Path(__file__).parent / "report"
#: Above this part of a core a load generator or the upstream may itself be what is measured.
BUSY = 0.85
#: Above this many cores used by what has nothing to do with the benchmark, delays are its doing.
DISTURBED = 0.2

LABELS = {
    "direct": "no proxy",
    "floor": "WSGI floor",
    "floor-connect": "WSGI floor, connecting",
    "plain": "gateway, plain path",
}


@dataclass(frozen=True)
class Column:
    """A column: its heading, and how its measure is written."""

    title: str
    measure: str
    scale: float
    digits: int

    def text(self, measures: Mapping[str, float]) -> str:
        """The value, or a dash."""
        value = measures.get(self.measure, math.nan)
        missing = math.isnan(value)
        return "–" if missing else f"{value * self.scale:,.{self.digits}f}"  # noqa: RUF001


CPU_TOKEN = Column("CPU per token, µs", "cpu_per_token", 1e6, 1)
CPU_REQUEST = Column("CPU per request, µs", "cpu_per_request", 1e6, 0)
KERNEL = Column("in the kernel, %", "kernel_share", 100, 0)
SWITCHES = Column("thread switches", "switches_per_request", 1, 1)
DELAY_50 = Column("added delay p50, ms", "delay_p50", 1e3, 2)
DELAY_99 = Column("p99, ms", "delay_p99", 1e3, 2)
FIRST_50 = Column("first token p50, ms", "ttft_p50", 1e3, 2)
FIRST_99 = Column("p99, ms", "ttft_p99", 1e3, 2)
TOKENS = Column("tokens", "tokens", 1, 0)
ERRORS = Column("errors", "errors", 1, 0)
CORES = Column("cores used", "cores", 1, 2)
COMMON = (
    Column("RSS, MB", "rss", 1 / MEGABYTE, 0),
    Column("without the first process", "rss_children", 1 / MEGABYTE, 0),
    Column("PSS, MB", "pss", 1 / MEGABYTE, 0),
    Column("threads", "threads", 1, 0),
    Column("before", "threads_rest", 1, 0),
)
REQUESTS = (
    Column("requests/s", "requests_per_second", 1, 0),
    Column("answer p50, ms", "request_p50", 1e3, 2),
    Column("p99, ms", "request_p99", 1e3, 2),
)
HEADROOM = (
    Column("upstream, % of a core", "upstream_share", 100, 0),
    Column("load, %", "load_share", 100, 0),
    Column("cores used by nobody", "idle_share", 1, 2),
    Column("by strangers", "others_share", 1, 2),
    Column("tokens sent late p99, ms", "lag", 1e3, 1),
)
STREAMS = (DELAY_50, DELAY_99, FIRST_50, FIRST_99, TOKENS, ERRORS)

#: File, title, scenario and column of each chart.
CHARTS = (
    ("cpu-per-token", "CPU per token", "streams-500", CPU_TOKEN),
    ("added-delay-p99", "Added delay per token, p99", "streams-500", DELAY_99),
    ("added-delay-p99-mixed", "Added delay per token, p99", "mixed", DELAY_99),
    ("ttft-p50", "Time to first token, p50", "streams-500", FIRST_50),
    ("cpu-per-request", "CPU per request", "single-32", CPU_REQUEST),
)


def _columns(scenario: Scenario) -> tuple[Column, ...]:
    if scenario.streams and scenario.clients:
        return (CORES, *STREAMS, *REQUESTS, *COMMON)
    if scenario.streams:
        return (CPU_TOKEN, KERNEL, *STREAMS, *COMMON)
    return (CPU_REQUEST, KERNEL, SWITCHES, *REQUESTS, ERRORS, *COMMON)


def _table(columns: tuple[Column, ...], runs: Mapping[str, Mapping[str, float]]) -> str:
    head = "| | " + " | ".join(column.title for column in columns) + " |"
    rule = "|---|" + "--:|" * len(columns)
    rows = [
        f"| {LABELS.get(name, name)} | " + " | ".join(c.text(run) for c in columns) + " |"
        for name, run in runs.items()
    ]
    return "\n".join([head, rule, *rows])


def checks_table(findings: list[Check]) -> str:
    """The project's targets, and whether each holds."""
    words = {True: "yes", False: "**no**", None: "not measured"}
    rows = [f"| {c.what} | {c.found} | {c.allowed} | {words[c.holds]} |" for c in findings]
    return "\n".join(["| | found | allowed | holds |", "|---|--:|--:|---|", *rows])


def scenario_tables(name: str, runs: Mapping[str, Mapping[str, float]]) -> str:
    """What was measured under one load, and how much room the measuring had."""
    scenario = SCENARIOS[name]
    busy = [
        f"**{LABELS.get(target, target)}: the {who} used {run[key]:.0%} of a core and may be "
        "what was measured.**"
        for target, run in runs.items()
        for who, key in (("upstream", "upstream_share"), ("load generator", "load_share"))
        if run.get(key, 0.0) > BUSY
    ]
    disturbed = [
        f"**{LABELS.get(target, target)}: other programs used {run['others_share']:.2f} cores.**"
        for target, run in runs.items()
        if run["others_share"] > DISTURBED
    ]
    parts = [f"### {name}: {scenario.title}", _table(_columns(scenario), runs)]
    return "\n\n".join([*parts, "Headroom:", _table(HEADROOM, runs), *busy, *disturbed])


def markdown(figures: Figures, findings: list[Check], notes: list[str]) -> str:
    """The whole report."""
    pictures = [f"![{title}, {name}]({file}.svg)" for file, title, name, _ in _drawn(figures)]
    parts = [
        "# Benchmark",
        f"{platform.machine()}, {proc.cores()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}.",
        *notes,
        _EXPLANATION,
        "## Targets",
        checks_table(findings),
        "## Charts",
        *pictures,
        "## Figures",
        *(scenario_tables(name, runs) for name, runs in figures.items()),
    ]
    return "\n\n".join(parts) + "\n"


def write(figures: Figures, findings: list[Check], notes: list[str]) -> Path:
    """Write the report and its charts; returns where the report is."""
    FOLDER.mkdir(exist_ok=True)
    for file, title, name, column in _drawn(figures):
        unit = column.title.rpartition(", ")[2]
        bars = [
            Bar(
                LABELS.get(target, target),
                run[column.measure],
                f"{column.text(run)} {unit}" + _failed(run),
                target == "gateway",
            )
            for target, run in figures[name].items()
            if column.measure in run
        ]
        subtitle = f"{SCENARIOS[name].title}; shorter is better"
        (FOLDER / f"{file}.svg").write_text(chart(title, subtitle, bars))
    path = FOLDER / "report.md"
    path.write_text(markdown(figures, findings, notes))
    return path


def _failed(run: Mapping[str, float]) -> str:
    return f" ({run['errors']:,.0f} errors)" if run.get("errors") else ""


def _drawn(figures: Figures) -> list[tuple[str, str, str, Column]]:
    return [
        entry
        for entry in CHARTS
        if any(entry[3].measure in run for run in figures.get(entry[2], {}).values())
    ]


_EXPLANATION = """\
The upstream stamps each token with the time it leaves; *added delay* is its arrival at the client
less that stamp, so the row *no proxy* says what the measuring itself costs. *First token* counts
from the moment the request was sent. CPU is that of all processes of a target, kernel included,
from /proc, over the whole load with its connections and requests; *thread switches* are those of
all their threads, for each request. Tokens that are due within the same millisecond leave the
upstream together, but under the load that sends each by itself. *WSGI floor* is a bare WSGI
function with `http.client` on gunicorn's own threaded worker, without a log: one keep-alive
connection to the upstream for each thread, or, *connecting*, a new one for each request. A ratio's
target has the median of the turns, and the least and the greatest ratio of two that followed each
other. nginx logs each request, as the gateway does."""
