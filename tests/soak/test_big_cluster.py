"""A minute of a big cluster that never rests."""

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.crowd import resident_bytes
from tests.e2e.scale import RATE, Town, Windows, big_town

#: Windows, of a twelfth of a minute each: quiet ones before and after.
QUIET, RESTLESS = 3, 12


@pytest.fixture
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with big_town(tmp_path_factory.mktemp("scale")) as town:
        yield town


@pytest.mark.fault(24)
def test_a_minute_of_changes_makes_no_request_slow_and_nothing_grow(
    town: Town, minute: float, record_property: Callable[[str, object], None]
) -> None:
    window = minute / RESTLESS
    town.restless(window)  # what is needed once is there before memory is measured
    windows = Windows(quiet=[town.quiet(window) for _ in range(QUIET)])
    memory, changes = resident_bytes(town.gateway), town.cluster.changes
    with town.cluster.changing():
        windows.restless += [town.quiet(window) for _ in range(RESTLESS)]
    town.wait_until_known()
    windows.quiet += [town.quiet(window) for _ in range(QUIET)]
    grown = resident_bytes(town.gateway) - memory
    changes = town.cluster.changes - changes
    record_property("row 24: p99 quiet, under change, ratio", str(windows))
    record_property("row 24: slice changes", f"{changes} in {minute:g} s")
    record_property("row 24: memory before and grown", f"{memory >> 10} kB, {grown >> 10} kB")

    assert windows.ratio <= 2
    assert changes > RATE * minute / 2
    assert grown < 0.1 * memory
