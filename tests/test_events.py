"""What is noted of changes of endpoints, and how soon they were seen."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cache.endpoints import Endpoint
from cache.slices import Reading, SliceSet
from events import KEPT, Chronicle, Event, EventLog, delay_since
from tests.fakes import endpoint, endpoints, snapshot
from tests.slices import entry, raw_slice

NOW = 1_700_000_000.25
TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"


@pytest.fixture
def log() -> EventLog:
    return EventLog(lambda: NOW)


def told(log: EventLog) -> list[tuple[str, str, str | None, str | None]]:
    return [(event.model, event.name, event.before, event.after) for event in log.changes()]


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def test_the_first_snapshot_is_the_beginning_and_no_change(log: EventLog) -> None:
    assert log.observe(snapshot(m=endpoints(3))) == []
    assert log.changes() == []


def test_endpoints_that_appear_change_and_vanish_are_noted(log: EventLog) -> None:
    log.observe(snapshot(m=[endpoint(1)]))
    log.observe(snapshot(m=[endpoint(1), endpoint(2, routable=False)]))
    log.observe(snapshot(m=[endpoint(1, terminating=True), endpoint(2)]))
    assert log.observe(snapshot(m=[endpoint(2)])) == [endpoint(1, terminating=True)]
    assert told(log) == [
        ("m", "pod-2", None, "not_ready"),
        ("m", "pod-1", "ready", "terminating"),
        ("m", "pod-2", "not_ready", "ready"),
        ("m", "pod-1", "terminating", None),
    ]
    assert {event.at for event in log.changes()} == {NOW}


def test_models_that_come_and_go_take_their_endpoints_with_them(log: EventLog) -> None:
    log.observe(snapshot(a=[endpoint(1)], b=[endpoint(2)]))
    assert log.observe(snapshot(a=[endpoint(1)], c=[endpoint(3)])) == [endpoint(2)]
    assert told(log) == [("b", "pod-2", "ready", None), ("c", "pod-3", None, "ready")]


def test_another_pod_at_the_same_address_is_another_endpoint(log: EventLog) -> None:
    before = endpoint(1)
    after = dataclasses.replace(before, pod="successor")
    log.observe(snapshot(m=[before]))
    assert log.observe(snapshot(m=[after])) == [before]
    assert told(log) == [("m", "pod-1", "ready", None), ("m", "successor", None, "ready")]


def test_what_changes_no_state_is_no_event(log: EventLog) -> None:
    log.observe(snapshot(m=[endpoint(1)]))
    log.observe(snapshot(m=[dataclasses.replace(endpoint(1), zone="elsewhere")]))
    assert log.changes() == []


def test_only_the_last_events_are_kept(log: EventLog) -> None:
    log.observe(snapshot(m=()))
    log.observe(snapshot(m=endpoints(KEPT + 5)))
    assert [event.name for event in log.changes()] == [f"pod-{n}" for n in range(6, KEPT + 6)]


def test_a_worker_begins_with_what_those_before_it_have_seen(tmp_path: Path) -> None:
    before, after = (EventLog(lambda: NOW, Chronicle(tmp_path / "events")) for _ in range(2))
    before.observe(snapshot(m=()))
    before.observe(snapshot(m=endpoints(1)))
    after.observe(snapshot(m=endpoints(1)))
    assert after.changes() == before.changes() != []
    after.observe(snapshot(m=()))
    third = EventLog(lambda: NOW, Chronicle(tmp_path / "events"))
    assert third.changes() == after.changes()
    assert told(third) == [("m", "pod-1", None, "ready"), ("m", "pod-1", "ready", None)]
    assert [path.name for path in tmp_path.iterdir()] == ["events"]


def test_no_more_events_are_written_down_than_are_kept(tmp_path: Path) -> None:
    log = EventLog(lambda: NOW, Chronicle(tmp_path / "events"))
    log.observe(snapshot(m=()))
    for count in (KEPT, 5):
        log.observe(snapshot(m=endpoints(count)))
    assert EventLog(lambda: NOW, Chronicle(tmp_path / "events")).changes() == log.changes()
    assert len((tmp_path / "events").read_text().splitlines()) == KEPT


@pytest.mark.parametrize("text", [b"\xff", b"{", b"[1]", b"1", b'{"at": 1}', b"\n"])
def test_what_can_not_be_read_of_the_past_costs_nothing_else(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "events").write_bytes(text)
    log = EventLog(lambda: NOW, Chronicle(tmp_path / "events"))
    log.observe(snapshot(m=()))
    log.observe(snapshot(m=endpoints(1)))
    assert told(log) == [("m", "pod-1", None, "ready")]
    assert EventLog(lambda: NOW, Chronicle(tmp_path / "events")).changes() == log.changes()


def test_where_nothing_can_be_written_events_are_kept_all_the_same(tmp_path: Path) -> None:
    log = EventLog(lambda: NOW, Chronicle(tmp_path / "nowhere" / "events"))
    log.observe(snapshot(m=()))
    log.observe(snapshot(m=endpoints(1)))
    assert told(log) == [("m", "pod-1", None, "ready")]


def test_what_is_set_aside_is_noted_apart_with_its_model(log: EventLog) -> None:
    log.observe(snapshot(a=[endpoint(1)], b=[endpoint(2)]))
    log.set_aside(endpoint(2), True)
    log.set_aside(endpoint(2), False)
    aside = Event(NOW, "b", "pod-2", "10.0.0.2:8000", "ready", "set_aside")
    back = dataclasses.replace(aside, before="set_aside", after="ready")
    assert log.asides() == [aside, back]
    assert log.changes() == []


def test_one_that_is_set_aside_in_no_model_has_none(log: EventLog) -> None:
    log.set_aside(endpoint(2), True)
    assert log.asides()[0].model == ""


def read(triggered: object, *, ready: bool, version: str) -> SliceSet:
    slices = SliceSet(Reading())
    raw = raw_slice(entry(pod="p", ready=ready), version=version)
    raw["metadata"]["annotations"] = {TRIGGER: triggered}
    slices.replace([raw])
    return slices


def seen(log: EventLog, before: object, after: object) -> tuple[float | None, bool]:
    log.observe(read(before, ready=True, version="1").snapshot(0.0))
    log.observe(read(after, ready=False, version="2").snapshot(0.0))
    (event,) = log.changes()
    return event.delay, event.exact


def test_a_change_tells_how_long_ago_the_api_said_so(log: EventLog) -> None:
    delay, exact = seen(log, stamp(NOW - 9), stamp(NOW - 0.018))
    assert delay == pytest.approx(0.018, abs=1e-5)
    assert exact


def test_whole_seconds_are_an_upper_bound(log: EventLog) -> None:
    assert seen(log, None, "2023-11-14T22:13:20Z") == (0.25, False)


@pytest.mark.parametrize(
    "after", [None, 3, {}, "", "soon", "2023-11-14", "2023-11-14T22:13:20", stamp(NOW - 8)]
)
def test_what_is_no_new_time_tells_nothing_of_the_delay(log: EventLog, after: object) -> None:
    assert seen(log, stamp(NOW - 8), after) == (None, False)


@pytest.mark.parametrize("seconds", [-0.5, -3600, 61, 1e9])
def test_a_time_that_can_not_be_right_tells_nothing(seconds: float) -> None:
    assert delay_since(stamp(NOW - seconds), NOW) == (None, False)


def test_the_trigger_time_is_read_and_distinguishes_no_endpoints() -> None:
    one = read("2023-11-14T22:13:20Z", ready=True, version="1").snapshot(0.0).pools["m"]
    other = read(None, ready=True, version="2").snapshot(0.0).pools["m"]
    assert one.endpoints[0].triggered == "2023-11-14T22:13:20Z"
    assert other.endpoints[0].triggered is None
    assert one.endpoints == other.endpoints
    assert hash(one.endpoints[0]) == hash(other.endpoints[0])
    assert "triggered" not in repr(Endpoint("10.0.0.1", 1, triggered="x"))


@pytest.mark.parametrize("annotations", [None, [], "text", 7, {TRIGGER: ["x"]}])
def test_annotations_of_the_wrong_shape_cost_no_endpoint(annotations: object) -> None:
    raw = raw_slice(entry(pod="p", ready=True))
    raw["metadata"]["annotations"] = annotations
    slices = SliceSet(Reading())
    assert slices.replace([raw]) == []
    (found,) = slices.snapshot(0.0).pools["m"].routable
    assert found.triggered is None
