"""The strategies in virtual time: what each is for holds, and none is worse than chance."""

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from xml.etree import ElementTree as ET

import pytest

from bench.strategies.expectations import expectations
from bench.strategies.figures import (
    HITS,
    P50,
    Case,
    Figures,
    Results,
    against_random,
    cases,
    measure,
    middle,
)
from bench.strategies.fleet import Clock, Done, Fleet, Gateway
from bench.strategies.report import Report, with_summary
from bench.strategies.workloads import ENGINES, TOKEN_BYTES, WORKLOADS, Request
from cache.endpoints import Endpoint
from routing.inflight import Lease
from tests.harness import ROOT

SEEDS, REQUESTS = tuple(range(1, 9)), 600
#: Where strategies that share work unevenly show it the most.
TELLING = ("skewed", "shared-prefix")


@pytest.fixture(scope="module")
def results() -> Results:
    """Every strategy under every workload behind eight gateways, and some behind one."""
    few = cases(
        ("shared-prefix", "multi-turn"), (1,), ("random", "prefix-cache", "session-affinity")
    )
    return measure([*cases(WORKLOADS, (8,)), *few], REQUESTS, SEEDS)


@pytest.mark.parametrize("gateways", [1, 8])
def test_following_shared_prefixes_halves_the_time_to_the_first_token(
    results: Results, gateways: int
) -> None:
    ours, chance = (
        middle(results[Case("shared-prefix", gateways, name)], P50)
        for name in ("prefix-cache", "random")
    )
    assert ours <= chance / 2


def test_no_strategy_is_worse_than_chance_by_more_than_noise(results: Results) -> None:
    assert [str(one) for one in against_random(results) if one.is_worse] == []


class Lopsided(Gateway):
    """Sends one engine half of its share, and the others as much as ever comes."""

    def send(self, request: Request) -> Lease:
        lease = super().send(request)
        spared = int(request.dice * 1e6) % 2 == 1
        while spared and lease.endpoint.address == "10.0.0.1":
            lease.release()
            lease = super().send(request)
        return lease


class OtherDice(Gateway):
    """As fair as any."""

    def __init__(self, endpoints: Sequence[Endpoint], strategy: str, clock: Clock, seed: str):
        super().__init__(endpoints, strategy, clock, f"{seed} again")


@pytest.mark.parametrize(("gateway", "is_seen"), [(Lopsided, True), (OtherDice, False)])
def test_uneven_shares_are_seen_and_mere_luck_is_not(
    results: Results, gateway: type[Gateway], is_seen: bool
) -> None:
    chance = cases(TELLING, (8,), ("random",))
    runs = measure(chance, REQUESTS, SEEDS, gateway)
    compared = against_random(
        {case: results[case] for case in chance}
        | {Case(case.workload, 8, gateway.__name__): of for case, of in runs.items()}
    )
    assert any(one.is_worse for one in compared) == is_seen, [str(one) for one in compared]


@pytest.mark.parametrize("gateways", [1, 8])
@pytest.mark.parametrize("strategy", ["prefix-cache", "session-affinity"])
def test_conversations_find_in_caches_what_was_said_before(
    results: Results, strategy: str, gateways: int
) -> None:
    ours, chance = (
        middle(results[Case("multi-turn", gateways, name)], HITS) for name in (strategy, "random")
    )
    assert ours >= 1.5 * chance


def test_the_figures_bear_out_what_the_report_expects(results: Results) -> None:
    found = expectations(results)
    assert len(found) == 2 + 4 + 2
    assert [one.what for one in found if not one.holds] == []


def simulate(workload: str, strategy: str, gateways: int) -> list[Done]:
    of = WORKLOADS[workload]
    return Fleet(of.paces(), strategy, gateways, 1).run(of.arrivals(300, 1)).done


def test_all_gateways_send_a_session_to_the_same_engine() -> None:
    engines = defaultdict(set)
    for one in simulate("multi-turn", "session-affinity", 8):
        engines[one.session].add(one.engine)
    assert len(engines) > 30
    assert {len(of_session) for of_session in engines.values()} == {1}
    assert len(set.union(*engines.values())) == ENGINES


def test_every_request_of_a_workload_is_answered_once() -> None:
    arrivals = WORKLOADS["multi-turn"].arrivals(300, 1)
    expected = []
    for _, request in arrivals:
        turn: Request | None = request
        while turn is not None:
            expected.append((turn.session, turn.prompt_tokens))
            turn = turn.then
    done = simulate("multi-turn", "least-busy", 2)
    assert sorted((one.session, one.prompt_tokens) for one in done) == sorted(expected)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_the_same_for_the_same_seed_and_keeps_its_rate(name: str) -> None:
    workload = WORKLOADS[name]
    arrivals = workload.arrivals(600, 5)
    assert arrivals == workload.arrivals(600, 5) != workload.arrivals(600, 6)
    assert len(arrivals) / arrivals[-1][0] == pytest.approx(workload.rate, rel=0.25)
    for _, request in arrivals:
        assert request.body.startswith(b'{"model": "chat", "messages": [{"role": ')
        assert len(request.body) / TOKEN_BYTES == pytest.approx(request.prompt_tokens, abs=10)


def test_a_turn_of_a_conversation_begins_with_all_turns_before_it() -> None:
    (_, turn), *_ = WORKLOADS["multi-turn"].arrivals(6, 1)
    while turn.then is not None:
        assert turn.then.prefix[: len(turn.prefix) - 1] == turn.prefix[:-1]
        assert turn.then.prompt_tokens > turn.prompt_tokens
        turn = turn.then


def of(p50: float, p99: float = 1.0) -> Figures:
    return Figures(p50, p99, hits=0.5, tokens_per_second=100.0, utilisation=0.7)


@pytest.mark.parametrize(
    ("chance", "ours", "worse"),
    [
        ([1.0, 1.0, 1.0], [1.09, 1.09, 1.09], False),
        ([1.0, 1.0, 1.0], [1.12, 1.12, 1.12], True),
        ([0.5, 1.0, 2.0], [0.54, 1.08, 2.16], False),
        ([0.5, 1.0, 2.0], [0.57, 1.14, 2.28], True),
        ([1.0, 1.0, 1.0], [0.8, 1.0, 1.3], False),
    ],
)
def test_worse_is_what_takes_longer_for_the_same_requests_however_these_differ(
    chance: list[float], ours: list[float], worse: bool
) -> None:
    compared = against_random(
        {
            Case("uniform", 2, "random"): [of(value) for value in chance],
            Case("uniform", 2, "least-busy"): [of(value) for value in ours],
        }
    )
    assert [one.is_worse for one in compared] == [worse, False]
    assert str(compared[0]).startswith("`least-busy` on uniform, gateways: 2; p50 / `random`'s: 1.")


def test_clients_past_the_gateways_take_from_engines_and_are_not_counted() -> None:
    workload = WORKLOADS["other-clients"]
    arrivals = workload.arrivals(600, 1)
    own = [request for _, request in arrivals if request.engine is None]
    others = {request.engine for _, request in arrivals} - {None}
    run = Fleet(workload.paces(), "round-robin", 1, 1).run(arrivals)
    assert others == {0, 1}
    assert len(run.done) == len(own) == pytest.approx(450, rel=0.1)
    waited: dict[bool, list[float]] = defaultdict(list)
    for one in run.done:
        waited[one.engine in others].append(one.first_token_seconds)
    assert median(waited[True]) > 1.5 * median(waited[False])


def test_the_report_has_a_table_for_each_workload_and_charts_that_are_valid(
    results: Results, tmp_path: Path
) -> None:
    everywhere = {case: runs for case, runs in results.items() if case.gateways == 8}
    report = Report(everywhere, REQUESTS, SEEDS)
    text = report.write(tmp_path, expectations(everywhere)).read_text()
    for name in WORKLOADS:
        assert f"\n### {name}\n" in text
    assert text.count("| `prefix-cache` |") == 1 + len(WORKLOADS)
    assert report.summary() in text
    charts = sorted(tmp_path.glob("*.svg"))
    assert len(charts) == 3
    for chart in charts:
        assert f"({chart.name})" in text
        ET.fromstring(chart.read_text())


def test_the_summary_takes_the_place_of_the_one_before_it_in_the_readme() -> None:
    page = (ROOT / "README.md").read_text()
    changed = with_summary(page, "| a table |")
    begin, end = (
        "<!-- strategies: make bench-strategies writes this -->\n",
        "<!-- /strategies -->\n",
    )
    assert f"{begin}| a table |\n{end}" in changed
    assert with_summary(changed, "| another |") == with_summary(page, "| another |")
    with pytest.raises(ValueError, match="no place for the summary: <!-- strategies"):
        with_summary(page.replace(end, ""), "| a table |")


def test_the_same_seeds_make_the_same_report_in_every_process(tmp_path: Path) -> None:
    options = (
        "--requests=120",
        "--seeds=1,2",
        "--gateways=1,3",
        "--workloads=shared-prefix,multi-turn",
        "--strategies=prefix-cache;least-latency;least-busy:1,prefix-cache:1",
    )
    reports = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        done = subprocess.run(
            [sys.executable, "-m", "bench.strategies", *options, f"--folder={folder}"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(number)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        reports.append({path.name: path.read_text() for path in folder.iterdir()})
    assert reports[0] == reports[1]
    assert "| `least-busy:1,prefix-cache:1` |" in reports[0]["report.md"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--workloads=nothing", "no workload 'nothing'; known: uniform"),
        ("--strategies=best", "unknown routing strategy 'best'"),
        ("--gateways=0", "invalid"),
        ("--seeds=a", "invalid"),
    ],
)
def test_arguments_that_make_no_sense_are_told(option: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.strategies", option, "--no-report"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
