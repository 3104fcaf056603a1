"""A prefix is followed as far as it is worth it, and remembered as long as it is held."""

import random
import tracemalloc
from collections import Counter

import pytest

from load.values import EngineLoad, LoadSnapshot
from routing.strategies import Strategies
from routing.strategies.prefix import MEMORY, PrefixCache
from routing.view import Query, View
from tests.fakes import endpoint, endpoints
from tests.test_affinity import LONG, OTHER, chat, choose

SHARED = "You are kind. " * 20


@pytest.fixture
def prefix() -> PrefixCache:
    return PrefixCache(random.Random(1))


def test_a_prefix_is_followed_only_as_far_as_it_is_worth_it(prefix: PrefixCache) -> None:
    short, long = chat(SHARED + LONG), chat(LONG)
    for query in (short, long):
        prefix.prepare(query)
        prefix.chosen(endpoint(1), query)
    busy = {endpoint(1).key: 3}
    assert choose(prefix, endpoints(4), chat(LONG), busy) == "pod-1"
    fresh = PrefixCache(random.Random(1))
    fresh.chosen(endpoint(1), short)
    assert choose(fresh, endpoints(4), chat(SHARED + OTHER), busy) != "pod-1"


def test_gateways_agree_on_what_follows_a_prefix_that_all_prompts_share() -> None:
    chosen = set()
    for seed in range(9):
        gateway = PrefixCache(random.Random(seed))
        seen = chat(SHARED + f"{seed} {LONG}")
        gateway.prepare(seen)
        gateway.chosen(endpoint(seed % 8 + 1), seen)
        busy = {endpoint(seed % 8 + 1).key: 1}
        chosen.add(choose(gateway, endpoints(16), chat(SHARED + OTHER), busy))
    assert len(chosen) == 1


def test_in_a_mix_a_short_prefix_does_not_outweigh_load() -> None:
    mix = Strategies(random.Random(1)).get("prefix-cache:2,least-request:1")
    begin = chat(SHARED + LONG)
    mix.prepare(begin)
    mix.chosen(endpoint(1), begin)
    busy = {endpoint(1).key: 5}
    assert choose(mix, endpoints(3), chat(SHARED + OTHER), busy) != "pod-1"
    assert choose(mix, endpoints(3), chat(SHARED + LONG), busy) == "pod-1"


WITHOUT_PREFIX = [
    b"",
    b"{}",
    b'{"messages": []}',
    b'{"messages": [{"role": "user", "content": "a short question"}]}',
    b'{"query": "which?", "documents": ["one", "two"]}',
    b'{"text": "\\"messages\\": hello"}',
    b"--boundary\r\nno JSON at all",
]


@pytest.mark.parametrize("body", WITHOUT_PREFIX)
def test_a_request_without_a_long_prompt_goes_to_the_least_busy(
    prefix: PrefixCache, body: bytes
) -> None:
    loads = {endpoint(n): EngineLoad(running) for n, running in enumerate((40, 48, 30, 39), 1)}
    reports = LoadSnapshot({one.key: load for one, load in loads.items()}, 1e9)
    for _ in range(50):
        query = Query("m", "", body)
        prefix.prepare(query)
        picked = prefix.pick(tuple(loads), View({}, reports), query)
        prefix.chosen(picked, query)
        assert picked == endpoint(3)
    assert not prefix._holders


@pytest.mark.parametrize("body", WITHOUT_PREFIX)
def test_among_the_least_busy_any_gets_it(prefix: PrefixCache, body: bytes) -> None:
    counts = Counter(choose(prefix, endpoints(3), Query("m", "", body)) for _ in range(90))
    assert len(counts) == 3


def test_a_prompt_that_is_all_known_to_busy_engines_goes_to_the_least_busy(
    prefix: PrefixCache,
) -> None:
    query = chat(LONG)
    prefix.prepare(query)
    prefix.chosen(endpoint(1), query)
    busy = {endpoint(1).key: 40, endpoint(2).key: 3, endpoint(3).key: 1, endpoint(4).key: 2}
    assert {choose(prefix, endpoints(4), chat(LONG), busy)} == {"pod-3"}


def test_a_pod_that_is_gone_is_forgotten_also_where_another_gets_its_address(
    prefix: PrefixCache,
) -> None:
    first, second = chat(LONG), chat(LONG, "and then?")
    for query in (first, second):
        prefix.prepare(query)
    prefix.chosen(endpoint(1), first)
    prefix.chosen(endpoint(2), second)
    prefix.forget([endpoint(2).key, endpoint(3).key])
    assert set(prefix._seen(second)) == {endpoint(1).key}
    prefix.chosen(endpoint(2), first)
    assert prefix._seen(second)[endpoint(2).key] == len(first.prefix), "it begins anew"
    prefix.chosen(endpoint(3), second)
    assert max(map(len, prefix._holders.values())) == 3, "whoever is gone takes no room"


def remembered(prefix: PrefixCache, prompts: int) -> None:
    """Let all of eight endpoints hold so many prompts."""
    for number in range(prompts):
        query = chat(f"{number} {LONG}")
        prefix.prepare(query)
        for holder in endpoints(8):
            prefix.chosen(holder, query)


def test_what_is_remembered_takes_20_megabytes_at_most() -> None:
    prefix = PrefixCache(random.Random(1), memory=2048)
    remembered(prefix, 1)
    tracemalloc.start()
    try:
        remembered(prefix, 180)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(prefix._holders) == 2048
    assert taken / 2048 * MEMORY < 20_000_000


def test_the_oldest_beginnings_are_forgotten_first() -> None:
    prefix = PrefixCache(random.Random(1), memory=500)
    remembered(prefix, 100)
    assert len(prefix._holders) == 500
    last = chat(f"99 {LONG}")
    prefix.prepare(last)
    assert all(number in prefix._holders for number in last.prefix)
