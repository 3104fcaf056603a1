"""What the documentation says of errors, alerts, strategies, settings, metrics and logs is true."""

import re
from dataclasses import fields

import pytest

from proxy.errors import KINDS
from proxy.inference import INFERENCE_PATHS
from routing.strategies import ALIASES, STRATEGIES, UnknownStrategy, check
from settings import Settings, SettingsError
from tests import kustomize
from tests.documents import (
    ALL_CODE,
    CODE,
    OPERATIONS,
    PAGES,
    README,
    alerts,
    entries,
    exposed,
    rows,
    section,
)
from tests.harness import ROOT

MIGRATION = PAGES["docs/migration-from-aibrix.md"]
EACH_PAGE = pytest.mark.parametrize("page", PAGES)
UNITS = {"": 1, " s": 1, " h": 3600, " MiB": 2**20}


# The runbook


def test_every_error_has_an_entry_in_the_runbook_and_every_entry_an_error() -> None:
    assert list(entries("Error codes")) == list(KINDS)


@pytest.mark.parametrize("code", KINDS)
def test_an_error_s_entry_says_its_status_and_whether_to_retry(code: str) -> None:
    begins = entries("Error codes")[code].strip()
    kind = KINDS[code]
    if code in ("upstream_died", "upstream_idle"):
        assert begins.startswith("After the head: no status.")
    elif code == "relay_died":
        assert begins.startswith("In logs and metrics only.")
    else:
        assert begins.startswith(f"{kind.status}, {'retry' if kind.retry else 'no retry'}")


def test_every_alert_has_an_entry_in_the_runbook_and_every_entry_an_alert() -> None:
    assert set(entries("Alerts")) == set(alerts()) != set()


@pytest.mark.parametrize("name", alerts())
def test_an_alert_s_entry_says_how_bad_it_is_and_after_how_long_it_comes(name: str) -> None:
    rule = alerts()[name]
    after = f"after {rule['for'][:-1]} min" if "for" in rule else "at once"
    assert rule.get("for", "1m").endswith("m")
    begins = entries("Alerts")[name].strip()
    assert re.match(f"{rule['labels']['severity'].capitalize()}, {after}[.,] ", begins)


@pytest.mark.parametrize("title", ["Alerts", "Error codes"])
def test_every_entry_says_what_users_see_and_where_to_look_first(title: str) -> None:
    for name, text in entries(title).items():
        assert "- **Users see** " in text, name
        assert "- **First look** " in text, name


# Strategies


def test_every_strategy_has_its_heading_and_its_row() -> None:
    page = PAGES["docs/strategies.md"]
    headings = re.findall(r"^## ([a-z-]+)$", page, re.M)
    linked = [re.sub(r"\[`(.+)`\].*", r"\1", row[0]) for row in rows(page, "name")]
    assert linked == headings
    assert set(headings) == set(STRATEGIES)


def test_the_readme_s_table_has_every_strategy() -> None:
    table = section(README, "How it decides").partition("**Strategies.**")[2]
    named = {row[0].split("`")[1] for row in rows(table, "name")}
    assert {name for name in named if ":" not in name} == set(STRATEGIES)


# Migration


def test_what_aibrix_calls_otherwise_is_told_to_be_understood() -> None:
    understood = {
        theirs.strip("`"): ours.strip("`")
        for theirs, ours, differences in rows(section(MIGRATION, "Strategies"), "AIBrix")
        if "the old name is understood" in differences
    }
    assert understood == dict(ALIASES)


@pytest.mark.parametrize(
    "row", rows(section(MIGRATION, "Strategies"), "AIBrix"), ids=lambda r: r[0]
)
def test_a_strategy_of_aibrix_is_what_its_row_says_or_unknown(row: list[str]) -> None:
    ours = row[1].strip("`")
    for name in re.findall(r"`([a-z-]+)`", row[0]):
        if ours == "–":
            with pytest.raises(UnknownStrategy):
                check(name)
        else:
            assert check(name) in STRATEGIES.keys() | ALIASES.keys()
            assert ALIASES.get(name, name) == ours


def test_a_path_of_aibrix_is_forwarded_where_its_row_says_so() -> None:
    told = {
        path: here == "forwarded"
        for paths, _, here in rows(section(MIGRATION, "Paths"), "path")
        for path in re.findall(r"`(/\S+)`", paths)
    }
    assert {path for path, forwarded in told.items() if forwarded} == set(INFERENCE_PATHS)
    assert not all(told.values())


def test_an_error_beside_aibrix_s_has_its_status() -> None:
    here = " ".join(row[2] for row in rows(section(MIGRATION, "Errors"), "situation"))
    told = re.findall(r"\b(\d{3}) `(\w+)`", here)
    assert told
    assert [(status, code) for status, code in told if KINDS[code].status != int(status)] == []


def test_a_header_of_aibrix_that_is_told_not_to_be_given_is_not() -> None:
    table = rows(section(MIGRATION, "Headers"), "header")
    cells = " ".join(names for names, _, here in table if "not given" in here)
    absent = re.findall(r"`([a-z-]+)`", cells)
    assert "target-pod-ip" in absent
    assert [name for name in absent if f'"{name}"' in ALL_CODE] == []


# Settings


@EACH_PAGE
def test_every_setting_that_is_named_exists(page: str) -> None:
    settings = {field.metadata["name"] for field in fields(Settings)}
    assert set(re.findall(r"\bGATEWAY_[A-Z_]+\b", PAGES[page])) - settings == set()


@EACH_PAGE
def test_a_default_that_is_told_beside_a_setting_is_the_code_s(page: str) -> None:
    for name, number, unit in re.findall(r"`(GATEWAY_\w+)` \((\d+)( \w+)?\)", PAGES[page]):
        told = {name: str(int(number) * UNITS[unit])}
        assert Settings.from_environ(told) == Settings(), name


def test_the_line_of_a_bad_setting_is_what_the_page_shows() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({"GATEWAY_THREADS": "many"})
    assert f"\ngateway: {caught.value}\n" in OPERATIONS


# Metrics, health, logs


@EACH_PAGE
def test_every_metric_that_is_named_exists(page: str) -> None:
    known = exposed().keys() | KINDS.keys()
    named = set(re.findall(r"\bgateway_[a-z_]+[a-z]\b(?!\.py)", PAGES[page]))
    assert named - known == set()


@EACH_PAGE
def test_every_label_that_is_named_is_one_of_its_metric(page: str) -> None:
    labels_of = exposed()
    for name, labels in re.findall(r"\b(gateway_[a-z_]+)\{([^}]+)\}", PAGES[page]):
        named = {re.split("[=!~]", label)[0].strip() for label in labels.split(",")}
        assert named <= set(labels_of[name]), name


def test_the_table_of_metrics_has_each_with_its_labels() -> None:
    told = {
        cells[0].strip("`"): tuple(re.findall(r"`(\w+)`", cells[1]))
        for cells in rows(section(OPERATIONS, "Metrics"), "metric")
    }
    assert told == exposed()


def test_every_value_of_a_label_that_is_told_is_one_the_code_uses() -> None:
    for name, labels, says in rows(section(OPERATIONS, "Metrics"), "metric"):
        values = re.findall(r"`([a-z_]+)`", says) if labels else []
        assert [value for value in values if f'"{value}"' not in ALL_CODE] == [], name


def test_what_the_log_and_the_health_check_are_said_to_say_they_say() -> None:
    reasons = [row[0] for row in rows(section(OPERATIONS, "Readiness"), "reason")]
    lines = [row[1] for row in rows(section(OPERATIONS, "Log lines"), "logger")]
    phrases = re.findall(r"`([^`]+)`", " ".join(reasons + lines))
    parts = [part for phrase in phrases for part in re.split(r"\b(?:N|KIND|ID)\b|…", phrase)]
    spelt = [part for part in (part.strip(" ():") for part in parts) if " " in part]
    assert [part for part in spelt if part not in ALL_CODE] == []
    assert len(spelt) > 15


def test_every_field_of_a_request_s_log_line_is_told() -> None:
    first_cells = " ".join(row[0] for row in rows(section(OPERATIONS, "Log lines"), "field"))
    told = re.findall(r"`(\w+)`", first_cells)
    record = CODE["proxy/record.py"]
    assert [name for name in told if f'"{name}"' not in record] == []
    assert set(re.findall(r'_facts\["(\w+)"\]', record)) <= set(told)


# The rest


def test_every_lock_is_on_the_page_of_the_architecture() -> None:
    told = {row[0].strip("`") for row in rows(PAGES["docs/architecture.md"], "lock in")}
    assert told == {path for path, text in CODE.items() if "# guards: " in text}


def test_the_labels_by_which_the_commands_choose_are_those_of_the_manifests() -> None:
    rendered = kustomize.render(ROOT / "k8s" / "base")
    (deployment,) = [manifest for manifest in rendered if manifest["kind"] == "Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    chosen = re.findall(r"-l (app\S+?)=([\w-]+)", "".join(PAGES.values()))
    assert chosen
    assert {name: labels.get(name) for name, _ in chosen} == dict(chosen)
