"""The gateway's own key for endpoints, from a real file that changes."""

import logging
from pathlib import Path

import pytest

from proxy.call import Call
from proxy.errors import GatewayError
from proxy.keys import UpstreamKey
from proxy.request import InferenceRequest
from proxy.upload import read_body
from tests.test_call import call_at
from tests.test_keys import replace

SECRET = "sk-upstream"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{SECRET}\n")
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"sk-upstream",
        b"sk-upstream\n",
        b"\n \n\t\r\n  sk-upstream \r\nsk-other\n",
        b"sk-upstream\n\x00\xff",
    ],
)
def test_the_key_is_the_first_line_that_is_not_empty(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert UpstreamKey(str(file)).authorization() == "Bearer sk-upstream"


@pytest.mark.parametrize("key", [b"!~azAZ09-._+/==", b"k" * 4096])
def test_any_visible_ascii_can_be_a_key(file: Path, key: bytes) -> None:
    file.write_bytes(key)
    assert UpstreamKey(str(file)).authorization() == f"Bearer {key.decode()}"


UNSENDABLE = [
    b"sk\rX-Evil: 1",
    b"sk\r\rX-Evil: 1",
    b"\rsk",
    b"sk\x00",
    b"\x00",
    b"sk\x0bsk",
    b"\x0c",
    b"sk\x7f",
    b"sk\x1b[31m",
    "schlüssel".encode(),
    b"\xef\xbb\xbfsk",
    b"\xff\xfes\x00k\x00",
    b"two words",
    b"a\tb",
    b"k" * 4097,
]


@pytest.mark.parametrize("content", UNSENDABLE)
def test_what_no_header_may_carry_is_never_a_key(
    file: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_bytes(content)
    key = UpstreamKey(str(file))
    for _ in range(3):
        with pytest.raises(GatewayError) as refused:
            key.authorization()
        assert refused.value.code == "upstream_key_unknown"
    (line,) = caplog.records
    assert "other than 1 to 4096 visible ASCII" in line.getMessage()
    assert "requests can't be forwarded" in line.getMessage()


@pytest.mark.parametrize("content", [b"", b"\n \r\n\t", *UNSENDABLE[:4]])
def test_the_last_good_key_stays_while_the_file_has_none(
    file: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    key = UpstreamKey(str(file))
    file.write_bytes(content)
    assert [key.authorization() for _ in range(3)] == [f"Bearer {SECRET}"] * 3
    (line,) = caplog.records
    assert "so the last good key stays" in line.getMessage()
    replace(file, "sk-next\n")
    assert key.authorization() == "Bearer sk-next"


def test_a_file_that_comes_late_is_found(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.unlink()
    key = UpstreamKey(str(file))
    for _ in range(3):
        with pytest.raises(GatewayError):
            key.authorization()
    assert caplog.text.count("can't be read") == 1
    file.mkdir()
    with pytest.raises(GatewayError):
        key.authorization()
    file.rmdir()
    replace(file, "sk-late\n")
    assert key.authorization() == "Bearer sk-late"
    file.unlink()
    assert key.authorization() == "Bearer sk-late"


def test_no_key_is_logged_or_shown(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        key = UpstreamKey(str(file))
        key.authorization()
        replace(file, f"{SECRET}\x00\n")
        key.authorization()
        file.unlink()
        key.authorization()
    assert len(caplog.records) == 3
    assert SECRET not in caplog.text
    assert SECRET not in repr(key) + repr(vars(key))


def test_a_request_shows_nothing_secret_of_itself() -> None:
    """Whoever logs one, or an error that names one, must not log a key with it."""
    fields = {"Authorization": f"Bearer {SECRET}"}
    call = call_at(f"/v1/chat/completions?key={SECRET}")
    called = Call("POST", call.path, call.uri, fields, "http", "", call.input, input_ends=True)
    request = InferenceRequest(
        "POST", call.uri, tuple(fields.items()), fields, (), read_body(called, 1), replayable=True
    )
    assert SECRET in called.uri + str(request.fields)
    assert SECRET not in repr(called) + repr(request)
