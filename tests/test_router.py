"""The router: only routable endpoints are ever chosen, by whatever name and strategy."""

import random

import pytest

from cache.endpoints import Endpoint
from cache.store import EndpointsStale, EndpointsUnknown, SnapshotStore
from load.values import LoadStore
from routing.aside import FAILURES, SetAside
from routing.inflight import InFlight
from routing.lasterrors import culprit
from routing.router import ModelUnknown, NoReadyEndpoints, Router
from routing.strategies import STRATEGIES, UnknownStrategy
from routing.view import Query
from tests.fakes import Clock, endpoint, endpoints, snapshot, store_of


class Setting:
    """A router over a store whose content a test changes."""

    def __init__(
        self,
        *,
        service: str = "",
        terminating_fallback: bool = False,
        **pools: tuple[Endpoint, ...],
    ) -> None:
        self.clock = Clock()
        self.store = store_of(self.clock, **pools)
        self.in_flight = InFlight()
        self.router = Router(
            self.store,
            self.in_flight,
            SetAside(self.clock),
            LoadStore(self.clock),
            default_strategy="least-request",
            rng=random.Random(1),
            service=service,
            terminating_fallback=terminating_fallback,
        )

    def put(self, **pools: tuple[Endpoint, ...]) -> None:
        self.store.put(snapshot(self.clock.now, **pools))


ALL = [None, *STRATEGIES]
NOT_READY, TERMINATING = endpoint(8, routable=False), endpoint(9, terminating=True)
SERVING_NOT_READY = Endpoint("10.0.0.7", 8000, ready=True, serving=False, routable=False)


@pytest.mark.parametrize("strategy", ALL)
def test_only_routable_endpoints_are_chosen(strategy: str | None) -> None:
    mixed = (endpoint(1), endpoint(2), SERVING_NOT_READY, NOT_READY, TERMINATING)
    setting = Setting(llama=mixed)
    for _ in range(50):
        lease = setting.router.candidates(Query("llama"), strategy).take()
        assert lease is not None
        assert lease.endpoint in mixed[:2]


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ((), "model 'llama': 0 endpoints"),
        ((NOT_READY,), "model 'llama': 1 endpoint, 1 not ready"),
        ((TERMINATING,), "model 'llama': 1 endpoint, 1 terminating"),
        ((SERVING_NOT_READY, NOT_READY, TERMINATING), "3 endpoints, 2 not ready, 1 terminating"),
    ],
)
def test_a_model_without_a_routable_endpoint_says_what_its_endpoints_are(
    strategy: str | None, pool: tuple[Endpoint, ...], message: str
) -> None:
    with pytest.raises(NoReadyEndpoints, match=message):
        Setting(llama=pool).router.candidates(Query("llama"), strategy)


@pytest.mark.parametrize("strategy", ALL)
def test_an_unknown_model_is_told_apart_from_one_that_is_not_ready(strategy: str | None) -> None:
    with pytest.raises(ModelUnknown, match="the model 'qwen' does not exist"):
        Setting(llama=endpoints(1)).router.candidates(Query("qwen"), strategy)


def test_the_name_of_an_unknown_model_is_shown_shortened() -> None:
    with pytest.raises(ModelUnknown) as caught:
        Setting().router.known("q" * 10_000_000)
    assert len(str(caught.value)) < 200


def test_an_unknown_strategy_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(UnknownStrategy) as caught:
        Setting(llama=endpoints(1)).router.candidates(Query("llama"), "fastest")
    message = str(caught.value)
    assert "'fastest'" in message
    assert "least-request, power-of-two, prefix-cache, random, round-robin" in message


@pytest.mark.parametrize("strategy", ALL)
def test_before_the_first_list_nothing_is_said_about_any_model(strategy: str | None) -> None:
    clock = Clock()
    router = Router(
        SnapshotStore(600, clock),
        InFlight(),
        SetAside(clock),
        LoadStore(clock),
        default_strategy="random",
        rng=random.Random(1),
    )
    with pytest.raises(EndpointsUnknown):
        router.candidates(Query("llama"), strategy)
    with pytest.raises(EndpointsUnknown):
        router.known("llama")


@pytest.mark.parametrize("strategy", ALL)
def test_a_list_older_than_its_time_is_not_trusted(strategy: str | None) -> None:
    setting = Setting(llama=endpoints(1))
    setting.clock.now += 601
    with pytest.raises(EndpointsStale):
        setting.router.candidates(Query("llama"), strategy)


def test_in_single_service_mode_every_request_goes_to_the_service() -> None:
    setting = Setting(service="engine", engine=endpoints(1))
    assert not setting.router.needs_model
    assert [setting.router.known(name).model for name in ("llama", None, "")] == ["engine"] * 3


def test_without_it_the_model_s_name_decides() -> None:
    setting = Setting(llama=endpoints(1), qwen=(endpoint(5),))
    assert setting.router.needs_model
    lease = setting.router.candidates(Query("qwen"), None).take()
    assert lease is not None
    assert lease.endpoint == endpoint(5)


@pytest.mark.parametrize("strategy", ALL)
def test_no_endpoint_is_tried_twice(strategy: str | None) -> None:
    candidates = Setting(llama=endpoints(4)).router.candidates(Query("llama"), strategy)
    leases = [candidates.take() for _ in range(5)]
    assert leases[4] is None
    assert {lease.endpoint for lease in leases if lease} == set(endpoints(4))


def test_an_endpoint_that_began_to_terminate_meanwhile_is_not_tried() -> None:
    setting = Setting(llama=endpoints(2))
    candidates = setting.router.candidates(Query("llama"), None)
    first = candidates.take()
    assert first is not None
    other = next(e for e in endpoints(2) if e != first.endpoint)
    setting.put(llama=(first.endpoint, endpoint(int(other.address[-1]), terminating=True)))
    assert candidates.take() is None


def test_an_endpoint_that_became_ready_meanwhile_is_tried() -> None:
    setting = Setting(llama=endpoints(1))
    candidates = setting.router.candidates(Query("llama"), None)
    assert candidates.take() is not None
    setting.put(llama=endpoints(2))
    second = candidates.take()
    assert second is not None
    assert second.endpoint == endpoint(2)


@pytest.mark.parametrize("pools", [{}, {"llama": ()}, {"llama": (TERMINATING,)}])
def test_the_first_try_raises_when_by_then_there_is_no_endpoint(
    pools: dict[str, tuple[Endpoint, ...]],
) -> None:
    setting = Setting(llama=endpoints(1))
    candidates = setting.router.candidates(Query("llama"), None)
    setting.put(**pools)
    with pytest.raises(NoReadyEndpoints if pools else ModelUnknown):
        candidates.take()
    assert setting.in_flight.counts() == {}


def test_a_further_try_ends_quietly_when_by_then_the_list_is_stale() -> None:
    setting = Setting(llama=endpoints(2))
    candidates = setting.router.candidates(Query("llama"), None)
    first = candidates.take()
    assert first is not None
    setting.clock.now += 601
    assert candidates.take() is None
    candidates.failed(first.endpoint)  # which must not raise either


def test_an_endpoint_that_was_set_aside_is_not_chosen_while_another_is_left() -> None:
    setting = Setting(llama=endpoints(2))
    for _ in range(FAILURES):
        setting.router.candidates(Query("llama"), None).failed(endpoint(1))
    for _ in range(10):
        candidates = setting.router.candidates(Query("llama"), None)
        first, second = candidates.take(), candidates.take()
        assert first is not None
        assert first.endpoint == endpoint(2)
        assert second is not None, "it is tried when nothing else is left"
        assert second.endpoint == endpoint(1)


@pytest.mark.parametrize("strategy", ALL)
def test_a_further_try_goes_to_one_that_has_not_failed_itself_while_there_is_one(
    strategy: str | None,
) -> None:
    setting = Setting(llama=endpoints(6))
    doubtful = {endpoint(1), endpoint(2), endpoint(3)}
    for one in doubtful:
        setting.router.candidates(Query("llama"), None).failed(one)
    firsts = set()
    for _ in range(100):
        candidates = setting.router.candidates(Query("llama"), strategy)
        leases = [lease for _ in range(6) if (lease := candidates.take())]
        first, *further = [lease.endpoint for lease in leases]
        firsts.add(first)
        left = 3 - (first not in doubtful)
        assert doubtful.isdisjoint(further[:left])
        assert doubtful.issuperset(further[left:])
        for lease in leases:
            lease.release()
    assert firsts & doubtful, "that they failed once does not keep a first try from them"


def test_success_brings_an_endpoint_back() -> None:
    setting = Setting(llama=endpoints(2))
    candidates = setting.router.candidates(Query("llama"), None)
    for _ in range(FAILURES):
        candidates.failed(endpoint(1))
    assert setting.router.aside.set_aside() == [endpoint(1).key]
    candidates.succeeded(endpoint(1))
    assert setting.router.aside.set_aside() == []


def test_a_pod_that_is_gone_leaves_neither_its_prompts_nor_its_errors_to_the_next() -> None:
    setting = Setting(llama=endpoints(8))
    body = b'{"messages": "%s"}' % (b"a long document " * 500)

    def taken() -> Endpoint:
        lease = setting.router.candidates(Query("llama", "", body), "prefix-cache").take()
        assert lease is not None
        return lease.endpoint

    home = taken()
    setting.router.errors.note(culprit(home), "died")
    # Busy enough that a new prompt would go elsewhere, but not one that it holds.
    assert taken() == home
    setting.router.forget([home])
    assert taken() != home
    assert setting.router.errors.all() == {}


def test_with_the_fallback_terminating_endpoints_that_serve_are_used_only_when_none_is_ready() -> (
    None
):
    gone = Endpoint("10.0.0.6", 8000, serving=False, terminating=True, routable=False)
    setting = Setting(terminating_fallback=True, llama=(endpoint(1), TERMINATING, gone))
    assert setting.router.eligible(setting.router.pool("llama")) == (endpoint(1),)
    setting.put(llama=(TERMINATING, NOT_READY, gone))
    assert setting.router.eligible(setting.router.pool("llama")) == (TERMINATING,)
    setting.put(llama=(NOT_READY, gone))
    with pytest.raises(NoReadyEndpoints):
        setting.router.eligible(setting.router.pool("llama"))
