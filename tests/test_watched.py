"""A file is read again when it has changed, in whatever way, and not before."""

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.watched import Unusable, WatchedFile
from tests.harness import wait_for

Found = bytes | str


class Reader:
    """What is made of a file: its content, or why there is none; and how often it was made."""

    def __init__(self, path: Path) -> None:
        self.made: list[Found] = []
        self._file: WatchedFile[Found] = WatchedFile(str(path), b"", self._make)

    def _make(self, found: bytes | Unusable, last: Found) -> Found:
        assert last == (self.made[-1] if self.made else b"")
        self.made.append(found if isinstance(found, bytes) else str(found))
        return self.made[-1]

    def __call__(self) -> Found:
        return self._file.current()


def rewrite(path: Path) -> None:
    path.write_bytes(b"new")


def rename_over(path: Path) -> None:
    path.with_name("next").write_bytes(b"new")
    path.with_name("next").rename(path)


def swap_the_link(path: Path) -> None:
    following = path.with_name("..tmp")
    following.symlink_to("..new")
    following.rename(path.with_name("..data"))


CHANGES = (rewrite, rename_over, swap_the_link)
Change = Callable[[Path], None]


def name(change: Change) -> str:
    return change.__name__


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mounted Secret for each test. None of them has changed for a while: all have one time."""
    directory = tmp_path_factory.mktemp("settled")
    files = []
    for case in (*map(name, CHANGES), "quiet", "lost"):
        for version in ("old", "new"):
            (directory / case / f"..{version}").mkdir(parents=True)
            files.append(directory / case / f"..{version}" / "file")
            files[-1].write_text(version)
            os.utime(files[-1], ns=(0, 0))
        (directory / case / "..data").symlink_to("..old")
        (directory / case / "file").symlink_to("..data/file")
    wait_for(
        lambda: min(time.time_ns() - file.stat().st_ctime_ns for file in files) > 1_200_000_000,
        "the files have settled",
    )
    return directory


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("change", CHANGES, ids=name)
def test_a_change_that_leaves_size_and_time_is_noticed_at_once(
    directory: Path, change: Change
) -> None:
    file = directory / name(change) / "file"
    content = Reader(file)
    assert [content() for _ in range(3)] == [b"old"] * 3
    change(file)
    os.utime(file, ns=(0, 0))
    assert [content() for _ in range(3)] == [b"new"] * 3
    assert content.made == [b"old", b"new"]


def test_a_file_that_does_not_change_is_not_opened(directory: Path) -> None:
    content = Reader(directory / "quiet" / "file")
    assert content() == b"old"
    with no_descriptor_left():
        assert content() == b"old"
        content_of_another = Reader(directory / "quiet" / "..new" / "file")
        with pytest.raises(OSError, match="Too many open files"):
            content_of_another()
    assert content_of_another() == b"new"


def test_a_file_that_is_lost_and_found_is_told_of_twice(directory: Path) -> None:
    file = directory / "lost" / "file"
    content = Reader(file)
    assert content() == b"old"
    file.rename(file.with_name("elsewhere"))
    assert {content() for _ in range(3)} == {"can't be read (No such file or directory)"}
    file.with_name("elsewhere").rename(file)
    assert {content() for _ in range(3)} == {b"old"}
    assert len(content.made) == 3


@pytest.mark.parametrize(
    ("path", "why"),
    [("/dev/null", "is no regular file"), ("/dev/null/x", "can't be read (Not a directory)")],
)
def test_what_is_no_file_says_so(path: str, why: str) -> None:
    assert Reader(Path(path))() == why


def test_a_process_without_descriptors_says_nothing_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    watched = WatchedFile[int](str(path), 0, lambda found, last: last + 1)
    with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
        watched.current()
    assert watched.last == 0
    assert watched.current() == 1
