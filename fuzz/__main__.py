"""`make fuzz`: searches for inputs that break a parser's promises, guided by coverage.

Each parser is searched for `FUZZ_SECONDS` (60). An input that breaks one is shown, and ends it all
with status 1. Where atheris can't be had (Linux, and CPythons it is built for), a line says so.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fuzz.environment import NotInstallable, installed
from fuzz.targets import TARGETS

ROOT = Path(__file__).parent.parent
#: Bytes an input may have, seconds one may take, and megabytes of memory all may.
MOST_BYTES = 4096
INPUT_SECONDS = 10
MOST_MEGABYTES = 2048
#: Seconds a search may take to begin and to end.
PATIENCE = 120.0


def main() -> int:
    """Search each parser; returns the status to end with."""
    seconds = os.environ.get("FUZZ_SECONDS") or "60"
    if not re.fullmatch("[1-9][0-9]{0,5}", seconds):
        print(f"FUZZ_SECONDS={seconds!r}: a whole number of seconds is needed", file=sys.stderr)
        return 2
    try:
        python = installed(ROOT / ".venv-fuzz", ROOT)
    except NotInstallable as reason:
        print(f"skipped: atheris can't be had here: {reason}")
        return 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for name in TARGETS:
            if not search(python, name, int(seconds), Path(folder) / name):
                return 1
    return 0


def search(python: Path, name: str, seconds: int, folder: Path) -> bool:
    """Search one parser; false if an input broke it, which is then shown."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    for number, seed in enumerate(TARGETS[name].seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    (folder / "words").write_text(dictionary(TARGETS[name].WORDS))
    command = [
        *(str(python), "-m", "fuzz.search", name, str(corpus)),
        *(f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", f"-timeout={INPUT_SECONDS}"),
        *(f"-rss_limit_mb={MOST_MEGABYTES}", f"-artifact_prefix={folder}/found-"),
        *(f"-dict={folder}/words", "-print_final_stats=1"),
    ]
    log = folder / "log"
    with log.open("wb") as output:
        try:
            status = subprocess.run(  # noqa: S603 - arguments are ours
                command, cwd=ROOT, stdout=output, stderr=output, timeout=seconds + PATIENCE
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
    said = log.read_text(errors="replace")
    inputs = re.search(r"stat::number_of_executed_units: *(\d+)", said)
    if status == 0 and inputs:
        covered = re.findall(r" cov: (\d+) ", said)
        print(f"{name}: {inputs[1]} inputs, {covered[-1] if covered else '?'} branches, all well")
        return True
    print(said[-6000:])
    for found in sorted(folder.glob("found-*")):
        print(f"{name}: broken by {found.read_bytes()!r}")
    print(f"{name}: failed with status {status}", flush=True)
    return False


def dictionary(words: Iterable[bytes]) -> str:
    """The words as libFuzzer reads them, one a line, each byte spelled out."""
    return "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words)


if __name__ == "__main__":
    sys.exit(main())
