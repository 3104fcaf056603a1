"""The Rust peer, `sglang-router`: installed into an environment of its own when first wanted."""

import subprocess
import sys
import venv
from pathlib import Path

PINNED = "sglang-router==0.3.2"
INSTALL_SECONDS = 300.0


class NotInstallable(Exception):
    """The package index does not give it."""


def installed(folder: Path) -> Path:
    """The program, installed below `folder`. Raises `NotInstallable`."""
    home = folder / PINNED.replace("==", "-")
    program, complete = home / "bin" / "smg", home / "complete"
    if complete.exists():
        return program
    print(f"installing {PINNED} into {home}", file=sys.stderr, flush=True)
    venv.create(home, with_pip=True, clear=True)
    (folder / ".gitignore").write_text("*\n")
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
    try:
        subprocess.run(  # noqa: S603 - arguments are ours
            [*pip, "install", PINNED],
            check=True,
            timeout=INSTALL_SECONDS,
            capture_output=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise NotInstallable(f"{PINNED} can't be installed: {error}") from None
    complete.touch()
    return program
