"""`make bench`: the gateway beside nginx, a Rust router and bare WSGI, under the same loads."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
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


class _Turns:
    """Measures one target after the other, each alone: those at rest would take turns of the cores.

    `notes` get a line for each target that can't be had; ours must be.
    """

    def __init__(self, model: Upstream, folder: Path, seconds: float, notes: list[str]) -> None:
        self._model = model
        self._folder = folder
        self._seconds = seconds
        self._notes = notes
        self._count = 0

    def available(self, names: list[str]) -> list[str]:
        """Those of `names` that can be started; raises `Unavailable` if one of ours can't."""
        found = []
        for name in names:
            try:
                with self._running(name):
                    found.append(name)
            except Unavailable as error:
                if name in OURS:
                    raise
                self._notes.append(f"Skipped: {name}, because {error}.")
                print(self._notes[-1], flush=True)
        return found

    def measured(self, scenario: Scenario, name: str) -> Measures:
        """What is found of a target that was started for this."""
        how = measure_leak if scenario.short else measure
        with self._running(name) as target:
            warm_up(target)
            return how(scenario, target, self._model, self._seconds)

    def _running(self, name: str) -> AbstractContextManager[Target]:
        self._count += 1
        folder = self._folder / f"{self._count}-{name}"
        folder.mkdir()
        return running(name, self._model.port, folder)


def _planned(
    options: argparse.Namespace, targets: list[str]
) -> Iterator[tuple[str, Scenario, str]]:
    """All targets under one load, then under the next, and all of it again each round."""
    for number in range(options.rounds):
        for scenario in (SCENARIOS[name] for name in options.scenario):
            for turn in range(scenario.times):
                for target in targets:
                    if scenario.measures(target, turn):
                        yield f"[{number + 1}/{options.rounds}]", scenario, target


def _run(options: argparse.Namespace, notes: list[str]) -> Runs:
    runs: Runs = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        model = stack.enter_context(upstream())
        turns = _Turns(model, folder, options.seconds, notes)
        for label, scenario, target in _planned(options, turns.available(options.only)):
            print(f"{label} {scenario.name}: {target}", flush=True)
            try:
                found = turns.measured(scenario, target)
            except Unavailable as error:
                if target in OURS:
                    raise
                notes.append(f"A turn of {target} under {scenario.name} is missing: {error}.")
                print(notes[-1], flush=True)
                continue
            runs.setdefault((scenario.name, target), []).append(found)
    return runs


def main() -> int:
    """Measure, print, write the report; 1 if a target of the project does not hold."""
    options = _options()
    raise_descriptors()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    notes = [
        f"Rounds: {options.rounds}; streams of {options.seconds:g} s.",
        "Each target is started for each of its turns, and is alone in it.",
    ]
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
