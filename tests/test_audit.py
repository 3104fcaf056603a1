"""What the audit makes of reports; the programs that write them need the network, this does not."""

import json
from typing import Any

import pytest

from tools.locks import Pin
from tools.verdict import NoAnswer, is_allowed, licence_troubles, vulnerabilities

FLASK = Pin("flask", "3.1.3", "", ("sha256:ab",))
PY_X = Pin("py-x", "1.0", "", ("sha256:cd",))
ON_WINDOWS = Pin("colorama", "0.4", "sys_platform == 'win32'", ("sha256:ef",))
PINS = [FLASK, PY_X, ON_WINDOWS]

CLEAN_FLASK = {"name": "flask", "version": "3.1.3", "vulns": []}
CLEAN_X = {"name": "py_x", "version": "1.0", "vulns": []}
FOUND = {"id": "PYSEC-2026-1", "fix_versions": ["1.1", "2.0"], "aliases": [], "description": "x"}
UNKNOWN = {"name": "py-x", "skip_reason": "Dependency not found on PyPI and could not be audited"}


def audited(*packages: Any, said: str = "") -> list[str]:
    return vulnerabilities(json.dumps({"dependencies": packages, "fixes": []}), said, PINS)


def test_nothing_found_is_nothing_wrong() -> None:
    assert audited(CLEAN_FLASK, CLEAN_X) == []


def test_a_vulnerability_is_told_with_what_mends_it() -> None:
    unfixed = {**FOUND, "id": "GHSA-x", "fix_versions": []}
    assert audited(CLEAN_FLASK, {**CLEAN_X, "vulns": [FOUND, unfixed]}) == [
        "py_x 1.0: PYSEC-2026-1, fixed in 1.1, 2.0",
        "py_x 1.0: GHSA-x, fixed in no version",
    ]


def test_a_package_that_was_not_looked_up_is_not_taken_for_a_good_one() -> None:
    assert audited(CLEAN_FLASK) == ["py-x: was not looked up"]
    assert audited() == ["flask: was not looked up", "py-x: was not looked up"]
    (line,) = audited(CLEAN_FLASK, UNKNOWN)
    assert line.startswith("py-x: Dependency not found")


def test_a_service_that_knows_no_package_at_all_is_none() -> None:
    with pytest.raises(NoAnswer):
        audited({**UNKNOWN, "name": "flask"}, UNKNOWN)


@pytest.mark.parametrize(
    "said",
    [
        "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed",
        "requests.exceptions.ConnectionError: Max retries exceeded",
        "requests.exceptions.ProxyError: HTTPSConnectionPool(host='pypi.org', port=443)",
        "requests.exceptions.ReadTimeout: read timed out",
        "requests.exceptions.HTTPError: 503 Server Error: Service Unavailable",
        "requests.exceptions.HTTPError: 403 Client Error: Forbidden",
    ],
)
def test_a_service_that_can_t_be_reached_is_told_from_what_is_wrong(said: str) -> None:
    with pytest.raises(NoAnswer):
        vulnerabilities("", said, PINS)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "ERROR:pip_audit._cli:invalid requirements input: requirements.txt",
        "requests.exceptions.HTTPError: 400 Client Error: Bad Request",
        "KeyError: 'vulns'",
    ],
)
@pytest.mark.parametrize("report", ["", "[]", "{}", "no JSON"])
def test_any_other_failure_is_no_clean_bill(report: str, said: str) -> None:
    with pytest.raises(ValueError, match="pip-audit failed"):
        vulnerabilities(report, said, PINS)


def licensed(licence: str, version: str = "3.1.3") -> list[str]:
    entries = [
        {"Name": "Flask", "Version": version, "License": licence},
        {"Name": "Py.X", "Version": "1.0", "License": "MIT"},
        {"Name": "mypy", "Version": "2.0", "License": "of no interest"},
    ]
    return licence_troubles(json.dumps(entries), PINS)


def test_licences_of_what_is_locked_are_looked_at() -> None:
    assert licensed("BSD-3-Clause") == []
    assert licensed("GPL-3.0-only") == ["flask 3.1.3: 'GPL-3.0-only' is not allowed"]
    assert licensed("MIT", "3.1.2") == ["flask: 3.1.2 is installed, 3.1.3 locked"]
    assert licence_troubles("[]", PINS) == ["flask: is not installed", "py-x: is not installed"]


@pytest.mark.parametrize(
    "licence",
    [
        "MIT",
        "mit license",
        "Apache-2.0 AND MIT",
        "Apache-2.0 and BSD-3-Clause",
        "MIT OR GPL-2.0-only",
        "(GPL-2.0-only OR MIT) AND PSF-2.0",
        "BSD License; Apache Software License",
        "Mozilla Public License 2.0 (MPL 2.0)",
    ],
)
def test_licences_that_may_be_used(licence: str) -> None:
    assert is_allowed(licence)


@pytest.mark.parametrize(
    "licence",
    [
        *("", "UNKNOWN", "GPL-3.0-only", "AGPL-3.0-or-later", "LGPL", "MIT AND GPL-2.0-only"),
        *("MIT License; GNU General Public License v3 (GPLv3)", "Permissive", "MIT-like"),
        *("MIT WITH x", "GPL-2.0-only OR LGPL-2.1", "((MIT OR GPL-2.0-only)", "MIT;"),
    ],
)
def test_licences_that_may_not(licence: str) -> None:
    assert not is_allowed(licence)
