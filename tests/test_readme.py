"""What the README says of settings and errors is what the code does."""

import re
from dataclasses import fields

import pytest

from proxy.errors import KINDS
from settings import Settings
from tests.harness import ROOT

README = (ROOT / "README.md").read_text()


def table(name: str) -> list[list[str]]:
    """The cells of the table that follows the comment `name`, without its head."""
    _, _, rest = README.partition(f"<!-- {name}:")
    rows = re.findall(r"^\|(.*)\|$", rest.partition("\n\n")[0], re.MULTILINE)
    return [[cell.strip().strip("`") for cell in row.split("|")] for row in rows[2:]]


def test_every_setting_is_in_the_readme_in_the_code_s_order() -> None:
    assert [row[0] for row in table("settings")] == [f.metadata["name"] for f in fields(Settings)]


@pytest.mark.parametrize("row", table("settings"), ids=lambda row: str(row[0]))
def test_the_readme_s_defaults_are_the_code_s(row: list[str]) -> None:
    name, default, _ = row
    if name == "GATEWAY_NAMESPACE":
        default = "–"  # explained in words
    given = {} if default == "–" else {name: default}
    assert Settings.from_environ(given) == Settings()


def test_every_error_is_in_the_readme_with_its_status_and_whether_to_retry() -> None:
    told = {code: (status, retry) for status, code, retry, _ in table("errors")}
    after_the_head = {"upstream_died", "upstream_idle", "relay_died"}
    made = {
        code: (
            "–" if code in after_the_head else str(kind.status),
            "yes" if kind.retry else "no",
        )
        for code, kind in KINDS.items()
    }
    assert told == made
