"""A real browser that looks at the status page, and notes what it should not do."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.harness import PATIENCE, GatewayProcess

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
if CHROMIUM is None:  # for every module that imports this, so that there is one line for all
    pytest.skip("no Chromium is installed here to look at pages", allow_module_level=True)

_ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Tab:
    """One page, and what went wrong in it: errors, and requests to elsewhere."""

    page: Any
    gateway: GatewayProcess
    wrong: list[str] = field(default_factory=list)

    def open(self, path: str = "/status") -> "Tab":
        self.page.on("console", lambda said: self.wrong.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        self.page.on("request", self._check)
        self.page.goto(self.gateway.url + path)
        return self

    def _check(self, request: Any) -> None:
        if not request.url.startswith((f"{self.gateway.url}/", "data:")):
            self.wrong.append(f"asked for {request.url}")

    def wait(self, condition: str, what: str, *arguments: Any) -> float:
        """Wait until a JavaScript function gives something true; returns how many seconds."""
        from playwright.sync_api import TimeoutError as InVain

        began = time.monotonic()
        try:
            self.page.wait_for_function(
                condition, arg=list(arguments), timeout=PATIENCE * 1000, polling=50
            )
        except InVain:
            shown = self.page.locator("body").inner_text()
            raise AssertionError(f"waited in vain: {what}; shown:\n{shown}") from None
        return time.monotonic() - began

    def wait_for_state(self, pod: str, state: str | None) -> float:
        """Wait until the page shows the pod in that state, None for not at all."""
        return self.wait(
            """([pod, state]) => {
                const rows = [...document.querySelectorAll("tbody.endpoints tr")];
                const row = rows.find((one) => one.querySelector(".pod bdi").textContent === pod);
                return (row ? row.querySelector(".badge").textContent : null) === state;
            }""",
            f"{pod} is {state}",
            pod,
            state,
        )

    def wait_for_another(self, selector: str, text: str) -> None:
        """Wait until an element says something else than `text`."""
        condition = "([found, text]) => document.querySelector(found).textContent !== text"
        self.wait(condition, f"{selector} changes", selector, text)

    def wait_until_live(self) -> None:
        self.wait("() => document.getElementById('live').textContent === 'live,'", "it is live")

    def rewrite(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Let `change` alter what the gateway says before the page hears it, from now on."""

        def answer(route: Any) -> None:
            document = self.gateway.status()
            change(document)
            route.fulfill(json=document)

        self.page.route("**/status.json", answer)

    def text(self, selector: str) -> str:
        """The words of an element, shown or not, with a space wherever there is any."""
        return " ".join(self.page.locator(selector).text_content().split())


OpenTab = Callable[..., Tab]


@contextmanager
def browser() -> Iterator[OpenTab]:
    """A browser; what is given opens tabs, each in a context of its own."""
    from playwright.sync_api import sync_playwright

    sandbox = ("--no-sandbox",) if os.getuid() == 0 else ()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*_ARGUMENTS, *sandbox], timeout=PATIENCE * 1000
        )

        def open_tab(gateway: GatewayProcess, path: str = "/status", **options: Any) -> Tab:
            options.setdefault("viewport", {"width": 1360, "height": 900})
            return Tab(running.new_context(**options).new_page(), gateway).open(path)

        try:
            yield open_tab
        finally:
            running.close()
