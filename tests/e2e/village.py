"""A gateway whose cluster is a file, and whose names are as evil as names can be."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import GatewayProcess, gateway_process, wait_for
from tests.slices import raw_slice

EVIL = """<script>pwned()</script><img src=x onerror='pwned()'>"&amp;{{7*7}}</template></td>"""
MODEL = f"{EVIL}\N{ARABIC LETTER ALEF}\N{PILE OF POO}"
KEY = {"Authorization": "Bearer sk-key"}
TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"


@dataclass
class Village:
    """A gateway each of whose workers reads a file of slices when it is its turn."""

    gateway: GatewayProcess
    file: Path
    version: int = 0

    def show(self, **conditions: bool) -> None:
        """Let the file say that of the pod with the evil name."""
        self.version += 1
        pod = {
            "addresses": ["10.0.0.1"],
            "conditions": conditions,
            "zone": EVIL,
            "nodeName": EVIL,
            "targetRef": {"kind": "Pod", "name": EVIL},
        }
        raw = raw_slice(pod, model=MODEL, version=str(self.version))
        raw["metadata"]["annotations"] = {TRIGGER: EVIL}
        empty = raw_slice(name="empty", model="empty", version="1")
        fresh = self.file.with_name("fresh")
        fresh.write_text(json.dumps({"kind": "List", "items": [raw, empty]}))
        fresh.rename(self.file)

    def show_to_all(self, **conditions: bool) -> None:
        """The same, and wait until every worker has read it."""
        self.show(**conditions)
        self.wait_until_all_have_read()

    def wait_until_all_have_read(self) -> None:
        """Wait until every worker has read what the file says now."""
        shown = time.monotonic()

        def all_have_read() -> bool:
            since = time.monotonic() - shown  # before the age is told, which grows meanwhile
            text = self.gateway.get("/metrics", headers=KEY).text
            return float(text.partition("\ngateway_snapshot_age_seconds ")[2].split()[0]) < since

        wait_for(all_have_read, "all have read it")

    def document(self) -> dict[str, Any]:
        """What one of the workers answers, on a connection of its own."""
        answer = self.gateway.get("/status.json", headers=KEY | {"Connection": "close"})
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def village(directory: Path, workers: int = 2) -> Iterator[Village]:
    """It shows nothing to those without `KEY`."""
    file, keys = directory / "slices.json", directory / "keys"
    file.write_text(json.dumps({"kind": "List", "items": []}))
    keys.write_text("sk-key\n")
    variables = {
        "GATEWAY_SOURCE": f"file:{file}",
        "GATEWAY_POLL_SECONDS": "0.5",
        "GATEWAY_SCRAPE_SECONDS": "0",
        "GATEWAY_WORKERS": str(workers),
        "GATEWAY_API_KEYS_FILE": str(keys),
        "GATEWAY_PROTECT_VIEWS": "true",
    }
    with gateway_process(directory, **variables) as gateway:
        running = Village(gateway.ready(), file)
        wait_for(lambda: len(running.document()["workers"]) == workers, "all workers are up")
        running.wait_until_all_have_read()  # else the next would be the beginning of some
        running.show_to_all(ready=False)
        assert gateway.chat("nowhere").status_code == 401
        yield running
