"""The import rules of the top-level modules; `make test` checks those of the packages."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {path.stem for path in ROOT.glob("*.py")} | {
    "cache",
    "load",
    "proxy",
    "relay",
    "routing",
    "simulator",
    "bench",
    "tracing",
    "views",
}

#: What each may import of ours; every module there is must be listed.
ALLOWED = {
    "metrics": set(),
    "logs": set(),
    "settings": {"routing"},
    "events": {"cache"},
    "peers": {"cache", "events", "relay", "routing"},
    "exposition": {"cache", "load"},
    "parts": {"cache", "events", "load", "peers", "proxy", "routing", "settings"},
    "assembly": {
        "cache",
        "events",
        "load",
        "parts",
        "peers",
        "proxy",
        "routing",
        "settings",
        "tracing",
    },
    "status": {"cache", "parts"},
    "views": {
        "cache",
        "events",
        "exposition",
        "load",
        "parts",
        "peers",
        "routing",
        "status",
        "views",
    },
    "gateway": {"assembly", "cache", "exposition", "parts", "proxy", "settings", "status", "views"},
    "gunicorn.conf": {"cache", "gateway", "logs", "metrics", "settings", "tracing"},
    "cache": {"cache", "metrics"},
    "load": {"cache", "load", "metrics"},
    "routing": {"cache", "load", "metrics", "routing"},
    "proxy": {"cache", "load", "metrics", "proxy", "relay", "routing"},
    "relay": {"relay"},
    "tracing": {"metrics", "proxy", "tracing"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names} & OURS


def sources() -> list[tuple[str, Path]]:
    modules = [(path.stem, path) for path in ROOT.glob("*.py")]
    rooms = [
        (room, p)
        for room in ("cache", "load", "routing", "proxy", "relay", "tracing", "views")
        for p in (ROOT / room).rglob("*.py")
    ]
    return sorted(modules + rooms)


@pytest.mark.parametrize(
    ("room", "path"), sources(), ids=lambda value: getattr(value, "name", value)
)
def test_a_module_imports_only_what_its_room_may_know(room: str, path: Path) -> None:
    assert imported(path) <= ALLOWED[room]
