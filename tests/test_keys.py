"""API keys from a real file that changes."""

import logging
import os
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest

from proxy.keys import ApiKeys
from tests.harness import wait_for


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("first-key\nsecond-key\n")
    return path


def replace(path: Path, text: str) -> None:
    """Write it as editors and Kubernetes do: a new file under the old name."""
    new = path.with_name("new")
    new.write_text(text)
    new.rename(path)


@pytest.mark.parametrize("key", ["first-key", "second-key"])
def test_every_key_of_the_file_is_valid(file: Path, key: str) -> None:
    assert ApiKeys(str(file)).admits(f"Bearer {key}")


@pytest.mark.parametrize("header", ["bearer first-key", "BEARER first-key", "Bearer  first-key "])
def test_the_scheme_s_case_and_spaces_do_not_matter(file: Path, header: str) -> None:
    assert ApiKeys(str(file)).admits(header)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "Bearer",
        "Bearer ",
        "first-key",
        "Bearer:first-key",
        "Basic first-key",
        "Bearerfirst-key",
        "Bearer first-ke",
        "Bearer first-keyy",
        "Bearer FIRST-KEY",
        "Bearer first-key second-key",
        "Bearer first-key,second-key",
        "Bearer first-key\nsecond-key",
        "Bearer *",
        "Bearer \udcff\u2603",
    ],
)
def test_anything_else_is_not(file: Path, header: str | None) -> None:
    assert not ApiKeys(str(file)).admits(header)


def test_blank_lines_and_spaces_around_a_key_are_not_part_of_one(file: Path) -> None:
    file.write_bytes(b"\n  first-key \r\n\r\n\tsecond-key\r\n   \n")
    keys = ApiKeys(str(file))
    assert keys.admits("Bearer first-key")
    assert keys.admits("Bearer second-key")
    assert not keys.admits("Bearer ")


def test_a_key_is_compared_as_the_bytes_that_the_client_sent(file: Path) -> None:
    file.write_bytes("schlüssel\n".encode())
    as_wsgi_shows_it = "schlüssel".encode().decode("latin-1")
    assert ApiKeys(str(file)).admits(f"Bearer {as_wsgi_shows_it}")


def test_keys_are_rotated_without_a_restart(file: Path) -> None:
    keys = ApiKeys(str(file))
    assert keys.admits("Bearer first-key")
    replace(file, "second-key\nthird-key\n")
    assert not keys.admits("Bearer first-key")
    assert keys.admits("Bearer second-key")
    assert keys.admits("Bearer third-key")


def test_a_mounted_secret_is_followed_through_its_symbolic_link(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(f"{name}-key\n")
    data = tmp_path / "..data"
    data.symlink_to("old")
    (tmp_path / "keys").symlink_to("..data/keys")
    keys = ApiKeys(str(tmp_path / "keys"))
    assert keys.admits("Bearer old-key")
    following = tmp_path / "..tmp"
    following.symlink_to("new")
    following.rename(data)
    assert keys.admits("Bearer new-key")
    assert not keys.admits("Bearer old-key")


def test_a_new_file_of_the_same_size_and_time_is_noticed(file: Path) -> None:
    keys = ApiKeys(str(file))
    assert keys.admits("Bearer first-key")
    before = file.stat()
    replace(file, "First-key\nSecond-key\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert not keys.admits("Bearer first-key")


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_file_admits_nobody(
    file: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ApiKeys(str(file))
    assert keys.admits("Bearer first-key")
    file.write_bytes(content)
    assert not keys.admits("Bearer first-key")
    assert not keys.admits("Bearer ")
    assert "has no keys, so no key is valid" in caplog.text


def test_a_missing_file_admits_nobody_until_it_is_there(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = file.read_text()
    file.unlink()
    keys = ApiKeys(str(file))
    assert not any(keys.admits(header) for header in ("Bearer first-key", "Bearer ", None))
    assert caplog.text.count("can't be read") == 1, "told once, not with every request"
    file.write_text(text)
    assert keys.admits("Bearer first-key")
    file.unlink()
    assert not keys.admits("Bearer first-key")


@pytest.mark.parametrize("what", ["directory", "link to itself", "pipe", "too much"])
def test_what_is_no_usable_file_admits_nobody_and_is_told_of_once(
    file: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ApiKeys(str(file))
    file.unlink()
    if what == "directory":
        file.mkdir()
    elif what == "link to itself":
        file.symlink_to(file)
    elif what == "pipe":
        os.mkfifo(file)
    else:
        file.write_bytes(b"first-key\n" * 200_000)
    with ThreadPoolExecutor(8) as threads:
        assert not any(threads.map(keys.admits, ["Bearer first-key"] * 50))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "so no key is valid" in caplog.text
    file.rmdir() if what == "directory" else file.unlink()
    file.write_text("first-key\n")
    assert keys.admits("Bearer first-key")


def test_a_file_that_can_not_be_opened_for_a_moment_makes_no_key_invalid(file: Path) -> None:
    keys = ApiKeys(str(file))
    replace(file, "third-key\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            keys.admits("Bearer third-key")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert keys.admits("Bearer third-key")


def test_changes_that_follow_each_other_at_once_are_all_noticed(file: Path) -> None:
    keys = ApiKeys(str(file))
    for number in range(100, 200):
        file.write_text(f"key-{number}\n")  # of one size, in one place
        assert keys.admits(f"Bearer key-{number}")
        assert not keys.admits(f"Bearer key-{number - 1}")


def test_a_file_that_is_written_again_with_the_same_keys_is_no_news(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        keys = ApiKeys(str(file))
        replace(file, "first-key\nsecond-key\n")
        assert keys.admits("Bearer first-key")
    assert caplog.text.count("2 keys are valid") == 1


@pytest.mark.parametrize("header", ["Bearer first-key", "Bearer key-499", "Bearer none", None, "x"])
def test_every_hash_is_compared_whichever_key_is_given(file: Path, header: str | None) -> None:
    file.write_text("first-key\n" + "".join(f"key-{number}\n" for number in range(499)))
    keys = ApiKeys(str(file))
    compared = 0

    def count(_: FrameType, event: str, called: object) -> None:
        nonlocal compared
        compared += event == "c_call" and getattr(called, "__name__", "") == "compare_digest"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        keys.admits(header)
    finally:
        sys.setprofile(before)
    assert compared == 500


def test_a_file_is_read_again_when_nothing_but_its_inode_tells_of_a_change(file: Path) -> None:
    keys = ApiKeys(str(file))
    assert keys.admits("Bearer first-key")
    before = file.stat()

    def rewritten() -> bool:
        file.write_text("First-key\nSecond-key\n")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        return file.stat().st_ctime_ns != before.st_ctime_ns  # its clock ticks slowly

    wait_for(rewritten, "the file has changed")
    assert not keys.admits("Bearer first-key")


def test_no_key_is_logged(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        ApiKeys(str(file)).admits("Bearer some-guess")
    assert "2 keys are valid" in caplog.text
    assert not any(text in caplog.text for text in ("first-key", "second-key", "some-guess"))


def test_no_key_is_kept(file: Path) -> None:
    keys = ApiKeys(str(file))
    keys.admits("Bearer first-key")
    assert "first-key" not in repr(vars(keys))
