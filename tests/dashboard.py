"""The dashboard of k8s/monitoring as Grafana reads it."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.harness import ROOT

FILE = ROOT / "k8s" / "monitoring" / "dashboard.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
#: What Grafana puts in the place of a variable.
VALUES = {"$__rate_interval": "1m", "$namespace": "models", "$model": "llama|qwen"}


def panels() -> list[dict[str, Any]]:
    """Everything that shows data."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def variables() -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}


def expressions() -> Iterator[tuple[str, str]]:
    """Every query with where it stands, variables replaced: panels, annotations, variables."""
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", _filled(target["expr"])
    for annotation in DASHBOARD["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], _filled(annotation["expr"])
    for name, variable in variables().items():
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert asked, f"variable {name}"
            yield f"variable {name}", f"group by ({asked[2]}) ({_filled(asked[1])})"


def _filled(text: str) -> str:
    for variable, value in VALUES.items():
        text = text.replace(variable, value)
    return text
