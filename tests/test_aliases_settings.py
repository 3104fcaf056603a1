"""Aliases and holds as operators set them: what is read, what is refused, and how."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings import Settings, SettingsError


def aliases(text: str) -> dict[str, str]:
    return dict(Settings.from_environ({"GATEWAY_MODEL_ALIASES": text}).model_aliases)


def test_by_default_there_are_no_aliases_and_nobody_waits() -> None:
    settings = Settings.from_environ({})
    assert settings.model_aliases == ()
    assert (settings.hold_seconds, settings.hold_requests) == (0, 64)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("gpt-4o=llama-70b", {"gpt-4o": "llama-70b"}),
        (" gpt-4o = llama-70b , o1=llama-70b ", {"gpt-4o": "llama-70b", "o1": "llama-70b"}),
        ("a/b:c.d-e=org/m:v1.0-x=y", {"a/b:c.d-e": "org/m:v1.0-x=y"}),
        ("kleines Modell=wöhr", {"kleines Modell": "wöhr"}),
    ],
)
def test_aliases_are_pairs_parted_by_their_first_equals_sign(
    text: str, pairs: dict[str, str]
) -> None:
    assert aliases(text) == pairs


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("gpt-4o", "comma-separated ALIAS=MODEL"),
        ("=llama", "comma-separated ALIAS=MODEL"),
        ("gpt-4o=", "comma-separated ALIAS=MODEL"),
        ("a=b,", "comma-separated ALIAS=MODEL"),
        ("a=b,,c=d", "comma-separated ALIAS=MODEL"),
        ("a\x01=b", "without control characters"),
        ("a=b\nc", "without control characters"),
        ("a=b\x7f", "without control characters"),
        ("a=\udcff", "without control characters"),
        ("a=b,a=b", "each alias once, not 'a' twice"),
        ("a=b,c=d,a=e", "each alias once, not 'a' twice"),
        ("a=b,b=c", "aliases of models, not of the alias 'b'"),
        ("b=c,a=b", "aliases of models, not of the alias 'b'"),
        ("a=a", "aliases of models, not of the alias 'a'"),
    ],
)
def test_aliases_that_mean_nothing_or_two_things_are_refused_in_one_line(
    text: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        aliases(text)
    message = str(caught.value)
    assert message.startswith(f"GATEWAY_MODEL_ALIASES={text.strip()!r} is not valid: ")
    assert allowed in message
    assert message.isprintable()


@given(st.text("ab=, \n", max_size=12).filter(str.strip))
def test_any_text_is_aliases_of_models_or_refused(text: str) -> None:
    try:
        pairs = aliases(text)
    except SettingsError:
        return
    assert pairs
    assert all(alias and model for alias, model in pairs.items())
    assert not pairs.keys() & set(pairs.values())


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("GATEWAY_HOLD_SECONDS", "-1", "from 0 to 600"),
        ("GATEWAY_HOLD_SECONDS", "601", "from 0 to 600"),
        ("GATEWAY_HOLD_SECONDS", "nan", "from 0 to 600"),
        ("GATEWAY_HOLD_REQUESTS", "0", "from 1 to 4096"),
        ("GATEWAY_HOLD_REQUESTS", "4097", "from 1 to 4096"),
        ("GATEWAY_HOLD_REQUESTS", "1.5", "whole number"),
    ],
)
def test_a_hold_out_of_bounds_is_refused(name: str, text: str, allowed: str) -> None:
    with pytest.raises(SettingsError, match=allowed) as caught:
        Settings.from_environ({name: text})
    assert str(caught.value).startswith(f"{name}={text!r}")


def test_half_of_the_threads_are_left_to_requests_that_are_not_held() -> None:
    few = {"GATEWAY_THREADS": "8"}
    assert Settings.from_environ(few).hold_requests == 64  # of no meaning without a time
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(few | {"GATEWAY_HOLD_SECONDS": "5"})
    assert str(caught.value) == (
        "GATEWAY_HOLD_REQUESTS='64' is not valid: expected at most 4, half of GATEWAY_THREADS"
    )
    held = few | {"GATEWAY_HOLD_SECONDS": "5", "GATEWAY_HOLD_REQUESTS": "4"}
    assert Settings.from_environ(held).hold_seconds == 5
    with pytest.raises(SettingsError, match="GATEWAY_HOLD_REQUESTS='5'"):
        Settings.from_environ(held | {"GATEWAY_HOLD_REQUESTS": "5"})
