"""What takes minutes: `make soak` runs it, prints what was measured and writes it down."""

import os
import platform
from datetime import UTC, datetime

import pytest

from tests.harness import ROOT

REPORT = ROOT / "soak-report.md"


@pytest.fixture(scope="session")
def minute() -> float:
    """Seconds that a minute takes here: 60, or fewer to try a test out."""
    return float(os.environ.get("SOAK_MINUTE", "60"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the report: every test with its outcome, and its figures."""
    if not terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        return
    lines = [
        "# Soak",
        "",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, "
        f"{os.cpu_count()} CPUs, a minute takes {os.environ.get('SOAK_MINUTE', '60')} s.",
    ]
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            name = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
            lines += ["", f"## {name}", "", f"{outcome} after {report.duration:.0f} s", ""]
            lines += [f"- {figure}: {value}" for figure, value in report.user_properties]
    REPORT.write_text("\n".join(lines) + "\n")
    terminalreporter.write_line(f"report: {REPORT}")
