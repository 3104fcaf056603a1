"""Prometheus' own tool, which reads rules and expressions as the server does."""

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import ROOT

RULES = ROOT / "k8s" / "monitoring" / "prometheusrule.yaml"


@dataclass(frozen=True)
class Case:
    """What Prometheus has seen, and whether the alert fires then.

    `series` have one value each `every`, in promtool's notation. `labels` are those of the alert
    that fires, beside its name and severity; None where it must stay silent.
    """

    alert: str
    sentence: str
    series: dict[str, str] = field(default_factory=dict)
    at: str = "10m"
    labels: dict[str, str] | None = None
    every: str = "1m"

    def __str__(self) -> str:
        return f"{self.alert}: {self.sentence}"


@cache
def groups() -> list[dict[str, Any]]:
    """The groups of rules as a rule file holds them."""
    found: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["spec"]["groups"]
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in groups() for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def check(expressions: dict[str, str], directory: Path) -> None:
    """Have expressions read, each under a name of its own."""
    recorded = [{"record": name, "expr": expr} for name, expr in expressions.items()]
    check_groups([{"name": "checked", "rules": recorded}], directory)


def check_groups(found: list[dict[str, Any]], directory: Path) -> None:
    file = directory / "checked.yaml"
    file.write_text(yaml.safe_dump({"groups": found}))
    _run("check", "rules", str(file))


def prove(case: Case, directory: Path) -> None:
    """Let promtool play the case; fails unless the alert fires just as the case says."""
    expected = {}
    if case.labels is not None:
        severity = alerts()[case.alert]["labels"]["severity"]
        labels = {"alertname": case.alert, "alertstate": "firing", "severity": severity}
        expected = {_written("ALERTS", labels | case.labels): 1.0}
    firing = f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}'
    evaluate(firing, case.series, expected, directory, at=case.at, every=case.every)


def evaluate(
    expression: str,
    series: dict[str, str],
    expected: dict[str, float],
    directory: Path,
    *,
    at: str = "10m",
    every: str = "1m",
) -> None:
    """Let promtool evaluate an expression over series and rules; fails unless it gives that.

    Rules of groups that the expression does not name are left out: they take their time.
    """
    named = [group for group in groups() if _names(expression) & _names(str(group["rules"]))]
    (directory / "rules.yaml").write_text(yaml.safe_dump({"groups": named}))
    asked = {
        "expr": expression,
        "eval_time": at,
        "exp_samples": [{"labels": name, "value": value} for name, value in expected.items()],
    }
    test = {
        "interval": every,
        "input_series": [{"series": name, "values": text} for name, text in series.items()],
        "promql_expr_test": [asked],
    }
    file = directory / "case.yaml"
    content = {"rule_files": ["rules.yaml"], "evaluation_interval": every, "tests": [test]}
    file.write_text(yaml.safe_dump(content))
    _run("test", "rules", str(file))


def series_of(name: str, pod: str = "gw-1", **labels: str) -> str:
    """A series of one gateway as Prometheus stores it."""
    return _written(name, {"namespace": "models", "pod": pod, **labels})


def _names(text: str) -> set[str]:
    return set(re.findall(r"Gateway[A-Z]\w+", text))


def _written(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def _run(*arguments: str) -> None:
    if not shutil.which("promtool"):
        # Here and not by a mark: of one place pytest makes one line, of each marked test another.
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    ended = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
