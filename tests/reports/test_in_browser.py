"""Reports in Chromium, headless and offline: what a person sees, presses and types. `make test-report` runs it.

CHROMIUM names the browser. Screenshots stay in outputs/report-tests.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.comparison.run_files import write_run
from tests.reports.run_files import NASTY, write_full_run

from embedgrad_cli.cli import main as cli
from embedgrad_cli.reports.write import write_run_report

pytestmark = pytest.mark.browser

SCREENSHOTS = Path(__file__).parents[2] / "outputs/report-tests"
SCREENS = {
    "light": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "has_touch": True},
}
FIRST_PAINT = 2.0  # seconds
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra report-tests")
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not program:
        pytest.skip("needs Chromium: apt install chromium, or CHROMIUM=FILE")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Open a file from disk; in the end nothing may have been said in the console, and nothing asked of a network."""
    said: list[str] = []
    contexts = []

    def open_file(file: Path, place: str = "", screen: str = "light") -> Any:
        context = browser.new_context(offline=True, **SCREENS[screen])
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or said.append(request.url))
        page.metrics_session = context.new_cdp_session(page)
        page.metrics_session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(f"{file.resolve().as_uri()}{place}")
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert said == []


def report(folder: Path, **more: Any) -> Path:
    return write_run_report(write_full_run(folder, **more))


def shown(page: Any) -> list[str]:
    """The ids of the rows on the page."""
    return page.locator("#list > li").evaluate_all("items => items.map(item => item.dataset.id)")


def count(page: Any, kind: str) -> int:
    """What a filter's button says."""
    return int(re.search(r"\d+$", page.locator(f'[data-kind="{kind}"]').inner_text())[0])  # type: ignore[index]


@pytest.mark.parametrize("screen", SCREENS)
def test_it_opens_from_disk_and_fits_its_screen(screen: str, tmp_path: Path, open_page: Open) -> None:
    page = open_page(report(tmp_path / "run"), screen=screen)
    assert page.evaluate("document.documentElement.scrollWidth") <= SCREENS[screen]["viewport"]["width"]
    assert page.locator("h1").is_visible()
    assert len(shown(page)) == 40
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.keyboard.press("j")
    page.screenshot(path=SCREENSHOTS / f"run-{screen}.png", full_page=True)


def test_filters_show_the_rows_that_they_count(tmp_path: Path, open_page: Open) -> None:
    page = open_page(report(tmp_path / "run"))
    kinds = ["fixed", "broken", "both wrong", "both right"]
    seen = []
    for kind in kinds:
        page.click(f'[data-kind="{kind}"]')
        rows = shown(page)
        assert len(rows) == count(page, kind) > 0
        assert set(page.locator("#list .kind").evaluate_all("all => all.map(one => one.firstChild.data)")) == {kind}
        seen += rows
    page.click('[data-kind="all"]')
    assert sorted(seen) == sorted(shown(page))


def test_wins_become_losses_when_the_arms_are_exchanged(tmp_path: Path, open_page: Open) -> None:
    page = open_page(report(tmp_path / "run"))
    fixed, broken = count(page, "fixed"), count(page, "broken")
    page.select_option("#base", "optimized")
    page.select_option("#cand", "seed")
    assert (count(page, "fixed"), count(page, "broken")) == (broken, fixed)


def test_search_finds_in_queries_targets_and_answers(tmp_path: Path, open_page: Open) -> None:
    file = report(tmp_path / "run", text=lambda number: "a Needle" if number == 7 else f"hay {number}")
    page = open_page(file)
    page.keyboard.press("/")
    page.keyboard.type("nEEdle")
    assert shown(page) == ["test:7"]
    page.fill("#search", "target 12")
    assert shown(page) == ["test:12"]
    page.fill("#search", "no such words")
    assert shown(page) == []
    assert "No row of 40" in page.inner_text("#count")


def test_keys_walk_through_the_rows(tmp_path: Path, open_page: Open) -> None:
    page = open_page(report(tmp_path / "run", num_rows=60))
    now = page.locator("#list > .now")
    for key, row in (("j", "test:0"), ("j", "test:1"), ("j", "test:2"), ("k", "test:1")):
        page.keyboard.press(key)
        assert now.get_attribute("data-id") == row
    assert now.locator("pre").count() == 5  # query, target, and an answer of each arm
    page.keyboard.press("o")
    assert now.count() == 0
    page.keyboard.press("o")
    assert now.get_attribute("data-id") == "test:1"
    page.keyboard.press("o")
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.input_value("#search") == "jk"
    page.fill("#search", "")
    page.keyboard.press("Escape")
    for _ in range(49):
        page.keyboard.press("j")
    assert now.get_attribute("data-id") == "test:50"
    assert "page 2 of 2" in page.inner_text("#pager")


def test_the_address_holds_what_is_shown(tmp_path: Path, open_page: Open) -> None:
    file = report(tmp_path / "run")
    page = open_page(file)
    page.click('[data-kind="fixed"]')
    page.fill("#search", "row")
    page.select_option("#base", "none")
    page.keyboard.press("Escape")
    page.click("#list > li:nth-child(1) button")
    rows, row = shown(page), page.locator("#list > .now").get_attribute("data-id")
    assert rows
    again = open_page(file, page.evaluate("location.hash"))
    assert shown(again) == rows
    assert again.locator("#list > .now").get_attribute("data-id") == row
    assert (again.input_value("#base"), again.input_value("#search")) == ("none", "row")


@pytest.mark.parametrize(
    "place", ["#rows?show=__proto__&page=-3&base=nobody&answers=constructor", "#rows?page=1e9&row=%3Cb%3E", "#%"]
)
def test_any_address_is_understood(place: str, tmp_path: Path, open_page: Open) -> None:
    page = open_page(report(tmp_path / "run"), place)
    assert len(shown(page)) == 40


def test_markup_in_a_text_is_text(tmp_path: Path, open_page: Open) -> None:
    run = write_full_run(tmp_path / "run", text=lambda number: NASTY[number % len(NASTY)])
    page = open_page(write_run_report(run))
    for number, nasty in enumerate(NASTY):
        page.evaluate("row => { location.hash = `#rows?row=${row}` }", f"test:{number}")
        page.locator(f'.now[data-id="test:{number}"]').wait_for()
        assert page.locator(".now pre").first.evaluate("one => one.textContent") == f"{nasty} {number}"
    assert page.evaluate("window.broken") is None
    assert page.locator("#list script, #list img").count() == 0


def test_ten_thousand_rows_are_quick(tmp_path: Path, open_page: Open) -> None:
    """Of the page's own processor time, so that a machine that is busy with something else fails nothing."""
    page = open_page(report(tmp_path / "run", num_rows=10_000))
    wall = painted(page)
    shown_after = busy(page)
    assert shown_after < FIRST_PAINT
    page.fill("#search", "row 9999")
    assert shown(page) == ["test:9999"]
    searched_after = busy(page) - shown_after
    assert searched_after < FIRST_PAINT
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    said = f"shown in {shown_after:.2f} s of processor time, painted {wall:.2f} s after the start, searched in"
    (SCREENSHOTS / "times.txt").write_text(f"10,000 rows: {said} {searched_after:.2f} s\n")


def painted(page: Any) -> float:
    """Seconds from the start to the first paint. Playwright's own waiting is refused by the page, as any `eval` is."""
    for _ in range(200):
        paints = page.evaluate("performance.getEntriesByName('first-contentful-paint').map(one => one.startTime)")
        if paints:
            return paints[0] / 1000
        page.wait_for_timeout(50)
    raise AssertionError("nothing was painted")


def busy(page: Any) -> float:
    """Seconds that the processor has spent on the page's main thread."""
    metrics = page.metrics_session.send("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "TaskDuration")


@pytest.mark.parametrize("screen", SCREENS)
def test_several_runs(screen: str, tmp_path: Path, open_page: Open) -> None:
    for number, right in enumerate((3, 8, 6, 5)):
        run = write_full_run(tmp_path / f"sweep/{number}")
        (run / "results.json").unlink()
        other = write_run(
            tmp_path / f"made/{number}",
            right,
            optimizer__lr=10.0**-number,
            train__steps=10 + number,
            prompt__text=str(number % 2),
        )
        shutil.copy(run / "metrics.jsonl", other)
    assert cli.main(["report", str(tmp_path / "made")]) == 0
    page = open_page(tmp_path / "made/report.html", screen=screen)
    assert page.locator("tr.chosen th").inner_text() == "1"
    assert page.locator("figure").count() == 6
    assert page.evaluate("document.documentElement.scrollWidth") <= SCREENS[screen]["viewport"]["width"]
    page.screenshot(path=SCREENSHOTS / f"sweep-{screen}.png", full_page=True)
