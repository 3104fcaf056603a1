"""An alias in a form gives way to its model; no other byte of the form is touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.aliases import span_in_form
from proxy.errors import GatewayError
from proxy.request import model_of, renamed
from tests.test_request import FORM, form, part

ALIAS, MODEL = "whisper-1", "whisper-large-v3-turbo"
FILE = part("file", b"\x00\xff--limi\r\n--limitless\r\nmodel\r\n", filename="model")


def rewritten(body: bytes, model: str = MODEL, content_type: str = FORM) -> bytes:
    assert model_of(body, content_type, may_be_form=True) == ALIAS
    return renamed(body, content_type, model, may_be_form=True)


def named(head: str, *, line: str = "\r\n") -> tuple[bytes, bytes, bytes]:
    """A form in three parts: all that precedes the alias, the alias, all that follows."""
    before = f"--limit{line}{head}{line}{line}".encode()
    return before, ALIAS.encode(), f"{line}--limit--{line}".encode()


@pytest.mark.parametrize(
    "pieces",
    [
        named('Content-Disposition: form-data; name="model"'),
        named("Content-Disposition: form-data; name=model"),
        named('content-disposition:form-data;NAME="model"'),
        named('Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"'),
        named('Content-Disposition: form-data; name="model"\r\nContent-Length: 9'),
        named("Content-Disposition: form-data;\r\n name=model"),
        named('Content-Disposition: form-data; name="model"', line="\n"),
        (b"a preamble\r\n" + named("Content-Disposition: form-data; name=model")[0],
         *named("")[1:]),
        (*named("Content-Disposition: form-data; name=model")[:2], b"\r\n--limit  \r\n"
         + form(part("file", b"x", filename="a"))[9:] + b"an epilogue"),
        (FILE + part("prompt", b"whisper-1") + part("Model", b"whisper-1")
         + part("model ", b"")[:-2].replace(b'"model "', b'"model"'), ALIAS.encode(),
         b"\r\n" + form(FILE, part("language", b"whisper-1"))),
    ],
)  # fmt: skip
def test_only_the_content_of_the_field_changes(pieces: tuple[bytes, bytes, bytes]) -> None:
    before, alias, after = pieces
    assert rewritten(before + alias + after) == before + MODEL.encode() + after


def test_a_name_may_be_shorter_longer_and_any_text() -> None:
    before, alias, after = named('Content-Disposition: form-data; name="model"')
    for model in ("m", "wöhr/\U0001f999:latest", "x" * 100_000):
        assert rewritten(before + alias + after, model) == before + model.encode() + after


def test_a_name_that_the_part_s_charset_does_not_have_is_refused() -> None:
    latin = "Content-Type: text/plain; charset=iso-8859-1"
    body = b"".join(named(f'Content-Disposition: form-data; name="model"\r\n{latin}'))
    assert MODEL.encode() in rewritten(body)
    with pytest.raises(GatewayError) as caught:
        rewritten(body, "wöhr")
    assert caught.value.code == "invalid_body"


def test_the_field_is_found_wherever_the_pieces_of_a_large_form_end() -> None:
    field = part("model", ALIAS.encode())
    shell = len(part("file", b"", filename="a"))
    for missing in range(len(field) + 20):
        sound = part("file", b"\r" * (65_536 - shell - missing), filename="a")
        after = part("prompt", b"\r\n" * 10)
        expected = form(sound, part("model", MODEL.encode()), after)
        assert rewritten(form(sound, field, after)) == expected


CONTENTS = st.binary(max_size=30) | st.sampled_from(
    [b"whisper-1", b"\r\n--limi", b"\r\n--limitt\r\n", b"--limit--\r", b"\r\n\r\n", b"\n", b"\r"]
)


@given(st.lists(CONTENTS, max_size=4), st.lists(CONTENTS, max_size=4))
def test_whatever_else_a_form_holds_stays(before: list[bytes], after: list[bytes]) -> None:
    def around(name: str) -> bytes:
        first = [part(f"f{n}", content, filename="f" * (n % 2)) for n, content in enumerate(before)]
        last = [part(f"g{n}", content, filename="g" * (n % 2)) for n, content in enumerate(after)]
        return form(*first, part("model", name.encode()), *last)

    body = around(ALIAS)
    try:
        found = model_of(body, FORM, may_be_form=True)
    except GatewayError:
        return  # a content that looks like a boundary has made another form of it
    if found == ALIAS:
        assert rewritten(body) == around(MODEL)


def test_a_form_without_the_field_is_not_taken_for_one_that_has_it() -> None:
    with pytest.raises(LookupError):
        span_in_form(form(FILE, part("Model", b"whisper-1")), b"limit")
