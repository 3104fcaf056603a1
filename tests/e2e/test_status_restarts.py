"""What the status tells of the past stays when workers are replaced."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.crowd import workers
from tests.e2e.test_restarts import replace_workers
from tests.e2e.village import Village, village
from tests.harness import wait_for


@pytest.fixture(params=[1, 2])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Village]:
    with village(tmp_path, request.param) as running:
        yield running


def story(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What happened; when, each worker saw for itself."""
    return [(event["name"], event["before"], event["after"]) for event in document["events"]]


def test_workers_begin_with_the_events_that_those_before_them_saw(place: Village) -> None:
    place.show_to_all(ready=True)
    for number, state in ((signal.SIGHUP, True), (signal.SIGKILL, False)):
        place.show_to_all(ready=True, terminating=state)
        told = story(place.document())
        old = set(workers(place.gateway))
        replace_workers(place.gateway, number)
        wait_for(lambda old=old: not old & set(workers(place.gateway)), "the old ones are gone")  # type: ignore[misc]
        document = wait_for(
            lambda: (now := place.document())["ready"] and now, "one of the new ones is ready"
        )
        assert document["speaker"] not in old
        assert story(document) == told
    assert len(told) == 4
