"""An alias in a JSON body gives way to its model; no other byte is touched."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.aliases import json_string, span_in_json
from proxy.request import model_of, renamed

JSON = "application/json"
ALIAS, MODEL = "gpt-4o", "llama-70b"


def rewritten(body: bytes, model: str = MODEL) -> bytes:
    assert model_of(body, JSON, may_be_form=False)
    return renamed(body, JSON, model, may_be_form=False)


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ('{"model":', '"gpt-4o"', "}"),
        (' \r\n\t{ "model"\t:\n ', '"gpt-4o"', ' , "stream" : true } \n'),
        ('{"z":1,"a":2,"a":3,"model":', '"gpt-4o"', ',"temperature":1e400,"big":1.50e+0}'),
        ('{"m\\u006fdel":', '"gpt-4o"', "}"),
        ('{"\\u006D\\u006F\\u0064\\u0065\\u006C":', '"gpt-4o"', "}"),
        ('{"model":', '"\\u0067pt\\u002d4o"', ',"a":"\\u00e9\\/é"}'),
        ('{"a":{"model":"gpt-4o"},"model":', '"gpt-4o"', ',"b":[{"model":"gpt-4o"}]}'),
        ('{"a":[[{"b":{"mod\\u0065l":"x"}}]],"model":', '"gpt-4o"', "}"),
        ('{"a":"\\"model\\":\\"gpt-4o\\"","model":', '"gpt-4o"', "}"),
        ('{"a":"{\\"model\\":\\"gpt-4o\\"}","b":"\\\\","model":', '"gpt-4o"', "}"),
        ('{"a":"},{[\\\\\\"","model":', '"gpt-4o"', "}"),
        ('{"a":"model","b":["model"],"model":', '"gpt-4o"', "}"),
        ('{"a":{"model":7},"b":{"model":["gpt-4o"]},"model":', '"gpt-4o"', "}"),
        ('{"Model":"gpt-4o"," model":"gpt-4o","model":', '"gpt-4o"', ',"model ":"gpt-4o"}'),
        ('{"\\"model":"gpt-4o","x\\\\":[{"model":""}],"model":', '"gpt-4o"', "}"),
        ('{"é":"ü",\n"model":', '"gpt-4o"', ',"\U0001f999":"\u2028"}'),
    ],
)
def test_only_the_value_of_the_model_at_the_top_changes(
    before: str, value: str, after: str
) -> None:
    body = (before + value + after).encode()
    assert model_of(body, JSON, may_be_form=False) == ALIAS
    assert rewritten(body) == (before + '"llama-70b"' + after).encode()


@pytest.mark.parametrize("name", ["org/llama:latest", 'a"b\\c', "wöhr", "\U0001f999", "x" * 10_000])
def test_a_model_of_any_name_is_spelled_so_that_every_parser_reads_it(name: str) -> None:
    body = rewritten(b'{"model":"gpt-4o","n":1}', name)
    assert body.isascii()
    assert json.loads(body) == {"model": name, "n": 1}


def test_a_body_without_a_model_at_the_top_is_not_taken_for_one_that_has_it() -> None:
    with pytest.raises(LookupError):
        span_in_json(b'{"a":{"model":"gpt-4o"}}')


# Any JSON, in any spelling

SPACE = st.text(" \t\r\n", max_size=2)
NAMES = st.sampled_from(["model", "Model", "a", "", "gpt-4o", "}", "{", "[", '"', "\\", "é"])
TEXTS = NAMES | st.sampled_from(['"model":"gpt-4o"', '{"model":"gpt-4o"}', '\\"model', "\\\\"])
NUMBERS = st.sampled_from(["0", "-1.50", "1e400", "1E-7", "123456789012345678901234567890"])


@st.composite
def spelled(draw: st.DrawFn, text: str) -> str:
    """A string, some of its characters escaped though they need not be."""
    escapes = draw(st.integers(0, 2**8 - 1))
    if not escapes:
        return json.dumps(text, ensure_ascii=draw(st.booleans()))
    return '"' + "".join(
        f"\\u{ord(c):04x}" if escapes >> (i % 8) & 1 and ord(c) < 0x10000 else json.dumps(c)[1:-1]
        for i, c in enumerate(text)
    ) + '"'  # fmt: skip


def joined(draw: st.DrawFn, parts: list[str]) -> str:
    return ",".join(draw(SPACE) + part + draw(SPACE) for part in parts)


@st.composite
def lists(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    return "[" + joined(draw, draw(st.lists(inner, max_size=3))) + "]"


def member(draw: st.DrawFn, name: str, value: str) -> str:
    return draw(spelled(name)) + draw(SPACE) + ":" + draw(SPACE) + value


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    names = draw(st.lists(NAMES, max_size=3))
    seen_model = False
    members = []
    for name in names:
        if name != "model" or not seen_model:  # two would be refused; of others there may be two
            members.append(member(draw, name, draw(inner)))
        seen_model = seen_model or name == "model"
    return "{" + joined(draw, members) + "}"


VALUES: st.SearchStrategy[str] = st.recursive(
    st.sampled_from(["true", "null"]) | NUMBERS | TEXTS.flatmap(spelled),
    lambda inner: lists(inner) | objects(inner),
    max_leaves=12,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, str]:
    """A body: what precedes its model's value, this value, and what follows."""
    others = draw(st.lists(st.tuples(NAMES.filter(lambda n: n != "model"), VALUES), max_size=5))
    members = [member(draw, name, value) for name, value in others]
    at = draw(st.integers(0, len(members)))
    before = "".join(text + "," for text in members[:at]) + draw(SPACE)
    after = "".join("," + text for text in members[at:]) + draw(SPACE) + "}"
    value = draw(spelled(ALIAS))
    return draw(SPACE) + "{" + before + member(draw, "model", ""), value, draw(SPACE) + after


@given(requests())
def test_in_any_spelling_of_any_body_nothing_else_changes(parts: tuple[str, str, str]) -> None:
    before, value, after = (part.encode() for part in parts)
    body = before + value + after
    new = rewritten(body)
    assert new == before + b'"llama-70b"' + after

    def pairs(text: bytes) -> Any:
        return json.loads(text, object_pairs_hook=list, parse_float=str, parse_int=str)

    assert pairs(new) == [(k, MODEL if k == "model" else v) for k, v in pairs(body)]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_name_that_was_put_in_is_the_name_that_is_read(name: str) -> None:
    assert json.loads(json_string(name)) == name


# Large ones

_SIZE = 10_000_000


@pytest.mark.parametrize(
    "filling",
    [
        b'"' + b"x" * _SIZE + b'"',
        b'"' + b'\\"' * (_SIZE // 2) + b'"',
        b'"' + b'\\"model\\":\\"' * (_SIZE // 14) + b'"',
        b"[" + b'"",' * (_SIZE // 3) + b"1]",
        b"[" + b'"model",' * (_SIZE // 8) + b"1]",
        b"[" + b'{"":{},"model":{"a":[]}},' * (_SIZE // 25) + b"1]",
        b"[" + b'{"model":"gpt-4o"},' * (_SIZE // 19) + b"1]",
        b"0," + b'"":0,' * (_SIZE // 5) + b'"":0',
        b'"' + b" model " * (_SIZE // 7) + b'"',
        b"0," + b" " * _SIZE + b'"":0',
    ],
    ids=["text", "quotes", "quoted", "strings", "values", "objects", "models", "members",
         "words", "spaces"],
)  # fmt: skip
def test_a_large_body_takes_time_in_proportion_to_its_size(filling: bytes) -> None:
    body = b'{"a":' + filling + b',"model":"gpt-4o"}'
    began = time.process_time()
    start, end = span_in_json(body)
    assert time.process_time() - began < 5  # a square of its size would take hours
    assert (start, end) == (len(body) - 9, len(body) - 1)
