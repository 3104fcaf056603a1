"""The model is read from the body exactly as an endpoint would read it, or not at all."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import GatewayError
from proxy.request import model_of

JSON = "application/json"


def model(body: bytes | str, content_type: str = JSON, *, may_be_form: bool = False) -> str:
    raw = body.encode() if isinstance(body, str) else body
    return model_of(raw, content_type, may_be_form=may_be_form)


def refusal(body: bytes | str, content_type: str = JSON, *, may_be_form: bool = False) -> str:
    with pytest.raises(GatewayError) as caught:
        model(body, content_type, may_be_form=may_be_form)
    assert len(caught.value.message) < 300
    assert caught.value.body().decode()
    return caught.value.code


VERDICTS = ("a model", "invalid_body", "missing_model")


def verdict(body: bytes, content_type: str) -> str:
    try:
        return "a model" if model(body, content_type, may_be_form=True) else "nothing"
    except GatewayError as error:
        return error.code


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"model":"llama"}', "llama"),
        (' {"messages":[], "model" : "llama" } \r\n', "llama"),
        ('{"model":"Qwen/Qwen-2.5_7B:latest"}', "Qwen/Qwen-2.5_7B:latest"),
        ('{"model":"m\\u00f6\\u2028del"}', "mö\u2028del"),
        ('{"model":"mö"}', "mö"),
        ('{"m\\u006fdel":"llama"}', "llama"),
        ('{"messages":[{"model":"other"}],"model":"llama"}', "llama"),
        ('{"a":1,"a":2,"model":"llama"}', "llama"),
        ('{"model":" "}', " "),
        ('{"model":"llama","big":' + "9" * 100_000 + "}", "llama"),
        ('{"model":"llama","big":-1e999999}', "llama"),
        ('{"model":"llama","deep":' + "[" * 200 + "]" * 200 + "}", "llama"),
    ],
)
def test_a_body_that_names_its_model(body: str, name: str) -> None:
    assert model(body) == name


@pytest.mark.parametrize(
    "body",
    ["{}", '{"model":null}', '{"model":""}', '{"Model":"llama"}', '{"m":{"model":"llama"}}']
    + [f'{{"model":{value}}}' for value in ("1", "1.5", "true", "[]", '["llama"]', "{}")],
)
def test_a_body_that_names_none(body: str) -> None:
    assert refusal(body) == "missing_model"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"llama",
        b"{",
        b'{"model":"llama"',
        b'{"model":"llama"}}',
        b'{"model":"llama"} {"model":"other"}',
        b"{'model':'llama'}",
        b'{"model":"llama",}',
        b'{"model":"lla\nma"}',
        b"[]",
        b'["model"]',
        b'"model"',
        b"1",
        b"null",
        b'{"model":"llama","model":"other"}',
        b'{"model":"llama","model":"llama"}',
        b'{"model":"llama","mod\\u0065l":"other"}',
        b'{"model":"llama","temperature":NaN}',
        b'{"model":"llama","temperature":Infinity}',
        b'{"model":"llama","temperature":-Infinity}',
        b'{"model":"\xff"}',
        b'{"model":"\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"model":"llama"}',
        '{"model":"llama"}'.encode("utf-16"),
        '{"model":"llama"}'.encode("utf-32"),
        b'\x00{"model":"llama"}',
        b'{"model":"llama"}\x00',
        b"model=llama",
    ],
)
def test_a_body_that_is_not_the_json_expected(body: bytes) -> None:
    assert refusal(body) == "invalid_body"


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"model":"llama","a":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_deep_nesting_is_refused_and_hurts_nobody(body: str) -> None:
    assert refusal(body) == "invalid_body"
    assert model('{"model":"llama"}') == "llama"


def test_numbers_of_any_length_take_no_time() -> None:
    body = '{"model":"llama","a":[' + ",".join(["9" * 1_000_000] * 5) + "]}"
    began = time.process_time()
    assert model(body) == "llama"
    assert time.process_time() - began < 1


def test_a_long_name_is_read_as_it_is() -> None:
    name = "m" * 10_000_000
    assert model(json.dumps({"model": name})) == name


def test_a_name_that_is_no_unicode_text_is_a_name_like_any_other() -> None:
    assert model('{"model":"\\ud800"}') == "\ud800"  # which no endpoint has


@given(st.binary(max_size=100))
def test_any_bytes_have_a_model_or_a_refusal(body: bytes) -> None:
    for raw in (body, b'{"model":' + body + b"}"):
        assert verdict(raw, JSON) in VERDICTS


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text().filter(lambda k: k != "model"), inner)
        ),
        max_leaves=20,
    )
)
def test_whatever_else_a_body_holds_does_not_matter(other: object) -> None:
    assert model(json.dumps({"other": other, "model": "llama"})) == "llama"


# Forms

FORM = "multipart/form-data; boundary=limit"


def part(name: str, value: bytes, *, filename: str = "") -> bytes:
    file = f'; filename="{filename}"' if filename else ""
    head = f'Content-Disposition: form-data; name="{name}"{file}'.encode()
    return b"--limit\r\n" + head + b"\r\n\r\n" + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--limit--\r\n"


SOUND = part("file", b"\x00\xff--limi\r\n" * 10, filename="a.wav")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (form(part("model", b"whisper"), SOUND), "whisper"),
        (form(SOUND, part("model", b"whisper")), "whisper"),
        (form(part("model", "wöhr".encode()), SOUND), "wöhr"),
        (form(SOUND, part("model", b"whisper"), part("language", b"de")), "whisper"),
    ],
)
def test_a_form_that_names_its_model(body: bytes, name: str) -> None:
    assert model(body, FORM, may_be_form=True) == name
    assert model(body, FORM.replace("multipart/form", "Multipart/Form"), may_be_form=True) == name


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (form(SOUND), "missing_model"),
        (form(part("model", b""), SOUND), "missing_model"),
        (form(part("model", b"whisper", filename="m")), "missing_model"),
        (form(part("model", b"a"), part("model", b"b")), "invalid_body"),
        (form(part("model", b"a"), part("model", b"b", filename="m")), "invalid_body"),
        (b"", "invalid_body"),
        (b"--limit--\r\n", "missing_model"),
        (part("model", b"whisper"), "invalid_body"),
        (form(part("model", b"whisper"))[:-8], "invalid_body"),
        (b"no form at all", "invalid_body"),
        (b'{"model":"whisper"}', "invalid_body"),
        (b"--limit\r\nContent-Type: text/plain\r\n\r\nx\r\n--limit--\r\n", "invalid_body"),
        (form(*[part(f"f{n}", b"x") for n in range(2000)]), "invalid_body"),
    ],
)
def test_a_form_that_does_not(body: bytes, code: str) -> None:
    assert refusal(body, FORM, may_be_form=True) == code


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_refused(content_type: str) -> None:
    assert refusal(form(part("model", b"m")), content_type, may_be_form=True) == "invalid_body"


def test_a_large_file_in_a_form_is_read_past() -> None:
    sound = part("file", b"\x00\r\n-" * 2_000_000, filename="a.wav")
    assert model(form(sound, part("model", b"whisper")), FORM, may_be_form=True) == "whisper"


def test_only_where_forms_are_expected_is_one_read() -> None:
    body = form(part("model", b"whisper"))
    assert refusal(body, FORM) == "invalid_body"
    assert model('{"model":"tts"}', JSON, may_be_form=True) == "tts"


@given(st.binary(max_size=200))
def test_any_bytes_as_a_form_have_a_model_or_a_refusal(body: bytes) -> None:
    for raw in (body, b"--limit\r\n" + body, form(b"--limit\r\n" + body)):
        assert verdict(raw, FORM) in VERDICTS
