"""Where a prompt begins: in the bodies of every API, whatever else stands in them."""

import json
import time
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.prompts import FIRST_LOOK, WINDOW, beginning

MOST = 65_536
SYSTEM = 'You are careful, and quote "what" you know.\n' * 400
TOOLS = [
    {
        "name": f"tool-{n}",
        "description": "Does, [when asked], what it says: {}",
        "input_schema": {
            "type": "object",
            "properties": {"prompt": {"type": "string"}, "system": {"type": "string"}},
        },
    }
    for n in range(50)
]


def asks(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


def found(most: int = MOST, **members: Any) -> bytes:
    return beginning(json.dumps(members).encode(), most)


def together(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() for value in values)


@pytest.mark.parametrize("prompt", ["Hello", ["Hello", "you"], [1, 22, 333], [[1, 2], [3]]])
@pytest.mark.parametrize("name", ["prompt", "input"])
def test_a_prompt_is_text_or_texts_or_tokens(name: str, prompt: object) -> None:
    members: dict[str, Any] = {"model": "m", name: prompt, "max_tokens": 5, "logprobs": None}
    assert found(**members) == together(prompt)


def test_a_chat_s_prompt_is_its_messages_whatever_they_consist_of() -> None:
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {}}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "A cat."}]
    assert found(model="m", messages=messages, stream=True) == together(messages)


@pytest.mark.parametrize("order", list(permutations(["system", "messages", "model", "tools"])))
@pytest.mark.parametrize("system", [SYSTEM, [{"type": "text", "text": SYSTEM}]])
def test_in_anthropic_s_api_system_and_tools_come_first_wherever_they_stand(
    order: tuple[str, ...], system: object
) -> None:
    members: dict[str, Any] = {
        "system": system,
        "messages": asks("Why?"),
        "model": "m",
        "tools": TOOLS,
    }
    body = {name: members[name] for name in order}
    assert found(**body) == together(system, TOOLS, asks("Why?"))


@pytest.mark.parametrize("question", ["Why?", asks("Why?")])
@pytest.mark.parametrize("first", ["input", "instructions"])
def test_in_responses_the_instructions_come_first(first: str, question: object) -> None:
    members: dict[str, Any] = {"instructions": SYSTEM, "input": question}
    body = {first: members[first], **members, "model": "m"}
    assert found(**body) == together(SYSTEM, question)


def test_what_follows_long_messages_is_found_near_the_end() -> None:
    messages = asks('A long question, "quoted", [and] {more}: ' * 3000)
    system = SYSTEM[: WINDOW // 2]
    prompt = found(model="m", messages=messages, temperature=0.5, system=system, stream=True)
    assert prompt == together(system, messages)[:MOST]


@pytest.mark.parametrize("size", range(FIRST_LOOK - 100, FIRST_LOOK + 50))
def test_where_the_first_look_at_a_body_ends_nothing_is_missed(size: int) -> None:
    messages = asks("Why?" * 20_000)
    prompt = found(
        user="u" * size, n=12_345, f=1.25, t=True, system="Be careful.", messages=messages
    )
    assert prompt == together("Be careful.", messages)[:MOST]


@pytest.mark.parametrize("length", [7_000, 9_000, 15_000])
def test_what_follows_messages_soon_is_found_whatever_comes_after_it(length: int) -> None:
    messages, note = asks("x" * length), "n" * 50_000
    prompt = found(model="m", messages=messages, system="Be careful.", note=note)
    assert prompt == together("Be careful.", messages)


def test_what_follows_long_messages_that_use_its_name_is_told_from_theirs() -> None:
    used = {"type": "tool_use", "id": "1", "input": {"a": 1, "system": "linux", "tools": ["x"]}}
    last = [{"role": "assistant", "content": [used]}, {"role": "user", "content": "go on"}]
    messages = [*asks("A long question. " * 5000), *last]
    assert (
        found(messages=messages, model="m", system=SYSTEM[:9000])
        == (together(SYSTEM[:9000], messages)[:MOST])
    )
    assert found(messages=messages, model="m") == together(messages)[:MOST]


@pytest.mark.parametrize(
    "stray",
    [
        {"metadata": {"input": "req-1234", "prompt": ["x"]}},
        {"note": 'not "messages": here, nor \\"prompt\\": there'},
        {"tool_choice": {"messages": {"tools": []}, "system": "x"}},
        {"response_format": {"json_schema": {"properties": {"input": {"type": "string"}}}}},
    ],
)
@pytest.mark.parametrize("length", [10, 20_000, 200_000])
def test_only_members_of_the_body_itself_count(stray: dict[str, Any], length: int) -> None:
    messages = asks("x" * length)
    for body in ({**stray, "model": "m", "messages": messages}, {"messages": messages, **stray}):
        # To the end of a long value nobody reads.
        assert found(**body)[:length] == together(messages)[: min(MOST, length)]


def test_a_short_prompt_ends_where_its_value_does() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x" * 5000}}
    assert found(messages=asks("Why?"), response_format=schema) == together(asks("Why?"))


def test_a_body_written_with_spaces_is_read_too() -> None:
    text = json.dumps({"model": "m", "messages": asks("Why?"), "system": "Be kind."}, indent=2)
    prompt = beginning(f"  {text}\n".encode(), MOST)
    assert prompt.startswith(b'"Be kind."[\n')
    assert prompt.endswith(b"]")


@pytest.mark.parametrize("most", [100, 10_000, MOST])
def test_no_more_is_given_than_is_asked_for(most: int) -> None:
    prompt = found(most, system=SYSTEM, messages=asks("Why?"))
    assert prompt == together(SYSTEM, asks("Why?"))[:most]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"--boundary\r\nnot json",
        b'{"model": "m", "query": "q", "documents": ["a", "b"]}',
        b'{"text": "\\"messages\\": hello"}',
        b'{"text": ' + b"[" * 100_000,
        b'{"n": ' + b"9" * 100_000 + b"}",
    ],
)
def test_a_body_without_a_prompt_gives_none(body: bytes) -> None:
    assert beginning(body, MOST) == b""


@pytest.mark.parametrize("nested", [b',"tools":[', b'{"a":1,"tools":['])
def test_what_nests_without_end_takes_no_time(nested: bytes) -> None:
    body = b'{"messages":"' + b"x" * 70_000 + b'","a":' + nested * 5000
    assert beginning(body, MOST).startswith(b'"xxx')


def test_what_may_follow_many_members_is_looked_for_once() -> None:
    def took(count: int) -> float:
        many = b'"input":1,' * count + b'"system":"a","z":"' + b"z" * 20_000
        started = time.perf_counter()
        for _ in range(4):
            assert beginning(b"{" + many + b'"}', MOST) == b'"a"1'
        return time.perf_counter() - started

    short, long = (min(took(count) for _ in range(5)) for count in (300, 1500))
    assert long < 8 * short, "13 times as long, if each member were a reason to look"


values = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["system", "a"]), inner),
    max_leaves=8,
)
NAMES = ["system", "instructions", "tools", "messages", "prompt", "input"]


@given(
    members=st.dictionaries(st.sampled_from([*NAMES, "model", 'a"b\\']), values, max_size=5),
    ascii_only=st.booleans(),
)
def test_whatever_a_body_says_its_prompt_is_found(
    members: dict[str, Any], ascii_only: bool
) -> None:
    body = json.dumps(members, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    expected = "".join(
        json.dumps(members[name], ensure_ascii=ascii_only) for name in NAMES if name in members
    )
    assert beginning(body, MOST) == expected.encode("utf-8", "surrogatepass")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_json_raise_nothing(body: bytes) -> None:
    beginning(body, MOST)
    beginning(b'{"messages":' + body, MOST)
