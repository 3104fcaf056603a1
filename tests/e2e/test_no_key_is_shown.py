"""Whatever happens, no key is in anything that the gateway says: answers, views, logs, files."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simulator.pod import Engine
from tests.e2e.mounted import told_of_keys
from tests.e2e.place import Place, environment_of, place, seen_by
from tests.harness import GatewayProcess, wait_for
from tests.wire import CHAT, RawAnswer, Wire, chat_body, exchange, in_chunks, post

VALID, WRONG, OURS = "canary-valid-7f1c", "canary-wrong-2b9e", "canary-ours-c04d"
QUERY, FIELD, BROKEN = "canary-query-51aa", "canary-field-e6d3", "canary-broken-9c27"
CANARIES = (VALID, WRONG, OURS, QUERY, FIELD, BROKEN)
MAX_BODY = 100_000
EVERYWHERE = (f"x-api-key: {FIELD}", f"Cookie: session={FIELD}", f"api-key: {FIELD}")


def traces(key: str) -> Iterator[str]:
    """What would give a key away: itself, its hash, and both as they may be written."""
    hashed = hashlib.sha256(key.encode())
    yield from (key, hashed.hexdigest(), hashed.hexdigest()[:16])
    yield from (
        base64.b64encode(raw).decode().rstrip("=")[:-1] for raw in (key.encode(), hashed.digest())
    )
    yield repr(hashed.digest())[2:-1]


def shown_in(content: bytes) -> list[str]:
    """The canaries of which there is a trace."""
    raw = [key for key in CANARIES if hashlib.sha256(key.encode()).digest() in content]
    text = content.decode("latin-1")
    return raw + [key for key in CANARIES if any(trace in text for trace in traces(key))]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The keys are in a directory of their own, not among the gateway's files."""
    keys = tmp_path_factory.mktemp("keys")
    (keys / "clients").write_text(f"another\n{VALID}\n")
    (keys / "ours").write_text(f"{OURS}\n")
    return {
        "GATEWAY_API_KEYS_FILE": str(keys / "clients"),
        "GATEWAY_UPSTREAM_API_KEY_FILE": str(keys / "ours"),
        "GATEWAY_LOG_LEVEL": "debug",
    }


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary")


@pytest.fixture(scope="module")
def here(directory: Path, settings: dict[str, str]) -> Iterator[Place]:
    with place(
        directory,
        environment=settings,
        first_byte_timeout="2",
        idle_timeout="1",
        max_body_bytes=str(MAX_BODY),
    ) as here:
        here.deploy("llama", pods=2, engine=Engine(tokens=5, token_seconds=0.01))
        here.deploy("loading", ready=False)
        here.cluster.model("refusing", processes=False)
        here.wait_for_states("refusing", {"refusing-0": "ready"})
        yield here


def ask(
    *headers: str,
    body: bytes | None = None,
    key: str = VALID,
    path: str = CHAT,
    method: str = "POST",
    version: str = "1.1",
) -> bytes:
    """A request with a key wherever clients put one."""
    target = f"{path}?key={QUERY}&api_key={QUERY}"
    credential = f"Authorization: Bearer {key}"
    fields = (credential, *EVERYWHERE, *headers)
    return post(body, *fields, target=target, method=method, version=version)


def behaving(how: str, *, stream: bool = False) -> bytes:
    return ask(f"x-sim-behaviour: {how}", body=chat_body(stream=stream))


ANSWERED = {
    "good": (ask(), 200),
    "good under HTTP/1.0": (ask(version="1.0"), 200),
    "a stream": (ask(body=chat_body(stream=True)), 200),
    "models": (ask(body=b"", path="/v1/models", method="GET"), 200),
    "health": (ask(body=b"", path="/healthz", method="GET"), 200),
    "a wrong key": (ask(key=WRONG), 401),
    "no scheme": (post(None, f"Authorization: {WRONG}", *EVERYWHERE), 401),
    "two keys": (ask(f"Authorization: Bearer {WRONG}"), 401),
    "a wrong key for the models": (ask(key=WRONG, path="/v1/models", method="GET"), 401),
    "no JSON": (ask(body=f'{{"key": {QUERY}'.encode()), 400),
    "no model": (ask(body=f'{{"key": "{QUERY}"}}'.encode()), 400),
    "no UTF-8": (ask(body=f'{{"key": "{QUERY}\xe9"}}'.encode("latin-1")), 400),
    "unknown strategy": (ask("routing-strategy: fastest"), 400),
    "unknown model": (ask(body=chat_body("no-such")), 404),
    "unknown path": (ask(path="/v1/nothing"), 404),
    "another spelling": (ask(path="/v1/chat/%63ompletions"), 404),
    "wrong method": (ask(method="PUT"), 405),
    "too large": (ask(body=bytes(MAX_BODY + 1)), 413),
    "too large in chunks": (
        ask("Transfer-Encoding: chunked", body=in_chunks(bytes(MAX_BODY + 1))), 413
    ),
    "bad chunks": (ask("Transfer-Encoding: chunked", body=QUERY.encode() + b"\r\n"), 400),
    "a pod that dies": (behaving("reset-before-head"), 502),
    "a pod that talks nonsense": (behaving("garbage"), 502),
    "a pod that stalls": (behaving("stall-before-head=20"), 504),
    "a pod that fails": (behaving("status=500"), 500),
    "pods that are busy": (behaving("status=503"), 503),
    "loading": (ask(body=chat_body("loading")), 503),
    "refusing": (ask(body=chat_body("refusing")), 503),
    "a stream that dies": (behaving("die-after-tokens=2", stream=True), 200),
    "a stream that falls silent": (behaving("stall-after-tokens=2", stream=True), 200),
    "an answer cut short": (behaving("short-length"), 200),
    "no field": (f"POST {CHAT} HTTP/1.1\r\nAuthorization {BROKEN}\r\n\r\n".encode(), 400),
    "a space too much": (f"POST / HTTP/1.1\r\nAuthorization : {BROKEN}\r\n\r\n".encode(), 400),
    "a folded key": (f"POST / HTTP/1.1\r\nA: b\r\n {BROKEN}\r\n\r\n".encode(), 400),
    "a version": (f"GET /?{BROKEN} HTTP/{BROKEN}\r\n\r\n".encode(), 400),
    "a method": (f"{BROKEN}\x01 / HTTP/1.1\r\n\r\n".encode(), 400),
    "a broken host": (f"POST http://[{BROKEN}{CHAT} HTTP/1.1\r\n\r\n".encode(), 400),
    "a length": (ask(f"Content-Length: {BROKEN}", body=b""), 400),
    "an expectation": (ask(f"Expect: {BROKEN}"), 417),
    "a coding": (ask(f"Transfer-Encoding: {BROKEN}"), 501),
    "a long line": (ask(path="/" + BROKEN * 600), 414),
    "a long field": (ask(f"X-Long: {BROKEN * 600}"), 431),
    "no HTTP": (f"\x16\x03\x01{BROKEN}\r\n\r\n".encode(), 400),
}  # fmt: skip


def leave_while_sending(here: Place) -> None:
    with Wire(here.gateway.port) as wire:
        wire.send(ask("Content-Length: 1000", body=b"{"))


def leave_while_waiting(here: Place) -> None:
    pods = here.cluster.models["llama"].pods
    before = len(seen_by(*pods))
    with Wire(here.gateway.port) as wire:
        wire.send(behaving("stall-before-head=20"))
        wait_for(lambda: len(seen_by(*pods)) > before, "it waits")


def leave_while_receiving(here: Place) -> None:
    with Wire(here.gateway.port) as wire:
        wire.send(ask(body=chat_body(stream=True, max_tokens=1000))).read_until(b"data:")


def leave_until_it_is_counted(here: Place, leave: Callable[[Place], None]) -> None:
    phase = leave.__name__.rpartition("_")[2]
    before = here.gateway.metric("gateway_client_aborts_total", phase=phase)

    def counted() -> bool:
        leave(here)
        return here.gateway.metric("gateway_client_aborts_total", phase=phase) > before

    wait_for(counted, f"a client that left while {phase} is counted")


@pytest.fixture(scope="module")
def answers(here: Place) -> dict[str, RawAnswer]:
    """All that is answered; and clients have left in every phase."""
    for leave in (leave_while_sending, leave_while_waiting, leave_while_receiving):
        leave_until_it_is_counted(here, leave)
    answers = {what: here.exchange(request) for what, (request, _) in ANSWERED.items()}
    here.wait_until_idle()
    return answers


@pytest.mark.fault(29)
@pytest.mark.parametrize("what", ANSWERED)
def test_no_answer_shows_a_key(answers: dict[str, RawAnswer], what: str) -> None:
    answer, (_, status) = answers[what], ANSWERED[what]
    assert answer.status == status, answer.raw
    assert shown_in(answer.raw) == []


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    "path", ["/healthz", "/livez", "/metrics", "/status", "/status.json", "/v1/models"]
)
def test_no_view_shows_a_key(here: Place, answers: dict[str, RawAnswer], path: str) -> None:
    answer = here.exchange(ask(body=b"", path=path, method="GET"))
    assert answer.status == 200
    assert shown_in(answer.raw) == []


@pytest.mark.fault(29)
def test_no_log_line_and_no_file_shows_a_key(
    here: Place,
    answers: dict[str, RawAnswer],
    directory: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """The log tells of all that happened, at its most talkative."""
    told_of_keys(here.gateway)  # which waits until it does
    lines = here.gateway.log_lines()
    assert {"debug", "info", "warning"} <= {line["level"] for line in lines}
    assert {401, 404, 413, 499, 502, 503, 504} <= {line.get("status") for line in lines}
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert here.gateway.log_file in files
    assert [path.name for path in files if path.suffix == ".db"], "metrics are among them"
    assert {path.name: shown for path in files if (shown := shown_in(path.read_bytes()))} == {}
    searched = f"{len(answers)} / {len(lines)} / {len(files)}"
    record_property("row 29: answers / log lines / files searched for keys", searched)


@pytest.mark.fault(29)
def test_a_client_s_key_is_for_the_gateway_and_the_gateway_s_for_the_pods(
    here: Place, answers: dict[str, RawAnswer]
) -> None:
    raws = b"".join(one.raw for one in seen_by(*here.cluster.models["llama"].pods))
    assert sorted(shown_in(raws)) == sorted([OURS, QUERY, FIELD])


@pytest.mark.fault(29)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_bug_that_tells_of_every_object_in_its_way_tells_no_key(
    here: Place, settings: dict[str, str], tmp_path: Path, version: str
) -> None:
    environment = environment_of(here.cluster, tmp_path) | settings
    app = "tests.e2e.telling_app:make()"
    gateway = GatewayProcess(tmp_path, environment, app).start()
    try:
        gateway.ready()
        answer = exchange(gateway.port, ask("routing-strategy: power-of-two", version=version))
    finally:
        assert gateway.stop() == 0
    assert answer.value("x-gateway-error") == "internal_error"
    (bug,) = [line for line in gateway.log_lines() if "exception" in line]
    for shown in ("Call(", "InferenceRequest(", "InferenceHandler", "Candidates"):
        assert shown in bug["exception"]
    assert shown_in(gateway.log_file.read_bytes() + answer.raw) == []
