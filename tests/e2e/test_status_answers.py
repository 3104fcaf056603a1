"""What the status page makes of answers that are late, never come, or are another gateway's."""

import json
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from tests.e2e.accessible import listen, poor_contrast
from tests.e2e.browser import OpenTab, Tab, browser
from tests.harness import PATIENCE, GatewayProcess, gateway_process, wait_for
from tests.slices import entry, raw_slice

#: Playwright's clock drives timers, and not this one.
TIMEOUT_BY_THE_CLOCK = """AbortSignal.timeout = (milliseconds) => {
    const controller = new AbortController();
    const late = new DOMException("signal timed out", "TimeoutError");
    setTimeout(() => controller.abort(late), milliseconds);
    return controller.signal;
};"""
ASKED = "**/status.json"
IN_ALL = "#requests [data-f=total]"
NOW = "#requests [data-f=now]"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("a")
    slices = directory / "slices.json"
    pods = (entry("10.0.0.1"), entry("10.0.0.2", ready=False), entry("10.0.0.3", terminating=True))
    slices.write_text(json.dumps({"kind": "List", "items": [raw_slice(*pods)]}))
    with gateway_process(directory, GATEWAY_SOURCE=f"file:{slices}") as running:
        yield running.ready()


@pytest.fixture(scope="module")
def open_tab() -> Iterator[OpenTab]:
    with browser() as opening:
        yield opening


@pytest.fixture
def tab(gateway: GatewayProcess, open_tab: OpenTab) -> Iterator[Tab]:
    opened = open_tab(gateway)
    opened.wait_until_live()
    yield opened
    opened.page.unroute_all(behavior="ignoreErrors")
    opened.page.context.close()
    assert opened.wrong == []


@pytest.fixture
def timed(tab: Tab) -> Tab:
    """A page whose clock can be moved on."""
    tab.page.clock.install()
    tab.page.add_init_script(TIMEOUT_BY_THE_CLOCK)
    tab.page.reload()
    tab.wait_until_live()
    return tab


class Held:
    """The questions of a page that get no answer, from now on."""

    def __init__(self, tab: Tab) -> None:
        self._page = tab.page
        self._routes: list[Any] = []
        self._page.route(ASKED, lambda route: self._routes.append(route))

    def wait_for(self, number: int, patience: float = PATIENCE) -> Any:
        """Wait for so many of them, and return the last."""

        def asked() -> bool:
            self._page.evaluate("0")  # questions are noted while the browser is talked to
            return len(self._routes) >= number

        wait_for(asked, f"question {number}", patience)
        return self._routes[-1]


def test_after_an_answer_that_never_came_the_page_soon_asks_again(timed: Tab) -> None:
    held = Held(timed)
    held.wait_for(1)
    timed.page.clock.fast_forward(10_000)
    timed.wait("() => /^no answer/.test(document.getElementById('live').textContent)", "it says so")
    timed.page.clock.fast_forward(2000)
    held.wait_for(2, patience=5)


def test_after_a_slow_answer_the_page_pauses_for_five_seconds_at_most(timed: Tab) -> None:
    held = Held(timed)
    question = held.wait_for(1)
    shown = timed.text("#top [data-f=at]")
    timed.page.clock.fast_forward(2000)
    question.continue_()
    timed.wait_for_another("#top [data-f=at]", shown)
    timed.page.clock.fast_forward(5000)
    held.wait_for(2, patience=5)


def counting(change: Callable[[dict[str, Any], int], object]) -> Callable[[dict[str, Any]], None]:
    """A thousand requests more in each document, and whatever `change` makes of the next."""
    numbers = count(1)

    def rewrite(document: dict[str, Any]) -> None:
        number = next(numbers)
        document["totals"]["requests"] = {"200": 1000 * number}
        change(document, number)

    return rewrite


@pytest.mark.parametrize("name", ["another", None], ids=["another gateway", "the same name"])
def test_the_charts_go_on_when_a_gateway_of_a_younger_host_answers(
    tab: Tab, name: str | None
) -> None:
    def move(document: dict[str, Any], number: int) -> None:
        if number > 2:
            document["gateway"] = name or document["gateway"]
            document["totals"]["at"] -= 1e6

    tab.rewrite(counting(move))
    condition = "([card]) => Number(document.querySelector(card)?.textContent.replace(',', '')) > 3"
    tab.wait(condition.replace("> 3", "> 3999"), "later figures are shown", IN_ALL)
    tab.wait(condition, "and how quickly they grow", NOW)
    assert "in turn" not in tab.text("#overall")


def test_no_rate_is_told_from_one_gateways_figures_to_anothers(tab: Tab) -> None:
    later: list[float] = []

    def move(document: dict[str, Any], number: int) -> None:
        if number > 3:
            document["gateway"] = "another"
            later.append(document["totals"]["at"] + 100)
            document["totals"]["at"] = later[0]  # the same again after the first

    tab.rewrite(counting(move))
    said = "([card, text]) => document.querySelector(card)?.textContent === text"
    tab.wait(said, "the other's are shown", IN_ALL, "4,000")
    assert tab.text(NOW) == "–"


def test_gateways_that_answer_in_turn_are_told_of(tab: Tab) -> None:
    def move(document: dict[str, Any], number: int) -> None:
        document["gateway"] = f"gateway-{number % 2}"

    tab.rewrite(counting(move))
    tab.wait(
        "() => /answer in turn/.test(document.getElementById('overall').textContent)", "it says so"
    )


def test_the_third_chart_is_called_as_on_the_dashboard(tab: Tab) -> None:
    assert tab.text("#first-byte h3") == "Time to first byte"
    label = tab.page.locator("#first-byte .chart svg").get_attribute("aria-label")
    assert label.startswith("Time to first byte")


def test_the_page_of_a_gateway_that_died_says_so_until_it_is_back(
    gateway: GatewayProcess, tab: Tab
) -> None:
    assert tab.page.title().endswith(": ready")
    gateway.stop()
    try:
        tab.wait("() => document.title.endsWith(': no answer')", "the title says so")
        assert tab.text("#overall .badge") == "no answer"
        assert "s-ready" not in tab.page.locator("#overall .badge").get_attribute("class")
        assert tab.text("#overall").startswith("no answer All of this is as it was at ")
        assert tab.text("#top [data-f=age]") == "–"
        for scheme in ("light", "dark"):
            tab.page.emulate_media(color_scheme=scheme)
            assert poor_contrast(tab.page) == []
            colours = """() => [...new Set([...document.querySelectorAll("main *")]
                .filter((one) => one.checkVisibility())
                .map((one) => getComputedStyle(one).color))]"""
            assert len(tab.page.evaluate(colours)) == 1
    finally:
        gateway.start().ready()
    tab.wait("() => document.title.endsWith(': ready')", "it is back")
    assert tab.text("#overall") == "ready"
    assert tab.page.locator("body.old").count() == 0
    assert all("Failed to load resource" in said for said in tab.wrong)
    tab.wrong.clear()


def test_while_a_trouble_stays_the_same_nothing_is_read_aloud(tab: Tab) -> None:
    ages = count(601)

    def grow_old(document: dict[str, Any]) -> None:
        reason = f"the last good list of EndpointSlices is {next(ages)} s old"
        document |= {"ready": False, "troubles": [{"worker": 1, "reason": reason}]}

    tab.rewrite(grow_old)
    tab.wait("() => document.title.endsWith(': not ready')", "it is shown")
    heard = listen(tab.page)
    for _ in range(2):
        tab.wait_for_another("#overall", tab.page.locator("#overall").text_content())
    assert heard() == []
    tab.rewrite(lambda _: None)
    tab.wait("() => document.title.endsWith(': ready')", "it is over")
    assert "ready" in heard()
