"""What reports on vulnerabilities and licences amount to, without asking anybody."""

import json
import re
from collections.abc import Iterable

from tools.locks import Pin, canonical

#: How pip-audit ends if nobody answers it, or somebody who knows nothing of vulnerabilities.
_NO_ANSWER = re.compile(
    r"Could not connect to|is not redirecting properly"
    r"|requests\.exceptions\.(?:\w*Timeout|\w*ConnectionError|ProxyError|SSLError)\b"
    r"|HTTPError: (?:40[37]|429|5\d\d) "
)
_UNKNOWN_TO_IT = "not found on PyPI"

#: What the gateway may be made of: licences that ask for no more than to be named, and the MPL,
#: which ends at its own files. SPDX names, and how packages without one spell the same.
ALLOWED = frozenset(
    name.lower()
    for name in (
        *("MIT", "MIT License", "MIT-0", "ISC", "ISC License (ISCL)", "0BSD"),
        *("BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause"),
        *("Apache-2.0", "Apache Software License", "Apache License 2.0"),
        *("PSF-2.0", "Python-2.0", "Python Software Foundation License"),
        *("MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)"),
        *("Unlicense", "The Unlicense (Unlicense)"),
    )
)


class NoAnswer(Exception):
    """The vulnerability service can't be reached."""


def vulnerabilities(report: str, said: str, pins: Iterable[Pin]) -> list[str]:
    """What is wrong with the `pins`, a line each, by pip-audit's JSON `report`.

    `said` is what it wrote beside it. A package that it could not look up is wrong too. Raises
    `NoAnswer` if that is so of all of them, and `ValueError` if it failed otherwise.
    """
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if _NO_ANSWER.search(said):
            raise NoAnswer from None
        raise ValueError(f"pip-audit failed: {said.strip()[-2000:]}") from None
    if packages and all(_UNKNOWN_TO_IT in package.get("skip_reason", "") for package in packages):
        raise NoAnswer  # an index that has packages and nothing else
    lines = []
    for package in packages:
        if "skip_reason" in package:
            lines.append(f"{package['name']}: {package['skip_reason']}")
        lines += [_vulnerability(package, found) for found in package.get("vulns", [])]
    known = {canonical(package["name"]) for package in packages}
    unseen = {pin.name for pin in pins if not pin.marker} - known
    return lines + [f"{name}: was not looked up" for name in sorted(unseen)]


def _vulnerability(package: dict[str, str], found: dict[str, object]) -> str:
    fixed = found.get("fix_versions")
    fixed_in = ", ".join(map(str, fixed)) if isinstance(fixed, list) and fixed else "no version"
    return f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed_in}"


def licence_troubles(report: str, pins: Iterable[Pin]) -> list[str]:
    """What is wrong with the licences of `pins`, a line each, by pip-licenses' JSON `report`."""
    installed = {canonical(entry["Name"]): entry for entry in json.loads(report)}
    lines = []
    for pin in pins:
        entry = installed.get(pin.name)
        if entry is None:
            if not pin.marker:
                lines.append(f"{pin.name}: is not installed")
        elif entry["Version"] != pin.version:
            lines.append(f"{pin.name}: {entry['Version']} is installed, {pin.version} locked")
        elif not is_allowed(entry["License"]):
            lines.append(f"{pin.name} {pin.version}: {entry['License']!r} is not allowed")
    return lines


def is_allowed(licence: str) -> bool:
    """Whether a licence, or what an SPDX expression or a list (`A; B`) makes of some, may be used.

    All of those that hold together must be allowed, one of those there is a choice of.
    """
    parts = re.split(r"\s+AND\s+|\s*;\s*", licence.strip(), flags=re.IGNORECASE)
    return all(
        any(
            choice.strip().lower() in ALLOWED
            for choice in re.split(r"\s+OR\s+", _bare(part), flags=re.IGNORECASE)
        )
        for part in parts
    )


def _bare(part: str) -> str:
    """`(A OR B)` without its parentheses; deeper ones stay, and nothing allowed has them."""
    return part[1:-1] if part.startswith("(") and part.endswith(")") else part
