"""The gateway's own key for endpoints: what they see of it, and what becomes of its file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simulator.pod import Engine
from tests.e2e.expect import INVALID, OVERLOADED, Expected, check_error, counted_once
from tests.e2e.mounted import CHANGES, TROUBLES, Secret, Trouble, told_of_keys
from tests.e2e.place import Place, environment_of, place, seen_by
from tests.harness import GatewayProcess, gateway_process
from tests.wire import behaving, chat_body, exchange, post, values

UNKNOWN = Expected(503, "upstream_key_unknown", OVERLOADED, says="does not know its key")


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Secret:
    return Secret(tmp_path_factory.mktemp("mounted") / "key", "ours\n")


@pytest.fixture(scope="module")
def here(mounted: Secret, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """It checks no keys itself."""
    directory = tmp_path_factory.mktemp("upstream-key")
    with place(directory, upstream_api_key_file=str(mounted.file)) as here:
        here.deploy("llama", pods=2, engine=Engine(tokens=2, token_seconds=0.001))
        yield here


@pytest.fixture
def secret(mounted: Secret) -> Iterator[Secret]:
    """The gateway's file, which is as it was when the test is over."""
    yield mounted
    mounted.swap("ours\n")


def keys_seen(here: Place, request: bytes, status: int = 200) -> list[list[str]]:
    """The `Authorization` fields that each of the pods which a request reached saw."""
    pods = here.cluster.models["llama"].pods
    before = len(seen_by(*pods))
    assert here.exchange(request).status == status
    return [values(one.raw, "authorization") for one in seen_by(*pods)[before:]]


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Authorization: Bearer theirs",),
        ("authorization: Basic dGhlaXJz", "AUTHORIZATION: Bearer theirs"),
        ("Authorization: Bearer theirs", "Connection: close, authorization"),
        ("Authorization:",),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_endpoints_see_the_gateway_s_key_and_no_other(
    here: Place, headers: tuple[str, ...], version: str
) -> None:
    for body in (chat_body(), chat_body(stream=True)):
        request = post(body, *headers, version=version, close=False)
        if version == "1.1" and not any("Connection" in header for header in headers):
            request = post(body, *headers)
        assert keys_seen(here, request) == [["Bearer ours"]]


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    ("how", "status"), [("reset-before-head", 502), ("close-before-head", 502), ("status=503", 503)]
)
def test_a_request_that_is_sent_again_carries_the_key_again(
    here: Place, how: str, status: int
) -> None:
    sent = keys_seen(here, behaving(how), status)
    assert len(sent) >= 2, "an idle connection that died of it counts as one more"
    assert all(fields == ["Bearer ours"] for fields in sent)


@pytest.mark.fault(29)
@pytest.mark.parametrize("how", CHANGES)
def test_a_new_key_is_sent_from_the_next_request_on(here: Place, secret: Secret, how: str) -> None:
    for key in ("next", "last", "ours"):
        CHANGES[how](secret, f"\n{key}\nan-older-one\n")
        assert keys_seen(here, post()) == [[f"Bearer {key}"]]


def a_key_that_ends_the_line(secret: Secret) -> None:
    secret.rename_over("ours\rX-Evil: 1\n")


def a_key_with_a_nul(secret: Secret) -> None:
    secret.rename_over("ours\0\n")


def a_key_with_bytes_that_are_no_text(secret: Secret) -> None:
    secret.rename_over("ours\x1b[31m\n")


UNSENDABLE: list[Trouble] = [
    a_key_that_ends_the_line,
    a_key_with_a_nul,
    a_key_with_bytes_that_are_no_text,
]


def name(trouble: Trouble) -> str:
    return trouble.__name__


@pytest.mark.fault(29)
@pytest.mark.parametrize("become", [*TROUBLES, *UNSENDABLE], ids=name)
def test_while_the_file_can_not_be_used_the_last_good_key_stays(
    here: Place, secret: Secret, become: Trouble
) -> None:
    assert keys_seen(here, post()) == [["Bearer ours"]]
    before = len(told_of_keys(here.gateway))
    become(secret)
    for _ in range(3):
        assert keys_seen(here, post()) == [["Bearer ours"]]
    assert here.gateway.get("/healthz").status_code == 200
    secret.swap("next\n")
    assert keys_seen(here, post()) == [["Bearer next"]]
    trouble, end = told_of_keys(here.gateway)[before:]
    assert (trouble["level"], end["level"]) == ("error", "info")
    assert str(secret.file) in trouble["message"]
    assert "so the last good key stays" in trouble["message"]


@pytest.fixture(scope="module")
def waiting(
    here: Place, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GatewayProcess, Path]]:
    """A gateway whose file has never been there, and where that would be."""
    directory = tmp_path_factory.mktemp("waiting")
    key = directory / "key"
    settings = environment_of(
        here.cluster, directory, upstream_api_key_file=str(key), retry_after="7"
    )
    with gateway_process(directory, **settings) as gateway:
        yield gateway.ready(), key


def not_there(_: Path) -> None: ...


def empty(path: Path) -> None:
    path.write_bytes(b"\n \n")


def another_header(path: Path) -> None:
    path.write_bytes(b"ours\rX-Evil: 1\n")


def a_directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.fault(29)
@pytest.mark.parametrize("make", [not_there, empty, another_header, a_directory])
def test_while_there_never_was_a_key_requests_are_to_be_retried(
    here: Place, waiting: tuple[GatewayProcess, Path], make: Callable[[Path], None]
) -> None:
    gateway, key = waiting
    pods = here.cluster.models["llama"].pods
    before = len(seen_by(*pods))
    make(key)
    try:
        for headers in [(), ("Authorization: Bearer theirs",)]:
            with counted_once(gateway, UNKNOWN.code):
                answer = exchange(gateway.port, post(None, *headers))
            check_error(answer, UNKNOWN, retry_after=7)
        unknown = exchange(gateway.port, post(chat_body("no-such")))
        check_error(unknown, Expected(404, "model_not_found", INVALID, "model"))
        assert gateway.get("/healthz").status_code == 200
        assert gateway.in_flight() == 0
    finally:
        key.rmdir() if key.is_dir() else key.unlink(missing_ok=True)
    assert len(seen_by(*pods)) == before


@pytest.mark.fault(29)
def test_a_key_that_comes_late_is_used_at_once(
    here: Place, waiting: tuple[GatewayProcess, Path]
) -> None:
    gateway, key = waiting
    assert exchange(gateway.port, post()).status == 503
    key.write_text("late\n")
    assert exchange(gateway.port, post()).status == 200
    (*_, trouble, end) = told_of_keys(gateway)
    assert "so requests can't be forwarded" in trouble["message"]
    assert "is known" in end["message"]
    last = seen_by(*here.cluster.models["llama"].pods)[-1]
    assert values(last.raw, "authorization") == ["Bearer late"]
