"""The environment of a search: the gateway's lock and atheris', installed when first wanted."""

import subprocess
import venv
from pathlib import Path

LOCKS = ("requirements.txt", "requirements-fuzz.txt")
INSTALL_SECONDS = 600.0
#: How pip says that the index has no wheel for this Python or this machine.
_NO_WHEEL = "No matching distribution found"


class NotInstallable(Exception):
    """There is no wheel for this Python or this machine; the message says so in a line."""


def installed(home: Path, locks: Path) -> Path:
    """The Python of the environment `home`, with what the lock files in `locks` name.

    Raises `NotInstallable`, and `RuntimeError` with what pip said if it failed otherwise.
    """
    python, complete = home / "bin" / "python", home / "complete"
    wanted = "".join((locks / name).read_text() for name in LOCKS)
    if complete.exists() and complete.read_text() == wanted:
        return python
    print(f"installing atheris into {home}", flush=True)
    venv.create(home, with_pip=True, clear=True)
    files = [argument for name in LOCKS for argument in ("-r", str(locks / name))]
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        done = subprocess.run(  # noqa: S603 - arguments are ours
            [*pip, "--only-binary=:all:", "--require-hashes", *files],
            timeout=INSTALL_SECONDS,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError("pip took too long") from None
    if done.returncode and _NO_WHEEL in done.stderr:
        raise NotInstallable(_reason(done.stderr))
    if done.returncode:
        raise RuntimeError(done.stderr)
    complete.write_text(wanted)
    return python


def _reason(said: str) -> str:
    line = next(line for line in said.splitlines() if _NO_WHEEL in line)
    return line.removeprefix("ERROR: ").strip()
