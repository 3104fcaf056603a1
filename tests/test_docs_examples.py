"""What the documentation shows to be saved and applied works.

`tests/e2e/test_documented_commands.py` runs its commands.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from cache.fields import choose_port
from cache.slices import Reading, SliceSet
from cache.source import FileSource
from tests.documents import PAGES, block, section
from tests.harness import free_port, wait_for

STARTING = PAGES["docs/getting-started.md"]


def test_the_file_of_slices_is_read_as_two_engines(tmp_path: Path) -> None:
    path = tmp_path / "slices.yaml"
    path.write_text(block(STARTING, "slices"))
    slices = SliceSet(Reading(allow_loopback=True))  # as with any file
    assert slices.replace(FileSource(str(path)).list().items) == []
    (pool,) = slices.snapshot(0.0).pools.values()
    assert pool.model == "qwen3-0.6b"
    assert len(pool.routable) == 2


def pretender(kind: str) -> Any:
    documents = yaml.safe_load_all(block(STARTING, "manifests"))
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


@pytest.mark.parametrize("kind", ["ConfigMap", "Deployment", "Service"])
def test_the_pretender_s_manifests_fit_the_published_schema(kind: str) -> None:
    kubernetes_validate.validate(pretender(kind), "1.30", strict=True)


def test_the_pretender_s_parts_find_each_other() -> None:
    template = pretender("Deployment")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert pretender("Service")["spec"]["selector"] == template["metadata"]["labels"]
    assert "model.aibrix.ai/name" in pretender("Service")["metadata"]["labels"]
    (volume,) = template["spec"]["volumes"]
    assert volume["configMap"]["name"] == pretender("ConfigMap")["metadata"]["name"]
    assert container["command"][1] == "/engine/" + next(iter(pretender("ConfigMap")["data"]))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    """The URL of the pretender's engine, which loads for a second only."""
    port = free_port()
    code = pretender("ConfigMap")["data"]["engine.py"]
    assert code.count("8000") == 1
    assert code.count("+ 10\n") == 1
    script = tmp_path / "engine.py"
    script.write_text(code.replace("8000", str(port)).replace("+ 10\n", "+ 1\n"))
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen([sys.executable, str(script)], stderr=log) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def status_of(request: urllib.request.Request | str) -> int:
    """The status of the answer, which is JSON; 0 if there is none yet."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            json.load(answer)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def test_the_pretender_s_engine_becomes_ready_and_answers(engine: str) -> None:
    wait_for(lambda: status_of(f"{engine}/health") == 200, "it is ready")
    assert status_of(urllib.request.Request(f"{engine}/v1/chat/completions", b"{}")) == 200


def test_the_trap_of_two_ports_is_one_and_the_label_is_the_way_out() -> None:
    ports = [{"name": "serve", "port": 8000}, {"name": "http", "port": 8080}]
    assert choose_port(ports, None, "") == 8080
    assert choose_port(ports, "8000", "") == 8000
    told = section(PAGES["docs/migration-from-aibrix.md"], "Labels")
    assert "`serve` (8000, the engine) and `http` (8080" in told
    assert "model.aibrix.ai/port=8000" in told
