"""What runs come to: first tokens, cache hits, and who is worse than random."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import geometric_mean, median

from bench.figures import quantile
from bench.strategies.fleet import Fleet, Gateway, Run
from bench.strategies.workloads import WORKLOADS, Arrivals
from routing.strategies import STRATEGIES

MIXES = ("prefix-cache:2,least-busy:1", "session-affinity:1,least-busy:1")
NAMES = (*STRATEGIES, *MIXES)
#: This part of a run's requests, its first, meets empty engines and is not counted.
WARM_UP = 0.1
#: What a strategy may come to, in `random`'s times, before it is worse by more than noise. So much
#: chance makes of `random` itself, with other dice: few requests make a p99.
ALLOWED = {"p50": 1.1, "p99": 1.3}


@dataclass(frozen=True, slots=True)
class Case:
    """One strategy under one workload, behind so many gateways."""

    workload: str
    gateways: int
    strategy: str

    def __str__(self) -> str:
        """It in words."""
        return f"`{self.strategy}` on {self.workload}, gateways: {self.gateways}"


@dataclass(frozen=True, slots=True)
class Figures:
    """One run: seconds to the first token, the part of prompts found in caches, tokens made."""

    p50: float
    p99: float
    hits: float
    tokens_per_second: float
    utilisation: float


Results = Mapping[Case, Sequence[Figures]]
Measure = Callable[[Figures], float]
P50: Measure = attrgetter("p50")
P99: Measure = attrgetter("p99")
HITS: Measure = attrgetter("hits")
TOKENS: Measure = attrgetter("tokens_per_second")
UTILISATION: Measure = attrgetter("utilisation")


def figures(run: Run) -> Figures:
    """The figures of one run."""
    done = sorted(run.done, key=lambda one: one.came)
    counted = done[int(len(done) * WARM_UP) :]
    waited = [one.first_token_seconds for one in counted]
    seconds = max(one.ended for one in counted) - counted[0].came
    return Figures(
        quantile(waited, 0.5),
        quantile(waited, 0.99),
        sum(one.cached_tokens for one in counted) / sum(one.prompt_tokens for one in counted),
        sum(one.output_tokens for one in counted) / seconds,
        run.utilisation,
    )


def cases(
    workloads: Iterable[str], gateways: Sequence[int], strategies: Sequence[str] = NAMES
) -> list[Case]:
    """Every combination; one workload after the other."""
    return [
        Case(workload, count, strategy)
        for workload in workloads
        for count in gateways
        for strategy in strategies
    ]


def measure(
    wanted: Iterable[Case], requests: int, seeds: Sequence[int], gateway: type[Gateway] = Gateway
) -> Results:
    """Run each case with each seed. All strategies meet the same requests at the same times."""
    results = {}
    made: dict[tuple[str, int], Arrivals] = {}
    for case in wanted:
        workload = WORKLOADS[case.workload]
        found = []
        for seed in seeds:
            key = (case.workload, seed)
            if key not in made:
                made = {other: one for other, one in made.items() if other[0] == case.workload}
                made[key] = workload.arrivals(requests, seed)
            fleet = Fleet(workload.paces(), case.strategy, case.gateways, seed, gateway)
            found.append(figures(fleet.run(made[key])))
        results[case] = found
    return results


def middle(runs: Sequence[Figures], of: Measure) -> float:
    """The median of the seeds."""
    return median(of(run) for run in runs)


def spread(runs: Sequence[Figures], of: Measure) -> float:
    """How much the seeds differ, as a part of their median."""
    values = [of(run) for run in runs]
    return (max(values) - min(values)) / median(values)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A strategy's p50 or p99, in `random`'s: the geometric mean over the seeds.

    Both meet the same requests, so they are compared seed by seed. Seeds differ by more than
    strategies do, because their requests are others.
    """

    case: Case
    what: str
    ratio: float

    @property
    def is_worse(self) -> bool:
        """Whether chance would have done better, by more than noise."""
        return self.ratio > ALLOWED[self.what]

    def __str__(self) -> str:
        """One line about it."""
        return f"{self.case}; {self.what} / `random`'s: {self.ratio:.2f}"


def against_random(results: Results) -> list[Comparison]:
    """Every case but `random`'s own, compared with it."""
    found = []
    for case, runs in results.items():
        chance = results[Case(case.workload, case.gateways, "random")]
        if case.strategy != "random":
            for what, of in (("p50", P50), ("p99", P99)):
                ratios = [of(our) / of(its) for our, its in zip(runs, chance, strict=True)]
                found.append(Comparison(case, what, geometric_mean(ratios)))
    return found
