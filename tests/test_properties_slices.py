"""What holds of any list of slices, whatever came before it."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.endpoints import Endpoint, Pool
from cache.slices import Reading, SliceSet
from fuzz.promises import Broken
from fuzz.slices import READINGS, check, check_items, check_pools, listed, pools_of, seeds
from tests.slices import HTTP, entry, raw_slice

# Few of each, so that slices overlap and disagree.
NETWORKS = (
    *("10.0.0.0/30", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "0.0.0.0/31", "fd00::/126"),
    *("::/126", "fe80::/10", "ff02::/16", "::ffff:0:0/96", "64:ff9b::/96", "2002::/16"),
)
ODD_ADDRESSES = st.one_of(
    st.sampled_from(["FD00:0::1", "fe80::1%eth0", "", None]),
    *(st.ip_addresses(network=network) for network in NETWORKS),
    *(
        st.sampled_from([f"{prefix}:a9fe:a9fe{rest}", f"{prefix}:7f00:1{rest}"])
        for prefix, rest in (("64:ff9b:", ""), ("2002", "::1"))
    ),
).map(lambda address: address and str(address))
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]) | ODD_ADDRESSES
NAMES = st.sampled_from(["p-0", "p-0", "p-1", "p-1", "", None, "a\r\nb: c", 5])
CONDITIONS = st.dictionaries(
    st.sampled_from(["ready", "serving", "terminating"]),
    st.sampled_from([True, True, False, None, 1, "true"]),
)
ENTRIES = st.fixed_dictionaries(
    {"addresses": st.lists(ADDRESSES, min_size=1, max_size=2)},
    optional={
        "conditions": CONDITIONS,
        "targetRef": st.fixed_dictionaries({"name": NAMES}),
        "zone": NAMES,
        "nodeName": NAMES,
    },
)
# What two slices say of one endpoint while the controller moves it.
OVERLAPPING = st.fixed_dictionaries(
    {
        "addresses": st.just(["10.0.0.1"]),
        "conditions": st.just({}) | st.just({"ready": False}) | CONDITIONS,
        "targetRef": st.fixed_dictionaries({"name": st.sampled_from(["p-0", "p-1"])}),
        "zone": st.sampled_from(["z", "y"]),
        "nodeName": st.sampled_from(["n", "o"]),
    }
)
PORTS = st.sampled_from(
    [*([(HTTP,)] * 4), (), ({"port": 80},), (HTTP, {"name": "metrics", "port": 9090})]
)


@st.composite
def slices(draw: st.DrawFn) -> dict[str, Any]:
    """A slice that may be any version of one of a few."""
    return raw_slice(
        *draw(st.lists(OVERLAPPING | ENTRIES, max_size=3)),
        name=draw(st.sampled_from(["a", "b", "c", "d"])),
        model=draw(st.sampled_from(["m", "m", "m", "n", ""])),
        ports=draw(PORTS),
        labels={
            "model.aibrix.ai/port": draw(st.sampled_from(["8000", "80", "x"])),
            "kubernetes.io/service-name": draw(st.sampled_from(["m", "n"])),
        },
    )


LISTS = st.lists(slices(), max_size=4, unique_by=lambda item: item["metadata"]["name"])
EVENTS = st.lists(
    st.tuples(st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), slices()), max_size=8
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(items=LISTS, before=LISTS, reading=st.sampled_from(READINGS))
def test_a_list_means_the_same_in_any_order_by_events_and_after_any_other(
    items: list[Any], before: list[Any], reading: Reading
) -> None:
    check_items(items, reading, before)


@given(st.lists(OVERLAPPING, min_size=2, max_size=4))
def test_slices_that_disagree_on_an_endpoint_say_the_same_in_any_order(entries: list[Any]) -> None:
    items = [raw_slice(one, name=f"s-{number}") for number, one in enumerate(entries)]
    expected = listed(items, Reading())
    assert len(expected["m"].endpoints) <= 1
    for order in permutations(items):
        assert listed(list(order), Reading()) == expected


@given(first=LISTS, events=EVENTS, reading=st.sampled_from(READINGS))
def test_after_any_events_only_what_is_left_counts(
    first: list[Any], events: list[tuple[str, Any]], reading: Reading
) -> None:
    known = SliceSet(reading)
    known.replace(first)
    left = {item["metadata"]["name"]: item for item in first}
    for kind, item in events:
        known.apply(kind, item)
        left.pop(item["metadata"]["name"], None)
        if kind != "DELETED":
            left[item["metadata"]["name"]] = item
    assert pools_of(known) == listed(list(left.values()), reading)


def test_what_a_search_begins_with_keeps_all_promises() -> None:
    assert len(seeds()) > 10
    for seed in seeds():
        check(seed)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (entry(ready=1), entry(ready=True)),
        (entry(ready=False, terminating=0), entry(ready=False, terminating=False)),
    ],
)
def test_a_mistake_that_is_mended_in_a_file_is_read_again(wrong: Any, right: Any) -> None:
    known = SliceSet(Reading())
    assert known.replace([raw_slice(wrong)]) == ["malformed"]
    assert known.replace([raw_slice(right)]) == []
    assert pools_of(known) == listed([raw_slice(right)], Reading())


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("10.0.0.1", 80, ready=False),
        Endpoint("10.0.0.1", 80, terminating=True),
        Endpoint("10.0.0.1", 80, serving=False),
        Endpoint("10.0.0.1", 80, routable=False),
        Endpoint("127.0.0.1", 80),
        Endpoint("169.254.169.254", 80),
        Endpoint("64:ff9b::a9fe:a9fe", 80),
        Endpoint("2002:7f00:1::1", 80),
        Endpoint("fe80::1", 80),
        Endpoint("::ffff:10.0.0.1", 80),
        Endpoint("FD00::1", 80),
        Endpoint("10.0.0.1", 0),
        Endpoint("10.0.0.1", 80, pod="a\nb"),
    ],
)
def test_an_endpoint_that_breaks_a_promise_is_noticed(endpoint: Endpoint) -> None:
    with pytest.raises(Broken):
        check_pools({"m": Pool("m", (endpoint,))}, Reading())
    check_pools({"m": Pool("m", (Endpoint("10.0.0.1", 80),))}, Reading())
