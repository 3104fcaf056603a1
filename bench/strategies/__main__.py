"""The command line: `python -m bench.strategies` simulates, and writes a report."""

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from bench.strategies.expectations import expectations
from bench.strategies.figures import NAMES, Results, cases, measure
from bench.strategies.report import FOLDER, Report, with_summary
from bench.strategies.workloads import WORKLOADS
from routing.strategies import UnknownStrategy, check

README = Path(__file__).parents[2] / "README.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate; returns 1 when an expectation does not hold, 2 for arguments that make no sense."""
    options = _parser().parse_args(arguments)
    results = _simulate(options)
    report = Report(results, options.requests, options.seeds)
    found = expectations(results)
    print(report.summary())
    print()
    for one in found:
        print(f"{'holds' if one.holds else 'FAILS'}: {one.what}: {one.found} ({one.allowed})")
    if options.folder:
        print(f"\nwritten to {report.write(options.folder, found)}")
    if options.folder == FOLDER:
        README.write_text(with_summary(README.read_text(), report.summary()))
    return 0 if all(one.holds for one in found) else 1


def _simulate(options: argparse.Namespace) -> Results:
    """On all processors."""
    began = time.monotonic()
    parts = [
        cases([workload], [gateways], options.strategies)
        for workload in options.workloads
        for gateways in options.gateways
    ]
    results: Results = {}
    with ProcessPoolExecutor() as processes:
        run = partial(measure, requests=options.requests, seeds=options.seeds)
        for part, found in zip(parts, processes.map(run, parts), strict=True):
            results = {**results, **found}
            done = f"{part[0].workload}, gateways: {part[0].gateways}"
            print(f"{done}; {time.monotonic() - began:.0f} s", file=sys.stderr)
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.strategies", description=__doc__)
    parser.add_argument("--workloads", type=_workloads, default=list(WORKLOADS), metavar="A,B")
    parser.add_argument("--strategies", type=_strategies, default=list(NAMES), metavar="A;B")
    parser.add_argument("--gateways", type=_numbers, default=[1, 2, 4, 8], metavar="N,N")
    parser.add_argument("--requests", type=int, default=2000, metavar="N", help="in each run")
    parser.add_argument("--seeds", type=_numbers, default=[1, 2, 3, 4, 5], metavar="N,N")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--folder",
        type=Path,
        default=FOLDER,
        help="where the report goes; this one's has its summary in the README",
    )
    where.add_argument("--no-report", dest="folder", action="store_const", const=None)
    return parser


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise ValueError(text)
    return numbers


def _workloads(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in WORKLOADS:
            known = ", ".join(WORKLOADS)
            raise argparse.ArgumentTypeError(f"no workload {name!r}; known: {known}")
    return names


def _strategies(text: str) -> list[str]:
    """Names with semicolons between them, because mixes have commas; random is always there."""
    names = text.split(";")
    try:
        for name in names:
            check(name)
    except UnknownStrategy as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return names if "random" in names else ["random", *names]


if __name__ == "__main__":
    sys.exit(main())
