"""The modelled engine: its queue, its batch, its cache, and what it reports."""

import math
import random

import pytest

from simulator.engine import Cache, EngineModel, Job, Pace

#: Round numbers: 100 tokens take 0.1 s to read, and a token 0.01 s to make, whoever else is there.
PACE = Pace(
    read_tokens_per_second=1000.0,
    read_seconds=0.0,
    step=0.01,
    step_each=0.0,
    reading_factor=1.0,
    batch=4,
    block=10,
    blocks=100,
)


def job(prompt: int = 100, output: int = 11, name: int = 0) -> Job:
    """A job whose prompt begins like those of the same name, block by block."""
    prefix = tuple(name * 1000 + number for number in range(prompt // PACE.block))
    return Job(prefix, prompt, output)


def run(engine: EngineModel, *arrivals: tuple[float, Job]) -> None:
    """Submit each at its time, and let everything end."""
    waiting = sorted(arrivals, key=lambda arrival: arrival[0])
    while waiting or engine.next_event() < math.inf:
        if waiting and waiting[0][0] <= engine.next_event():
            engine.submit(*waiting.pop(0))
        else:
            engine.advance(engine.next_event())


def test_a_prompt_is_read_and_then_answered_token_by_token() -> None:
    one = job()
    run(EngineModel(PACE), (5.0, one))
    assert one.first_token_at == pytest.approx(5.1)
    assert one.ended_at == pytest.approx(5.2)  # ten more tokens


def test_an_answer_of_one_token_ends_with_it() -> None:
    engine, one = EngineModel(PACE), job(output=1)
    engine.submit(0.0, one)
    assert engine.advance(engine.next_event()) == [one]
    assert one.ended_at == one.first_token_at == pytest.approx(0.1)
    assert engine.next_event() == math.inf


def test_prompts_are_read_one_after_the_other() -> None:
    first, second = job(name=1), job(name=2)
    run(EngineModel(PACE), (0.0, first), (0.0, second))
    assert second.first_token_at == pytest.approx(0.2)
    assert first.ended_at == pytest.approx(0.2), "it is answered meanwhile"


def test_many_answers_and_reading_make_each_slower() -> None:
    pace = Pace(1000.0, 0.0, 0.01, 0.01, 2.0, batch=4, block=10, blocks=100)
    alone = job(name=1)
    run(EngineModel(pace), (0.0, alone))
    assert alone.ended_at - alone.first_token_at == pytest.approx(10 * 0.02)
    first, second = job(name=1), job(name=2)
    run(EngineModel(pace), (0.0, first), (0.0, second))
    # 0.1 s at twice 0.02 are 2.5 steps, and 7.5 are left for 0.03 each
    assert first.ended_at - first.first_token_at == pytest.approx(0.1 + 7.5 * 0.03)


def test_a_full_batch_makes_the_next_one_wait() -> None:
    engine = EngineModel(PACE)
    jobs = [job(prompt=10, output=101, name=number) for number in range(5)]
    for one in jobs:
        engine.submit(0.0, one)
    while jobs[3].first_token_at != jobs[3].first_token_at:
        engine.advance(engine.next_event())
    told = engine.told(0.05)
    assert (told.running, told.waiting) == (4, 1)
    run(engine)
    assert jobs[4].first_token_at == pytest.approx(jobs[0].ended_at + 0.01)


def test_a_prompt_that_begins_like_an_earlier_one_is_read_from_there() -> None:
    engine, first, again = EngineModel(PACE), job(prompt=100, name=1), job(prompt=205, name=1)
    run(engine, (0.0, first), (1.0, again))
    assert (first.cached, again.cached) == (0, 100)
    assert again.first_token_at - 1.0 == pytest.approx(0.105)


def test_of_a_prompt_that_is_cached_in_whole_the_last_token_is_read() -> None:
    engine, again = EngineModel(PACE), job(name=1)
    run(engine, (0.0, job(name=1)), (1.0, again))
    assert again.cached == 99


def test_the_prefix_used_the_longest_ago_is_forgotten_first() -> None:
    engine = EngineModel(PACE)  # room for 100 blocks
    names = (1, 2, 3, 4)
    run(engine, *((float(name), job(prompt=300, output=10, name=name)) for name in names[:3]))
    run(engine, (10.0, job(prompt=300, output=10, name=1)))  # used again: 2 is the oldest now
    run(engine, (20.0, job(prompt=300, output=10, name=4)))
    kept = {name: job(prompt=300, name=name) for name in (1, 3, 4)}
    for number, (name, one) in enumerate(kept.items()):
        run(engine, (30.0 + number, one))
        assert one.cached == 299, f"{name} was kept"
    lost = job(prompt=300, name=2)
    run(engine, (40.0, lost))
    assert lost.cached < 299


def test_what_runs_is_never_forgotten_and_a_full_cache_makes_the_next_wait() -> None:
    engine = EngineModel(PACE)
    first, second = job(prompt=600, output=101, name=1), job(prompt=600, output=11, name=2)
    run(engine, (0.0, first), (0.0, second))
    assert second.first_token_at == pytest.approx(first.ended_at + 0.6)


def test_a_prompt_larger_than_the_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="a prompt of 990 tokens does not fit"):
        EngineModel(PACE).submit(0.0, job(prompt=990, output=50))


def test_the_report_tells_what_runs_waits_and_was_made() -> None:
    engine = EngineModel(PACE)
    first, second, third = (job(name=number) for number in (1, 2, 3))
    for one in (first, second, third):
        engine.submit(0.0, one)
    engine.advance(engine.next_event())
    told = engine.told(0.15)
    assert (told.running, told.waiting) == (2, 1), "one is answered, one is read, one waits"
    assert told.prompt_tokens == 100
    assert told.generated_tokens == pytest.approx(6)  # the first, and five in 0.05 s
    assert told.kv_usage == pytest.approx((10 + 10 + 0.6) / 100)
    run(engine)
    told = engine.told(9.0)
    assert (told.running, told.waiting, told.kv_usage) == (0, 0, 0)
    assert told.prompt_tokens == 300
    assert told.generated_tokens == pytest.approx(33)


def test_blocks_of_several_requests_count_once() -> None:
    cache = Cache(10)
    assert cache.hold([1, 2, 3], 2)
    assert cache.hold([1, 2, 4], 2)
    assert cache.shared == 4
    assert not cache.hold([5, 6, 7], 0), "8 of 10 are taken"
    cache.release([1, 2, 3], 2)
    assert cache.hits([1, 2, 3, 9]) == 3, "kept until room is needed"
    assert cache.hold([5, 6, 7], 2)
    assert cache.hits([1, 2, 3]) == 2, "3 had to go, 1 and 2 are held"


def test_a_slower_engine_takes_as_many_times_as_long() -> None:
    one = job()
    run(EngineModel(PACE.slower(2.0)), (5.0, one))
    assert one.first_token_at == pytest.approx(5.2)
    assert one.ended_at == pytest.approx(5.4)


@pytest.mark.parametrize("seed", range(5))
def test_everything_that_comes_is_answered_and_given_back(seed: int) -> None:
    rng = random.Random(seed)
    engine = EngineModel(PACE)
    jobs = [
        (rng.uniform(0, 5), job(rng.randint(1, 700), rng.randint(1, 90), rng.randint(1, 4)))
        for _ in range(150)
    ]
    run(engine, *jobs)
    for at, one in jobs:
        assert at <= one.first_token_at <= one.ended_at
        assert 0 <= one.cached < one.prompt_tokens
    told = engine.told(1e6)
    assert (told.running, told.waiting, told.kv_usage) == (0, 0, 0)
    assert told.prompt_tokens == sum(one.prompt_tokens for _, one in jobs)
    assert told.generated_tokens == pytest.approx(sum(one.output_tokens for _, one in jobs))
