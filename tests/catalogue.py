"""The catalogue of faults: what may happen, what the client sees then, and which tests prove it.

A test names its rows by `@pytest.mark.fault(12)`. `python -m tests.catalogue` writes the page, and
a test compares: a row that no test names can't be on it.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "faults.md"
_ABOUT = """\
# Every fault has its answer

What can go wrong around a gateway, and what its clients see then. This page is written by
`python -m tests.catalogue` from the tests themselves: each row lists those that provoke the fault
for real – a gateway under gunicorn, a simulated cluster, sockets; where only the reading of bytes
matters, what reads them – and `make test` runs them all. What takes minutes is run by `make soak`
and says so.
"""


@dataclass(frozen=True)
class Row:
    """A fault, and what the client sees."""

    fault: str
    seen: str


ROWS = {
    1: Row("the API server refuses connections", "nothing: the last good list serves. Before the "
           "first list a retriable 503 `endpoints_unknown`, and `/healthz` is not ready"),
    2: Row("the API server hangs", "the same: each list has a deadline"),
    3: Row("the API server answers 401", "nothing: the token is read again at once"),
    4: Row("the API server answers 403", "the last good list serves; a watch that is forbidden "
           "leaves the lists, and is said once"),
    5: Row("410 on a page, on a watch, or as an event in a 200", "nothing: it is listed again at "
           "once, and nothing is missed, deletions while the watch was down included"),
    6: Row("the API server throttles (429, 503 with `Retry-After`)", "nothing: the last good list "
           "serves, and the wait is capped at a few poll intervals"),
    7: Row("garbage, truncated JSON, a huge list, one poisoned item among good ones", "the last "
           "good list, or the good items"),
    8: Row("the token file is rotated, empty, or missing for a moment", "nothing"),
    9: Row("the wall clock jumps", "nothing: all ages are monotonic"),
    10: Row("the discovery thread is stuck or dead", "`/healthz` is 503 and says so; traffic goes "
            "on with the last good list until its TTL"),
    11: Row("a pod refuses, swallows SYNs, or has no route", "another endpoint's answer, within "
            "the connect timeout; with none left a retriable 503 `upstream_unreachable`"),
    12: Row("a pod resets or closes after the request was sent, before its answer", "nothing: one "
            "replay elsewhere. After a second death, for `/v1/responses` or with "
            "`GATEWAY_REPLAY=false` 502 `upstream_reset`; two pods at most ever saw it"),
    13: Row("a pooled connection was closed while it was idle", "nothing: one resend on a fresh "
            "connection, never two"),
    14: Row("a slow head, a silent stream, an endless one", "504 `upstream_timeout`; the event "
            "`upstream_idle`; a cut at the total limit"),
    15: Row("an answer that is no valid HTTP, or ends too early", "before its head went out 502 "
            "`upstream_protocol_error`; later a visible truncation, never a whole-looking answer"),
    16: Row("an upstream's own 4xx, 5xx, redirect, coding, trailers, 204, 304", "the answer as it "
            "is"),
    17: Row("every pod refuses under load", "fast 503s; hardly more attempts than requests"),
    18: Row("one pod of ten is a black hole", "at most a connect timeout until it is set aside; it "
            "comes back by itself, or at once when its slice changes; the last one always serves"),
    19: Row("a client reads slowly, vanishes, closes half, or resets", "its pod's work ends within "
            "a second, that of one that vanished soon after `GATEWAY_SEND_TIMEOUT`; neighbours "
            "notice nothing"),
    20: Row("a body that is too large, stalls, aborts, or is not the JSON expected", "413, 408 or "
            "400; never a 500, a hang, or memory without bound"),
    21: Row("no file descriptors left, a full disk for logs, a closed stdout", "a retriable 503 "
            "`gateway_overloaded`, or nothing; it recovers by itself"),
    22: Row("a worker or the relay is killed, the server reloads or stops", "running streams go "
            "on without their worker, and break visibly without their relay; the next request is "
            "served within a second"),
    23: Row("a hundred thousand invented model names", "404; the metrics don't grow"),
    24: Row("10,000 endpoints and 100 slice changes a second", "nothing: latency and memory stay"),
    25: Row("a request that breaks the rules of HTTP", "an error that says what is wrong with it, "
            "and a closed connection where its end is in doubt; no pod ever sees it"),
    26: Row("a request that tries to smuggle another", "the same; no pod ever sees a request more"),
    27: Row("hostile header fields", "an answer; the pod's raw bytes have none of them"),
    28: Row("a request or a slice that aims at another target", "nothing is sent there"),
    29: Row("keys that are missing, wrong, rotated, or can't be read", "401, or a "
            "retriable 503 while the gateway has no key for its pods yet; no key is ever shown"),
}  # fmt: skip


@dataclass(frozen=True)
class Proof:
    """A test that names a row."""

    row: int
    path: Path
    name: str

    @property
    def sentence(self) -> str:
        """What the test says in its name."""
        return self.name.removeprefix("test_").replace("_", " ")


def proofs(directory: Path = TESTS) -> Iterator[Proof]:
    """All tests that name rows, in the order of their files."""
    for path in sorted(directory.rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        whole = [row for node in tree.body if isinstance(node, ast.Assign) for row in _rows(node)]
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                own = [row for mark in node.decorator_list for row in _rows(mark)]
                for row in sorted({*whole, *own}):
                    yield Proof(row, path, node.name)


def _rows(node: ast.AST) -> list[int]:
    """The rows that a decorator or a module's `pytestmark` names."""
    return [
        ast.literal_eval(argument)
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.fault"
        for argument in call.args
    ]


def page() -> str:
    """The page as Markdown."""
    known = list(proofs())
    lines = [_ABOUT, "| # | Fault | The client sees |", "|--:|---|---|"]
    lines += [f"| [{n}](#fault-{n}) | {row.fault} | {row.seen} |" for n, row in ROWS.items()]
    for number, row in ROWS.items():
        lines += ["", f'<a id="fault-{number}"></a>', "", f"## {number}. {_capital(row.fault)}", ""]
        lines += [_line(proof) for proof in known if proof.row == number]
    return "\n".join(lines) + "\n"


def _line(proof: Proof) -> str:
    link = proof.path.relative_to(TESTS.parent).as_posix()
    soak = " (`make soak`)" if "soak" in proof.path.parts else ""
    return f"- [{proof.sentence}](../{link}){soak}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE}\n")
