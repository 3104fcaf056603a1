"""`make demo`, as a new user runs it: the lines it prints are pasted into a shell."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, free_port, wait_for


class Demo:
    """The demo, running, with what it has printed so far."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        self.port = free_port()
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "simulator.demo"],
                cwd=ROOT,
                env=os.environ | {"PORT": str(self.port), "TMPDIR": str(folder)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        return self.output.read_text()

    def lines_to_paste(self) -> list[str]:
        joined = self.text().replace("\\\n", " ")
        return [line.strip() for line in joined.splitlines() if line.startswith("  curl ")]

    def descendants(self) -> list[int]:
        return _descendants(self.process.pid)


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *_descendants(child))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    running = Demo(tmp_path_factory.mktemp("demo"))
    try:
        wait_for(lambda: "Ctrl-C ends everything" in running.text(), "the demo runs")
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
        running.process.wait(20)


def test_the_lines_it_prints_work_when_pasted(demo: Demo) -> None:
    chat, stream, models, status, leaving = [
        subprocess.run(
            ["sh", "-c", f"{line} -sS -m 20"], capture_output=True, text=True, check=True
        )
        for line in demo.lines_to_paste()
    ]
    assert '"chat.completion"' in chat.stdout
    assert stream.stdout.strip().endswith("data: [DONE]")
    assert '"leaving"' in models.stdout
    assert '"terminating"' in status.stdout
    assert leaving.stdout.startswith("HTTP/1.1 503 ")
    assert "Retry-After: 1" in leaving.stdout
    assert "1 endpoint, 1 terminating" in leaving.stdout


def test_it_tells_of_pods_and_requests_in_readable_lines(demo: Demo) -> None:
    wait_for(lambda: "pod chat-2: not ready" in demo.text(), "a pod starts by itself")
    subprocess.run(["sh", "-c", demo.lines_to_paste()[0] + " -sS"], check=True, capture_output=True)
    wait_for(lambda: "POST /v1/chat/completions 200 · model chat" in demo.text(), "it is told")


def test_ctrl_c_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    wait_for(lambda: "Ctrl-C ends everything" in demo.text(), "the demo runs")
    processes = demo.descendants()
    assert len(processes) >= 2  # gunicorn and its worker

    demo.process.send_signal(signal.SIGINT)

    assert demo.process.wait(20) == 0
    assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
    assert "Traceback" not in demo.text()


def test_a_port_that_is_taken_is_one_clear_line(demo: Demo) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "simulator.demo"],
        cwd=ROOT,
        env=os.environ | {"PORT": str(demo.port)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == 2
    assert second.stderr.startswith(f"demo: PORT={demo.port} can't be used: ")
    assert second.stderr.count("\n") == 1
