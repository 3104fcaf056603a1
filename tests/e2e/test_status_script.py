"""With its script and without, the page shows the same to everybody, whatever names there are."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.accessible import poor_contrast, poor_structure, too_wide
from tests.e2e.browser import OpenTab, browser
from tests.e2e.village import EVIL, KEY, MODEL, Village, village
from tests.harness import PATIENCE, ROOT
from views import words


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    with village(tmp_path_factory.mktemp("v")) as running:
        for conditions in ({"ready": True}, {"ready": True, "terminating": True}):
            running.show_to_all(**conditions)
        yield running


@pytest.fixture(scope="module")
def open_tab() -> Iterator[OpenTab]:
    with browser() as opening:
        yield opening


def test_evil_names_are_shown_as_they_are_with_and_without_a_script(
    place: Village, open_tab: OpenTab
) -> None:
    live = open_tab(place.gateway, extra_http_headers=KEY)
    plain = open_tab(place.gateway, extra_http_headers=KEY, java_script_enabled=False)
    live.wait_until_live()
    # Rows made by the script, not those that came with the page.
    live.page.evaluate(
        "document.querySelectorAll('#models > *, #events > *').forEach((one) => one.remove())"
    )
    live.wait("() => document.querySelectorAll('#events > *').length > 2", "all is drawn again")
    for tab in (live, plain):
        assert tab.page.locator(".endpoints .pod bdi").all_text_contents() == [EVIL]
        assert set(tab.page.locator("#events .who bdi").all_text_contents()) == {EVIL}
        assert tab.page.locator("h3 bdi").all_text_contents() == [MODEL, "empty"]
        assert tab.page.locator("img, tbody script").count() == 0
        assert tab.wrong == []
    for part in ("#models", "#events", "#requests th span", "#errors th span", "#overall"):
        assert live.text(part) == plain.text(part)
    assert "reload it" in plain.page.locator("noscript").inner_text()
    assert plain.page.locator(".chart").first.is_hidden()
    for tab in (live, plain):
        tab.page.context.close()


BUCKETS = [[0.005, 3], [0.01, 7], [0.1, 7], [2.5, 1000], [None, 1100]]
DELAYED = {"worker": None, "delay": 0.0185, "exact": False}
SAID: list[tuple[str, Callable[..., object], list[Any]]] = [
    *(("number", words.number, [value]) for value in (None, 0, 999.5, 1000.5, 12_345_678)),
    *(("percent", words.percent, [part]) for part in (None, 0, 0.125, 0.135, 1)),
    *(
        ("seconds", words.seconds, [value])
        for value in (None, 0, 0.0184, 0.9994, 0.9996, 1.25, 9.94, 9.96, 119.4, 119.9, 150, 7300)
    ),
    *(("quantile", words.quantile, [BUCKETS, part]) for part in (0, 0.5, 0.95, 1)),
    ("quantile", words.quantile, [[], 0.5]),
    ("clockTime", words.clock_time, [1_700_006_399.25, 1_700_006_400.0]),
    ("clockTime", words.clock_time, [1_700_006_400.25, 1_700_006_400.0]),
    ("delay", words.delay, [DELAYED, 2]),
    ("delay", words.delay, [{**DELAYED, "exact": True}, 2]),
    ("delay", words.delay, [{"worker": 3, "delay": None, "exact": False}, 2]),
    ("delay", words.delay, [{"worker": 3, "delay": None, "exact": False}, 1]),
    ("left", words.left, ["model", 1200]),
    ("left", words.left, ["model", 1]),
    ("left", words.left, ["model", 0]),
    ("states", words.states, [{"ready": 1200, "not_ready": 0, "set_aside": 1}]),
    ("states", words.states, [{"ready": 0}]),
    ("kind", words.kind, ["connect_timeout"]),
]


def test_the_script_puts_things_as_the_page_without_it_does(
    place: Village, open_tab: OpenTab
) -> None:
    tab = open_tab(place.gateway, extra_http_headers=KEY)
    for name, say, arguments in SAID:
        said = tab.page.evaluate(f"(given) => {name}(...given)", arguments)
        assert said == say(*arguments), (name, arguments)
    top = place.document() | {"troubles": [{"worker": 1, "reason": "x"}], "last_poll_error": "a_b"}
    assert tab.page.evaluate("summary", top) == words.summary(top)
    tab.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it_without_a_script(
    place: Village, open_tab: OpenTab, scheme: str
) -> None:
    tab = open_tab(
        place.gateway, extra_http_headers=KEY, java_script_enabled=False, color_scheme=scheme
    )
    for width in (1360, 820, 390):
        tab.page.set_viewport_size({"width": width, "height": 900})
        assert poor_contrast(tab.page) == []
        assert poor_structure(tab.page) == []
        assert too_wide(tab.page) == []
    assert tab.wrong == []
    tab.page.context.close()


def test_where_no_browser_is_installed_one_line_says_so(tmp_path: Path) -> None:
    tests = sorted(Path(__file__).parent.glob("test_status_*.py"))
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *tests],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    skipped = [line for line in ended.stdout.splitlines() if "SKIPPED" in line]
    assert len(skipped) == 1, ended.stdout
    assert "no Chromium is installed here" in skipped[0]
