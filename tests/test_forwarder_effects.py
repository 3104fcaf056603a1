"""What the attempts of a request leave behind: budget, blame and counts."""

from contextlib import suppress

import pytest
from prometheus_client import Counter

from metrics import RETRIES, UPSTREAM_FAILURES
from proxy.errors import GatewayError
from routing.aside import FAILURES
from tests.fakes import endpoint, endpoints
from tests.test_forwarder import BROKEN, DIED, INVALID, REFUSED, STALE, TIMEOUT, Outcome, Setting


@pytest.mark.parametrize(
    ("outcomes", "code"), [((REFUSED,), "upstream_unreachable"), ((DIED,), "upstream_reset")]
)
def test_without_a_budget_nothing_is_retried(outcomes: tuple[Outcome, ...], code: str) -> None:
    setting = Setting(*outcomes)
    while setting.budget.allows_retry():
        pass
    assert setting.error() == code


def test_without_a_budget_a_503_passes() -> None:
    setting = Setting(503)
    while setting.budget.allows_retry():
        pass
    assert setting.status() == 503


def test_a_retry_that_has_nowhere_to_go_costs_no_budget() -> None:
    setting = Setting(REFUSED, pods=1)
    setting.error()
    left = 0
    while setting.budget.allows_retry():
        left += 1
    assert left == 100


@pytest.mark.parametrize(
    ("failure", "blamed"),
    [
        (REFUSED, True),
        (DIED, True),
        (BROKEN, True),
        (STALE, False),
        (TIMEOUT, False),
        (INVALID, False),
        (503, False),
        (500, False),
    ],
)
def test_only_failures_of_transport_are_held_against_an_endpoint(
    failure: Outcome, blamed: bool
) -> None:
    setting = Setting(failure)
    for _ in range(FAILURES - 1):
        setting.aside.failed(endpoint(1), endpoints(4))
    with suppress(GatewayError):
        setting.forward().close()
    assert (setting.aside.set_aside() == [endpoint(1).key]) is blamed


def test_an_answer_clears_an_endpoint_s_name() -> None:
    setting = Setting(500)
    for _ in range(FAILURES - 1):
        setting.aside.failed(endpoint(1), endpoints(4))
    setting.status()
    setting.aside.failed(endpoint(1), endpoints(4))
    assert setting.aside.set_aside() == []


def counted(metric: Counter, label: str) -> float:
    return next(iter(metric.labels(label).collect())).samples[0].value


@pytest.mark.parametrize(
    ("outcomes", "reason", "kind"),
    [
        ((REFUSED, 200), "connect", "refused"),
        ((DIED, 200), "replay", "reset"),
        ((STALE, 200), "stale_connection", "stale"),
        ((503, 200), "unavailable", None),
        ((503, 503), "unavailable", None),
        ((BROKEN,), None, "reset"),
        ((TIMEOUT,), None, "timeout"),
        ((INVALID,), None, "protocol_error"),
        ((200,), None, None),
    ],
)
def test_each_retry_and_each_failure_is_counted_once(
    outcomes: tuple[Outcome, ...], reason: str | None, kind: str | None
) -> None:
    reasons = ["connect", "replay", "stale_connection", "unavailable"]
    kinds = ["refused", "reset", "stale", "timeout", "protocol_error"]

    def counts() -> list[float]:
        return [
            *(counted(RETRIES, label) for label in reasons),
            *(counted(UPSTREAM_FAILURES, label) for label in kinds),
        ]

    before = counts()
    with suppress(GatewayError):
        Setting(*outcomes).forward().close()
    rises = [now - then for now, then in zip(counts(), before, strict=True)]
    assert rises == [float(label in (reason, kind)) for label in reasons + kinds]


def test_failures_are_told_with_the_model_and_the_number_of_attempts() -> None:
    with pytest.raises(GatewayError) as caught:
        Setting(REFUSED, REFUSED, REFUSED).forward()
    assert "model 'llama'" in caught.value.message
    assert "after 3 attempt(s)" in caught.value.message
