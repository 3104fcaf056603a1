"""The set of slices: lists and watch events, overlaps, and arbitrary input."""

import json
import random
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.endpoints import Pool
from cache.slices import Reading, SliceSet
from tests.slices import RECORDED, addresses_of, endpoints_of, entry, pools_of, raw_slice

# What holds after each note of the recorded watch: each model's pods by state.
LIFE = {
    "Service llama-8b is created; no pods": {"llama-8b": ""},
    "llama-0 runs, not ready": {"llama-8b": "0:not_ready"},
    "llama-0 becomes ready: the first request can be served": {"llama-8b": "0:ready"},
    "llama-1 runs and is ready": {"llama-8b": "0:ready 1:ready"},
    "llama-2 runs and is ready": {"llama-8b": "0:ready 1:ready 2:ready"},
    "llama-3 is pending, no address": {"llama-8b": "0:ready 1:ready 2:ready"},
    "llama-1 fails its readiness probe": {"llama-8b": "0:ready 1:not_ready 2:ready"},
    "llama-2 is deleted with 30 s grace: terminating, still serving": {
        "llama-8b": "0:ready 1:not_ready 2:terminating"
    },
    "llama-2, terminating, fails its readiness probe": {
        "llama-8b": "0:ready 1:not_ready 2:terminating"
    },
    "llama-2 is gone": {"llama-8b": "0:ready 1:not_ready"},
    "llama-0, the last ready one, is deleted with 30 s grace": {
        "llama-8b": "0:terminating 1:not_ready"
    },
    "llama-0 is gone": {"llama-8b": "1:not_ready"},
    "llama-1 becomes ready again": {"llama-8b": "1:ready"},
    "llama-1 gets another address (pod sandbox restarted)": {"llama-8b": "1:ready"},
    "model label of the Service changes to llama-8b-v2": {"llama-8b-v2": "1:ready"},
    "model label is removed: leaves the selection": {},
    "model label is back": {"llama-8b": "1:ready"},
    "Service qwen with publishNotReadyAddresses: one ready, one not ready, one terminating": {
        "llama-8b": "1:ready",
        "qwen": "0:ready 1:not_ready 2:terminating",
    },
    "Service qwen is deleted": {"llama-8b": "1:ready"},
}


def states(slices: SliceSet) -> dict[str, str]:
    return {
        model: " ".join(
            sorted(f"{(e.pod or '').rpartition('-')[2]}:{e.state}" for e in pool.endpoints)
        )
        for model, pool in slices.snapshot(0.0).pools.items()
    }


def test_the_recorded_watch_leads_through_the_states_its_notes_tell() -> None:
    slices = SliceSet(Reading())
    seen: dict[str, dict[str, str]] = {}
    note = ""
    for line in (RECORDED / "watch-lifecycle.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "note" in record:
            note = record["note"]
            seen[note] = states(slices)
            continue
        event = json.loads(record["line"])
        if event["type"] != "BOOKMARK":
            assert slices.apply(event["type"], event["object"]) == []
            seen[note] = states(slices)
    assert seen == LIFE


def test_the_recorded_watch_shows_the_new_address_of_a_restarted_sandbox() -> None:
    lines = (RECORDED / "watch-lifecycle.jsonl").read_text().splitlines()
    events = [json.loads(record["line"]) for record in map(json.loads, lines) if "line" in record]
    slices = SliceSet(Reading())
    for event in events:
        if event["type"] != "BOOKMARK":
            slices.apply(event["type"], event["object"])
    (endpoint,) = slices.snapshot(0.0).pools["llama-8b"].endpoints
    assert endpoint.key == ("10.244.1.77", 8000)


def test_an_overlap_of_slices_is_one_endpoint() -> None:
    first = raw_slice(entry(pod="a"), entry("10.0.0.2"), name="m-1")
    second = raw_slice(entry("10.0.0.2"), entry("fd00::1"), entry("FD00:0::1"), name="m-2")
    assert addresses_of(first, second) == ["10.0.0.1", "10.0.0.2", "fd00::1"]


@pytest.mark.parametrize(
    ("one", "other", "winner"),
    [
        ({"ready": True}, {"ready": True, "terminating": True}, "ready"),
        ({"ready": False}, {"ready": True, "terminating": True}, "not_ready"),
        ({"ready": True}, {"ready": False}, "ready"),
        ({"ready": True, "serving": False}, {"ready": True}, "ready"),
    ],
)
def test_where_overlapping_slices_disagree_the_endpoint_that_is_not_terminating_wins(
    one: dict[str, Any], other: dict[str, Any], winner: str
) -> None:
    slices = [raw_slice(entry(**one), name="a"), raw_slice(entry(**other), name="b")]
    for order in permutations(slices):
        assert [e.state for e in endpoints_of(*order)] == [winner]


def test_the_order_of_slices_and_endpoints_does_not_matter() -> None:
    rng = random.Random(7)
    entries = [
        {**entry(f"10.0.0.{n % 9 + 1}", pod=f"p-{n}", ready=n % 3 > 0, terminating=n % 5 == 0)}
        | {"zone": f"z-{n % 2}"}
        for n in range(60)
    ]
    seen = set()
    for _ in range(20):
        rng.shuffle(entries)
        items = [raw_slice(*entries[n::6], name=f"m-{n}") for n in range(6)]
        seen.add(endpoints_of(*items))
    assert len(seen) == 1


def test_a_list_replaces_everything_and_an_empty_one_is_believed() -> None:
    slices = SliceSet(Reading())
    slices.replace([raw_slice(entry(), model="a", name="a"), raw_slice(model="b", name="b")])
    slices.replace([raw_slice(entry(), model="c", name="c")])
    assert list(slices.snapshot(0.0).pools) == ["c"]
    slices.replace([])
    assert not slices.snapshot(0.0).pools


def test_an_event_changes_one_slice_of_a_pool() -> None:
    slices = SliceSet(Reading())
    slices.replace([raw_slice(entry(), name="a"), raw_slice(entry("10.0.0.2"), name="b")])
    slices.apply("MODIFIED", raw_slice(entry("10.0.0.3"), name="b"))
    assert [e.address for e in slices.snapshot(0).pools["m"].endpoints] == ["10.0.0.1", "10.0.0.3"]
    slices.apply("DELETED", raw_slice(entry("10.0.0.9"), name="a", model="old"))
    assert [e.address for e in slices.snapshot(0).pools["m"].endpoints] == ["10.0.0.3"]
    slices.apply("DELETED", raw_slice(name="b"))
    assert not slices.snapshot(0).pools


def test_deleting_what_is_not_known_changes_nothing() -> None:
    slices = SliceSet(Reading())
    slices.replace([raw_slice(entry(), name="a")])
    assert slices.apply("DELETED", raw_slice(name="b")) == []
    assert slices.apply("DELETED", {"metadata": {}}) == ["malformed"]
    assert len(slices.snapshot(0).pools["m"].endpoints) == 1


def test_an_event_that_moves_a_slice_to_another_model_changes_both() -> None:
    slices = SliceSet(Reading())
    slices.replace([raw_slice(entry(), name="a")])
    slices.apply("MODIFIED", raw_slice(entry(), name="a", model="n"))
    assert list(slices.snapshot(0).pools) == ["n"]


def test_slices_of_one_name_in_two_namespaces_are_two() -> None:
    there = raw_slice(entry("10.0.0.2"), name="a")
    there["metadata"]["namespace"] = "other"
    assert addresses_of(raw_slice(entry(), name="a"), there) == ["10.0.0.1", "10.0.0.2"]


def test_what_is_skipped_is_told_once_for_each_version_of_a_slice() -> None:
    slices = SliceSet(Reading())
    bad, worse = (raw_slice(entry(), ports=(), version=v) for v in ("1", "2"))
    assert slices.replace([bad]) == ["port"]
    assert slices.replace([bad]) == []
    assert slices.replace([worse]) == ["port"]


def test_a_slice_without_a_version_is_compared_by_what_it_says() -> None:
    slices = SliceSet(Reading())
    slices.replace([raw_slice(entry(ready=False))])
    assert slices.replace([raw_slice(entry(ready=True))]) == []
    assert len(slices.snapshot(0.0).pools["m"].routable) == 1


def test_a_recreated_slice_of_the_same_name_and_version_is_read_again() -> None:
    slices = SliceSet(Reading())
    slices.replace([raw_slice(entry(), version="1")])
    again = raw_slice(entry("10.0.0.2"), version="1")
    again["metadata"]["uid"] = "another"
    slices.replace([again])
    assert [e.address for e in slices.snapshot(0).pools["m"].endpoints] == ["10.0.0.2"]


def test_unchanged_slices_keep_their_pool_the_same_value() -> None:
    slices = SliceSet(Reading())
    slices.replace([raw_slice(entry(), version="1")])
    before = slices.snapshot(0.0).pools["m"]
    slices.replace([raw_slice(entry(), version="1")])
    assert slices.snapshot(1.0).pools["m"] is before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
LABELS = st.dictionaries(st.sampled_from(["model.aibrix.ai/name", "model.aibrix.ai/port"]), JSON)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b"]) | JSON,
        "namespace": JSON,
        "uid": JSON,
        "resourceVersion": JSON,
        "labels": LABELS | JSON | st.just({"model.aibrix.ai/name": "bad"}),
    },
)
ENDPOINT = st.fixed_dictionaries(
    {},
    optional={
        "addresses": st.lists(st.ip_addresses().map(str) | JSON, max_size=2) | JSON,
        "conditions": st.dictionaries(
            st.sampled_from(["ready", "serving", "terminating"]), st.booleans() | JSON
        )
        | JSON,
        "targetRef": st.fixed_dictionaries({}, optional={"kind": JSON, "name": JSON}) | JSON,
        "zone": JSON,
        "nodeName": JSON,
    },
)
PORT = st.fixed_dictionaries({}, optional={"name": JSON, "port": JSON, "protocol": JSON})
SLICE = st.fixed_dictionaries(
    {},
    optional={
        "metadata": METADATA | JSON,
        "addressType": JSON,
        "endpoints": st.lists(ENDPOINT | JSON, max_size=4) | JSON,
        "ports": st.lists(PORT | JSON | st.just({"port": 80}), max_size=2) | JSON,
    },
)
GOOD = raw_slice(entry("192.0.2.1", pod="p"), name="good", model="good")
GOOD_POOL = pools_of([GOOD])["good"]


@given(st.lists(SLICE | JSON, max_size=4), st.sampled_from([Reading(), Reading(service="good")]))
def test_arbitrary_json_never_raises_and_never_spoils_what_is_good(
    items: list[Any], reading: Reading
) -> None:
    good = raw_slice(
        *GOOD["endpoints"],
        name="good",
        model="good",
        labels={"kubernetes.io/service-name": "good"},
    )
    others = [item for item in items if not is_good(item)]
    assert_good(pools_of([*others, good], reading))
    slices = SliceSet(reading)
    slices.replace([good])
    for kind in ("ADDED", "MODIFIED", "DELETED"):
        for item in others:
            slices.apply(kind, item)
    assert_good(dict(slices.snapshot(0.0).pools))


def is_good(item: object) -> bool:
    """Whether an arbitrary item happens to speak of the good model."""
    return "good" in json.dumps(item)


def assert_good(pools: dict[str, Pool]) -> None:
    assert pools["good"] == GOOD_POOL
    for pool in pools.values():
        assert all(e.routable <= (e.ready and e.serving) for e in pool.endpoints)
        assert all(type(e.address) is str and type(e.port) is int for e in pool.endpoints)
