"""The Dockerfile's own steps give a folder that starts, tells its health, and ends as it should.

No container engine is needed: its instructions are carried out in folders, with the paths of the
image moved below one of them and this Python in the place of the base image's.
"""

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
# Everything that the Dockerfile puts into the image lies below this folder.
PREFIX = "/opt/gateway"
START_SECONDS = STOP_SECONDS = 20.0
#: What the status page is made of.
PAGE = {".html", ".css", ".js"}

SLICES = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSliceList",
    "items": [
        {
            "metadata": {"name": "m-1", "labels": {"model.aibrix.ai/name": "m"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        }
    ],
}


@dataclass
class Stage:
    """A stage of the build: its file system in a folder, and what its instructions set."""

    root: Path
    workdir: str = "/"
    env: dict[str, str] = field(default_factory=lambda: {"PATH": f"{BIN}:{os.environ['PATH']}"})
    settings: dict[str, str] = field(default_factory=dict)

    def path(self, path: str) -> Path:
        """Where a path of the image really is."""
        return self.root / os.path.normpath(os.path.join(self.workdir, path)).lstrip("/")

    def moved(self, text: str) -> str:
        return text.replace(PREFIX, str(self.path(PREFIX)))

    def command(self, instruction: str) -> list[str]:
        """The words of an instruction in exec form; its first one found along the PATH."""
        name, *arguments = json.loads(self.settings[instruction])
        found = shutil.which(name, path=self.env["PATH"])
        assert found, f"{name} is not in the image"
        return [found, *arguments]


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in dockerfile.splitlines() if line.strip() and line[0] != "#"]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        yield name, rest.strip()


def ignored(path: Path, patterns: list[str]) -> bool:
    """Whether .dockerignore keeps a file out of the build: the last match decides."""
    names = [path.as_posix(), *(parent.as_posix() for parent in path.parents)]
    result = False
    for pattern in patterns:
        expression = re.escape(pattern.lstrip("!"))
        expression = expression.replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(expression, name) for name in names if name != "."):
            result = not pattern.startswith("!")
    return result


def build_context(target: Path) -> Path:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    # No pattern brings back a part of an ignored folder, so those need no walk.
    tops = [top for top in ROOT.iterdir() if not ignored(Path(top.name), patterns)]
    for file in (file for top in tops for file in (top, *top.rglob("*")) if file.is_file()):
        inside = file.relative_to(ROOT)
        if not ignored(inside, patterns):
            (target / inside.parent).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target / inside)
    return target


def copy(stage: Stage, sources: Path, arguments: list[str]) -> None:
    *names, last = arguments
    target = stage.path(last)
    for name in names:
        found = list(sources.glob(name.strip("/")))
        assert found, f"COPY {name}: no such file"
        for source in found:
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)


def execute(stage: Stage, name: str, rest: str) -> None:
    """Carry out one instruction; those that a container engine reads later are only noted."""
    if name == "WORKDIR":
        stage.workdir = rest
        stage.path("").mkdir(parents=True, exist_ok=True)
    elif name == "ENV":
        for key, value in re.findall(r"(\w+)=(\S+)", rest):
            stage.env[key] = stage.moved(value).replace("$PATH", stage.env["PATH"])
    elif name == "ARG":
        key, _, value = rest.partition("=")
        stage.env[key] = value.strip('"')
    elif name == "RUN":
        command = ["/bin/sh", "-c", stage.moved(rest)]
        environ = os.environ | stage.env
        subprocess.run(command, cwd=stage.path(""), env=environ, check=True, timeout=300)
    elif name == "HEALTHCHECK":
        stage.settings[name] = rest.partition(" CMD ")[2]
    else:
        assert name in {"LABEL", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT"}
        stage.settings[name] = rest


def build(folder: Path) -> Stage:
    context = build_context(folder / "context")
    stages: dict[str, Stage] = {}
    for name, rest in instructions((ROOT / "Dockerfile").read_text()):
        if name == "FROM":
            for earlier in stages.values():  # its place is taken by the next stage
                earlier.root = earlier.root.rename(folder / f"stage-{len(stages)}")
            stage = Stage(folder / "root")
            stages[rest.partition(" AS ")[2]] = stage
        elif name == "COPY" and rest.startswith("--from="):
            origin, *paths = rest.removeprefix("--from=").split()
            assert paths == [PREFIX, PREFIX]  # a virtual environment only works where it was made
            copy(stage, stages[origin].root, paths)
        elif name == "COPY":
            copy(stage, context, rest.split())
        else:
            execute(stage, name, rest)
    return stage


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return build(tmp_path_factory.mktemp("image"))


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    paths = (path for path in folder.rglob("*") if not path.is_symlink())
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in paths}


def wait_until(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


def health(port: int) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def processes_of(image: Stage) -> list[int]:
    """Those that were started with the image's PATH, whatever they did with session and folder."""
    mark = str(image.path(PREFIX)).encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return found


def environment_of(image: Stage, folder: Path) -> dict[str, str]:
    """What the container would have in its environment; `folder` is its /tmp."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    slices = folder / "slices.json"
    slices.write_text(json.dumps(SLICES))
    ours = {"HOME": str(image.root), "TMPDIR": str(folder), "PORT": str(port)}
    return image.env | ours | {"GATEWAY_SOURCE": f"file:{slices}"}


@contextmanager
def started(image: Stage, environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log.open("wb") as output,
        subprocess.Popen(
            image.command("ENTRYPOINT"),
            cwd=image.path(""),
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            for pid in processes_of(image):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_only_what_the_image_needs_enters_the_build(tmp_path: Path) -> None:
    context = build_context(tmp_path)
    assert {path.name for path in context.iterdir() if path.is_dir()} <= {
        *("cache", "load", "routing", "proxy", "relay", "tracing", "views")
    }
    files = [path for path in context.rglob("*") if path.is_file()]
    assert {path.name for path in files if path.suffix != ".py"} == {
        "requirements.txt",
        "requirements-tracing.txt",
        *(path.name for path in (ROOT / "views").iterdir() if path.suffix in PAGE),
    }


def test_the_image_is_the_application_and_its_libraries_without_pip(image: Stage) -> None:
    libraries = list(image.path(PREFIX).glob("venv/lib/*/site-packages"))
    assert len(libraries) == 1
    assert not (libraries[0] / "pip").exists()
    present = {path.name for path in image.path("").iterdir()}
    assert not present & {"tests", "simulator", "bench", "k8s", "requirements.txt"}


def test_every_module_in_the_image_is_compiled(image: Stage) -> None:
    for source in image.path("").rglob("*.py"):
        assert list((source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")), source


def test_what_the_application_imports_of_the_project_is_in_the_image(image: Stage) -> None:
    ours = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
    for source in image.path("").rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules.append(str(node.module))
            for name in {module.partition(".")[0] for module in modules} & ours:
                assert image.path(name).is_dir() or image.path(f"{name}.py").is_file(), source


def test_the_user_is_a_number_and_not_root(image: Stage) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.settings["USER"])


def test_the_label_has_the_projects_version(image: Stage) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in image.settings["LABEL"]


def test_the_health_check_fails_while_nothing_listens(image: Stage, tmp_path: Path) -> None:
    environ = environment_of(image, tmp_path)
    done = subprocess.run(image.command("HEALTHCHECK"), env=environ, capture_output=True)
    assert done.returncode == 1


def test_it_starts_and_is_healthy_and_writes_nowhere_and_ends_at_the_stop_signal(
    image: Stage, tmp_path: Path
) -> None:
    before = files_of(image.root)
    environ = environment_of(image, tmp_path)
    log = tmp_path / "log"
    with started(image, environ, log) as process:
        port = int(environ["PORT"])
        wait_until(
            lambda: health(port) == 200 or process.poll() is not None, START_SECONDS, log.read_text
        )
        assert process.poll() is None, log.read_text()
        check = subprocess.run(image.command("HEALTHCHECK"), env=environ, capture_output=True)
        assert check.returncode == 0, check.stderr
        process.send_signal(getattr(signal, image.settings["STOPSIGNAL"]))
        assert process.wait(STOP_SECONDS) == 0, log.read_text()
        wait_until(lambda: not processes_of(image), STOP_SECONDS, log.read_text)
    assert files_of(image.root) == before
