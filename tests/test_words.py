"""How the page puts things."""

import pytest

from views import words

MIDNIGHT = 1_700_006_400.0  # of November 15th, 2023, in UTC


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0 ms"),
        (0.0184, "18 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (119.0, "119 s"),
        (150.0, "2 min"),
        (7300.0, "2 h"),
    ],
)
def test_seconds_are_put_in_the_unit_people_would_use(value: float | None, text: str) -> None:
    assert words.seconds(value) == text


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (MIDNIGHT + 43_384.123, "12:03:04.123"),
        (MIDNIGHT + 0.9999, "00:00:01.000"),
        (MIDNIGHT - 1.5, "11-14 23:59:58.500"),
    ],
)
def test_times_are_utc_and_those_of_another_day_say_so(at: float, text: str) -> None:
    now = MIDNIGHT + 50_000
    assert words.clock_time(at, now, milliseconds=True) == text
    assert words.clock_time(at, now) == text.rpartition(".")[0]


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"worker": None, "delay": None, "exact": False}, ""),
        ({"worker": None, "delay": 0.018, "exact": True}, "18 ms after the API said so"),
        ({"worker": None, "delay": 0.4, "exact": False}, "at most 400 ms after the API said so"),
        ({"worker": 12, "delay": None, "exact": False}, "by worker 12"),
    ],
)
def test_a_delay_is_told_only_as_far_as_it_is_known(event: dict[str, object], text: str) -> None:
    assert words.delay(event, 2) == text


def test_of_a_single_worker_nobody_needs_the_number() -> None:
    assert words.delay({"worker": 12, "delay": None, "exact": False}, 1) == ""


@pytest.mark.parametrize(
    ("part", "value"),
    [(0.0, 0.0), (0.25, 0.1), (0.5, 0.2), (0.7, 0.6), (0.8, 0.8), (0.95, 1.0), (1.0, 1.0)],
)
def test_a_quantile_lies_where_the_counts_say(part: float, value: float) -> None:
    buckets: list[list[float | None]] = [[0.1, 25], [0.2, 50], [1.0, 90], [None, 100]]
    assert words.quantile(buckets, part) == pytest.approx(value)


@pytest.mark.parametrize("buckets", [[], [[0.1, 0], [None, 0]]])
def test_where_nothing_was_counted_there_is_no_quantile(buckets: list[list[float | None]]) -> None:
    assert words.quantile(buckets, 0.5) is None


def test_what_is_not_shown_is_counted() -> None:
    assert words.left("endpoint", 0) == ""
    assert words.left("endpoint", 1) == "… and 1 endpoint more in status.json"
    assert words.left("model", 1200) == "… and 1,200 models more in status.json"


def state(**fields: object) -> dict[str, object]:
    return {
        "at": MIDNIGHT,
        "ready": False,
        "troubles": [{"worker": 7, "reason": "draining"}],
        "last_poll_error": None,
        "workers": [7, 8],
        "gateway": "host",
        "version": "1",
        "snapshot_age_seconds": 1.26,
        **fields,
    }


def test_the_top_says_what_is_wrong_and_where() -> None:
    assert words.summary(state())["reason"] == "worker 7: draining"
    assert words.summary(state(workers=[7]))["reason"] == "draining"
    lost = words.summary(state(troubles=[], ready=True, last_poll_error="connect_timeout"))
    assert lost["reason"] == "the last list of endpoints failed: connect timeout"
    assert (lost["state_word"], lost["age"]) == ("ready", "1.3 s ago")
    assert words.summary(state(snapshot_age_seconds=None))["age"] == "never"
