"""Reports that make no sense cost no request its answer: every strategy chooses all the same."""

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.endpoints import Endpoint
from load.engines import ENGINES, MOST_RATE, MOST_REQUESTS, read
from load.gateways import MOST_GATEWAYS
from load.values import EngineLoad, LoadSnapshot
from routing.strategies import STRATEGIES, Strategies
from routing.strategies.base import Strategy
from routing.view import Query, View
from tests.fakes import endpoint, endpoints


def view(found: Sequence[EngineLoad | None], own: dict[int, int], gateways: float) -> View:
    """Reports of the endpoints 1, 2, …, and our own requests on them."""
    loads = {endpoint(n).key: load for n, load in enumerate(found, 1) if load is not None}
    in_flight = {endpoint(n).key: count for n, count in own.items()}
    return View(in_flight, LoadSnapshot(loads, 1e9, gateways))


reports = st.one_of(
    st.none(),
    st.builds(
        EngineLoad,
        running=st.floats(0, MOST_REQUESTS),
        waiting=st.floats(0, MOST_REQUESTS),
        kv_usage=st.floats(0, 1),
        tokens_per_second=st.floats(0, MOST_RATE),
        in_flight=st.integers(0, 1_000_000),
    ),
)


@pytest.mark.parametrize("name", [*STRATEGIES, "prefix-cache:2,least-busy:1,random:0.1"])
@given(
    found=st.lists(reports, min_size=1, max_size=9),
    own=st.dictionaries(st.integers(1, 9), st.integers(0, 1000)),
    gateways=st.floats(1, MOST_GATEWAYS),
    session=st.text(max_size=8),
    body=st.binary(max_size=900),
)
def test_every_strategy_chooses_whatever_is_reported(
    name: str,
    found: list[EngineLoad | None],
    own: dict[int, int],
    gateways: float,
    session: str,
    body: bytes,
) -> None:
    strategy = Strategies(random.Random(1)).get(name)
    query = Query("llama", session, b'{"messages": [' + body)
    strategy.prepare(query)
    of = endpoints(len(found))
    seen = view(found, own, gateways)
    for _ in range(3):
        picked = strategy.pick(of, seen, query)
        assert picked in of
        strategy.chosen(picked, query)
    assert len(strategy.costs(of, seen, query)) == len(of)


GO_BY_REPORTS = ("least-busy", "least-kv-cache", "least-latency", "prefix-cache", "throughput")
figures = st.one_of(st.integers(0, 9), st.floats(0, 1e9), st.floats())


@pytest.mark.parametrize("name", [*GO_BY_REPORTS, "least-busy:1,throughput:1,prefix-cache:1"])
@given(pages=st.lists(st.lists(figures, min_size=2, max_size=10), min_size=1, max_size=4))
def test_every_strategy_chooses_whatever_pages_say(name: str, pages: list[list[float]]) -> None:
    """Each page has its figures in turn, for as many ranks as there are."""
    named = ENGINES[0].all
    found: list[EngineLoad | None] = []
    for page in pages:
        lines = (f"{named[n % len(named)]} {value!r}\n" for n, value in enumerate(page))
        try:
            said = read("".join(lines))
        except ValueError:
            found.append(None)
        else:
            found.append(EngineLoad(said.running, said.waiting, said.kv_usage, MOST_RATE, 3))
    of, seen, query = endpoints(len(pages)), view(found, {}, MOST_GATEWAYS), Query("llama")
    strategy = Strategies(random.Random(1)).get(name)
    assert strategy.pick(of, seen, query) in of
    assert all(map(math.isfinite, strategy.costs(of, seen, query)))


def test_costs_that_are_no_numbers_make_any_choice() -> None:
    class Confused(Strategy):
        def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
            return [math.nan] * len(endpoints)

    assert Confused(random.Random(1)).pick(endpoints(3), View({}), Query()) in endpoints(3)
