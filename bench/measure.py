"""How a load is put on a target and measured."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from bench import proc
from bench.scenarios import Scenario, plans
from bench.targets import Target

Measures = dict[str, float]

#: Seconds between two looks at memory and threads while a load runs: looking disturbs what is seen.
LOOK_SECONDS = 4.0
#: Seconds within which the connections and counters of a finished load must be gone: the gateway
#: keeps idle connections to endpoints for 30, and closes them within one poll more.
SETTLE_SECONDS = 34.0


class Upstream:
    """The model behind the targets, in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdout is not None  # noqa: S101 - it was asked for
        self.port = int(process.stdout.readline())

    def lag(self) -> float:
        """Seconds that tokens left late (p99) since the last call."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/lag", timeout=10) as answer:
            return float(json.load(answer)["lag"]) / 1e9


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Start the model; it ends when its standard input closes."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.upstream"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            yield Upstream(process)
        finally:
            process.terminate()


@contextmanager
def _load(module: str, plan: dict[str, object]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(  # noqa: S603 - arguments are ours
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdin is not None  # noqa: S101 - it was asked for
            process.stdin.write(json.dumps(plan).encode())
            process.stdin.close()
            process.stdin = None
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def measure(scenario: Scenario, target: Target, model: Upstream, seconds: float) -> Measures:
    """Put the load on the target for so many seconds, and say what it took.

    Times are seconds, sizes bytes, shares parts of one core.
    """
    rest, switches = target.usage(), target.switches()
    idle, model_cpu = proc.idle_seconds(), proc.cpu_seconds(model.process.pid)
    model.lag()
    started = time.monotonic()
    peak, reports = _carry_out(plans(scenario, target.port, seconds), target)
    wall = time.monotonic() - started
    after = target.usage()
    switched = target.switches() - switches
    used = sum(report["load_cpu"] for report in reports)
    measures = _merged(reports) | {
        "wall": wall,
        "cpu": after.cpu - rest.cpu,
        "kernel_cpu": after.kernel_cpu - rest.kernel_cpu,
        "switches": switched,
        "rss": peak.rss,
        "rss_children": peak.rss_children,
        "pss": peak.pss,
        "threads_rest": rest.threads,
        "threads": peak.threads,
        "idle_share": (proc.idle_seconds() - idle) / wall,
        "upstream_share": (proc.cpu_seconds(model.process.pid) - model_cpu) / wall,
        "generators_share": used / wall,
        "lag": model.lag(),
    }
    return measures | _rates(measures)


def _carry_out(
    told: dict[str, dict[str, object]], target: Target
) -> tuple[proc.Usage, list[dict[str, Any]]]:
    """Run the load generators side by side; returns the most the target used, and their reports."""
    peak = proc.Usage(0, 0, 0, 0, 0, 0, 0)
    with ExitStack() as stack:
        loads = [stack.enter_context(_load(module, plan)) for module, plan in told.items()]
        for load in loads:
            while not _ended(load):
                peak = proc.highest(peak, target.usage())
        return peak, [json.loads(load.communicate()[0]) for load in loads]


def _ended(load: subprocess.Popen[bytes]) -> bool:
    try:
        load.wait(LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _merged(reports: list[dict[str, Any]]) -> Measures:
    """What the generators saw together; what only one of them measures is taken as it is."""
    merged: Measures = {"errors": 0.0, "load_share": 0.0}
    for report in reports:
        for reason, count in report["errors"].items():
            print(f"    {count} times {reason}", file=sys.stderr)
        merged["errors"] += sum(report.pop("errors").values())
        share = report.pop("load_cpu") / report.pop("wall")
        merged["load_share"] = max(merged["load_share"], share)
        merged |= report
    return merged


def _rates(measures: Measures) -> Measures:
    """What follows: CPU for each token or request (not where both run), and requests a second."""
    rates = {"cores": measures["cpu"] / measures["wall"]}
    rates["others_share"] = max(
        0.0,
        proc.cores()
        - measures["idle_share"]
        - rates["cores"]
        - measures["upstream_share"]
        - measures["generators_share"],
    )
    if "requests" in measures:
        rates["requests_per_second"] = measures["requests"] / measures["asking"]
    units = [name for name in ("tokens", "requests") if measures.get(name)]
    if len(units) == 1 and measures["cpu"]:
        unit = units[0].removesuffix("s")
        rates[f"cpu_per_{unit}"] = measures["cpu"] / measures[units[0]]
        rates[f"switches_per_{unit}"] = measures["switches"] / measures[units[0]]
        rates["kernel_share"] = measures["kernel_cpu"] / measures["cpu"]
    return rates


def warm_up(target: Target) -> None:
    """A second of requests, so that threads and connections are there."""
    scenario = Scenario("warm-up", "", (), clients=32)
    _carry_out(plans(scenario, target.port, 1.0), target)


def in_flight(target: Target) -> float:
    """How many requests the gateway says it has in hand."""
    url = f"http://127.0.0.1:{target.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(r"^gateway_in_flight\S* (\S+)$", text, re.M))


def measure_leak(scenario: Scenario, target: Target, model: Upstream, seconds: float) -> Measures:
    """Measure, and compare what the gateway holds before and after.

    Some of the same load comes first: pools and threads are then as large as they get.
    """
    _carry_out(plans(scenario, target.port, min(2.0, seconds)), target)
    before = _settled(target)
    measures = measure(scenario, target, model, seconds)
    after = _settled(target)
    return measures | {
        "descriptors_before": before.descriptors,
        "descriptors_after": after.descriptors,
        "rss_before": before.rss,
        "rss_after": after.rss,
        "in_flight_after": in_flight(target),
    }


def _settled(target: Target) -> proc.Usage:
    """What the target uses once everything that a load leaves for a while is gone."""
    time.sleep(SETTLE_SECONDS)
    return target.usage()
