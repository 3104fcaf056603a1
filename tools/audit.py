"""`make audit`: known vulnerabilities of the locked packages, licences, and an SBOM into `audit/`.

Ends with 1 if something is wrong. Where the service that knows vulnerabilities can't be reached, a
line says so and the rest counts; where its tools can't be installed, a line says that.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tools.locks import Pin, pins_of
from tools.verdict import NoAnswer, licence_troubles, vulnerabilities

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / ".venv-audit" / "bin"
REPORTS = ROOT / "audit"
LOCKS = ("requirements.txt", "requirements-tracing.txt", "requirements-dev.txt")
#: Seconds that any of the programs may take.
LONGEST = 600.0


def main() -> int:
    """Write the reports; returns the status to end with."""
    if not (PROGRAMS.parent / ".complete").exists():
        print("audit: skipped: its tools are not installed")
        return 0
    REPORTS.mkdir(exist_ok=True)
    runtime = pins_of((ROOT / LOCKS[0]).read_text())
    write_sbom()
    troubles = look_at_licences(runtime)
    try:
        troubles += look_up_vulnerabilities(runtime)
        print(f"vulnerabilities: looked up in {', '.join(LOCKS)}")
    except NoAnswer:
        print("vulnerabilities: skipped: the vulnerability service can't be reached")
    for line in troubles:
        print(line, file=sys.stderr)
    return 1 if troubles else 0


def write_sbom() -> None:
    """Write down in CycloneDX what the gateway runs on; raises `RuntimeError`."""
    path = REPORTS / "sbom.json"
    done = _run(
        *("cyclonedx-py", "requirements", "--pyproject", "pyproject.toml", LOCKS[0]),
        *("--output-reproducible", "--output-format", "JSON", "--output-file", str(path)),
    )
    if done.returncode:
        raise RuntimeError(f"the SBOM can't be written: {done.stderr}")
    print(f"SBOM: {path.relative_to(ROOT)}")


def look_at_licences(runtime: list[Pin]) -> list[str]:
    """Write down the licences of what the gateway runs on; returns what is wrong with them."""
    path = REPORTS / "licences.json"
    done = _run(
        *("pip-licenses", "--python", str(ROOT / ".venv" / "bin" / "python"), "--format", "json"),
        *("--packages", *(pin.name for pin in runtime)),
    )
    if done.returncode:
        raise RuntimeError(f"the licences can't be listed: {done.stderr}")
    path.write_text(done.stdout)
    print(f"licences: {path.relative_to(ROOT)}")
    return licence_troubles(done.stdout, runtime)


def look_up_vulnerabilities(runtime: list[Pin]) -> list[str]:
    """Write down what is known of the locked packages; returns what is wrong with them.

    Raises `NoAnswer`. A few packages are asked about first, so that a hundred questions don't go to
    where nobody answers.
    """
    few = runtime[:3]
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "requirements.txt"
        lines = [f"{pin.name}=={pin.version} --hash={' --hash='.join(pin.hashes)}" for pin in few]
        probe.write_text("\n".join(lines))
        done = _pip_audit(str(probe))
        vulnerabilities(done.stdout, done.stderr, few)
    done = _pip_audit(*LOCKS)
    (REPORTS / "vulnerabilities.json").write_text(done.stdout)
    return vulnerabilities(done.stdout, done.stderr, runtime)


def _pip_audit(*locks: str) -> subprocess.CompletedProcess[str]:
    files = [argument for lock in locks for argument in ("--requirement", lock)]
    options = ("--require-hashes", "--disable-pip", "--format", "json")
    return _run("pip-audit", *files, *options, "--progress-spinner", "off")


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - arguments are ours
        [str(PROGRAMS / program), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )


if __name__ == "__main__":
    sys.exit(main())
