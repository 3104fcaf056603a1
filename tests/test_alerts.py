"""Each alert fires when it must and stays silent when it must: played by Prometheus' own tool."""

import re
from pathlib import Path

import pytest

from proxy.errors import KINDS
from tests.alert_cases import CASES
from tests.alert_cases_models import UNLABELLED
from tests.harness import ROOT
from tests.promtool import Case, alerts, check_groups, groups, prove, rules


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_alert_fires_when_it_must_and_only_then(case: Case, tmp_path: Path) -> None:
    prove(case, tmp_path)


@pytest.mark.parametrize("case", UNLABELLED, ids=str)
def test_an_alert_needs_no_labels_of_prometheus(case: Case, tmp_path: Path) -> None:
    prove(case, tmp_path)


def test_prometheus_accepts_the_rules(tmp_path: Path) -> None:
    check_groups(groups(), tmp_path)


@pytest.mark.parametrize("alert", alerts())
def test_every_alert_is_proved_to_fire_and_to_stay_silent(alert: str) -> None:
    fires = {case.labels is not None for case in CASES if case.alert == alert}
    assert fires == {True, False}


@pytest.mark.parametrize("alert", alerts())
def test_every_alert_says_what_is_wrong_and_where_to_read_on(alert: str) -> None:
    rule = alerts()[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert all(text == text.strip() for text in rule["annotations"].values())
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == alert.lower()
    assert alert in headings


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_s_text_names_only_labels_that_it_has(alert: str) -> None:
    text = " ".join(alerts()[alert]["annotations"].values())
    text = re.sub(r"\{\{ with \$labels\.\w+ \}\}", "", text)  # named where it is there
    named = set(re.findall(r"\$labels\.(\w+)", text))
    fired = [case.labels for case in CASES if case.alert == alert and case.labels is not None]
    assert all(named <= labels.keys() for labels in fired)


def test_the_gateway_s_own_errors_are_those_that_are_no_mistake_of_a_client() -> None:
    lists = [text for rule in rules() for text in re.findall(r'code!~"([^"]*)"', rule["expr"])]
    mistakes = {code for code, kind in KINDS.items() if kind.status < 500}
    assert lists
    assert all(set(text.split("|")) == mistakes for text in lists)
