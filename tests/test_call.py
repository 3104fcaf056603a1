"""A call says the same of a request whichever way it was made."""

from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pytest

from proxy.answering import _call_of, create
from proxy.arrival import Arrival
from proxy.call import Call, call_of, joined
from proxy.caller import Caller
from proxy.errors import GatewayError
from proxy.sending import Collected
from tests.test_arrival import ADDRESS, CONFIG
from tests.wire import CHAT, chat_body, in_chunks, post

IPV6 = ("2001:db8::1", 50_000, 0, 0)


@dataclass
class Connected:
    """What a call takes of its client."""

    address: tuple[Any, ...]
    surplus: bool = False
    caller: Caller = field(default_factory=Caller)


def call_at(uri: str, path: str = CHAT) -> Call:
    return Call("POST", path, uri, {}, "http", "", BytesIO(), input_ends=True)


def both_ways(raw: bytes, address: tuple[Any, ...] = ADDRESS) -> tuple[Call, Call]:
    """The call of a request past WSGI, and through it."""
    incoming = Arrival(CONFIG, address, 1000, lambda *_: True).feed(raw)
    assert incoming is not None
    client: Any = Connected(address)
    _, environ = create(incoming.request, Collected(), address, ADDRESS, CONFIG)
    environ["gateway.caller"] = client.caller
    return _call_of(incoming.request, client), call_of(environ)


@pytest.mark.parametrize(
    ("fields", "together"),
    [
        ([], {}),
        ([("CONTENT-TYPE", "a"), ("x-CUSTOM", "b")], {"Content-Type": "a", "X-Custom": "b"}),
        ([("X-A", "1"), ("x-a", "2"), ("X-a", "")], {"X-A": "1,2,"}),
        ([("COOKIE", "a=1,2"), ("cookie", "b=3")], {"Cookie": "a=1,2; b=3"}),
        ([("Accept", "B, A"), ("Host", "H")], {"Accept": "B, A", "Host": "H"}),
    ],
)
def test_fields_are_joined_by_name(fields: list[tuple[str, str]], together: dict[str, str]) -> None:
    assert joined(fields) == together


def test_joined_fields_are_in_the_order_in_which_their_names_came() -> None:
    assert list(joined([("b", "1"), ("a", "2"), ("B", "3")])) == ["B", "A"]


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        (CHAT, CHAT),
        (f"{CHAT}?", f"{CHAT}?"),
        (f"{CHAT}?a=%2F%zz&b=+?&&c=/..//", f"{CHAT}?a=%2F%zz&b=+?&&c=/..//"),
        (f"http://gateway.test{CHAT}", CHAT),
        (f"HTTP://u@gateway.test:80{CHAT}?a=%2f?b", f"{CHAT}?a=%2f?b"),
    ],
)
def test_the_target_is_path_and_query_as_they_came(uri: str, target: str) -> None:
    assert call_at(uri).target == target


@pytest.mark.parametrize(
    "uri",
    [
        "/v1/chat%2Fcompletions",
        "/v1/chat%2fcompletions?a=b",
        "/v1/ch%61t/completions",
        "/v1/Chat/completions",
        "/" + CHAT,
        f"{CHAT}#fragment",
        "http://gateway.test/v1/chat%2Fcompletions",
    ],
)
def test_a_path_that_is_spelled_differently_is_unknown(uri: str) -> None:
    with pytest.raises(GatewayError) as raised:
        _ = call_at(uri).target
    assert raised.value.code == "unknown_path"


REQUESTS = {
    "plain": post(),
    "with all kinds of fields": post(
        None, "Content-Type: application/json", "Authorization: Bearer k", "X-Empty:", "X.Y: z"
    ),
    "without a content type": post(b"{}", "Accept: */*"),
    "with fields that came twice": post(None, "X-A: 1", "Accept: a, b", "x-a: 2", "accept: c"),
    "with two cookies": post(None, "Cookie: a=1,2", "X-A: 1", "cookie: b=3"),
    "with names in mixed case": post(None, "cOnTeNt-tYpE: a/B", "x-REQUEST-id: Ab", "eTAG: C"),
    "with underscores in names": post(None, "X_A: 1", "X-A: 2", "Content_Type: x", "X-B_C: 3"),
    "with values beyond ASCII": post(None, "X-Latin: \xfc\xff"),
    "with what a proxy would say": post(
        None, "X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: other"
    ),
    "in chunks": post(in_chunks(chat_body()), "Transfer-Encoding: chunked"),
    "after a continue": post(None, "Expect: 100-continue"),
    "with a query": post(target=f"{CHAT}?a=%2F&b=c?d&&e"),
    "with an empty query": post(target=f"{CHAT}?"),
    "for a proxy": post(target=f"http://other.test{CHAT}?a=b"),
    "without a host": b"POST /v1/x HTTP/1.0\r\n\r\n",
}


@pytest.mark.parametrize("address", [ADDRESS, IPV6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("kind", REQUESTS)
def test_both_ways_to_a_call_say_the_same(kind: str, address: tuple[Any, ...]) -> None:
    past, through = both_ways(REQUESTS[kind], address)
    assert past == through
    assert past.remote == address[0]
    assert list(past.fields) == list(through.fields), "they are forwarded in this order"


def test_a_name_with_an_underscore_is_taken_for_no_other() -> None:
    for call in both_ways(REQUESTS["with underscores in names"]):
        assert call.fields["X-A"] == "2"
        assert not {"Content-Type", "X-B-C", "X-B_C"} & set(call.fields)


@pytest.mark.parametrize("kind", ["plain", "in chunks"])
@pytest.mark.parametrize("way", [0, 1], ids=["past WSGI", "through WSGI"])
def test_the_input_is_the_body_and_ends_by_itself(kind: str, way: int) -> None:
    call = both_ways(REQUESTS[kind])[way]
    assert call.input_ends
    assert call.input.read() == chat_body()
