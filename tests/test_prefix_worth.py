"""A prefix is followed as far as it is worth it, and no further."""

import random

import pytest

from routing.strategies import Strategies
from routing.strategies.prefix import PrefixCache
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
