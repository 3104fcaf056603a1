"""What an error of the gateway looks like, and how it is counted."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.harness import GatewayProcess, wait_for
from tests.wire import RawAnswer

OVERLOADED, INVALID, API = "overloaded_error", "invalid_request_error", "api_error"


@dataclass(frozen=True)
class Expected:
    status: int
    code: str
    type: str
    param: str | None = None
    says: str = ""


def check_error(answer: RawAnswer, expected: Expected, *, retry_after: int | None = None) -> None:
    """The whole form of an error; `retry_after` is None where a retry is of no use."""
    error = json.loads(answer.content)["error"]
    assert answer.status == expected.status, answer.raw
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == (expected.code, expected.type)
    assert error["param"] == expected.param
    assert expected.says in error["message"]
    assert answer.value("content-type") == "application/json"
    assert answer.value("x-gateway-error") == expected.code
    assert answer.value("x-request-id")
    assert answer.value("x-should-retry") == ("false" if retry_after is None else "true")
    assert answer.value("retry-after") == (None if retry_after is None else str(retry_after))
    in_ms = None if retry_after is None else str(1000 * retry_after)
    assert answer.value("retry-after-ms") == in_ms
    assert answer.complete
    assert not answer.reset


@contextmanager
def counted_once(gateway: GatewayProcess, code: str) -> Iterator[None]:
    """Check that in this block one error of `code` is counted, and none of another."""
    before = gateway.counted("gateway_errors_total", "code")
    yield

    def counted() -> Counter[str]:
        after = gateway.counted("gateway_errors_total", "code")
        return Counter({key: int(after[key] - before.get(key, 0)) for key in after})

    # The client may see the end of a stream a moment before the worker hears of it.
    wait_for(lambda: counted()[code], f"{code} is counted")
    assert +counted() == {code: 1}
