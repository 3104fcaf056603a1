"""What is installed is what the `.in` files want, and every file of it is known by its hash."""

import pytest
from packaging.requirements import Requirement

from tests.harness import ROOT
from tools.locks import Pin, canonical, pins_of, wanted_by

NAMES = (
    "requirements",
    "requirements-tracing",
    "requirements-dev",
    "requirements-fuzz",
    "requirements-audit",
)
#: Those that are installed on top of others.
TOGETHER = (
    ("requirements", "requirements-tracing"),
    ("requirements", "requirements-dev"),
    ("requirements-tracing", "requirements-dev"),
    ("requirements", "requirements-fuzz"),
)


def locked(name: str) -> list[Pin]:
    return pins_of((ROOT / f"{name}.txt").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_has_what_its_in_file_wants(name: str) -> None:
    pins = locked(name)
    wanted = [Requirement(line) for line in wanted_by((ROOT / f"{name}.in").read_text())]
    assert wanted
    for requirement in wanted:
        found = [pin.version for pin in pins if pin.name == canonical(requirement.name)]
        assert any(version in requirement.specifier for version in found), requirement


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_says_what_it_has_from_its_in_file(name: str) -> None:
    """Nothing that the `.in` file wants no more is left in the lock, and nothing was put in."""
    lines = (ROOT / f"{name}.txt").read_text().splitlines()
    direct, package = set(), ""
    for line in lines:
        if line[:1].isalpha():
            package = line.partition("==")[0]
        elif line.endswith(f"-r {name}.in"):
            direct.add(canonical(package))
    wanted = wanted_by((ROOT / f"{name}.in").read_text())
    assert direct == {canonical(Requirement(line).name) for line in wanted}


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_a_lock_is_known_by_its_hash(name: str) -> None:
    for pin in locked(name):
        assert pin.hashes, pin.name
        assert all(len(value) == len("sha256:") + 64 for value in pin.hashes)


@pytest.mark.parametrize(("first", "second"), TOGETHER)
def test_locks_that_are_installed_together_agree(first: str, second: str) -> None:
    there = {pin.name: pin for pin in locked(first)}
    for pin in locked(second):
        if pin.name in there:
            assert pin == there[pin.name]


def test_a_lock_s_lines_are_read() -> None:
    text = (
        "# made by hand\nPy.Yaml_x==6.0.3 \\\n    --hash=sha256:ab \\\n    --hash=sha256:cd\n"
        "    # via\n    #   -r requirements.in\n"
        "colorama==0.4 ; sys_platform == 'win32' \\\n    --hash=sha256:ef\n    # via click\n"
    )
    assert pins_of(text) == [
        Pin("py-yaml-x", "6.0.3", "", ("sha256:ab", "sha256:cd")),
        Pin("colorama", "0.4", "sys_platform == 'win32'", ("sha256:ef",)),
    ]


@pytest.mark.parametrize("line", ["flask", "flask>=3", "-e .", "flask @ https://x/y.whl"])
def test_a_line_that_pins_nothing_is_no_lock_s(line: str) -> None:
    with pytest.raises(ValueError, match="pins no version"):
        pins_of(f"{line}\n")


def test_what_is_wanted_is_read_without_comments_and_options() -> None:
    text = "# why\n-c requirements.txt\nflask>=3  # here\n\na==1 ; python_version < '3.12'\n"
    assert wanted_by(text) == ["flask>=3", "a==1 ; python_version < '3.12'"]
