"""The commands of the pages that people read, run as they stand there.

A block of shell is run if the comment before it is `run`; one with `run: gateway` has the demo's
gateway in the place of the one at `127.0.0.1:8080`. Any answer of 400 and above fails the block,
but where the comment is `run: gateway, answers 503`: there its only request must get just that.
"""

import os
import re
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
AS_WRITTEN = "127.0.0.1:8080"
MARK = re.compile(rf"run|{GATEWAY}(?:, answers (?P<error>[45]\d\d))?")
#: Exit status of `curl` when the answer's status is 400 or above and it was told to mind it.
REFUSED = 22
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
    """Run a block; its exit status and all it said. Nothing of it is left running.

    `curl` fails there for answers that are errors, which it takes for success by itself.
    """
    (folder / ".curlrc").write_text("fail-with-body\nshow-error\n")
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=ROOT,
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TMPDIR": str(folder),
            "CURL_HOME": str(folder),
        },
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


def works(mark: str, code: str, folder: Path, port: int) -> None:
    """Fails unless the block ends as its mark says, with a gateway at `port`."""
    told = MARK.fullmatch(mark)
    assert told
    if mark.startswith(GATEWAY):
        assert AS_WRITTEN in code
        code = code.replace(AS_WRITTEN, f"127.0.0.1:{port}")
    status, said = run(code, folder)
    if told["error"] is None:
        assert status == 0, said
    else:
        assert status == REFUSED, f"no answer was an error: {said}"
        assert f"The requested URL returned error: {told['error']}" in said


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
    port = request.getfixturevalue("demo").port if mark.startswith(GATEWAY) else 0
    works(mark, code, tmp_path, port)


def test_the_readme_has_a_command_that_is_run() -> None:
    assert marked(ROOT / "README.md")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_marked_is_shell_and_marked_as_known(page: Path) -> None:
    found = marked(page)
    for mark, _, code in found:
        known = MARK.fullmatch(mark)
        assert known, mark
        assert not known["error"] or len(re.findall(r"\bcurl\b", code)) == 1, (
            "which one answers so?"
        )
    assert {language for _, language, _ in found} <= {"sh"}
    assert page.read_text().count("<!-- run") == len(found), "a mark has no block after it"


@pytest.mark.parametrize("code", ["false", "false | true", 'echo "$NO_SUCH_NAME"', "false; true"])
def test_a_command_that_fails_is_seen(tmp_path: Path, code: str) -> None:
    assert run(code, tmp_path)[0] != 0


NOT_FOUND = f"curl -sS http://{AS_WRITTEN}/nowhere"
WELL = f"curl -sS http://{AS_WRITTEN}/livez"


@pytest.mark.parametrize(
    ("mark", "code", "why"),
    [
        (GATEWAY, NOT_FOUND, "error: 404"),
        (GATEWAY, f"{NOT_FOUND}; {WELL}", "error: 404"),
        (GATEWAY, f"{NOT_FOUND} | cat", "error: 404"),
        (GATEWAY, f"curl -s -i http://{AS_WRITTEN}/nowhere", "404 Not Found"),
        (f"{GATEWAY}, answers 503", NOT_FOUND, "error: 404"),
        (f"{GATEWAY}, answers 503", WELL, "no answer was an error"),
    ],
)
def test_a_wrong_answer_is_seen(demo: Demo, tmp_path: Path, mark: str, code: str, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        works(mark, code, tmp_path, demo.port)


def test_an_answer_that_the_mark_expects_is_right(demo: Demo, tmp_path: Path) -> None:
    works(f"{GATEWAY}, answers 404", NOT_FOUND, tmp_path, demo.port)


@pytest.mark.parametrize(
    "mark",
    ["run: gateways", "run: gateway, answers 200", "run: gateway, answers", "run, answers 503"],
)
def test_other_marks_are_unknown(mark: str) -> None:
    assert not MARK.fullmatch(mark)


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
