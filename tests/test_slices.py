"""Reading EndpointSlices: every rule of the README, by hand and as recorded."""

import json
from collections import Counter
from itertools import product
from typing import Any

import pytest

from cache.slices import Reading, SliceSet, read_slice
from tests.slices import (
    HTTP,
    RECORDED,
    addresses_of,
    endpoints_of,
    entry,
    pools_of,
    raw_slice,
    recorded_items,
)

EXPECTED = json.loads((RECORDED / "expected.json").read_text())
SLICE_REASONS = ("label", "fqdn", "port", "malformed")


def as_recorded(pools: Any) -> Any:
    fields = ("address", "port", "pod", "zone", "node", "ready", "serving", "terminating")
    return {
        model: [{name: getattr(e, name) for name in (*fields, "routable")} for e in pool.endpoints]
        for model, pool in pools.items()
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_list_means_what_its_table_says(name: str) -> None:
    slices = SliceSet(Reading())
    skipped = Counter(slices.replace(recorded_items(name)))
    assert as_recorded(slices.snapshot(0.0).pools) == EXPECTED[name]["models"]
    of_slices = {reason: n for reason, n in skipped.items() if reason in SLICE_REASONS}
    assert of_slices == EXPECTED[name]["skipped_slices"]


@pytest.mark.parametrize(
    ("ready", "serving", "terminating"), list(product([True, False, None, "absent"], repeat=3))
)
def test_the_three_conditions_decide_together_and_absent_is_like_null(
    ready: object, serving: object, terminating: object
) -> None:
    given = {"ready": ready, "serving": serving, "terminating": terminating}
    raw = raw_slice({**entry(), "conditions": {k: v for k, v in given.items() if v != "absent"}})
    (strict,) = endpoints_of(raw)
    (trusting,) = endpoints_of(raw, reading=Reading(require_serving=False))

    assert strict.ready == (ready is not False)
    assert strict.serving == (serving is not False)
    assert strict.terminating == (terminating is True)
    assert strict.routable == (strict.ready and strict.serving and not strict.terminating)
    assert trusting.routable == (strict.ready and not strict.terminating)


@pytest.mark.parametrize("conditions", ["absent", None, {}])
def test_an_endpoint_without_conditions_is_routable(conditions: object) -> None:
    raw = entry() if conditions == "absent" else {**entry(), "conditions": conditions}
    assert [e.routable for e in endpoints_of(raw_slice(raw))] == [True]


@pytest.mark.parametrize("nothing", [None, [], "absent"])
@pytest.mark.parametrize("field", ["endpoints", "ports"])
def test_an_empty_slice_makes_its_model_known_and_is_not_counted(
    field: str, nothing: object
) -> None:
    raw = raw_slice() | {field: nothing}
    if nothing == "absent":
        del raw[field]
    slices = SliceSet(Reading())
    assert slices.replace([raw]) == []
    assert slices.snapshot(0.0).pools["m"].endpoints == ()


def test_only_the_first_address_counts() -> None:
    raw = raw_slice({"addresses": ["10.0.0.1", "10.0.0.2"]})
    assert addresses_of(raw) == ["10.0.0.1"]


def test_pod_zone_and_node_are_told_and_a_target_of_another_kind_is_no_pod() -> None:
    placed = {**entry(pod="m-0"), "zone": "z", "nodeName": "n"}
    other = {**entry("10.0.0.2"), "targetRef": {"kind": "Node", "name": "n"}}
    first, second = endpoints_of(raw_slice(placed, other))
    assert (first.pod, first.zone, first.node) == ("m-0", "z", "n")
    assert (second.pod, second.zone, second.node) == (None, None, None)


@pytest.mark.parametrize("field", ["zone", "nodeName", "targetRef"])
@pytest.mark.parametrize("name", ["a\r\nset-cookie: b", "naïve", "\ud800", 5, ["a"]])
def test_what_can_not_be_a_name_never_reaches_a_header(field: str, name: object) -> None:
    value = {"kind": "Pod", "name": name} if field == "targetRef" else name
    read = read_slice(raw_slice({**entry(), field: value}, entry("10.0.0.2")), Reading())
    assert [e.address for e in read.endpoints] == ["10.0.0.2"]
    assert read.skipped == ("malformed",)


@pytest.mark.parametrize(
    ("address", "allowed", "with_loopback"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("192.168.0.1", "192.168.0.1", True),
        ("fd00::7", "fd00::7", True),
        ("FD00:0:0::7", "fd00::7", True),  # one address has one spelling
        ("127.0.0.1", None, True),
        ("127.64.3.4", None, True),
        ("::1", None, True),
        ("0.0.0.0", None, False),
        ("::", None, False),
        ("224.0.0.1", None, False),
        ("ff02::1", None, False),
        ("169.254.169.254", None, False),
        ("fe80::1", None, False),
        ("fe80::1%eth0", None, False),
        ("fd00::7%eth0", None, False),
        ("::ffff:10.0.0.1", None, False),
        ("::ffff:127.0.0.1", None, False),
        ("::ffff:169.254.169.254", None, False),
        ("::10.0.0.1", None, False),
        ("::169.254.169.254", None, False),
        ("64:ff9b::a00:1", "64:ff9b::a00:1", True),  # 10.0.0.1 behind a translator
        ("64:ff9b::169.254.169.254", None, False),
        ("64:ff9b::127.0.0.1", None, False),
        ("64:ff9b::", None, False),
        ("2002:a00:1::7", "2002:a00:1::7", True),  # 10.0.0.1 behind a tunnel
        ("2002:a9fe:a9fe::1", None, False),
        ("2002:7f00:1::1", None, False),
        ("2002:e000:1::", None, False),
        ("2001:0:a00:1::5601:5601", None, False),  # Teredo to 169.254.169.254
    ],
)
def test_some_addresses_are_never_targets(
    address: str, allowed: str | None, with_loopback: bool
) -> None:
    raw = raw_slice(entry(address))
    read = read_slice(raw, Reading())
    assert [e.address for e in read.endpoints] == ([allowed] if allowed else [])
    assert read.skipped == (() if allowed else ("address",))
    loopback = read_slice(raw, Reading(allow_loopback=True))
    assert bool(loopback.endpoints) == with_loopback


@pytest.mark.parametrize(
    "address", ["", "pod.example", "10.0.0", "10.0.0.01", "10.0.0.1:80", 167772161, True, None, {}]
)
def test_what_is_no_address_is_malformed(address: object) -> None:
    read = read_slice(raw_slice(entry(address)), Reading())
    assert (read.endpoints, read.skipped) == ((), ("malformed",))


@pytest.mark.parametrize("entries", [(), (entry("pod.example"),)])
def test_a_slice_of_host_names_is_skipped_and_counted(entries: tuple[Any, ...]) -> None:
    read = read_slice(raw_slice(*entries, addressType="FQDN"), Reading())
    assert (read.model, read.endpoints, read.skipped) == ("m", (), ("fqdn",))


METRICS = {"name": "metrics", "port": 9090}
GRPC = {"name": "grpc", "port": 9000, "protocol": None}
UDP = {"name": "http", "port": 53, "protocol": "UDP"}
NUMBERLESS = {"name": "http", "port": None}


@pytest.mark.parametrize(
    ("ports", "labelled", "port_name", "chosen"),
    [
        ((METRICS, GRPC, HTTP), "9000", "metrics", 9090),  # the setting comes first
        ((METRICS, GRPC, HTTP), "9000", "", 9000),  # then the label
        ((METRICS, GRPC, HTTP), "9000", "absent", 9000),  # a rule that finds none is no rule
        ((METRICS,), "", "", 9090),  # then the only one
        ((METRICS,), "1234", "absent", 9090),
        ((METRICS, GRPC, HTTP), "", "", 8000),  # then its usual name
        ((METRICS, GRPC, HTTP), "text", "absent", 8000),
        ((METRICS, GRPC), "", "", None),
        ((METRICS, UDP), "", "", 9090),
        ((UDP,), "53", "http", None),
        ((NUMBERLESS,), "", "", None),
        ((NUMBERLESS, METRICS), "", "", 9090),
        (({"port": 80},), "", "", 80),
        (({"port": 0},), "", "", None),
        (({"port": 65536},), "", "", None),
        (({"port": "8000"},), "", "", None),
        (({"port": True},), "", "", None),
    ],
)
def test_the_port_is_chosen_by_the_first_rule_that_applies(
    ports: tuple[Any, ...], labelled: str, port_name: str, chosen: int | None
) -> None:
    raw = raw_slice(entry(), ports=ports, labels={"model.aibrix.ai/port": labelled})
    read = read_slice(raw, Reading(port_name=port_name))
    assert [e.port for e in read.endpoints] == ([chosen] if chosen else [])
    assert read.skipped == (() if chosen else ("port",))
    assert read.model == "m"


def test_each_slice_has_its_own_port() -> None:
    other = raw_slice(entry("10.0.0.2"), name="m-2", ports=(METRICS,))
    assert [e.key for e in endpoints_of(raw_slice(entry()), other)] == [
        ("10.0.0.1", 8000),
        ("10.0.0.2", 9090),
    ]


@pytest.mark.parametrize(
    "spoilt",
    [
        {"addresses": None},
        {"addresses": []},
        {"addresses": "10.0.0.1"},
        {"conditions": []},
        {"conditions": {"ready": "true"}},
        {"conditions": {"terminating": 0}},
        {"targetRef": "pod"},
    ],
)
def test_a_malformed_endpoint_is_skipped_and_spoils_no_other(spoilt: dict[str, Any]) -> None:
    read = read_slice(raw_slice({**entry(), **spoilt}, None, entry("10.0.0.2")), Reading())
    assert [e.address for e in read.endpoints] == ["10.0.0.2"]
    assert read.skipped == ("malformed", "malformed")


@pytest.mark.parametrize(
    ("raw", "model"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"metadata": None}, None),
        ({"metadata": {"name": "x", "labels": ["model.aibrix.ai/name"]}}, None),
        (raw_slice(endpoints={}), "m"),
        (raw_slice(endpoints="none"), "m"),
        (raw_slice(entry(), ports={}), "m"),
        (raw_slice(entry(), ports=[None]), "m"),
    ],
)
def test_a_malformed_slice_is_skipped_but_still_makes_its_model_known(
    raw: object, model: str | None
) -> None:
    read = read_slice(raw, Reading())
    assert (read.model, read.endpoints, read.skipped) == (model, (), ("malformed",))
    assert addresses_of(raw, raw_slice(entry(), name="good")) == ["10.0.0.1"]


@pytest.mark.parametrize("model", [None, "", 5, "a\nb", "\ud800"])
def test_a_slice_without_a_models_name_is_skipped(model: object) -> None:
    read = read_slice(raw_slice(entry(), model=model), Reading())
    assert (read.model, read.skipped) == (None, ("label",))


def test_slices_of_several_services_with_one_model_form_one_sorted_pool() -> None:
    first = raw_slice(entry("10.0.0.3"), entry("10.0.0.1"), name="a-1")
    second = raw_slice(entry("10.0.0.2"), name="b-1")
    assert addresses_of(first, second) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_in_single_service_mode_the_services_name_is_the_models() -> None:
    reading = Reading(service="llama")
    mine = raw_slice(entry(), labels={"kubernetes.io/service-name": "llama"})
    other = raw_slice(entry("10.0.0.2"), name="o", labels={"kubernetes.io/service-name": "o"})
    pools = pools_of([mine, other], reading)
    assert {model: len(pool.endpoints) for model, pool in pools.items()} == {"llama": 1}
    assert list(pools_of([], reading)) == ["llama"]
