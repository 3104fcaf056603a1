"""What reaches an endpoint is what the client sent, and nothing else does."""

import json
from collections.abc import Iterator

import pytest
import requests

from proxy.inference import INFERENCE_PATHS
from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.canned import CannedPod
from tests.e2e.place import Place, environment_of, process_of
from tests.harness import gateway_process, wait_for
from tests.wire import (
    CHAT,
    RawAnswer,
    Wire,
    body_of,
    chat_body,
    head_of,
    in_chunks,
    post,
    unchunked,
    values,
)

LARGE = 20_000_000


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway in an environment that would lead a careless HTTP client astray."""
    directory = tmp_path_factory.mktemp("forwarding")
    netrc = directory / "netrc"
    netrc.write_text("default login someone password secret\n")
    netrc.chmod(0o600)
    nobody = "http://127.0.0.1:9"
    environment = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), nobody)
    environment["NETRC"] = str(netrc)
    with Cluster() as cluster:
        environment["NO_PROXY"] = environment["no_proxy"] = cluster.api.address
        environment |= environment_of(cluster, directory, extra_paths="/pooling")
        with gateway_process(directory, **environment) as gateway:
            here = Place(cluster, gateway.ready())
            here.deploy("llama", engine=Engine(tokens=2, token_seconds=0.001))
            yield here


def forwarded(here: Place, request: bytes) -> tuple[bytes, RawAnswer]:
    """The request as the pod saw it, and the answer to it."""
    seen = process_of(here.cluster.models["llama"].pods[0]).requests
    before = len(seen)
    answer = here.exchange(request)
    assert len(seen) == before + 1, answer.raw
    return seen[-1].raw, answer


@pytest.mark.parametrize(
    "query",
    [
        "?",
        "?a=b",
        "?a=%2F%2e&b=+%20&&c;d==?/",
        "?x=http://other/&url=//other",
        "?%zz=%",
        "?a[]='\"<>",
    ],
)
def test_the_target_arrives_byte_for_byte(here: Place, query: str) -> None:
    raw, answer = forwarded(here, post(target=CHAT + query))
    assert answer.status == 200
    assert head_of(raw)[0] == f"POST {CHAT}{query} HTTP/1.1"


@pytest.mark.fault(28)
@pytest.mark.parametrize("host", ["gateway.test", "evil.example:1", "127.0.0.1:9"])
def test_a_target_in_absolute_form_decides_nothing_but_its_path(here: Place, host: str) -> None:
    raw, answer = forwarded(here, post(target=f"http://{host}{CHAT}?q=1"))
    assert answer.status == 200
    assert head_of(raw)[0] == f"POST {CHAT}?q=1 HTTP/1.1"


def test_the_body_arrives_byte_for_byte(here: Place) -> None:
    body = (
        b'\r\n { "messages":[], "\\u006dodel" :\t"llama","x":"\xc3\xa9\\u00e9\\/" ,"x":1e400}\n\n'
    )
    raw, answer = forwarded(here, post(body))
    assert answer.status == 200
    assert body_of(raw) == body
    assert values(raw, "content-length") == [str(len(body))]


def test_a_chunked_body_arrives_with_a_fixed_length(here: Place) -> None:
    body = chat_body()
    chunked = in_chunks(body[:1], body[1:7], body[7:])
    raw, answer = forwarded(here, post(chunked, "Transfer-Encoding: chunked", "Trailer: x"))
    assert answer.status == 200
    assert body_of(raw) == body
    assert values(raw, "content-length") == [str(len(body))]
    assert values(raw, "transfer-encoding") == values(raw, "trailer") == []


@pytest.mark.fault(27)
def test_fields_about_the_clients_connection_do_not_pass(here: Place) -> None:
    raw, answer = forwarded(
        here,
        post(
            None,
            "Connection: close, X-Hop , x-other",
            "X-Hop: 1",
            "x-OTHER: 2",
            "Keep-Alive: timeout=9",
            "Proxy-Authorization: Basic secret",
            "Proxy-Connection: keep-alive",
            "TE: trailers",
            "Upgrade: websocket",
            "Expect: 100-continue",
            "X-Passes: yes",
            close=False,
        ),
    )
    assert body_of(answer.raw).startswith(b"HTTP/1.1 200"), "after the 100 that was expected"
    names = {name for name, _ in head_of(raw)[1]}
    assert values(raw, "x-passes") == ["yes"]
    assert not names & {
        "connection", "x-hop", "x-other", "keep-alive", "proxy-authorization",
        "proxy-connection", "te", "upgrade", "expect", "transfer-encoding",
    }  # fmt: skip


@pytest.mark.fault(27)
def test_what_the_client_says_of_its_way_here_is_replaced(here: Place) -> None:
    given = ("For", "Host", "Proto", "Port", "Server", "Prefix", "User", "Email", "Ssl", "Anything")
    raw, _ = forwarded(
        here,
        post(
            None,
            "Host: shop.example",
            *(f"X-Forwarded-{name}: lies" for name in given),
            "Forwarded: for=lies",
            "X-Real-IP: lies",
        ),
    )
    assert b"lies" not in raw
    assert values(raw, "x-forwarded-for") == ["127.0.0.1"]
    assert values(raw, "x-forwarded-proto") == ["http"]
    assert values(raw, "x-forwarded-host") == ["shop.example"]


def test_the_host_is_the_endpoints(here: Place) -> None:
    pod = here.cluster.models["llama"].pods[0]
    raw, answer = forwarded(here, post(None, "Host: metadata.internal:80"))
    assert values(raw, "host") == [f"{pod.address}:{pod.port}"]
    assert answer.value("target-pod") == pod.name


@pytest.mark.parametrize("given", ["abc-1.2_3:x/y+z=@", "a" * 128])
def test_a_sane_request_id_is_kept(here: Place, given: str) -> None:
    raw, answer = forwarded(here, post(None, f"X-Request-ID: {given}"))
    assert values(raw, "x-request-id") == [given]
    assert answer.value("x-request-id") == given


@pytest.mark.fault(27)
@pytest.mark.parametrize("given", [None, "", "a" * 129, "a b", "<script>", "é", 'a"b', "{}"])
def test_another_request_id_is_made(here: Place, given: str | None) -> None:
    headers = [] if given is None else [f"X-Request-ID: {given}"]
    raw, answer = forwarded(here, post(None, *headers))
    (made,) = values(raw, "x-request-id")
    assert made == answer.value("x-request-id")
    assert made != given
    assert len(made) == 32


def test_credentials_and_cookies_are_the_clients_own_only(here: Place) -> None:
    raw, _ = forwarded(here, post(None, "Authorization: Bearer mine", "Cookie: a=1; b=2"))
    assert values(raw, "authorization") == ["Bearer mine"]
    assert values(raw, "cookie") == ["a=1; b=2"]
    raw, _ = forwarded(here, post())
    assert values(raw, "authorization") == values(raw, "cookie") == []


def test_a_cookie_of_an_endpoint_is_for_its_client_only(here: Place) -> None:
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: who=1; Path=/\r\nContent-Length: 0\r\n\r\n"
    with CannedPod(answer) as pod:
        pod.deploy(here.cluster, "cookies")
        wait_for(lambda: here.gateway.endpoints("cookies"), "the pod is known")
        answers = [here.exchange(post(chat_body("cookies"))) for _ in range(2)]
    assert [answer.values("set-cookie") for answer in answers] == [["who=1; Path=/"]] * 2
    assert [values(raw, "cookie") for raw in pod.seen] == [[], []]


def test_no_field_of_the_client_comes_without_being_sent(here: Place) -> None:
    """Libraries like to add `User-Agent`, `Accept` and `Accept-Encoding` of their own."""
    raw, _ = forwarded(here, post())
    assert {name for name, _ in head_of(raw)[1]} == {
        "host", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
        "content-length",
    }  # fmt: skip


@pytest.mark.parametrize("path", INFERENCE_PATHS)
def test_every_inference_path_is_forwarded(here: Place, path: str) -> None:
    raw, answer = forwarded(here, post(target=path))
    assert answer.status == 200
    assert head_of(raw)[0] == f"POST {path} HTTP/1.1"


@pytest.mark.parametrize("path", ["transcriptions", "translations"])
def test_a_form_with_a_file_arrives_byte_for_byte(here: Place, path: str) -> None:
    form = requests.Request(
        "POST",
        "http://gateway.test",
        data={"model": "llama", "prompt": "é"},
        files={"file": ("a.wav", bytes(range(256)) * 1000, "audio/wav")},
    ).prepare()
    assert isinstance(form.body, bytes)
    content_type = f"Content-Type: {form.headers['Content-Type']}"
    raw, answer = forwarded(here, post(form.body, content_type, target=f"/v1/audio/{path}"))
    assert answer.status == 200
    assert body_of(raw) == form.body


def test_extra_paths_are_forwarded(here: Place) -> None:
    raw, answer = forwarded(here, post(target="/pooling?x=1"))
    assert answer.status == 404, "the simulator has no such path, and its answer passes"
    assert head_of(raw)[0] == "POST /pooling?x=1 HTTP/1.1"
    assert answer.value("x-gateway-error") is None


def test_a_large_body_arrives_unharmed(here: Place) -> None:
    body = chat_body(filling="0123456789" * (LARGE // 10))
    raw, answer = forwarded(here, post(body))
    assert answer.status == 200
    assert body_of(raw) == body


def test_a_large_answer_arrives_unharmed(here: Place) -> None:
    request = post(None, f"x-sim-behaviour: large={LARGE}")
    _, answer = forwarded(here, request)
    assert answer.value("content-length") == str(LARGE)
    assert answer.content == b"x" * LARGE


def test_a_client_on_http_1_0_is_served(here: Place) -> None:
    raw, answer = forwarded(here, post(version="1.0", close=False))
    assert head_of(raw)[0] == f"POST {CHAT} HTTP/1.1"
    assert json.loads(answer.content)["object"] == "chat.completion"
    _, stream = forwarded(here, post(chat_body(stream=True), version="1.0", close=False))
    assert stream.value("transfer-encoding") is None
    assert stream.body.endswith(b"data: [DONE]\n\n")


def test_pipelined_requests_are_answered_in_their_order(here: Place) -> None:
    with Wire(here.gateway.port) as wire:
        wire.send(b"".join(post(None, f"x-request-id: n{n}", close=n == 3) for n in (1, 2, 3)))
        answer = wire.read_to_the_end()
    parts = answer.raw.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [values(b"\r\n" + part, "x-request-id") for part in parts] == [["n1"], ["n2"], ["n3"]]


@pytest.mark.fault(20)
def test_half_a_body_never_reaches_a_pod(here: Place) -> None:
    seen = process_of(here.cluster.models["llama"].pods[0]).requests
    before = len(seen)
    aborts = here.gateway.metric("gateway_client_aborts_total", phase="sending")
    whole = chat_body() + b" "  # valid without its last byte, too
    for request in (
        post(whole[:-1], f"Content-Length: {len(whole)}"),
        post(in_chunks(whole, end=False), "Transfer-Encoding: chunked"),
    ):
        with Wire(here.gateway.port) as wire:
            wire.send(request)
    wait_for(
        lambda: here.gateway.metric("gateway_client_aborts_total", phase="sending") == aborts + 2,
        "both are counted as aborts",
    )
    assert len(seen) == before


def test_chunks_are_framed_anew_for_the_client(here: Place) -> None:
    _, answer = forwarded(here, post(None, "x-sim-behaviour: chunk-extensions"))
    content, complete = unchunked(answer.body)
    assert complete
    assert b"name=value" not in answer.body
    assert json.loads(content)["object"] == "chat.completion"
