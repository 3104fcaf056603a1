"""Ten thousand endpoints, and slices that change a hundred times a second: nobody notices."""

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.crowd import settled_bytes
from tests.e2e.scale import RATE, Town, Windows, big_town

#: Seconds of a window, and how many of each kind there are.
SECONDS, TIMES = 2.0, 3
#: On a machine that others use too, the measurement may be made so often; one good one will do.
ATTEMPTS = 4
#: Seconds in which a list is read from beginning to end, and there are moments without one.
POLL_SECONDS = 2.5


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with big_town(tmp_path_factory.mktemp("scale")) as town:
        yield town


def measure(town: Town) -> tuple[Windows, float]:
    """Windows by turns, so that what else the machine does meets both kinds; changes a second."""
    windows, changes = Windows(), town.cluster.changes
    for _ in range(TIMES):
        windows.quiet.append(town.quiet(SECONDS))
        windows.restless.append(town.restless(SECONDS))
    return windows, (town.cluster.changes - changes) / (TIMES * SECONDS)


@pytest.mark.fault(24)
def test_changes_of_slices_make_no_request_slow_and_nothing_grow(
    town: Town, record_property: Callable[[str, object], None]
) -> None:
    town.restless(POLL_SECONDS)  # what is needed once is there before memory is measured
    memory = settled_bytes(town.gateway, POLL_SECONDS)
    windows, rate = measure(town)
    attempts = [windows]
    while (windows.ratio > 2 or rate <= RATE / 2) and len(attempts) < ATTEMPTS:
        windows, rate = measure(town)
        attempts.append(windows)
    town.wait_until_known()
    grown = settled_bytes(town.gateway, POLL_SECONDS) - memory
    for number, one in enumerate(attempts, 1):
        record_property(f"row 24: p99 quiet, under change, ratio, attempt {number}", str(one))
    record_property("row 24: slice changes a second", f"{rate:.0f}")
    record_property("row 24: memory before and grown", f"{memory >> 10} kB, {grown >> 10} kB")

    assert windows.ratio <= 2
    assert rate > RATE / 2
    assert grown < 0.1 * memory
