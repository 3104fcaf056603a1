"""What alerts, dashboard and autoscaler ask Prometheus for is what a running gateway tells."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import pytest
import yaml
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

import metrics
from exposition import STATES
from proxy.errors import KINDS
from simulator.pod import Engine
from tests import dashboard
from tests.documents import ALL_CODE
from tests.e2e.place import Place, place, process_of
from tests.harness import ROOT, wait_for
from tests.promql import grouped, selected
from tests.promtool import rules
from tests.slices import raw_slice

ADAPTER = ROOT / "k8s" / "autoscaling" / "prometheus-adapter-values.yaml"
#: What Prometheus adds to what a gateway tells: the operator's labels of a pod.
TARGET_LABELS = {"instance", "namespace", "pod"}
#: What whoever asks chooses.
CHOSEN = TARGET_LABELS | {"model"}
Told = Mapping[str, set[str]]


def adapted() -> Iterator[tuple[str, str]]:
    """The adapter's queries, with what it puts in the place of its templates."""
    for rule in yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]:
        series = rule["seriesQuery"]
        query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod")
        query = query.replace("<<.Series>>", series.partition("{")[0])
        yield "adapter: series", series
        yield "adapter: query", query.replace("<<.LabelMatchers>>", 'namespace="models"')


#: All there are, less what Prometheus tells of itself.
EXPRESSIONS = {
    where: expression
    for where, expression in [
        *((rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()),
        *dashboard.expressions(),
        *adapted(),
    ]
    if "ALERTS" not in expression
}
ASKED = pytest.mark.parametrize("where", EXPRESSIONS)


def told_by(town: Place) -> dict[str, set[str]]:
    """The names of the samples that the gateway tells now, each with its labels."""
    told: defaultdict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(town.gateway.get("/metrics").text):
        for sample in family.samples:
            told[sample.name] |= sample.labels.keys()
    return dict(told)


def values_of(town: Place, metric: str, label: str) -> set[str]:
    """The values that a label of a metric can have.

    Where no list of them exists: those that are told now, and those that the code spells out.
    """
    if label == "code":
        return set(KINDS)
    if label == "state":
        return set(STATES)
    objects = {f"{one._name}_total": n for n, one in vars(metrics).items() if type(one) is Counter}
    name = objects[metric]
    spelt = re.findall(rf'\b{name}\.labels\("(\w+)"\)', ALL_CODE)
    return {*spelt, *town.gateway.counted(metric, label)}


def let_everything_happen(town: Place) -> None:
    """Have every kind of event that is counted by a label, each at least once."""
    gateway = town.gateway
    busy = town.deploy("busy", engine=Engine(tokens=10_000, token_seconds=0.05))
    town.deploy("asleep", ready=False)
    town.cluster.model("nobody", pods=2, processes=False)
    town.cluster.put_slice(raw_slice(name="fqdn-1", model="fqdn", addressType="FQDN"))
    wait_for(lambda: len(gateway.endpoints("nobody")) == 2, "the slices are known")

    with gateway.chat("busy", stream=True) as stream:
        next(stream.iter_content(1))
    wait_for(lambda: process_of(busy.pods[0]).closed_early, "the client has left")
    # Nobody listens there, so nobody tells a load: the strategy falls back, and each attempt fails.
    refused = gateway.chat("nobody", headers={"routing-strategy": "least-busy"})
    assert refused.headers["x-gateway-error"] == "upstream_unreachable"
    held = gateway.chat("asleep")
    assert held.headers["x-gateway-error"] == "no_ready_endpoints"


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("metric-names")
    with place(directory, poll_seconds="0.5", hold_seconds="0.1", scrape_seconds="0.2") as running:
        let_everything_happen(running)
        yield running


@pytest.fixture(scope="module")
def told(town: Place) -> Told:
    late = {
        "gateway_watches_total",
        "gateway_discovery_skipped_total",
        "gateway_client_aborts_total",
        "gateway_first_byte_seconds_bucket",
        "gateway_request_seconds_bucket",
        "gateway_engine_running",
    }
    wait_for(lambda: late <= told_by(town).keys(), "what takes its time has happened")
    return told_by(town)


@ASKED
def test_every_metric_exists_and_has_the_labels_that_are_asked_for(where: str, told: Told) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = set(selected(EXPRESSIONS[where]))
    assert asked
    for one in asked:
        if one.metric not in recorded:
            assert one.metric in told
            assert one.labels <= told[one.metric] | TARGET_LABELS
    known = TARGET_LABELS.union(*(told.get(one.metric, set()) for one in asked))
    assert grouped(EXPRESSIONS[where]) <= known


@ASKED
def test_every_value_that_is_asked_for_exists(where: str, town: Place) -> None:
    for one in selected(EXPRESSIONS[where]):
        for label, value in one.matchers:
            if label == "status":
                assert re.fullmatch(r"[1-5](\.\.|\d\d)", value)
            elif label not in CHOSEN:
                assert value in values_of(town, one.metric, label)


def test_what_has_not_happened_yet_is_told_as_zero(town: Place) -> None:
    assert town.gateway.counted("gateway_errors_total", "code").keys() == KINDS.keys()
    assert town.gateway.counted("gateway_errors_total", "code")["internal_error"] == 0
    assert town.gateway.counted("gateway_in_flight", "model")["unknown"] == 0


def test_the_ttl_is_told_beside_the_age(town: Place) -> None:
    assert town.gateway.metric("gateway_snapshot_ttl_seconds") == 600
    assert 0 <= town.gateway.metric("gateway_snapshot_age_seconds") < 60
