"""What model pods say: the OpenAI-style API and its siblings."""

import http.client
import json
import time

import pytest

from simulator.pod import ModelPod
from tests.podclient import MakePod, ask, begin, events


def test_a_request_is_kept_as_it_came(pod: ModelPod) -> None:
    before = time.monotonic()
    connection = http.client.HTTPConnection(pod.address, pod.port, timeout=3)
    connection.request("POST", "/v1/embeddings?q=1", b'{"input": "x"}', {"X-Request-Id": "abc"})
    assert connection.getresponse().status == 200
    connection.close()
    [seen] = pod.requests
    assert (seen.target, seen.request_id, seen.state) == ("/v1/embeddings?q=1", "abc", "ready")
    assert before <= seen.at <= time.monotonic()
    assert seen.raw.startswith(b"POST /v1/embeddings?q=1 HTTP/1.1\r\n")
    assert seen.raw.endswith(b'\r\n\r\n{"input": "x"}')


def test_a_complete_chat_answer_names_its_pod(pod: ModelPod) -> None:
    status, headers, body = ask(pod, model="chat", max_tokens=3)
    answer = json.loads(body)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert headers["content-length"] == str(len(body))
    assert answer["system_fingerprint"] == headers["x-sim-pod"] == "pod-a"
    assert answer["choices"][0]["message"]["content"] == "tok tok tok "
    assert answer["usage"]["completion_tokens"] == 3


def test_a_chat_stream_numbers_and_dates_its_tokens(make_pod: MakePod) -> None:
    pod = make_pod(token_seconds=0.02)
    before = time.monotonic()
    _, headers, body = ask(pod, stream=True, max_completion_tokens=4)
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["transfer-encoding"] == "chunked"
    *parts, done = events(body)
    assert done == "[DONE]"
    assert [part["sim"]["n"] for part in parts] == [0, 1, 2, 3, 4, 5]
    assert parts[-1]["choices"][0]["finish_reason"] == "length"
    times = [part["sim"]["t"] for part in parts]
    assert before <= times[0]
    assert times == sorted(times)
    assert times[4] - times[1] >= 0.055


def test_a_stream_ends_with_its_usage_where_that_is_wanted(pod: ModelPod) -> None:
    *_, last, _ = events(ask(pod, stream=True, stream_options={"include_usage": True})[2])
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 8)


@pytest.mark.parametrize(
    ("path", "closing"),
    [
        ("/v1/completions", b"data: [DONE]"),
        ("/v1/responses", b"event: response.completed"),
        ("/v1/messages", b"event: message_stop"),
    ],
)
def test_every_kind_of_stream_is_closed_in_its_own_way(
    pod: ModelPod, path: str, closing: bytes
) -> None:
    body = ask(pod, path, stream=True, max_tokens=2)[2]
    assert body.strip().split(b"\n\n")[-1].startswith(closing)
    assert json.loads(ask(pod, path, max_tokens=2)[2])["model"] == "chat"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/v1/embeddings", "data"),
        ("/v1/rerank", "results"),
        ("/v1/score", "data"),
        ("/v1/classify", "data"),
        ("/v1/images/generations", "data"),
        ("/v1/audio/transcriptions", "text"),
        ("/v1/audio/translations", "text"),
        ("/v1/load_lora_adapter", "loaded"),
    ],
)
def test_the_other_paths_answer_too(pod: ModelPod, path: str, key: str) -> None:
    status, _, body = ask(pod, path)
    assert status == 200
    assert json.loads(body)[key]
    assert pod.requests[-1].target == path


def test_speech_is_sound(pod: ModelPod) -> None:
    _, headers, body = ask(pod, "/v1/audio/speech")
    assert (headers["content-type"], body[:4]) == ("audio/wav", b"RIFF")


def test_models_are_listed(pod: ModelPod) -> None:
    body = ask(pod, "/v1/models", "GET")[2]
    assert [model["id"] for model in json.loads(body)["data"]] == ["chat"]


def test_unknown_paths_and_wrong_methods_are_errors(pod: ModelPod) -> None:
    assert ask(pod, "/nowhere")[0] == 404
    assert ask(pod, method="GET")[0] == 405


def test_metrics_speak_of_load(make_pod: MakePod) -> None:
    pod = make_pod(token_seconds=1.0)
    pod.report_load(waiting=2, cache_usage=0.5)
    with begin(pod):
        text = ask(pod, "/metrics", "GET")[2].decode()
    assert 'vllm:num_requests_running{model_name="chat"} 1\n' in text
    assert 'vllm:num_requests_waiting{model_name="chat"} 2\n' in text
    assert 'vllm:gpu_cache_usage_perc{model_name="chat"} 0.5\n' in text
