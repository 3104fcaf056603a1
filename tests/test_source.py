"""The source that is a file."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cache.slices import Reading, SliceSet
from cache.source import FileSource, SourceError
from tests.slices import RECORDED, entry, raw_slice, recorded_items

LIST = {"kind": "EndpointSliceList", "metadata": {"resourceVersion": "5"}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "slices"


def routable(path: Path, slices: SliceSet) -> list[str]:
    slices.replace(FileSource(str(path)).list().items)
    return [e.address for e in slices.snapshot(0.0).pools["m"].routable]


def test_a_recorded_list_is_read_as_it_was_printed() -> None:
    name = "list-four-states.json"
    listing = FileSource(str(RECORDED / name)).list()
    expected = recorded_items(name)
    for item in expected:
        del item["metadata"]["resourceVersion"]
    assert listing.items == expected


def test_a_file_gives_no_version_to_watch_from() -> None:
    assert FileSource(str(RECORDED / "list-odd.json")).list().resource_version is None


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({**LIST, "items": [raw_slice(entry())]}),
        "\n  " + json.dumps({"items": [raw_slice(entry())]}),
        yaml.safe_dump({**LIST, "kind": "List", "items": [raw_slice(entry())]}),
        "# kept by hand\nitems:\n- metadata: {name: a, labels: {model.aibrix.ai/name: m}}\n"
        "  ports: [{port: 8000}]\n  endpoints: [{addresses: [10.0.0.1]}]\n",
    ],
)
def test_json_and_yaml_are_read_whichever_kind_of_list_it_is(path: Path, text: str) -> None:
    path.write_text(text)
    assert routable(path, SliceSet(Reading())) == ["10.0.0.1"]


@pytest.mark.parametrize("text", ['{"items": null}', "items: []", "items:"])
def test_a_list_without_items_is_empty(path: Path, text: str) -> None:
    path.write_text(text)
    assert FileSource(str(path)).list().items == []


def test_an_edit_counts_even_if_it_keeps_the_recorded_version(path: Path) -> None:
    slices = SliceSet(Reading())
    for ready, expected in ((True, ["10.0.0.1"]), (False, []), (True, ["10.0.0.1"])):
        item = raw_slice(entry(ready=ready), version="7")
        path.write_text(json.dumps({**LIST, "items": [item]}))
        assert routable(path, slices) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"items": [',
        b"items: [",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"text",
        b"{}",
        b'{"kind": "EndpointSlice", "metadata": {}}',
        b'{"kind": "PodList", "items": []}',
        b'{"kind": [], "items": []}',
        b"---\nitems: []\n---\nitems: []\n",
        b"items: !!python/object:os.system {}\n",
        b'{"items":' + b"[" * 100_000,
    ],
)
def test_what_is_no_list_is_an_error_that_names_the_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(SourceError, match=str(path)) as caught:
        FileSource(str(path)).list()
    assert caught.value.kind == "file"


@pytest.mark.parametrize("items", [{}, "text", 5, True])
def test_items_of_another_shape_are_an_error_too(path: Path, items: Any) -> None:
    path.write_text(json.dumps({"items": items}))
    with pytest.raises(SourceError) as caught:
        FileSource(str(path)).list()
    assert caught.value.kind == "garbage"


def test_a_file_that_is_missing_or_no_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path, Path("nul\0")):
        with pytest.raises(SourceError) as caught:
            FileSource(str(path)).list()
        assert caught.value.kind == "file"
        assert str(path) in str(caught.value)


def test_a_file_is_read_anew_each_time(path: Path) -> None:
    source = FileSource(str(path))
    path.write_text('{"items": []}')
    assert source.list().items == []
    path.write_text('{"items": [1]}')
    assert source.list().items == [1]


def test_a_file_needs_no_credentials(path: Path) -> None:
    FileSource(str(path)).renew_credentials()


@pytest.mark.parametrize(
    "label", ["0x" + "f" * 5000, "&a [*a]"], ids=["an endless number", "a cycle"]
)
def test_yaml_that_no_json_can_say_is_no_list(tmp_path: Path, label: str) -> None:
    path = tmp_path / "slices.yaml"
    path.write_text(f"items:\n- metadata: {{name: a, labels: {{port: {label}}}}}\n")
    with pytest.raises(SourceError) as failed:
        FileSource(str(path)).list()
    assert failed.value.kind == "file"
