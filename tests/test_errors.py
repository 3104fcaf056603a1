"""The table of errors is the one clients are promised."""

import json

import pytest

from proxy.errors import KINDS, GatewayError

OVERLOADED, INVALID, API = "overloaded_error", "invalid_request_error", "api_error"

#: As promised: code, status, type, param, retry. Those in brackets it names elsewhere.
PROMISED = [
    ("no_ready_endpoints", 503, OVERLOADED, None, True),
    ("endpoints_unknown", 503, OVERLOADED, None, True),
    ("endpoints_stale", 503, OVERLOADED, None, True),
    ("upstream_unreachable", 503, OVERLOADED, None, True),
    ("upstream_key_unknown", 503, OVERLOADED, None, True),
    ("gateway_overloaded", 503, OVERLOADED, None, True),
    ("gateway_draining", 503, OVERLOADED, None, True),
    ("model_not_found", 404, INVALID, "model", False),
    ("missing_model", 400, INVALID, "model", False),
    ("invalid_body", 400, INVALID, None, False),
    ("unknown_strategy", 400, INVALID, "routing-strategy", False),
    ("body_too_large", 413, INVALID, None, False),
    ("invalid_api_key", 401, "authentication_error", None, False),
    ("upstream_reset", 502, API, None, False),
    ("upstream_protocol_error", 502, API, None, False),
    ("upstream_timeout", 504, API, None, False),
    ("internal_error", 500, API, None, False),
    ("unknown_path", 404, INVALID, None, False),
]


@pytest.mark.parametrize(("code", "status", "kind", "param", "retry"), PROMISED)
def test_each_code_is_answered_as_promised(
    code: str, status: int, kind: str, param: str | None, retry: bool
) -> None:
    error = GatewayError(code, "what happened")
    assert error.kind.status == status
    assert json.loads(error.body()) == {
        "error": {"message": "what happened", "type": kind, "param": param, "code": code}
    }
    expected = [
        ("Content-Type", "application/json"),
        ("x-request-id", "id-1"),
        ("x-gateway-error", code),
        ("x-should-retry", "true" if retry else "false"),
    ]
    expected += [("Retry-After", "7"), ("retry-after-ms", "7000")] if retry else []
    assert error.response_headers("id-1", 7) == expected


def test_the_table_has_no_code_that_nobody_knows() -> None:
    further = {"upstream_died", "upstream_idle", "relay_died"}
    further |= {"method_not_allowed", "bad_request", "request_timeout"}
    assert set(KINDS) == {code for code, *_ in PROMISED} | further


def test_only_a_bug_is_a_500() -> None:
    assert [code for code, kind in KINDS.items() if kind.status == 500] == ["internal_error"]


def test_a_code_that_is_not_in_the_table_is_a_mistake_at_once() -> None:
    with pytest.raises(KeyError):
        GatewayError("no_such_code", "")


def test_an_error_s_own_headers_come_with_the_others() -> None:
    error = GatewayError("invalid_api_key", "", (("WWW-Authenticate", "Bearer"),))
    assert error.response_headers("id", 1)[-1] == ("WWW-Authenticate", "Bearer")


@pytest.mark.parametrize("code", ["upstream_died", "upstream_idle", "gateway_draining"])
def test_an_event_ends_whatever_came_before_and_is_one_event(code: str) -> None:
    event = GatewayError(code, "two\nlines").event()
    lines = (b'data: {"half of an' + event).split(b"\n\n")
    assert lines[0] == b'data: {"half of an'
    assert lines[2:] == [b""]
    assert lines[1].startswith(b"data: ")
    assert json.loads(lines[1][6:])["error"]["code"] == code


@pytest.mark.parametrize("message", ["ünïcödé \u2028", "lone \ud800 surrogate", '"\\\r\n\x00'])
def test_any_message_makes_a_body_that_can_be_read(message: str) -> None:
    body = GatewayError("invalid_body", message).body()
    assert json.loads(body.decode("utf-8"))["error"]["message"][:3] == message[:3]
    assert b"\n" not in body
