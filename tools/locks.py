"""Lock files as uv writes them: names, versions and hashes of all that is installed."""

import re
from dataclasses import dataclass

_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)(?: ; ([^\\\n]+?))?(?: \\)?")


@dataclass(frozen=True)
class Pin:
    """One package of a lock. `marker` says where it is wanted, empty for everywhere."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def canonical(name: str) -> str:
    """A package's name in the one spelling that all have (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins_of(lock: str) -> list[Pin]:
    """The packages of a lock file's text. Raises `ValueError` for a line that pins nothing."""
    pins: list[Pin] = []
    for entry in re.sub(r"^ +#.*\n?", "", lock, flags=re.MULTILINE).split("\n"):
        if not entry or entry.startswith("#"):
            continue
        if entry.startswith("    --hash=sha256:"):
            last = pins.pop()
            value = entry.strip().removeprefix("--hash=").removesuffix(" \\")
            pins.append(Pin(last.name, last.version, last.marker, (*last.hashes, value)))
            continue
        found = _PIN.fullmatch(entry)
        if found is None:
            raise ValueError(f"{entry!r} pins no version")
        pins.append(Pin(canonical(found[1]), found[2], (found[3] or "").strip(), ()))
    return pins


def wanted_by(requirements: str) -> list[str]:
    """The lines of an `.in` file that want a package, without comments and options."""
    lines = (line.partition("#")[0].strip() for line in requirements.splitlines())
    return [line for line in lines if line and not line.startswith("-")]
