"""One pod of ten swallows whatever is sent to it, for a minute."""

from collections.abc import Callable, Iterator

import pytest

from simulator.fleet import Pod
from simulator.pod import Engine
from tests.e2e.crowd import p99
from tests.e2e.place import Place, place, process_of
from tests.e2e.scale import Pace
from tests.e2e.test_retries import black_hole
from tests.harness import wait_for

PODS = 10
#: Seconds, the default of `GATEWAY_CONNECT_TIMEOUT`.
CONNECT_TIMEOUT = 1.0


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("hole")) as here:
        yield here


@pytest.mark.fault(18)
def test_a_black_hole_among_ten_costs_few_requests_a_connect_timeout_and_no_other_anything(
    here: Place, minute: float, record_property: Callable[[str, object], None]
) -> None:
    # Idle connections end at once, so that each request connects.
    engine = Engine(token_seconds=0.0, keep_alive_seconds=0.01)
    model = here.deploy("llama", pods=PODS, engine=engine)
    hole = model.pods[0]

    quiet = ask_for(here, minute / 6)
    with black_hole(hole):
        seconds = ask_for(here, minute, lambda: state_of(here, hole) == "set_aside")
    failures = here.gateway.metric("gateway_upstream_failures_total", kind="connect_timeout")
    slow = [one for one in seconds if one > CONNECT_TIMEOUT]
    others = [one for one in seconds if one <= CONNECT_TIMEOUT]
    record_property(
        "row 18: p99 without the black hole, with it, beside it", ms(quiet, seconds, others)
    )
    record_property("row 18: requests, and those that met it", f"{len(seconds)}, {failures:g}")

    assert 0 < failures <= len(slow) < 0.01 * len(seconds)
    assert max(seconds) < 3 * CONNECT_TIMEOUT
    process_of(hole).start()
    process_of(hole).become_ready()
    # By itself: nothing has changed in its slice. The longest time to be set aside is 30 s.
    wait_for(lambda: state_of(here, hole) == "ready", "it is back", 40)
    asked = len(process_of(hole).requests)
    ask_for(here, 1.0, lambda: len(process_of(hole).requests) > asked)


def ask_for(
    here: Place, seconds: float, condition: Callable[[], bool] = lambda: True
) -> list[float]:
    """Ask for so long, and until `condition` has held; how long the answers took."""
    with Pace(here.gateway.port, "llama") as clients:
        wait_for(condition, "the condition holds while they ask")
        wait_for(lambda: clients.elapsed > seconds, "the time is over", seconds + 20)
    assert clients.failures == [], "every answer is that of another pod"
    return clients.seconds


def state_of(here: Place, pod: Pod) -> str:
    return here.gateway.endpoints("llama")[pod.name]


def ms(*several: list[float]) -> str:
    """The p99 of each, in milliseconds."""
    return ", ".join(f"{p99(seconds) * 1000:.1f} ms" for seconds in several)
