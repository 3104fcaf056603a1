"""Pages of a list are parsed item by item, and mean what JSON says."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache.pages import parse_page
from tests.slices import RECORDED

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values),
    max_leaves=8,
)
PAGES = VALUES | st.fixed_dictionaries({"items": st.lists(VALUES)}, optional={"metadata": VALUES})


def outcome(parse: Any, body: bytes) -> Any:
    try:
        return parse(body)
    except ValueError:
        return ValueError


@given(page=PAGES, indent=st.sampled_from([None, 2]), escaped=st.booleans())
def test_a_page_means_what_it_says(page: Any, indent: int | None, escaped: bool) -> None:
    body = json.dumps(page, indent=indent, ensure_ascii=escaped).encode("utf-8", "replace")
    assert outcome(parse_page, body) == outcome(json.loads, body)


@given(page=PAGES, at=st.integers(0, 200), put=st.sampled_from([*'[]{},:" 1ax', "", '"a"', "\n"]))
@example(page={"items": [1]}, at=12, put=",")
@example(page={"items": []}, at=0, put=" ")
@example(page={}, at=2, put="x")
def test_what_is_nearly_a_page_is_one_or_none_for_both(page: Any, at: int, put: str) -> None:
    text = json.dumps(page)
    spoilt = (text[:at] + put + text[at + (put == "") :]).encode()
    assert outcome(parse_page, spoilt) == outcome(json.loads, spoilt)


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{", b'{"items"', b'{"items":', b'{"items":[', b'{"items":[1', b'{"items":[1,]}',
     b'{"items":[,1]}', b'{"items":[1]', b'{"items":[]}x', b'{1:2}', b'{"a":1,}', b"\xff",
     b"[1] 2"],
)  # fmt: skip
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        parse_page(body)


def test_others_may_run_after_each_item() -> None:
    calls: list[None] = []
    page = parse_page(b'{"items": [1, {"items": [2, 3]}, 4], "x": [5]}', lambda: calls.append(None))
    assert page == {"items": [1, {"items": [2, 3]}, 4], "x": [5]}
    assert len(calls) == 3


def test_recorded_lists_are_read_alike() -> None:
    bodies = [path.read_bytes() for path in RECORDED.rglob("*.json")]
    assert bodies
    for body in bodies:
        assert parse_page(body) == json.loads(body)
