"""Choosing among a hundred endpoints costs about what is promised, in hard settings too.

`bench.micro` measures it on a quiet machine. Here others may be at work, so a choice is compared
with something of known cost in the same moments, and the quickest of many times counts. What a long
prompt costs is left to the benchmark: it depends on who else uses the memory.
"""

import pytest

from bench.picks import SETTINGS, SIMPLE, SIMPLE_ALLOWED, Picker, Setting
from bench.rows import seconds

#: Microseconds that the yardstick takes where a choice must not take more than is allowed.
YARDSTICK = 1.75
#: Only what takes twice as long fails: a test that fails by mistake helps nobody.
FACTOR = 2.0


def yardstick() -> None:
    for _ in range(20):
        [number * 3 for number in range(100)]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.title)
@pytest.mark.parametrize("strategy", SIMPLE)
def test_a_choice_among_a_hundred_endpoints_is_quick(strategy: str, setting: Setting) -> None:
    picker = Picker(setting, strategy)
    rounds = [(picker.seconds([b""] * 10), seconds(yardstick) / 20) for _ in range(50)]
    pick, unit = (min(times) for times in zip(*rounds, strict=True))
    assert pick / unit < FACTOR * SIMPLE_ALLOWED / YARDSTICK
