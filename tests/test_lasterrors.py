"""The last error of each endpoint is remembered, within bounds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from assembly import build
from cache.source import FileSource
from routing.lasterrors import MEMORY, LastError, LastErrors, culprit
from routing.view import Query
from settings import Settings
from tests.fakes import Clock, endpoint
from tests.slices import entry, raw_slice
from views.document import Overview
from views.totals import Totals


@pytest.fixture
def wall() -> Clock:
    return Clock()


@pytest.fixture
def errors(wall: Clock) -> LastErrors:
    return LastErrors(wall)


ONE, TWO = culprit(endpoint(1)), culprit(endpoint(2))


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
    errors.forget([endpoint(1), endpoint(3)])
    assert list(errors.all()) == [TWO]


def test_those_whose_error_is_the_longest_ago_make_room(errors: LastErrors) -> None:
    for number in range(MEMORY):
        errors.note(("10.0.0.1", number, None), "refused")
    errors.note(("10.0.0.1", 0, None), "again")
    errors.note(ONE, "refused")
    kept = errors.all()
    assert len(kept) == MEMORY
    assert ("10.0.0.1", 1, None) not in kept
    assert kept["10.0.0.1", 0, None].kind == "again"


class Gateway:
    """A gateway whose cluster is a file, with one pod at a time at one address."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "slices.json"
        self.gateway = build(Settings.from_environ({}), FileSource(str(self._file)))
        self.gateway.poller.stop()  # so that a step waits for nothing
        self.errors = self.gateway.router.errors

    def show(self, version: str, pod: str, *, ready: bool) -> None:
        item = raw_slice(entry("10.0.0.1", pod, ready=ready), version=version)
        self._file.write_text(json.dumps({"kind": "List", "items": [item]}))
        self.gateway.poller.step()

    def last_error(self) -> Any:
        """What the status tells of the pod that is there."""
        overview = Overview(self.gateway, Totals(CollectorRegistry(), Clock()))
        (model,) = json.loads(overview.read())["models"]
        return model["endpoints"][0]["last_error"]


def test_a_pod_leaves_its_error_to_no_other_that_gets_its_address(tmp_path: Path) -> None:
    here = Gateway(tmp_path)
    here.show("1", "pod-1", ready=True)
    here.errors.note(ONE, "refused")
    here.show("2", "pod-1", ready=False)
    assert list(here.errors.all()) == [ONE]
    here.show("3", "another", ready=True)
    assert here.errors.all() == {}


def test_what_ends_late_is_told_of_no_other_pod_that_has_the_address_by_then(
    tmp_path: Path,
) -> None:
    here = Gateway(tmp_path)

    def begin() -> Callable[[str], None]:
        candidates = here.gateway.router.candidates(Query("m"), None)
        lease = candidates.take()
        assert lease is not None
        return candidates.error_note(lease.endpoint)

    here.show("1", "lost", ready=True)
    late = begin()
    here.show("2", "new", ready=True)
    begin()("refused")
    assert here.last_error()["kind"] == "refused"
    late("idle")
    assert here.last_error()["kind"] == "refused"
