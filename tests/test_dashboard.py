"""The dashboard can be read by Grafana and by people, and asks what Prometheus understands."""

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.alert_cases_models import ONE_IS_READY_STILL, THEY_LOAD, endpoints
from tests.dashboard import DASHBOARD, VALUES, expressions, panels, variables
from tests.promtool import check, evaluate, rules, series_of

COLUMNS = 24
SHOWN = pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    named = {f"query_{number}": text for number, (_, text) in enumerate(expressions())}
    assert len(named) >= len(panels())
    check(named, tmp_path)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("Models without a ready pod A", {"{}": 1}),
        (
            "Endpoints by state A",
            {
                '{state="ready"}': 0,
                '{state="not_ready"}': 2,
                '{state="terminating"}': 0,
                '{state="set_aside"}': 0,
            },
        ),
        ("Ready endpoints by model A", {'{namespace="models", model="llama"}': 0}),
    ],
)
def test_a_gateway_that_is_cut_off_has_no_say_in_what_is_ready(
    query: str, shown: dict[str, float], tmp_path: Path
) -> None:
    evaluate(dict(expressions())[query], THEY_LOAD | ONE_IS_READY_STILL, shown, tmp_path, at="4m")


def test_a_model_that_another_gateway_knows_a_ready_pod_of_has_one(tmp_path: Path) -> None:
    query = dict(expressions())["Models without a ready pod A"]
    evaluate(query, THEY_LOAD | endpoints("gw-2", ready="1x30"), {"{}": 0}, tmp_path)


@pytest.mark.parametrize(
    ("title", "shown"), [("Own errors", 0.25), ("Time to first byte, p90", 0.9)]
)
def test_while_nobody_asks_there_is_no_figure_instead_of_nan(
    title: str, shown: float, tmp_path: Path
) -> None:
    (panel,) = [panel for panel in panels() if panel["title"] == title]
    assert panel["fieldConfig"]["defaults"]["noValue"]
    query = dict(expressions())[f"{title} A"]
    evaluate(query, traffic("4x60", errors="1x60"), {}, tmp_path, every="15s")
    busy = traffic("0+4x60", errors="0+1x60")
    evaluate(query, busy, {"{}": shown}, tmp_path, every="15s")


def traffic(answers: str, *, errors: str) -> dict[str, str]:
    """Answers of one model that began within a second, and errors of the gateway's own."""
    return {
        series_of("gateway_requests_total", model="llama", status="200"): answers,
        series_of("gateway_errors_total", code="upstream_died"): errors,
    } | {
        series_of("gateway_first_byte_seconds_bucket", model="llama", le=le): answers
        for le in ("1", "+Inf")
    }


def test_no_variable_is_used_that_is_not_there() -> None:
    there = variables().keys() | {name.strip("$") for name in VALUES}
    assert set(re.findall(r"\$\{?(\w+)", str(DASHBOARD))) <= there | {"__all"}
    assert not [text for _, text in expressions() if "$" in text]


def test_everything_has_an_id_of_its_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert DASHBOARD["id"] is None, "Grafana gives it one"
    assert DASHBOARD["uid"]


def test_no_panel_covers_another_or_sticks_out() -> None:
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert min(place["x"], place["y"]) >= 0
        assert min(place["w"], place["h"]) > 0
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in combinations(DASHBOARD["panels"], 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def test_no_panel_floats_over_a_gap() -> None:
    cells = {cell for panel in DASHBOARD["panels"] for cell in _cells(panel["gridPos"])}
    lowest = max(y for _, y in cells)
    assert cells == {(x, y) for x in range(COLUMNS) for y in range(lowest + 1)}


@SHOWN
def test_every_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["legendFormat"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@SHOWN
def test_every_panel_asks_the_chosen_prometheus(panel: dict[str, Any]) -> None:
    asked = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert asked == [{"type": "prometheus", "uid": "${datasource}"}] * len(asked)


@SHOWN
def test_every_query_minds_the_chosen_namespace(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        selectors = re.findall(r"gateway_\w+(\{[^}]*\})?", target["expr"])
        assert selectors
        assert all('namespace=~"$namespace"' in selector for selector in selectors)


@SHOWN
def test_a_legend_names_only_labels_that_its_query_leaves(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        outermost = re.match(r"(?:sum|max|min) by \(([^)]*)\)", target["expr"])
        quantile = re.search(r"sum by \(le, ([^)]*)\)", target["expr"])
        left = outermost or quantile
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert named <= set(left[1].split(", ") if left else [])


def test_prometheus_and_models_can_be_chosen() -> None:
    assert variables()["datasource"]["type"] == "datasource"
    assert variables()["datasource"]["query"] == "prometheus"
    for name in ("namespace", "model"):
        assert variables()[name]["includeAll"] is True
        assert variables()[name]["multi"] is True
        assert variables()[name]["datasource"]["uid"] == "${datasource}"


def test_the_gateway_s_own_errors_are_those_of_the_alerts() -> None:
    alerting = {text for rule in rules() for text in re.findall(r'code!~"([^"]*)"', rule["expr"])}
    shown = {text for _, query in expressions() for text in re.findall(r'code!~"([^"]*)"', query)}
    assert shown == alerting


def test_the_gateways_that_have_a_say_are_those_of_the_alerts() -> None:
    says = r"\band on \(namespace, pod, instance\) \(\s*(.*?\+ \d+\))"
    alerting = {
        " ".join(text.split())
        for rule in rules()
        for text in re.findall(says, rule["expr"], re.DOTALL)
    }
    shown = {
        text.replace('{namespace=~"models"}', "")
        for _, query in expressions()
        for text in re.findall(says, query)
    }
    assert len(alerting) == 1
    assert shown == alerting


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return bool(_cells(one) & _cells(other))


def _cells(place: dict[str, int]) -> set[tuple[int, int]]:
    columns = range(place["x"], place["x"] + place["w"])
    return {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
