"""Engines' pages of metrics: what is read of them, whatever else stands there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load.engines import NoMetrics, Reading, read

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="llama"} 7.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="llama"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="llama"} 0.25
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="llama"} 1000.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="llama"} 500.0
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{le="1.0",model_name="llama"} 3.0
python_gc_objects_collected_total{generation="0"} 9.0
"""
SGLANG = """\
sglang:num_running_reqs{model_name="llama",tp_rank="0"} 2.0
sglang:num_queue_reqs{model_name="llama",tp_rank="0"} 1.0
sglang:token_usage{model_name="llama",tp_rank="0"} 0.5
sglang:gen_throughput{model_name="llama",tp_rank="0"} 86.5
"""


def test_a_page_of_vllm_is_read() -> None:
    assert read(VLLM) == Reading(7, 3, 0.25, 1500, 0)


def test_a_page_of_sglang_is_read() -> None:
    assert read(SGLANG) == Reading(2, 1, 0.5, None, 86.5)


def test_the_name_that_older_versions_give_to_the_cache_is_known() -> None:
    older = VLLM.replace("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    assert read(older) == read(VLLM)


def test_the_ranks_of_one_engine_add_up_and_share_a_usage() -> None:
    second = VLLM.replace('engine="0"', 'engine="1"').replace("0.25", "0.75")
    assert read(VLLM + second) == Reading(14, 6, 0.5, 3000, 0)


def test_a_usage_above_all_there_is_counts_as_all() -> None:
    assert read(VLLM.replace(" 0.25", " 25")).kv_usage == 1.0


def test_a_cache_nothing_is_said_of_counts_as_empty() -> None:
    without = "\n".join(line for line in VLLM.splitlines() if "kv_cache" not in line)
    assert read(without).kv_usage == 0.0


@pytest.mark.parametrize("page", ["", "hello", "<html>", "python_info 1\n", "\x00\xff", "{}" * 99])
def test_a_page_without_an_engine_s_metrics_says_so(page: str) -> None:
    with pytest.raises(NoMetrics):
        read(page)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "-0.5e9", "seven", ""])
def test_a_value_that_makes_no_sense_spoils_the_page(value: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(VLLM.replace(" 7.0", f" {value}"))


@pytest.mark.parametrize("of_each_rank", ["1e308", "6e5", "1.8e19"])
@pytest.mark.parametrize("figure", ["num_requests_running", "num_requests_waiting"])
def test_totals_that_no_engine_has_spoil_the_page(figure: str, of_each_rank: str) -> None:
    ranks = "".join(f'vllm:{figure}{{engine="{n}"}} {of_each_rank}\n' for n in (1, 2))
    with pytest.raises(ValueError, match=r"is more than the 1e\+06 that may be"):
        read(VLLM + ranks)


def test_tokens_that_no_engine_makes_spoil_the_page() -> None:
    with pytest.raises(ValueError, match=r"1e\+16 is more"):
        read(VLLM.replace(" 500.0", " 1e16"))
    with pytest.raises(ValueError, match=r"1e\+10 is more"):
        read(SGLANG.replace(" 86.5", " 1e10"))


def test_a_page_of_endless_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="5000 lines"):
        read('vllm:num_requests_running{engine="0"} 1\n' * 5000)


@given(st.text(max_size=400))
def test_no_page_raises_anything_else(noise: str) -> None:
    for page in (noise, VLLM + noise, noise + VLLM, VLLM.replace("7.0", noise)):
        try:
            reading = read(page)
        except ValueError:
            continue
        assert reading.running >= 0
        assert 0 <= reading.kv_usage <= 1
