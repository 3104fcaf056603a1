"""What processes use, read from /proc, and how they are ended."""

import os
import re
import signal
import subprocess
import time
from dataclasses import astuple, dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
#: Seconds between two looks at processes that are expected to end.
GLANCE = 0.05
_GONE = (FileNotFoundError, ProcessLookupError)
_SWITCHES = re.compile(r"^(?:non)?voluntary_ctxt_switches:\s*(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Usage:
    """What several processes use together: seconds of CPU so far, and bytes."""

    cpu: float
    kernel_cpu: float  # of it, that the kernel spent for them
    rss: float
    rss_children: float  # without the first process, which only looks after the others
    pss: float
    threads: int
    descriptors: int


def family(root: int, directory: Path) -> list[int]:
    """`root`, its descendants, and every process that was given `directory`.

    A process that left its parent is found by the directory: it is in its command line, or it is
    its TMPDIR.
    """
    parents = {pid: parent for pid in _pids() if (parent := _parent(pid)) is not None}
    marker = os.fsencode(directory)
    ours = {root} | {pid for pid in parents if _was_given(pid, marker)}
    return sorted(pid for pid in parents if ours & _line(pid, parents))


def usage(pids: list[int], root: int | None) -> Usage:
    """What these processes use, the first of which is `root`; one that has ended is nothing."""
    cpu = kernel = rss = children = pss = 0.0
    threads = descriptors = 0
    for pid in pids:
        try:
            fields = _stat(pid)
            cpu += sum(int(field) for field in fields[11:15]) / TICKS
            kernel += (int(fields[12]) + int(fields[14])) / TICKS
            threads += int(fields[17])
            size = int(fields[21]) * PAGE
            rss += size
            children += 0 if pid == root else size
            pss += _pss(pid)
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        except _GONE:
            continue
    return Usage(cpu, kernel, rss, children, pss, threads, descriptors)


def switches(pids: list[int]) -> int:
    """How often a thread of these processes was taken off its core so far, or left it to wait."""
    return sum(int(count) for pid in pids for count in _SWITCHES.findall(_thread_statuses(pid)))


def _thread_statuses(pid: int) -> str:
    texts = []
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            texts.append(path.read_text())
        except _GONE:
            continue
    return "".join(texts)


def highest(one: Usage, other: Usage) -> Usage:
    """The larger of each figure."""
    return Usage(*(max(pair) for pair in zip(astuple(one), astuple(other), strict=True)))


def cpu_seconds(pid: int) -> float:
    """CPU that a process, with its children that ended, has used."""
    return sum(int(field) for field in _stat(pid)[11:15]) / TICKS


def idle_seconds() -> float:
    """For how long the machine's cores have been idle, all together."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / TICKS


def cores() -> int:
    """How many cores the machine has."""
    return sum(line.startswith("processor") for line in Path("/proc/cpuinfo").open())


def end(process: subprocess.Popen[bytes], directory: Path, patience: float) -> list[int]:
    """Ask a process and its family to end; returns those that had to be killed."""
    members = family(process.pid, directory)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + patience
    while (process.poll() is None or _alive(members)) and time.monotonic() < deadline:
        time.sleep(GLANCE)
    left = _alive(sorted({*members, *family(process.pid, directory)}))
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    return left


def _alive(pids: list[int]) -> list[int]:
    alive = []
    for pid in pids:
        try:
            if _stat(pid)[0] != "Z":
                alive.append(pid)
        except _GONE:
            continue
    return alive


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on: the name before may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def _parent(pid: int) -> int | None:
    try:
        return int(_stat(pid)[1])
    except _GONE:
        return None


def _pss(pid: int) -> float:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (PermissionError, *_GONE):
        return 0.0
    lines = [line for line in rollup.splitlines() if line.startswith("Pss:")]
    return int(lines[0].split()[1]) * 1024.0 if lines else 0.0


def _line(pid: int, parents: dict[int, int]) -> set[int]:
    """A process and all its ancestors."""
    line = set()
    while pid in parents and pid not in line:
        line.add(pid)
        pid = parents[pid]
    return line


def _was_given(pid: int, directory: bytes) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except (PermissionError, *_GONE):
        return False
    return directory in arguments or b"TMPDIR=" + directory in environment.split(b"\0")
