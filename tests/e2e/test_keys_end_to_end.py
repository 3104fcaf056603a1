"""Who has no valid key is told so, whatever becomes of the file that says which are valid."""

from collections.abc import Iterator

import pytest

from tests.e2e.expect import Expected, check_error, counted_once
from tests.e2e.mounted import CHANGES, TROUBLES, Secret, Trouble, told_of_keys
from tests.e2e.place import Place, place, seen_by
from tests.harness import wait_for
from tests.wire import RawAnswer, Wire, head_of, in_chunks, post

LARGE = 40_000_000
NO_KEY = Expected(401, "invalid_api_key", "authentication_error", says="Authorization: Bearer")
KEYS = "first\nschlüssel\n"
FIRST = "Authorization: Bearer first"
WRONG = "Authorization: Bearer wrong"


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Secret:
    return Secret(tmp_path_factory.mktemp("mounted") / "keys", KEYS)


@pytest.fixture(scope="module")
def here(mounted: Secret, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("keys"), api_keys_file=str(mounted.file)) as here:
        here.deploy("llama")
        yield here


@pytest.fixture
def secret(mounted: Secret, here: Place) -> Iterator[Secret]:
    """The gateway's file, which is as it was when the test is over."""
    yield mounted
    mounted.swap(KEYS)
    assert status(here, FIRST) == 200


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway that asks for a key where nobody else has to show one, too."""
    directory = tmp_path_factory.mktemp("closed")
    (directory / "keys").write_text("first\n")
    keys = str(directory / "keys")
    with place(directory, api_keys_file=keys, protect_views="true") as closed:
        yield closed


def status(here: Place, *headers: str) -> int:
    return here.exchange(post(None, *headers)).status


def get(here: Place, path: str, *headers: str, method: str = "GET") -> RawAnswer:
    return here.exchange(post(b"", *headers, target=path, method=method))


def seen(here: Place) -> int:
    return len(seen_by(*here.cluster.models["llama"].pods))


# --- What a request shows -----------------------------------------------------------------------

UPLOADS = {
    "a length": post(b"", WRONG, f"Content-Length: {LARGE}", close=False),
    "chunks": post(in_chunks(bytes(70_000), end=False), WRONG, "Transfer-Encoding: chunked"),
    "a wait to be told to go on": post(
        b"", WRONG, f"Content-Length: {LARGE}", "Expect: 100-continue", close=False
    ),
    "chunks, and a wait": post(
        b"", WRONG, "Transfer-Encoding: chunked", "Expect: 100-continue", close=False
    ),
}


@pytest.mark.fault(29)
@pytest.mark.parametrize("framing", UPLOADS)
def test_a_wrong_key_is_refused_before_the_body_is_taken(here: Place, framing: str) -> None:
    before = seen(here)
    with counted_once(here.gateway, NO_KEY.code), Wire(here.gateway.port) as wire:
        answer = wire.send(UPLOADS[framing]).read_to_the_end()  # the body never comes
    check_error(answer, NO_KEY)
    assert answer.value("connection") == "close"
    assert seen(here) == before


AS_SENT = "schlüssel".encode().decode("latin-1")
ODD = {
    "in lower case": ("bearer first", 200),
    "in capitals": ("BEARER first", 200),
    "with spaces": ("Bearer    first  ", 200),
    "in UTF-8": (f"Bearer {AS_SENT}", 200),
    "in Latin-1": ("Bearer schlüssel", 401),
    "with a tab between": ("Bearer\tfirst", 401),
    "with bytes that are no text": ("Bearer \xff\xfe\x80", 401),
    "without a scheme": ("first", 401),
    "of another scheme": ('Digest username="first", response="first"', 401),
    "with both keys": (f"Bearer first {AS_SENT}", 401),
    "of the file's form": ("Bearer first,schlüssel", 401),
    "that is empty": ("", 401),
    "of many words": ("Bearer " + "x " * 2000, 401),
    "of 8 KB": ("Bearer " + "x" * 8000, 401),
    "of 60 KB": ("Bearer " + "x" * 60_000, 431),
    "with a NUL": ("Bearer first\0", 400),
    "of two lines": ("Bearer first\r\n second", 400),
    "with a lone CR": ("Bearer first\rX: y", 400),
}


@pytest.mark.fault(29)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("how", ODD)
def test_a_credential_however_odd_is_no_bug(here: Place, how: str, version: str) -> None:
    value, expected = ODD[how]
    before = seen(here)
    answer = here.exchange(post(None, f"Authorization: {value}", version=version))
    assert answer.status == expected, answer.raw
    assert answer.complete
    assert seen(here) - before == (expected == 200)


@pytest.mark.fault(29)
@pytest.mark.parametrize("order", [(FIRST, WRONG), (WRONG, FIRST), (FIRST, FIRST)])
def test_two_credentials_are_none(here: Place, order: tuple[str, str]) -> None:
    check_error(here.exchange(post(None, *order)), NO_KEY)


# --- What becomes of the file -------------------------------------------------------------------


@pytest.mark.fault(29)
@pytest.mark.parametrize("how", CHANGES)
def test_keys_are_rotated_without_a_restart(here: Place, secret: Secret, how: str) -> None:
    second = "Authorization: Bearer second"
    assert (status(here, FIRST), status(here, second)) == (200, 401)
    CHANGES[how](secret, "first\nsecond\n")
    assert (status(here, FIRST), status(here, second)) == (200, 200), "both, for a while"
    CHANGES[how](secret, "second\n")
    assert (status(here, FIRST), status(here, second)) == (401, 200)
    assert get(here, "/v1/models", FIRST).status == 401
    assert get(here, "/v1/models", second).status == 200


@pytest.mark.fault(29)
@pytest.mark.parametrize("become", TROUBLES, ids=lambda trouble: trouble.__name__)
def test_a_file_that_can_not_be_used_admits_nobody_until_it_can(
    here: Place, secret: Secret, become: Trouble
) -> None:
    assert status(here, FIRST) == 200
    before = len(told_of_keys(here.gateway))
    become(secret)
    for headers in [
        (FIRST,),
        (WRONG,),
        (),
        ("Authorization: Bearer",),
        ("Authorization: Bearer ",),
    ]:
        check_error(here.exchange(post(None, *headers)), NO_KEY)
        assert get(here, "/v1/models", *headers).status == 401
    for path in ("/healthz", "/livez", "/metrics", "/status.json"):
        assert get(here, path).status == 200
    secret.swap(KEYS)
    assert status(here, FIRST) == 200
    trouble, end = told_of_keys(here.gateway)[before:]
    assert (trouble["level"], end["level"]) == ("error", "info")
    assert str(secret.file) in trouble["message"]
    assert "so no key is valid" in trouble["message"]
    assert "2 keys are valid" in end["message"]


# --- What is open -------------------------------------------------------------------------------

VIEWS = ["/metrics", "/status", "/status.json"]


@pytest.mark.fault(29)
@pytest.mark.parametrize("path", VIEWS)
def test_views_ask_for_a_key_where_they_are_told_to(closed: Place, path: str) -> None:
    for headers in [(), (WRONG,)]:
        refused = get(closed, path, *headers)
        check_error(refused, NO_KEY)
        assert refused.value("www-authenticate") == "Bearer"
        assert get(closed, path, *headers, method="HEAD").status == 401
    shown = get(closed, path, FIRST)
    assert shown.status == 200
    assert shown.content


@pytest.mark.fault(29)
def test_probes_are_open_and_what_is_not_there_is_so_for_all(closed: Place) -> None:
    for path in ("/healthz", "/livez"):
        assert get(closed, path).status == get(closed, path, WRONG).status == 200
    for path in ("/metrics/x", "/stat", "/statu"):
        assert get(closed, path).value("x-gateway-error") == "unknown_path"
    for path in (*VIEWS, "/healthz", "/v1/models"):
        refused = get(closed, path, method="POST")
        assert (refused.status, refused.value("allow")) == (405, "GET, HEAD")


@pytest.mark.fault(29)
def test_a_refused_view_is_counted(closed: Place) -> None:
    def counted() -> str:
        text = get(closed, "/metrics", FIRST).content.decode()
        return next((x for x in text.splitlines() if 'code="invalid_api_key"' in x), "0")

    before = float(counted().split()[-1])
    get(closed, "/status.json")
    wait_for(lambda: float(counted().split()[-1]) == before + 1, "it is counted")


@pytest.mark.fault(29)
def test_a_connection_survives_a_missing_key(closed: Place) -> None:
    with Wire(closed.gateway.port) as wire:
        first = wire.send(post(b"", target="/metrics", method="GET", close=False)).read_until(b"}}")
        assert head_of(first)[0] == "HTTP/1.1 401 Unauthorized"
        again = wire.send(post(b"", FIRST, target="/metrics", method="GET")).read_to_the_end()
    assert again.status == 200
