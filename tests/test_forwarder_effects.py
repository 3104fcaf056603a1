"""What the attempts of a request leave behind: budget, blame and counts."""

from contextlib import suppress

import pytest
from prometheus_client import REGISTRY, Counter

from metrics import RETRIES, UPSTREAM_FAILURES
from proxy.errors import GatewayError
from routing.aside import FAILURES
from routing.budget import RetryBudget
from tests.fakes import endpoint, endpoints
from tests.test_forwarder import BROKEN, DIED, INVALID, REFUSED, STALE, TIMEOUT, Outcome, Setting


def denied() -> float:
    return REGISTRY.get_sample_value("gateway_retries_denied_total") or 0.0


def use_up(budget: RetryBudget) -> None:
    while budget.allows_retry():
        pass


@pytest.mark.parametrize(
    ("outcomes", "code"), [((REFUSED,), "upstream_unreachable"), ((DIED,), "upstream_reset")]
)
def test_without_a_budget_nothing_is_retried_on_endpoints_that_failed_too(
    outcomes: tuple[Outcome, ...], code: str
) -> None:
    setting = Setting(*outcomes)
    use_up(setting.budget)
    for other in endpoints(4):
        setting.aside.failed(other, endpoints(4))
    before = denied()
    assert setting.error() == code
    assert denied() == before + 1


@pytest.mark.parametrize("outcome", [REFUSED, DIED])
def test_without_a_budget_a_sound_endpoint_is_tried_all_the_same(outcome: Outcome) -> None:
    setting = Setting(outcome)
    use_up(setting.budget)
    assert setting.status() == 200


@pytest.mark.parametrize("outcome", [REFUSED, DIED])
def test_without_a_budget_the_sound_one_is_found_among_those_that_failed(outcome: Outcome) -> None:
    setting = Setting(outcome)
    use_up(setting.budget)
    for other in endpoints(3):
        setting.aside.failed(other, endpoints(4))
    assert setting.status() == 200


def test_a_fresh_connection_in_place_of_a_closed_one_needs_no_budget() -> None:
    setting = Setting(STALE, pods=1)
    use_up(setting.budget)
    setting.aside.failed(endpoint(1), endpoints(1))
    assert setting.status() == 200


def test_a_pod_that_dies_with_an_idle_connection_costs_none_of_the_retries() -> None:
    setting = Setting(STALE, REFUSED, retries=0)
    assert setting.status() == 200
    assert setting.budget.allows_retry()


def test_without_a_budget_a_503_passes() -> None:
    setting = Setting(503)
    use_up(setting.budget)
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
