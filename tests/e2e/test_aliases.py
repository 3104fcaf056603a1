"""Clients that name a model by an alias are served by the model, and see no difference."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import NotFoundError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from simulator.cluster import Cluster
from tests.e2e.conftest import GatewayFactory
from tests.e2e.expect import INVALID, Expected, check_error, counted_once
from tests.e2e.place import Place, place, seen_by
from tests.harness import wait_for
from tests.wire import body_of, chat_body, in_chunks, post, values

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
ALIASES = "gpt-4o=org/llama,team/chat:v1=org/llama,taken=org/llama,whisper-1=whisper,lost=gone"
AUDIO = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("aliases"), model_aliases=ALIASES) as running:
        running.deploy("org/llama", pods=2)
        running.deploy("whisper")
        running.deploy("taken")
        yield running


@pytest.fixture(scope="module")
def client(town: Place) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{town.gateway.url}/v1", api_key="any", max_retries=0) as running:
        yield running


def last_seen(town: Place, service: str = "org-llama") -> bytes:
    return seen_by(*town.cluster.models[service].pods)[-1].raw


def log_line(town: Place, an_id: str) -> dict[str, Any]:
    def lines() -> list[dict[str, Any]]:
        return [line for line in town.gateway.log_lines() if line.get("request_id") == an_id]

    return wait_for(lines, "it is logged")[0]


def test_the_openai_client_chats_and_streams_by_an_alias(town: Place, client: OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=5)
    assert answer.choices[0].message.content == "tok " * 5
    assert json.loads(body_of(last_seen(town)))["model"] == "org/llama"
    stream = client.chat.completions.create(
        model="team/chat:v1", messages=HELLO, max_tokens=20, stream=True
    )
    text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
    assert text == "tok " * 20
    assert json.loads(body_of(last_seen(town)))["model"] == "org/llama"


def test_the_openai_client_sends_a_form_by_an_alias(town: Place, client: OpenAI) -> None:
    sound = b"\x00\r\n--whisper-1\r\n" * 5000
    answer = client.audio.transcriptions.create(
        model="whisper-1", file=("whisper-1", sound), prompt="whisper-1"
    )
    assert answer.text == "hello"
    body = body_of(last_seen(town, "whisper"))
    assert sound in body
    assert body.count(b'name="model"\r\n\r\nwhisper\r\n') == 1
    assert body.count(b'name="prompt"\r\n\r\nwhisper-1\r\n') == 1


BEFORE = b' {"a":{"model":"gpt-4o"}, "a":"\\"model\\":\\"gpt-4o\\"", "m\\u006fdel" :\t'
AFTER = b' ,"big":1e400,"t":0.10 , "text":"\\u00e9\xc3\xa9\\/"}\r\n'


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("padding", [0, 20_000, 1_000_000])
def test_no_other_byte_of_a_body_changes_and_its_length_fits(
    town: Place, chunked: bool, padding: int
) -> None:
    before, after = BEFORE + b" " * padding, b" " * padding + AFTER
    body = before + b'"gpt-4o"' + after
    if chunked:
        request = post(in_chunks(body[:50], body[50:]), "Transfer-Encoding: chunked")
    else:
        request = post(body)
    assert town.exchange(request).status == 200
    raw = last_seen(town)
    assert body_of(raw) == before + b'"org/llama"' + after
    assert values(raw, "content-length") == [str(len(body_of(raw)))]
    assert values(raw, "transfer-encoding") == []


def test_a_body_that_names_no_alias_passes_byte_for_byte(town: Place) -> None:
    body = BEFORE + b'"org\\/llama"' + AFTER
    assert town.exchange(post(body, "Content-Digest: sha-256=:AA==:")).status == 200
    assert body_of(last_seen(town)) == body
    assert values(last_seen(town), "content-digest") == ["sha-256=:AA==:"]


def test_a_digest_of_the_body_as_it_came_does_not_pass(town: Place) -> None:
    digests = ("Content-Digest: sha-256=:AA==:", "Content-MD5: AA==", "Digest: md5=AA==")
    assert town.exchange(post(chat_body("gpt-4o"), *digests, "X-Passes: yes")).status == 200
    raw = last_seen(town).lower()
    assert b"digest" not in raw
    assert b"content-md5" not in raw
    assert values(last_seen(town), "x-passes") == ["yes"]


def test_a_request_that_is_sent_again_carries_the_same_body(town: Place) -> None:
    pods = town.cluster.models["org-llama"].pods
    for pod in pods:
        assert pod.process is not None
        pod.process.behave("status=503")
    assert town.exchange(post(chat_body("gpt-4o"))).status == 503
    first, second = (body_of(request.raw) for request in seen_by(*pods)[-2:])
    assert first == second == chat_body("org/llama")


def test_an_alias_goes_before_a_model_of_that_name(town: Place) -> None:
    served = town.cluster.models["org-llama"].pods
    answer = town.exchange(post(chat_body("taken")))
    assert answer.value("target-pod") in {pod.name for pod in served}
    assert seen_by(*town.cluster.models["taken"].pods) == []


def test_metrics_and_logs_name_the_model_and_logs_the_alias_too(town: Place) -> None:
    before = town.gateway.metric("gateway_requests_total", model="org/llama", status="200")
    town.exchange(post(chat_body("team/chat:v1"), "x-request-id: by-alias"))
    town.exchange(post(chat_body("org/llama"), "x-request-id: by-name"))
    line = log_line(town, "by-alias")
    assert (line["model"], line["alias"]) == ("org/llama", "team/chat:v1")
    assert "alias" not in log_line(town, "by-name")
    after = town.gateway.metric("gateway_requests_total", model="org/llama", status="200")
    assert after == before + 2
    assert "team/chat:v1" not in town.gateway.get("/metrics").text


def test_an_alias_of_a_model_that_is_not_there_is_not_found_and_both_are_named(
    town: Place,
) -> None:
    request = post(chat_body("lost"), "x-request-id: lost-1")
    says = "the model 'lost' stands for 'gone', which does not exist"
    with counted_once(town.gateway, "model_not_found"):
        answer = town.exchange(request)
    check_error(answer, Expected(404, "model_not_found", INVALID, "model", says=says))
    line = log_line(town, "lost-1")
    assert (line["model"], line["alias"]) == ("unknown", "lost")
    shown = town.exchange(post(b"", target="/v1/models/lost", method="GET"))
    check_error(shown, Expected(404, "model_not_found", INVALID, "model", says=says))


def test_aliases_of_known_models_are_listed_among_the_models(town: Place, client: OpenAI) -> None:
    listed = {model.id: model.to_dict() for model in client.models.list()}
    assert sorted(listed) == [
        "gpt-4o",
        "org/llama",
        "taken",
        "team/chat:v1",
        "whisper",
        "whisper-1",
    ]
    assert "alias_of" not in listed["org/llama"]
    for name, model, ready in (
        ("gpt-4o", "org/llama", 2),
        ("taken", "org/llama", 2),
        ("team/chat:v1", "org/llama", 2),
        ("whisper-1", "whisper", 1),
    ):
        alone = client.models.retrieve(name).to_dict()
        assert alone == listed[name]
        assert (alone["id"], alone["object"], alone["ready_endpoints"]) == (name, "model", ready)
        assert alone["alias_of"] == alone["root"] == model
    with pytest.raises(NotFoundError):
        client.models.retrieve("gpt-4")


def test_an_alias_follows_its_model_as_it_comes_and_goes(town: Place) -> None:
    model = town.deploy("gone")
    assert town.exchange(post(chat_body("lost"))).status == 200
    assert town.gateway.get("/v1/models/lost").json()["ready_endpoints"] == 1
    model.delete()
    wait_for(lambda: town.gateway.get("/v1/models/lost").status_code == 404, "it is gone")
    assert town.exchange(post(chat_body("lost"))).status == 404


def test_in_single_service_mode_aliases_are_rewritten_and_all_else_passes(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    pods = cluster.model("llama", service="engine", label=False).pods
    gateway = start_gateway(service="engine", model_aliases="gpt-4o=llama-70b").ready()
    bodies = {
        b'{"model": "gpt-4o", "n":1.0}': b'{"model": "llama-70b", "n":1.0}',
        **{b: b for b in (b'{"model": "any"}', b'{"messages": []}', b"not JSON", b"", b"\xff")},
        **{b: b for b in (b'{"model":"gpt-4o","model":"x"}', b'{"model": "gpt-4o", "x": NaN}')},
    }
    for body, passed in bodies.items():
        gateway.post_bytes("/v1/chat/completions", body, {"Content-Type": "application/json"})
        assert body_of(seen_by(*pods)[-1].raw) == passed
    assert gateway.metric("gateway_requests_total", model="engine") == len(bodies)
    listed = {item["id"]: item for item in gateway.get("/v1/models").json()["data"]}
    assert sorted(listed) == ["engine", "gpt-4o"]
    assert listed["gpt-4o"]["root"] == "llama-70b"
    assert listed["gpt-4o"]["ready_endpoints"] == 1
    assert gateway.get("/v1/models/gpt-4o").status_code == 200
    assert gateway.get("/v1/models/llama-70b").status_code == 404
