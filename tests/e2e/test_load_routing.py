"""Requests go where the engines' own reports, the prompt or the session say."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from simulator.behaviour import Dialect
from simulator.model import Model
from simulator.pod import Engine
from tests.e2e.place import Place, environment_of, place, process_of
from tests.harness import gateway_process, wait_for

QUICK = {"token_seconds": 0.001, "tokens": 2}
LONG = "a long document " * 400


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("load"), scrape_seconds="0.05") as started:
        yield started


def deploy(here: Place, name: str, pods: int = 3, dialect: Dialect = "vllm") -> Model:
    return here.deploy(name, pods, engine=Engine(metrics=dialect, **QUICK))  # type: ignore[arg-type]


def chosen(here: Place, model: Model, strategy: str, times: int = 12, **options: str) -> set[str]:
    """The pods that so many requests went to, one after the other."""
    fields = {"routing-strategy": strategy, **options}
    answers = [here.gateway.chat(model.name, headers=fields) for _ in range(times)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["routing-strategy"] for answer in answers} == {strategy}
    return {answer.headers["target-pod"] for answer in answers}


def reported(here: Place, model: Model) -> tuple[float, float, float]:
    """What the metrics say runs and waits in a model's engines, and how full their caches are."""
    running, waiting, usage = (
        here.gateway.metric(f"gateway_engine_{name}", model=model.name)
        for name in ("running", "waiting", "kv_cache_usage")
    )
    return running, waiting, round(usage, 3)


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
def test_engines_say_who_gets_the_next_request(here: Place, dialect: Dialect) -> None:
    model = deploy(here, f"reports-{dialect}", dialect=dialect)
    first, second, third = model.pods
    process_of(first).report_load(running=9, cache_usage=0.1)
    process_of(second).report_load(running=1, waiting=2, cache_usage=0.9)
    process_of(third).report_load(running=9, waiting=9, cache_usage=0.5)
    wait_for(lambda: reported(here, model) == (19, 11, 0.5), "the reports are in")
    assert chosen(here, model, "least-busy") == {second.name}
    assert chosen(here, model, "least-kv-cache") == {first.name}


def test_a_change_of_load_is_followed(here: Place) -> None:
    model = deploy(here, "changes", pods=2)
    for busy, idle in (model.pods, model.pods[::-1]):
        process_of(busy).report_load(running=50)
        process_of(idle).report_load(running=0)
        wait_for(
            lambda idle=idle: chosen(here, model, "least-busy", 3) == {idle.name},  # type: ignore[misc]
            f"requests go to {idle.name}",
        )


def test_metrics_are_read_at_the_port_the_label_names(here: Place) -> None:
    engine = Engine(**QUICK)  # type: ignore[arg-type]
    model = here.cluster.model("elsewhere", pods=2, engine=engine, metrics_port=9400)
    here.wait_for_states("elsewhere", {pod.name: "ready" for pod in model.pods})
    process_of(model.pods[0]).report_load(running=7)
    wait_for(
        lambda: reported(here, model)[0] == 7,
        "the report is in",
    )
    assert chosen(here, model, "least-busy") == {model.pods[1].name}


def test_engines_that_report_nothing_are_chosen_by_requests_in_flight(here: Place) -> None:
    model = deploy(here, "mute", dialect="none")
    before = here.gateway.counted("gateway_strategy_fallbacks_total", by="strategy")
    endless = {"routing-strategy": "least-busy", "x-sim-behaviour": "stall-after-tokens=1"}
    with ExitStack() as streams:
        held = [here.gateway.chat(model.name, stream=True, headers=endless) for _ in range(2)]
        for one in held:
            streams.callback(one.close)
        idle = {pod.name for pod in model.pods} - {one.headers["target-pod"] for one in held}
        assert len(idle) == 1
        assert chosen(here, model, "least-busy") == idle
    after = here.gateway.counted("gateway_strategy_fallbacks_total", by="strategy")
    assert after["least-busy"] - before.get("least-busy", 0) == 2 + 12
    assert here.gateway.counted("gateway_scrapes_total", by="result")["status"] > 0


def test_an_engine_that_answers_late_is_spared(here: Place) -> None:
    model = deploy(here, "late", pods=2)
    slow, quick = model.pods
    process_of(slow).behave("slow-head=0.4", times=1000)
    chosen(here, model, "round-robin", 4)
    counts: Counter[str] = Counter()
    for _ in range(20):
        counts.update(chosen(here, model, "least-latency", 1))
    assert counts[quick.name] >= 18


def test_a_session_stays_and_moves_only_when_its_pod_leaves(here: Place) -> None:
    model = deploy(here, "sessions")
    names = [f"session-{n}" for n in range(12)]

    def homes() -> dict[str, str]:
        found = {}
        for name in names:
            (found[name],) = chosen(here, model, "session-affinity", 2, **{"x-session-id": name})
        return found

    before = homes()
    leaving = model.pods[0]
    leaving.terminate()
    wait_for(
        lambda: here.gateway.endpoints("sessions").get(leaving.name) != "ready", "it is leaving"
    )
    after = homes()
    assert leaving.name not in after.values()
    assert all(after[name] == pod for name, pod in before.items() if pod != leaving.name)


def test_a_conversation_stays_where_its_prefix_is(here: Place) -> None:
    model = deploy(here, "conversation", pods=4)
    for number in range(6):
        turns = [{"role": "user", "content": f"{number} {LONG}"}]
        pods = set()
        for _ in range(4):
            answer = here.gateway.chat(
                model.name,
                headers={"routing-strategy": "prefix-cache:3,least-busy:1"},
                body={"messages": turns},
            )
            pods.add(answer.headers["target-pod"])
            turns = [*turns, {"role": "user", "content": "and then?"}]
        assert len(pods) == 1


def test_a_strategy_that_is_none_is_refused_with_what_there_is(here: Place) -> None:
    model = deploy(here, "refusals", pods=1)
    for name in ("least-busy:0", "least-busy;random", "vtc-basic"):
        answer = here.gateway.chat(model.name, headers={"routing-strategy": name})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "unknown_strategy")
        assert "prefix-cache:2,least-busy:1" in error["message"]


def test_aibrix_names_choose_by_what_comes_nearest_here(here: Place) -> None:
    """Engines that report nothing let the metric tell which strategy missed their reports."""
    model = deploy(here, "names", dialect="none")

    def fallbacks() -> Counter[str]:
        return Counter(here.gateway.counted("gateway_strategy_fallbacks_total", by="strategy"))

    for name, nearest in {
        "least-busy-time": "least-busy",
        "least-gpu-cache": "least-kv-cache",
        "least-utilization": "least-busy",
        "load-balance": "least-busy",
        "prefix-cache-preble": "prefix-cache",
    }.items():
        before = fallbacks()
        assert chosen(here, model, name, 2)
        assert fallbacks() - before == {nearest: 2}, name


def test_two_gateways_agree_on_sessions(
    here: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = deploy(here, "agreed", pods=4)
    directory = tmp_path_factory.mktemp("second")
    with gateway_process(directory, **environment_of(here.cluster, directory)) as gateway:
        second = Place(here.cluster, gateway.ready())
        second.wait_for_states(model.name, {pod.name: "ready" for pod in model.pods})
        for number in range(12):
            session = {"x-session-id": f"session-{number}"}
            pods = [
                chosen(each, model, "session-affinity", 1, **session) for each in (here, second)
            ]
            assert pods[0] == pods[1]


def test_the_own_zone_comes_first_while_enough_of_it_is_ready(
    here: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = deploy(here, "zones", pods=4)
    near = {pod.name for pod in model.pods if pod.entry.zone == "zone-a"}
    directory = tmp_path_factory.mktemp("zone")
    settings = environment_of(here.cluster, directory, zone="zone-a")
    with gateway_process(directory, **settings) as gateway:
        zoned = Place(here.cluster, gateway.ready())
        zoned.wait_for_states(model.name, {pod.name: "ready" for pod in model.pods})
        assert chosen(zoned, model, "round-robin", 8) == near
        leaving = next(pod for pod in model.pods if pod.name in near)
        leaving.terminate()
        wait_for(
            lambda: gateway.endpoints(model.name).get(leaving.name) != "ready", "it is leaving"
        )
        everywhere = {pod.name for pod in model.pods} - {leaving.name}
        assert chosen(zoned, model, "round-robin", 6) == everywhere
