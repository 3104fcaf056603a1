"""A large body's model is found as `json` would find it, and without stopping everything else."""

import json
import threading
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import GatewayError
from proxy.request import model_of
from proxy.scan import MOST_NESTED, MOST_STEPS, model_in

#: So small that everything is cut somewhere.
WINDOWS = (7, 9, 20, 32_768)
SIZE = 4_000_000


def by_scan(body: bytes, window: int) -> object:
    try:
        model = model_in(body, window)
    except ValueError:
        return "invalid_body"
    return model if isinstance(model, str) and model else "missing_model"


def by_json(body: bytes) -> object:
    """What is said of a small body, which `json` reads."""
    try:
        return model_of(body, "application/json", may_be_form=False)
    except GatewayError as error:
        return error.code


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
keys = st.sampled_from(["model", "a", "mod", ""]) | st.text(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12
)
documents = st.builds(
    lambda fields, ascii_only, indent: json.dumps(
        fields, ensure_ascii=ascii_only, indent=indent, allow_nan=False
    ),
    st.dictionaries(keys, values),
    st.booleans(),
    st.none() | st.integers(0, 3),
)


@settings(max_examples=60)
@given(documents)
def test_a_valid_body_names_what_it_names(text: str) -> None:
    for window in WINDOWS:
        assert by_scan(text.encode(), window) == by_json(text.encode())


@settings(max_examples=60)
@given(documents, st.data())
def test_a_body_with_something_wrong_is_read_as_json_reads_it(
    text: str, data: st.DataObject
) -> None:
    body = bytearray(text.encode())
    alphabet = b'{}[]",:\\ \n01-.eEtu\x00\xc3"model"'
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        end = at + data.draw(st.integers(0, 2))
        body[at:end] = bytes(data.draw(st.lists(st.sampled_from(alphabet), max_size=2)))
    for window in WINDOWS:
        assert by_scan(bytes(body), window) == by_json(bytes(body))


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"m\\u00f6\\ud83d\\ude00"}',
        '{"m\\u006fdel":"llama"}',
        '{"model":"llama","mod\\u0065l":"other"}',
        '{"a":{"model":1,"model":2},"model":"llama"}',
        '{"a":[{"model":1},{"model":2}],"model":"llama"}',
        '{"model":["llama"]}',
        '{"model":{"model":"llama"}}',
        '{"model":null}',
        '{"model":"llama"} x',
        '{"model":"llama",}',
        '{"model":"llama","a":[1,]}',
        '{"model":"llama","a":{"b"}}',
        '{"model":"llama","a":[1}}',
        '{"model":"llama","a":01}',
        '{"model":"llama","a":1.}',
        '{"model":"llama","a":.5}',
        '{"model":"llama","a":-}',
        '{"model":"llama","a":1e}',
        '{"model":"llama","a":"\\x"}',
        '{"model":"llama","a":"\\u12g4"}',
        '{"model":"llama","a":"\t"}',
        '{"model":"llama","a":NaN}',
        '{"model":"llama","a":"\x7f\u2028"}',
        '\ufeff{"model":"llama"}',
        '[{"model":"llama"}]',
        "",
    ],
)
def test_what_is_easily_misread(body: str) -> None:
    for window in WINDOWS:
        assert by_scan(body.encode(), window) == by_json(body.encode())
    large = body.encode() + b" " * 300_000
    assert by_json(large) == by_json(body.encode()), "also where it is the size that decides"


@pytest.mark.parametrize("body", [b'{"model":"\xff"}', b'{"model":"m","a":"\xed\xa0\x80"}'])
def test_what_is_no_utf8_is_refused(body: bytes) -> None:
    for window in WINDOWS:
        assert by_scan(body, window) == "invalid_body"


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep = "[" * (MOST_NESTED - 1) + "]" * (MOST_NESTED - 1)
    assert model_in(f'{{"model":"m","a":{deep}}}'.encode()) == "m"
    with pytest.raises(ValueError, match="nested too deeply"):
        model_in(f'{{"model":"m","a":[{deep}]}}'.encode())


def test_a_riddle_is_refused_before_it_takes_minutes() -> None:
    riddle = ",".join(["[[[[]]]]"] * MOST_STEPS)
    with pytest.raises(ValueError, match="too many parts within parts"):
        model_in(f'{{"model":"m","a":[{riddle}]}}'.encode())


def large(unit: str) -> bytes:
    """A list of so many of these that the body is large."""
    return b'{"model":"m","a":[%b]}' % ",".join([unit] * (SIZE // (len(unit) + 1))).encode()


@pytest.mark.parametrize("unit", ["[]", "{}", '"ab"', "1", '{"a":1}', '"' + "\\n" * 100 + '"'])
def test_a_large_body_takes_no_memory_and_lets_others_run(unit: str) -> None:
    body = large(unit)
    turns = 0
    over = threading.Event()

    def run() -> None:
        nonlocal turns
        while not over.wait(0.001):
            turns += 1

    other = threading.Thread(target=run)
    other.start()
    tracemalloc.start()
    try:
        assert model_of(body, "application/json", may_be_form=False) == "m"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        over.set()
        other.join()
    assert peak < 1_000_000
    assert turns > 20, "one of them would be all there is to have in between"
