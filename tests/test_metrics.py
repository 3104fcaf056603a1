"""Where metrics are kept: files that whoever adds up can read at any moment."""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from metrics import FILES, make_files

KEY = mmap_key("done_total", "done_total", [], [], "What was done.")


def text(directory: Path) -> bytes:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def count(directory: Path, value: float) -> None:
    file = MmapedDict(str(directory / f"counter_{os.getpid()}.db"))  # type: ignore[no-untyped-call]
    file.write_value(KEY, value, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]


def test_files_that_were_just_made_can_be_read_and_say_nothing(tmp_path: Path) -> None:
    make_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{n}_{os.getpid()}.db" for n in FILES}
    assert text(tmp_path) == b""


def test_they_are_counted_in(tmp_path: Path) -> None:
    make_files(tmp_path)
    count(tmp_path, 3)
    assert b"\ndone_total 3.0\n" in text(tmp_path)


def test_what_a_former_process_with_this_id_counted_is_kept(tmp_path: Path) -> None:
    make_files(tmp_path)
    count(tmp_path, 3)
    make_files(tmp_path)
    assert b"\ndone_total 3.0\n" in text(tmp_path)
