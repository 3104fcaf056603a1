"""The benchmark can be believed: its figures, its verdicts, and that it runs at all."""

import math
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import proc
from bench.charts import WIDTH, Bar, chart
from bench.checks import checks
from bench.figures import medians, quantile
from bench.scenarios import SCENARIOS

ROOT = Path(__file__).parent.parent


def test_a_quantile_is_one_of_the_values() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [quantile(values, part) for part in (0.0, 0.5, 0.99, 1.0)] == [1.0, 3.0, 5.0, 5.0]
    assert math.isnan(quantile([], 0.5))


def test_a_round_without_a_measure_does_not_count_for_it() -> None:
    assert medians([{"a": 1.0, "b": 7.0}, {"a": 3.0}, {"a": 2.0}]) == {"a": 2.0, "b": 7.0}


def verdicts(**gateway: float) -> dict[str, bool | None]:
    """What is said of 500 streams beside an nginx with 10 µs, and a router with 12."""
    runs = {
        "nginx": {"cpu_per_token": 10e-6, "delay_p99": 0.002, "ttft_p50": 0.001},
        "sglang-router": {"cpu_per_token": 12e-6},
        "gateway": gateway,
    }
    found = checks({"streams-500": runs}, {})
    return {check.what: check.holds for check in found if check.what.startswith("streams-500")}


@pytest.mark.parametrize(
    ("cost", "beside_nginx", "beside_the_router"),
    [(11e-6, True, True), (12.4e-6, True, False), (13e-6, False, False)],
)
def test_a_ratio_is_judged_by_what_ran_beside_it(
    cost: float, beside_nginx: bool, beside_the_router: bool
) -> None:
    found = verdicts(cpu_per_token=cost, delay_p99=0.0031, ttft_p50=0.002)
    assert found == {
        "streams-500: CPU per token, gateway / nginx": beside_nginx,
        "streams-500: CPU per token, gateway / sglang-router": beside_the_router,
        "streams-500: added delay p99, gateway / nginx": False,
        "streams-500: time to first token p50, gateway / nginx": True,
    }


def test_what_was_not_measured_holds_nothing() -> None:
    assert set(verdicts().values()) == {None}
    assert {check.holds for check in checks({}, {})} == {None}


def test_a_ratio_comes_with_the_least_and_the_greatest_of_its_turns() -> None:
    costs = {"nginx": (10e-6, 8e-6, 10e-6), "gateway": (11e-6, 12e-6, 12e-6)}
    runs = {
        ("streams-500", target): [{"cpu_per_token": cost} for cost in each]
        for target, each in costs.items()
    }
    figures = {"streams-500": {target: medians(runs["streams-500", target]) for target in costs}}
    found = {check.what: check for check in checks(figures, runs)}
    verdict = found["streams-500: CPU per token, gateway / nginx"]
    assert (verdict.found, verdict.holds) == ("1.20 (1.10–1.50)", True)


def test_what_nothing_is_compared_with_is_measured_once() -> None:
    scenario = SCENARIOS["streams-500"]
    measured = [
        [scenario.measures(name, turn) for turn in range(2)] for name in ("nginx", "direct")
    ]
    assert measured == [[True, True], [True, False]]
    assert not scenario.measures("floor", 0)


def test_limits_are_numbers_or_other_measures() -> None:
    run = {"errors": 0.0, "rss_children": 141e6, "threads": 300.0, "threads_rest": 300.0}
    found = {check.what: check for check in checks({"streams-1000": {"gateway": run}}, {})}
    assert found["streams-1000: errors"].holds
    assert found["streams-1000: threads"].holds
    memory = found["streams-1000: RSS, worker and relay"]
    assert (memory.found, memory.allowed, memory.holds) == ("141.0 MB", "140.0 MB", False)


def test_a_chart_is_valid_and_its_bars_are_to_scale() -> None:
    picture = ET.fromstring(chart("a < b", "x & y", [Bar("one", 1.0, "1"), Bar("two", 2.0, "2")]))
    bars = [r for r in picture.iter("{http://www.w3.org/2000/svg}rect") if r.get("width") != "720"]
    one, two = (float(bar.attrib["width"]) for bar in bars)
    assert two == pytest.approx(2 * one, abs=0.2)
    assert two < WIDTH


def test_a_family_is_found_and_measured_and_ended(tmp_path: Path) -> None:
    lines = [
        "import subprocess, sys",
        "started = 'print(\"started\", flush=True); input()'",
        "subprocess.Popen([sys.executable, '-c', started], stdin=subprocess.PIPE).wait()",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines), str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == b"started\n"
    members = proc.family(process.pid, tmp_path)
    assert len(members) == 2
    usage = proc.usage(members, process.pid)
    assert usage.threads == 2
    assert 0 < usage.rss_children < usage.rss
    assert proc.end(process, tmp_path, 10.0) == []
    assert proc.family(process.pid, tmp_path) == []
    process.stdout.close()


def test_the_benchmark_runs() -> None:
    targets = "--only=direct,floor,gateway", "--scenario=single-1,streams-100"
    done = subprocess.run(
        [sys.executable, "-m", "bench", *targets, "--seconds=1", "--no-report", "--no-check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (no proxy|WSGI floor|gateway) \| ([\d.,]+|–) \|", done.stdout, re.M)
    measured = [(name, value) for name, value in rows if value != "–"]
    assert [name for name, _ in measured].count("gateway") >= 2, done.stdout
    assert "times" not in done.stderr, "no errors are reported"
