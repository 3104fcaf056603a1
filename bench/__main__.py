"""`make bench`: the gateway beside nginx, a Rust router and bare WSGI, under the same loads."""

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import report
from bench.checks import checks
from bench.figures import medians
from bench.limits import raise_descriptors
from bench.measure import Measures, Upstream, measure, measure_leak, upstream, warm_up
from bench.scenarios import SCENARIOS, Scenario
from bench.targets import COMMANDS, OURS, Target, Unavailable, running

Runs = dict[tuple[str, str], list[Measures]]


class _Names:
    """Reads comma-separated names out of those known, and keeps their order."""

    def __init__(self, known: list[str]) -> None:
        self._known = known

    def __call__(self, text: str) -> list[str]:
        asked = text.split(",")
        for name in asked:
            if name not in self._known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(self._known)}")
        return [name for name in self._known if name in asked]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    targets, scenarios = list(COMMANDS), list(SCENARIOS)
    parser.add_argument("--only", type=_Names(targets), default=targets, metavar="TARGET,…")
    parser.add_argument("--scenario", type=_Names(scenarios), default=scenarios, metavar="NAME,…")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a stream")
    parser.add_argument("--rounds", type=int, default=1, help="medians are reported")
    parser.add_argument("--no-check", action="store_true", help="only measure")
    parser.add_argument("--no-report", action="store_true", help="only print")
    return parser.parse_args()


def _started(
    stack: ExitStack, names: list[str], model: Upstream, folder: Path, notes: list[str]
) -> dict[str, Target]:
    """Start each target that can be had, and say of the others why not; ours must be."""
    targets = {}
    for name in names:
        (folder / name).mkdir()
        try:
            target = stack.enter_context(running(name, model.port, folder / name))
        except Unavailable as error:
            if name in OURS:
                raise
            notes.append(f"Skipped: {name}, because {error}.")
            print(notes[-1], flush=True)
            continue
        warm_up(target)
        targets[name] = target
    return targets


def _measured(
    scenario: Scenario, target: Target, model: Upstream, seconds: float, label: str
) -> Measures:
    print(f"{label} {scenario.name}: {target.name}", flush=True)
    how = measure_leak if scenario.short else measure
    return how(scenario, target, model, seconds)


def _run(options: argparse.Namespace, notes: list[str]) -> Runs:
    """Measure all targets under one load, then under the next, and all of it again each round."""
    runs: Runs = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        model = stack.enter_context(upstream())
        targets = _started(stack, options.only, model, folder, notes)
        for number in range(options.rounds):
            label = f"[{number + 1}/{options.rounds}]"
            for name in options.scenario:
                scenario = SCENARIOS[name]
                for turn in range(scenario.times):
                    for target in targets.values():
                        if scenario.measures(target.name, turn):
                            found = _measured(scenario, target, model, options.seconds, label)
                            runs.setdefault((name, target.name), []).append(found)
    return runs


def main() -> int:
    """Measure, print, write the report; 1 if a target of the project does not hold."""
    options = _options()
    raise_descriptors()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    notes = [f"Rounds: {options.rounds}; streams of {options.seconds:g} s."]
    try:
        runs = _run(options, notes)
    except KeyboardInterrupt:
        return 130
    except Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    figures: dict[str, dict[str, Measures]] = {}
    for (scenario, target), rounds in runs.items():
        figures.setdefault(scenario, {})[target] = medians(rounds)
    findings = checks(figures, runs)
    for name, measured in figures.items():
        print(f"\n{report.scenario_tables(name, measured)}")
    print(f"\n{report.checks_table(findings)}")
    if not options.no_report:
        print(f"\nThe report is {report.write(figures, findings, notes)}")
    failed = any(finding.holds is False for finding in findings)
    return 1 if failed and not options.no_check else 0


if __name__ == "__main__":
    sys.exit(main())
