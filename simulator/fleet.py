"""Model servers as Kubernetes runs them: each pod is a process and an entry in a slice."""

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

from simulator.controller import Entry
from simulator.pod import ModelPod

if TYPE_CHECKING:
    from simulator.model import Model

Order = Literal["slice-first", "process-first", "together"]
GRACE_SECONDS = 30.0


class Pod:
    """One pod: what its process does, and what the API says about it a little later.

    `process` is None for pods that exist in slices only. `changed_at` is the monotonic time at
    which the API last made a change of this pod visible, 0 before the first. Its methods return
    when the API shows the change, and may be called from any thread.
    """

    def __init__(self, model: "Model", entry: Entry, process: ModelPod | None) -> None:
        self.name = entry.pod
        self.address = entry.address
        self.port = model.port
        self.process = process
        self.changed_at = 0.0
        self.entry = entry  # what the API shows, or will show once the pod has started
        self._model = model
        self._gone = threading.Event()

    def __repr__(self) -> str:
        state = self.process.state if self.process else "no process"
        return f"<Pod {self.name} {self.address}:{self.port} {state}, {self.condition}>"

    @property
    def condition(self) -> str:
        """What the API says: pending, ready, not ready, terminating or gone."""
        if self._gone.is_set():
            return "gone"
        if self.entry.terminating:
            return "terminating"
        if not self.changed_at:
            return "pending"
        return "ready" if self.entry.passing else "not ready"

    def start(self) -> None:
        """Start the process, its port still closed; a pending pod gets an entry, not ready.

        Raises `RuntimeError` when the process runs already or the pod has been deleted.
        """
        if self._gone.is_set():
            raise RuntimeError(f"{self.name} has been deleted")
        if self.process:
            self.process.start()
        self._show(replace(self.entry, passing=False), "not ready")

    def load(self) -> None:
        """Open the port while the model loads: every request gets a 503."""
        if self.process:
            self.process.load()
        self._show(replace(self.entry, passing=False), "not ready")

    def become_ready(self) -> None:
        """Pass the readiness probe."""
        if self.process:
            self.process.become_ready()
        self._show(replace(self.entry, passing=True), "ready")

    def fail_probe(self) -> None:
        """Fail the readiness probe, terminating or not."""
        if self.process:
            self.process.fail_probe()
        self._show(replace(self.entry, passing=False), "not ready")

    def run(self, *, ready: bool = True) -> None:
        """Start and load, and with `ready` pass the probe."""
        self.start()
        self.load()
        if ready:
            self.become_ready()

    def terminate(
        self,
        order: Order = "slice-first",
        gap: float = 0.0,
        *,
        wait_gone: bool = False,
        grace: float = GRACE_SECONDS,
        dies: bool = False,
    ) -> None:
        """Delete the pod: SIGTERM for the process, `terminating` in the slice.

        `order` says which comes first and `gap` by how many seconds. After `grace` seconds
        the process is killed; with `dies` it dies of the SIGTERM. The entry is removed when
        the process is gone, which `wait_gone` waits for.
        """
        if order not in get_args(Order):
            raise ValueError(f"order must be one of {', '.join(get_args(Order))}")
        deadline = time.monotonic() + gap + grace
        if order == "slice-first":
            self._mark_terminating()
            time.sleep(gap)
        self._end_process(dies=dies)
        if order == "process-first":
            time.sleep(gap)
        if order != "slice-first":
            self._mark_terminating()
        self._model.defer(self._remove_when_gone(deadline))
        if wait_gone:
            self.wait_gone(gap + grace + 5.0)

    def crash(self, notice: float | None = 0.0) -> None:
        """The process dies; `notice` seconds later the slice says not ready, None means never."""
        if self.process:
            self.process.kill()
        if notice is None or not self.changed_at:
            return
        if notice:
            self._model.defer(self._notice_crash(notice))
        else:
            self._show(replace(self.entry, passing=False), "not ready", lag=False)

    def remove(self) -> None:
        """Delete by force: process and entry are gone at once."""
        if self.process:
            self.process.kill()
        self._model.loop.call(self.vanish)

    def wait_gone(self, timeout: float = 30.0) -> None:
        """Wait until the entry is removed. Raises `TimeoutError` after `timeout` seconds."""
        if not self._gone.wait(timeout):
            raise TimeoutError(f"{self!r} is not gone after {timeout} s")

    def vanish(self) -> None:
        """Take the entry out of the slices. On the loop's thread only."""
        if not self._gone.is_set():
            self.changed_at = self._model.take_out(self)
            self._gone.set()

    def _end_process(self, *, dies: bool) -> None:
        if self.process and dies:
            self.process.kill()
        elif self.process:
            self.process.sigterm()

    def _mark_terminating(self) -> None:
        if not self.changed_at:
            return  # pending: nothing to say in a slice
        self._show(replace(self.entry, terminating=True), "terminating", lag=False, triggered=False)

    def _show(self, entry: Entry, what: str, *, lag: bool = True, triggered: bool = True) -> None:
        if lag:  # the controller is never as fast as the process
            time.sleep(self._model.lag)
        self._model.loop.call(self._show_now, entry, what, triggered)

    def _show_now(self, entry: Entry, what: str, triggered: bool) -> None:
        if self._gone.is_set():
            return
        self.entry = entry
        self._model.show([self], what, triggered=triggered)

    async def _notice_crash(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self.process is None or self.process.state == "gone":
            self._show_now(replace(self.entry, passing=False), "not ready", True)

    async def _remove_when_gone(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if self.process is None:
            await asyncio.sleep(left)
        elif self.process.state != "gone":
            try:
                await asyncio.wait_for(self.process.process.until_gone(), left)
            except TimeoutError:
                await self.process.process.kill()
        self.vanish()
