"""The documentation and what it is compared with: pages, their parts, the code, the alerts."""

import re
import time
from typing import Any

import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

import metrics
from exposition import EngineCollector, GatewayCollector
from load.values import NOTHING
from tests.harness import ROOT

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
}
README, OPERATIONS = PAGES["README.md"], PAGES["docs/operations.md"]
_ROOMS = ("cache", "load", "routing", "proxy", "relay", "tracing", "views")
#: The product's own modules.
CODE = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for room in (".", *_ROOMS)
    for path in (ROOT / room).glob("*.py" if room == "." else "**/*.py")
}
ALL_CODE = "\n".join(CODE.values())


def section(page: str, title: str) -> str:
    """What stands under a heading of the second level, up to the next one."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert found, f"there is no section {title!r}"
    return found[1]


def entries(title: str) -> dict[str, str]:
    """The runbook's entries in one of its sections, by their headings without backticks."""
    parts = re.split(r"^### (.+)$", section(OPERATIONS, title), flags=re.M)[1:]
    return {name.strip("`"): text for name, text in zip(parts[::2], parts[1::2], strict=True)}


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first row begins with `heading`."""
    _, found, table = text.partition(f"| {heading} |")
    assert found, f"there is no table of {heading!r}"
    lines = re.findall(r"^\| (.*) \|$", table.partition("\n\n")[0], re.M)
    return [re.split(r" ?\| ?", line) for line in lines]


def block(page: str, mark: str) -> str:
    """The fenced block of YAML after the comment that begins with `mark`."""
    found = re.search(rf"<!-- {mark}:[^>]*-->\n```yaml\n(.*?)```", page, re.S)
    assert found, f"there is no block {mark!r}"
    return found[1]


def alerts() -> dict[str, Any]:
    """The alerts' rules, by name."""
    documents = [
        document
        for path in sorted((ROOT / "k8s" / "monitoring").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if isinstance(document, dict) and document.get("kind") == "PrometheusRule"
    ]
    groups = [group for document in documents for group in document["spec"]["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def exposed() -> dict[str, tuple[str, ...]]:
    """Every metric that `/metrics` shows, with its labels."""
    labels: dict[str, tuple[str, ...]] = {
        metric._name: metric._labelnames
        for metric in vars(metrics).values()
        if isinstance(metric, MetricWrapperBase)
    }
    counted = GatewayCollector(REGISTRY, list, frozenset, time.monotonic)
    reported = EngineCollector(list, lambda: NOTHING)
    return {
        family.name + ("_total" if family.type == "counter" else ""): labels.get(
            family.name, getattr(family, "_labelnames", ())
        )
        for family in [*counted.collect(), *reported.collect()]
        if family.name.startswith("gateway_")
    }
