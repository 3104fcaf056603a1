"""Which header fields pass, in both directions."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.headers import HOP_BY_HOP, for_client, for_upstream, request_id

Fields = list[tuple[str, str]]


def sent(fields: Fields, own: dict[str, str] | None = None, drop: tuple[str, ...] = ()) -> Fields:
    lines = for_upstream(fields, own or {}, drop=drop).decode("latin-1")
    assert not lines or lines.endswith("\r\n")
    parted = [line.partition(": ") for line in lines.split("\r\n")[:-1]]
    return [(name, value) for name, _, value in parted]


KEPT: Fields = [
    ("Accept", "text/event-stream"),
    ("Content-Type", "application/json"),
    ("Authorization", "Bearer secret"),
    ("X-Custom", "1"),
    ("X-Custom", "2"),
    ("Cookie", "a=b"),
    ("X-Latin", "\xfc"),
]


def test_the_client_s_fields_pass_in_their_order_repeated_ones_included() -> None:
    assert sent(KEPT) == KEPT


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_fields_about_one_connection_pass_in_neither_direction(name: str) -> None:
    fields = [*KEPT, (name.title(), "x"), (name.upper(), "y")]
    assert sent(fields) == KEPT
    assert for_client(fields) == KEPT


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Client-Cert",
        "x-forwarded-user",
        "X-Forwarded",
        "X-Real-IP",
        "Host",
        "Content-Length",
        "Expect",
        "X-Request-ID",
    ],
)
def test_what_the_client_says_of_these_never_passes(name: str) -> None:
    assert sent([*KEPT, (name, "forged")]) == KEPT
    own = {name: "own"}
    assert sent([*KEPT, (name.lower(), "forged")], own) == [(name, "own"), *KEPT]


def test_fields_named_in_connection_are_about_one_connection() -> None:
    fields = [
        *KEPT,
        ("X-Hop", "1"),
        ("Connection", "close, x-HOP ,"),
        ("connection", "X-Other"),
        ("X-OTHER", "2"),
    ]
    assert sent(fields) == KEPT
    assert for_client(fields) == KEPT


def test_further_fields_are_dropped_on_request() -> None:
    rest = [field for field in KEPT if field[0] != "Authorization"]
    assert sent(KEPT, drop=("authorization",)) == rest


@pytest.mark.parametrize(
    "name", ["X-Gateway-Error", "x-request-id", "Target-Pod", "routing-strategy"]
)
def test_an_endpoint_can_t_speak_for_the_gateway(name: str) -> None:
    assert for_client([*KEPT, (name, "forged")]) == KEPT


def test_an_endpoint_s_other_fields_pass() -> None:
    fields = [
        ("Content-Length", "5"),
        ("Retry-After", "7"),
        ("Location", "/elsewhere"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Content-Encoding", "gzip"),
        ("Date", "now"),
        ("Server", "engine"),
    ]
    assert for_client(fields) == fields


def test_an_endpoint_can_t_have_its_framing_dropped() -> None:
    fields = [("Content-Length", "5"), ("X-Hop", "1"), ("Connection", "content-length, x-hop")]
    assert for_client(fields) == [("Content-Length", "5")]


def test_an_answer_without_a_body_tells_no_length() -> None:
    fields = [("content-length", "5"), ("Server", "engine")]
    assert for_client(fields, bodyless=True) == [("Server", "engine")]


@pytest.mark.parametrize("given", ["abc", "A-1_b.2:c/d+e=f@g", "x" * 128])
def test_a_harmless_request_id_is_kept(given: str) -> None:
    assert request_id(given) == given


@pytest.mark.parametrize(
    "given", [None, "", "x" * 129, "a b", "a\nb", "a\r", 'a"b', "a,b", "é", "abc\n", "<script>"]
)
def test_any_other_is_replaced(given: str | None) -> None:
    made = request_id(given)
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert request_id(given) != made


LATIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"))


@given(st.lists(st.tuples(st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", fullmatch=True), LATIN)))
def test_no_field_of_a_client_becomes_another(fields: Fields) -> None:
    passed = sent(fields, {"Host": "pod:1"})
    assert passed[0] == ("Host", "pod:1")
    assert set(passed[1:]) <= set(fields)
    names = {name.lower() for name, _ in passed[1:]}
    assert not names & HOP_BY_HOP
    assert not any(name.startswith("x-forwarded-") for name in names)
