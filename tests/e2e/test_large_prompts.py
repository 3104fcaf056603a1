"""A prompt costs memory until its pod answers, and no longer: streams run for minutes."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from simulator.pod import Engine
from tests.e2e.crowd import relay_of, resident_bytes
from tests.e2e.place import Place, on_both_paths, place
from tests.harness import ROOT
from tests.wire import Wire, chat_body, post

PROMPT = "long " * 400_000
STREAMS = 20
#: Bytes by which a gateway may grow meanwhile: four prompts, of twenty and sixty.
GROWTH = 4 * len(PROMPT)
#: What the image sets: what is freed leaves the process, and what is left is held.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072"}


@on_both_paths
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("prompts")
    settings = {"relay": request.param, "strategy": "prefix-cache"}
    with place(directory, environment=MALLOC, **settings) as here:
        if request.param == "true":
            relay_of(here.gateway)
        here.deploy("slow", engine=Engine(tokens=10_000, token_seconds=0.05))
        here.deploy("quick", engine=Engine(tokens=1))
        for _ in range(2):
            here.exchange(asked("quick"))  # whatever is made only once is there
        yield here


def asked(model: str, *, stream: bool = False) -> bytes:
    return post(chat_body(model, stream=stream, messages=[{"role": "user", "content": PROMPT}]))


def test_the_image_lets_go_of_memory_like_this() -> None:
    ((name, value),) = MALLOC.items()
    assert f" {name}={value}\n" in (ROOT / "Dockerfile").read_text()


def test_a_running_stream_holds_on_to_no_prompt(here: Place) -> None:
    before = resident_bytes(here.gateway)
    with ExitStack() as stack:
        for _ in range(STREAMS):
            client = stack.enter_context(Wire(here.gateway.port))
            client.send(asked("slow", stream=True)).read_until(b"tok")
        assert here.gateway.in_flight() == STREAMS
        assert resident_bytes(here.gateway) - before < GROWTH
    here.wait_until_idle()


def test_an_answered_request_leaves_no_prompt_behind(here: Place) -> None:
    before = resident_bytes(here.gateway)
    for stream in (False, True):
        for _ in range(30):
            assert here.exchange(asked("quick", stream=stream)).status == 200
    assert resident_bytes(here.gateway) - before < GROWTH
