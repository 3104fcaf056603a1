"""The simulator's command line, against a cluster that runs in a process of its own."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.__main__ import main


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    return tmp_path / "kubeconfig"


@pytest.fixture
def api(kubeconfig: Path) -> Iterator[str]:
    """The URL of a cluster started by `serve`, which must end well at SIGTERM."""
    command = [sys.executable, "-m", "simulator", "serve", "--api-port", "0"]
    options = ["--models", "chat=2,embed=1", "--kubeconfig", str(kubeconfig)]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        lines = [server.stdout.readline() for _ in range(5)]
        assert "chat-0 at 127." in lines[2]
        yield lines[0].split()[-1]
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0


def test_pods_are_listed_changed_and_scaled(
    api: str, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> list[list[str]]:
        assert main([*arguments, "--api", api]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    config = json.loads(kubeconfig.read_text())
    assert config["clusters"][0]["cluster"]["server"] == api
    assert [line[0] for line in run("list")] == ["chat-0", "chat-1", "embed-0"]
    for action, words in (
        ("fail", "slice not ready"),
        ("crash", "process gone"),
        ("start", "process loading"),
        ("ready", "slice ready"),
        ("terminate", "chat-0"),
    ):
        assert words in " ".join(run("pod", "chat-0", action)[0])
    assert [line[0] for line in run("scale", "embed", "2")][-2:] == ["embed-0", "embed-1"]


def test_mistakes_are_one_clear_line_and_status_2(
    api: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        (["pod", "nobody", "ready"], "there is no pod nobody"),
        (["pod", "chat-0", "start"], "chat-0 is ready"),
        (["scale", "nothing", "1"], "there is no model nothing"),
        (["scale", "chat", "-1"], "count is '-1'"),
    ):
        assert main([*arguments, "--api", api]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line


def test_a_cluster_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--api", "http://127.0.0.1:1"]) == 2
    assert "no simulator answers at http://127.0.0.1:1" in capsys.readouterr().err


def test_what_is_no_url_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--api", "localhost"]) == 2
    assert "localhost is not the URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--models", "=2", "is not NAME=PODS"),
        ("--models", "chat=x", "is not NAME=PODS"),
        ("--models", "chat=1,", "is not NAME=PODS"),
        ("--api-port", "99999", "is not a port"),
    ],
)
def test_options_that_cannot_be_read_are_refused(
    option: str, value: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", option, value])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
