"""The status tells of each endpoint how the last exchange with it failed, and when."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.place import Place, on_both_paths, place
from tests.harness import wait_for
from tests.wire import behaving


@on_both_paths
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("last")
    with place(
        directory,
        relay=request.param,
        idle_timeout="0.5",
        first_byte_timeout="0.5",
        replay="false",
    ) as here:
        yield here


def last_error(here: Place, pod: str) -> Any:
    endpoints = [e for model in here.gateway.status()["models"] for e in model["endpoints"]]
    return next((e["last_error"] for e in endpoints if e["pod"] == pod), None)


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("reset-before-head", "reset"),
        ("stall-before-head=60", "timeout"),
        ("garbage", "protocol_error"),
        ("die-after-tokens=2", "died"),
        ("stall-after-tokens=2", "idle"),
    ],
)
def test_what_went_wrong_last_is_told_with_its_time(here: Place, how: str, kind: str) -> None:
    name = how.partition("=")[0]
    here.deploy(name)
    (pod,) = here.cluster.models[name].pods
    assert last_error(here, pod.name) is None
    before = time.time()
    here.exchange(behaving(how, name, stream=True))
    error = wait_for(lambda: last_error(here, pod.name), "it is told")
    assert error["kind"] == kind
    assert before - 1 <= error["at"] <= time.time() + 1
