"""The commands of the pages that people read, run as they stand there.

A block of shell is run if the comment before it is `run`; one with `run: gateway` has the demo's
gateway in the place of the one at `127.0.0.1:8080`.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_demo import Demo
from tests.harness import ROOT, wait_for
from tests.markdown import blocks, pages

GATEWAY = "run: gateway"
#: Seconds that a block may take.
LONGEST = 60.0


def marked(page: Path) -> list[tuple[str, str, str]]:
    return [block for block in blocks(page.read_text()) if block[0].partition(":")[0] == "run"]


EVERY = [
    pytest.param(mark, code, id=f"{page.relative_to(ROOT)}:{number}")
    for page in pages()
    for number, (mark, _, code) in enumerate(marked(page), 1)
]


def run(code: str, folder: Path) -> tuple[int, str]:
    """Run a block; its exit status and all it said. Nothing of it is left running."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=ROOT,
        env=os.environ
        | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=LONGEST)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()
    return process.returncode, said


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    running = Demo(tmp_path_factory.mktemp("documented"))
    try:
        wait_for(lambda: "Ctrl-C ends everything" in running.text(), "the demo runs")
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
        running.process.wait(20)


@pytest.mark.parametrize(("mark", "code"), EVERY)
def test_a_documented_command_works(
    request: pytest.FixtureRequest, tmp_path: Path, mark: str, code: str
) -> None:
    if mark == GATEWAY:
        port = request.getfixturevalue("demo").port
        assert "127.0.0.1:8080" in code
        code = code.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    status, said = run(code, tmp_path)
    assert status == 0, said


def test_the_readme_has_a_command_that_is_run() -> None:
    assert marked(ROOT / "README.md")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_marked_is_shell_and_marked_as_known(page: Path) -> None:
    found = marked(page)
    assert {mark for mark, _, _ in found} <= {"run", GATEWAY}
    assert {language for _, language, _ in found} <= {"sh"}
    assert page.read_text().count("<!-- run") == len(found), "a mark has no block after it"


@pytest.mark.parametrize("code", ["false", "false | true", 'echo "$NO_SUCH_NAME"', "false; true"])
def test_a_command_that_fails_is_seen(tmp_path: Path, code: str) -> None:
    assert run(code, tmp_path)[0] != 0


def test_blocks_are_found_with_their_marks() -> None:
    page = """\
<!-- run -->
```sh
echo one
```

<!-- run: gateway -->

```sh
echo two \\
  three
```
<!-- other: remark --> text
```json
{}
```
"""
    assert blocks(page) == [
        ("run", "sh", "echo one\n"),
        (GATEWAY, "sh", "echo two \\\n  three\n"),
        ("", "json", "{}\n"),
    ]
