"""Sessions and prompts that stay where they were, and mixes of strategies."""

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest

from cache.endpoints import Endpoint, Key
from load.values import EngineLoad, LoadSnapshot
from routing.strategies import ALIASES, STRATEGIES, Strategies, UnknownStrategy, check
from routing.strategies.base import Strategy
from routing.strategies.prefix import CUTS, PrefixCache
from routing.strategies.rendezvous import PRIME, Rendezvous, number_of
from routing.strategies.session import SessionAffinity
from routing.view import Query, View
from tests.fakes import endpoint, endpoints
from tests.harness import ROOT


def choose(
    strategy: Strategy, of: Sequence[Endpoint], query: Query, own: dict[Key, int] | None = None
) -> str | None:
    strategy.prepare(query)
    picked = strategy.pick(of, View(own or {}), query)
    strategy.chosen(picked, query)
    return picked.pod


def homes(of: Sequence[Endpoint], sessions: int = 200) -> dict[str, str | None]:
    strategy = SessionAffinity(random.Random())
    names = [f"session {n}" for n in range(sessions)]
    return {name: choose(strategy, of, Query("llama", name)) for name in names}


def test_a_session_stays_where_it_is() -> None:
    assert homes(endpoints(5)) == homes(endpoints(5))


@pytest.mark.parametrize("count", [2, 3, 5, 16])
def test_sessions_are_spread_evenly(count: int) -> None:
    counts = Counter(homes(endpoints(count), 400 * count).values())
    assert len(counts) == count
    assert min(counts.values()) > 320
    assert max(counts.values()) < 480


def test_a_pod_that_leaves_moves_only_its_own_sessions() -> None:
    five = endpoints(5)
    four = [one for one in five if one.pod != "pod-3"]
    before, after = homes(five, 2000), homes(four, 2000)
    assert all(after[name] == home for name, home in before.items() if home != "pod-3")
    moved = Counter(after[name] for name, home in before.items() if home == "pod-3")
    assert len(moved) == 4
    assert min(moved.values()) > 60  # a hundred each would be even


def test_gateways_in_other_processes_agree() -> None:
    program = (
        "from tests.test_affinity import homes; from tests.fakes import endpoints; import json;"
        "print(json.dumps(homes(endpoints(5), 50)))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    assert json.loads(other.stdout) == homes(endpoints(5), 50)


def test_endpoints_that_are_hashed_to_the_same_number_share_their_sessions() -> None:
    rendezvous, seen = Rendezvous(), dict[int, Endpoint]()
    for n in range(1 << 18):  # by the birthday paradox some 32 pairs
        one = Endpoint(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 8000)
        twin = seen.setdefault(number_of(one.authority.encode()) % (PRIME - 1), one)
        if twin is not one:
            break
    assert twin is not one
    firsts = Counter(rendezvous.first(number_of(b"%d" % n), (twin, one)) for n in range(200))
    assert min(firsts[twin], firsts[one]) > 0


def test_without_a_session_requests_in_flight_count() -> None:
    own = {endpoint(1).key: 2, endpoint(3).key: 1}
    strategy = SessionAffinity(random.Random(1))
    assert {choose(strategy, endpoints(3), Query("llama"), own) for _ in range(9)} == {"pod-2"}


def chat(*turns: str, model: str = "llama") -> Query:
    messages = [{"role": "user", "content": turn} for turn in turns]
    return Query(model, "", json.dumps({"model": model, "messages": messages}).encode())


LONG, OTHER = "a long document " * 500, "another document " * 500


@pytest.fixture
def prefix() -> PrefixCache:
    return PrefixCache(random.Random(1))


def test_a_conversation_stays_with_the_engine_that_holds_it(prefix: PrefixCache) -> None:
    home = choose(prefix, endpoints(8), chat(LONG))
    for turns in (2, 3, 4):
        assert choose(prefix, endpoints(8), chat(LONG, *["and then?"] * turns)) == home


def test_the_longest_prefix_wins(prefix: PrefixCache) -> None:
    short, long = chat("You are kind. " * 40 + LONG), chat("You are kind. " * 40 + OTHER)
    for query in (short, long):
        prefix.prepare(query)
    prefix.chosen(endpoint(1), short)
    prefix.chosen(endpoint(2), long)
    again = chat("You are kind. " * 40 + OTHER, "and then?")
    assert choose(prefix, endpoints(3), again) == "pod-2"


def test_an_engine_that_is_clearly_busier_is_left_for_the_next_longest(
    prefix: PrefixCache,
) -> None:
    begun, whole = chat(LONG[:4000]), chat(LONG)
    for query in (begun, whole):
        prefix.prepare(query)
    prefix.chosen(endpoint(1), whole)
    prefix.chosen(endpoint(2), begun)
    assert choose(prefix, endpoints(4), chat(LONG), {endpoint(1).key: 2}) == "pod-1"
    fresh = PrefixCache(random.Random(1))
    fresh.chosen(endpoint(1), whole)
    fresh.chosen(endpoint(2), begun)
    assert choose(fresh, endpoints(4), chat(LONG), {endpoint(1).key: 40}) == "pod-2"


def test_new_prompts_are_spread(prefix: PrefixCache) -> None:
    counts = Counter(choose(prefix, endpoints(4), chat(f"{n} {LONG}")) for n in range(200))
    assert len(counts) == 4
    assert min(counts.values()) > 25


def test_gateways_that_know_nothing_send_the_same_beginning_to_the_same_engine() -> None:
    chosen = {
        choose(PrefixCache(random.Random(seed)), endpoints(8), chat(LONG, str(seed)))
        for seed in range(9)
    }
    assert len(chosen) == 1


def test_prompts_of_two_models_are_not_mistaken_for_each_other(prefix: PrefixCache) -> None:
    llama, qwen = chat(LONG), chat(LONG)
    qwen.model = "qwen"
    for query in (llama, qwen):
        prefix.prepare(query)
    assert not set(llama.prefix) & set(qwen.prefix)


@pytest.mark.parametrize("key", [b"messages", b"prompt", b"input"])
def test_the_prompt_is_found_wherever_it_stands(prefix: PrefixCache, key: bytes) -> None:
    text = LONG.encode()
    one = Query("m", "", b'{"model":"m","seed":1,"%s" : "%s"}' % (key, text))
    two = Query("m", "", b'{"%s":  "%s","model":"m"}' % (key, text))
    for query in (one, two):
        prefix.prepare(query)
    assert len(one.prefix) > 5
    assert one.prefix[:5] == two.prefix[:5]


def test_only_the_beginning_of_a_long_prompt_is_looked_at(prefix: PrefixCache) -> None:
    query = chat("x" * 1_000_000)
    prefix.prepare(query)
    assert len(query.prefix) == len(CUTS)
    assert len(query.prompt) == CUTS[-1]


def test_a_shared_beginning_outlives_the_prompts_that_have_it(prefix: PrefixCache) -> None:
    assert [*CUTS] == sorted(CUTS)
    query = chat(LONG)
    prefix.prepare(query)
    prefix.chosen(endpoint(1), query)
    assert [*prefix._holders] == [*reversed(query.prefix)]


def mixed(name: str, *loads: EngineLoad, session: str = "") -> str | None:
    strategy = Strategies(random.Random(1)).get(name)
    query = Query("llama", session)
    found = LoadSnapshot({endpoint(n).key: load for n, load in enumerate(loads, 1)}, 1e9)
    return strategy.pick(endpoints(len(loads)), View({}, found), query).pod


def test_a_mix_weighs_its_strategies() -> None:
    busy = EngineLoad(running=10, kv_usage=0.1)
    full = EngineLoad(running=1, kv_usage=0.9)
    assert mixed("least-busy:2,least-kv-cache:1", busy, full) == "pod-2"
    assert mixed("least-busy:1,least-kv-cache:2", busy, full) == "pod-1"


def test_the_parts_of_a_mix_share_their_memory_with_the_strategies_themselves() -> None:
    strategies = Strategies(random.Random(1))
    home = choose(strategies.get("prefix-cache"), endpoints(6), chat(LONG))
    mix = strategies.get("prefix-cache:5,least-request:1")
    assert choose(mix, endpoints(6), chat(LONG, "and then?")) == home
    new = choose(mix, endpoints(6), chat(OTHER))
    assert choose(strategies.get("prefix-cache"), endpoints(6), chat(OTHER, "and?")) == new


@pytest.mark.parametrize(
    "name",
    [
        *STRATEGIES,
        *ALIASES,
        "random:1",
        "least-busy:2,prefix-cache:1",
        " least-busy : 0.5 , random",
        "least-busy-time:2,random:1",
    ],
)
def test_names_that_are_known(name: str) -> None:
    assert check(name) == name
    assert isinstance(Strategies(random.Random(1)).get(name), Strategy)


@pytest.mark.parametrize(
    "name",
    [
        "fastest",
        "Random",
        "",
        ",",
        ":",
        "random:",
        "random:0",
        "random:-1",
        "random:nan",
        "random:inf",
        "random:1001",
        "random:1,random:2",
        "least-busy:1,least-busy-time:1",
        "random,fastest",
        "random;least-busy",
        ",".join(["random"] * 9),
        "x" * 10_000,
    ],
)
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(UnknownStrategy) as caught:
        Strategies(random.Random(1)).get(name)
    assert "least-busy, " in str(caught.value)
    assert len(str(caught.value)) < 600
    with pytest.raises(UnknownStrategy):
        check(name)
