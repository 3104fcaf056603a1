"""The last error of each endpoint is remembered, within bounds."""

import json
from pathlib import Path

import pytest

from assembly import build
from cache.source import FileSource
from routing.lasterrors import MEMORY, LastError, LastErrors
from settings import Settings
from tests.fakes import Clock, endpoint
from tests.slices import entry, raw_slice


@pytest.fixture
def wall() -> Clock:
    return Clock()


@pytest.fixture
def errors(wall: Clock) -> LastErrors:
    return LastErrors(wall)


ONE, TWO = endpoint(1).key, endpoint(2).key


def test_the_last_error_of_an_endpoint_replaces_the_one_before(
    errors: LastErrors, wall: Clock
) -> None:
    errors.note(ONE, "refused")
    wall.now += 1
    errors.note(TWO, "timeout")
    errors.note(ONE, "died")
    assert errors.all() == {
        ONE: LastError("died", wall.now),
        TWO: LastError("timeout", wall.now),
    }


def test_endpoints_that_are_gone_are_forgotten(errors: LastErrors) -> None:
    errors.note(ONE, "refused")
    errors.note(TWO, "refused")
    errors.forget([ONE, endpoint(3).key])
    assert list(errors.all()) == [TWO]


def test_those_whose_error_is_the_longest_ago_make_room(errors: LastErrors) -> None:
    for number in range(MEMORY):
        errors.note(("10.0.0.1", number), "refused")
    errors.note(("10.0.0.1", 0), "again")
    errors.note(ONE, "refused")
    kept = errors.all()
    assert len(kept) == MEMORY
    assert ("10.0.0.1", 1) not in kept
    assert kept["10.0.0.1", 0].kind == "again"


def test_a_pod_leaves_its_error_to_no_other_that_gets_its_address(tmp_path: Path) -> None:
    file = tmp_path / "slices.json"
    gateway = build(Settings.from_environ({}), FileSource(str(file)))
    gateway.poller.stop()  # so that a step waits for nothing

    def show(version: str, pod: str, *, ready: bool) -> None:
        item = raw_slice(entry("10.0.0.1", pod, ready=ready), version=version)
        file.write_text(json.dumps({"kind": "List", "items": [item]}))
        gateway.poller.step()

    show("1", "one", ready=True)
    gateway.router.errors.note(ONE, "refused")
    show("2", "one", ready=False)
    assert list(gateway.router.errors.all()) == [ONE]
    show("3", "another", ready=True)
    assert gateway.router.errors.all() == {}
