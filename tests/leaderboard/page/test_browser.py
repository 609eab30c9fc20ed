"""The site in a real browser, from file://: sorting, filters, themes, phones, keyboard, axe."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import HOSTILE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium in PATH")
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
PAGES = ("index", "methods/hare-tortoise", "methods/hostile", "tasks/permuted-digits-v1")
CORE = "section#suite-core-v1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        found.close()


class Visit:
    """One browser context; remembers whatever a page said or asked for."""

    def __init__(self, browser: Any, site: Path, **options: Any) -> None:
        self.site = site
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append("dialog"))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, name: str) -> Any:
        self.page.goto(f"{self.site.as_uri()}/{name}.html")
        return self.page

    def close(self) -> None:
        self.context.close()
        assert not self.said
        assert [url for url in self.asked if not url.startswith("file://")] == []


@pytest.fixture
def visit(browser: Any, site: Path) -> Iterator[Visit]:
    found = Visit(browser, site, viewport={"width": 1280, "height": 900})
    yield found
    found.close()


def column(page: Any, index: int) -> list[str]:
    cells = page.locator(f"{CORE} tbody tr > :nth-child({index})").all_inner_texts()
    return [cell.split()[0] for cell in cells]


def heading(page: Any, name: str) -> Any:
    return page.locator(f"{CORE} thead button", has_text=name).first


@pytest.mark.parametrize(
    ("theme", "width"),
    [
        ("light", 1280),
        ("dark", 390),
        pytest.param("dark", 1280, marks=pytest.mark.evidence),
        pytest.param("light", 390, marks=pytest.mark.evidence),
    ],
)
def test_every_kind_of_page_is_accessible_and_fits(
    browser: Any, site: Path, theme: str, width: int
) -> None:
    view = Visit(browser, site, viewport={"width": width, "height": 844}, color_scheme=theme)
    for name in PAGES:
        page = view.open(name)
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, f"{name} is {over} pixels too wide"
        # Without preload: axe would fetch the style sheet, which the page's policy forbids.
        options = {"preload": False, "resultTypes": ["violations"]}
        found = axe.Axe().run(page, options=options).response["violations"]
        assert [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in found] == []
    view.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_every_dot_of_a_ranking_is_in_sight(browser: Any, site: Path, width: int) -> None:
    view = Visit(browser, site, viewport={"width": width, "height": 844})
    page = view.open("index")
    dots = [dot for dot in page.locator(f"{CORE} svg circle").all() if dot.is_visible()]
    assert len(dots) == page.locator(f"{CORE} tbody tr").count() == 6
    for dot in dots:
        box = dot.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
    labels = [one for one in page.locator(f"{CORE} svg text.label").all() if one.is_visible()]
    assert len(labels) == 6
    assert all(one.bounding_box()["height"] >= 11 for one in labels)  # legible, not shrunk
    view.close()


def test_themes_follow_the_system_and_the_button(browser: Any, site: Path) -> None:
    view = Visit(browser, site, color_scheme="dark")
    page = view.open("index")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.get_by_role("button", name="Light theme").click()
    light = page.evaluate(paper)
    assert (dark, light) == ("rgb(16, 21, 27)", "rgb(255, 255, 255)")
    assert page.get_by_role("button", name="Dark theme").is_visible()
    assert view.open("methods/none").evaluate(paper) == light  # remembered
    view.close()


def test_sorting_by_mouse_and_by_keyboard(visit: Visit) -> None:
    page = visit.open("index")
    names = column(page, 3)
    heading(page, "Method").click()
    assert column(page, 3) == sorted(names)
    heading(page, "Method").press("Enter")
    assert column(page, 3) == sorted(names, reverse=True)
    heading(page, "Metric").press("Space")
    rising = [float(text) for text in column(page, 9)]
    assert rising == sorted(rising)
    sorted_by = page.locator(f"{CORE} thead th[aria-sort]")
    assert sorted_by.count() == 1
    assert sorted_by.get_attribute("aria-sort") == "ascending"
    heading(page, "P over none").click()
    assert column(page, 11)[-1] == "–"  # what is missing stays last, up and down
    heading(page, "P over none").click()
    falling = column(page, 11)
    assert falling[-1] == "–"
    numbers = [float(text) for text in falling[:-1]]
    assert numbers == sorted(numbers, reverse=True)


def shown(page: Any) -> tuple[list[str], set[str]]:
    sections = [one.get_attribute("id") for one in page.locator(".suite").all() if one.is_visible()]
    rows = page.locator(".suite:not([hidden]) tbody tr:not([hidden])")
    return sections, {row.get_attribute("data-entry") for row in rows.all()}


def test_filters(visit: Visit) -> None:
    page = visit.open("index")
    suites = ["suite-core-v1", "suite-trainability-v1", "suite-control-v1"]
    methods = {"none", "full-reset", "hare-tortoise", "l2-init", "crelu", "hostile"}
    assert shown(page)[0] == suites[:1]  # the first tab
    open_tab(page, "all")
    assert shown(page) == (suites, methods)
    assert "6 method(s) shown on 3 suite(s)" in page.inner_text("#shown")
    page.select_option("#f-boundaries", "yes")
    assert shown(page) == (suites, {"full-reset"})
    dots = page.locator(f"{CORE} svg g[data-entry]")
    assert [dot.get_attribute("data-entry") for dot in dots.all() if dot.is_visible()] == [
        "full-reset"
    ]
    page.select_option("#f-boundaries", "no")
    assert shown(page) == (suites, methods - {"full-reset"})
    page.select_option("#f-kind", "agents")
    assert shown(page) == (["suite-control-v1"], methods - {"full-reset", "crelu"})
    assert page.locator("tr[data-kind=supervised]:visible").count() == 0
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("document.querySelectorAll('.suite:not([hidden])').length === 1")
    page.select_option("#f-family", "permuted")
    assert shown(page)[0] == ["suite-core-v1"]
    assert page.locator(f"{CORE} thead th[data-family]:visible").count() == 1
    page.select_option("#f-family", "")
    open_tab(page, "suite-trainability-v1")
    page.fill("#f-name", "TORT")
    assert shown(page) == (["suite-trainability-v1"], {"hare-tortoise"})
    assert "1 method(s) shown on 1 suite(s)" in page.inner_text("#shown")


def open_tab(page: Any, name: str) -> None:
    page.locator(".tabs label", has_text=name).last.click()


def test_a_tab_shows_its_own_pictures(visit: Visit) -> None:
    page = visit.open("index")
    pictures = page.locator("section[data-of]")
    every = {one.get_attribute("data-of") for one in pictures.all()}
    assert every == {"suite-core-v1", "suite-trainability-v1", "suite-control-v1"}
    for suite in sorted(every):
        open_tab(page, suite)
        seen = [one.get_attribute("data-of") for one in pictures.all() if one.is_visible()]
        assert set(seen) == {suite}
    open_tab(page, "all")
    assert all(one.is_visible() for one in pictures.all())


def test_a_link_to_a_suite_opens_its_tab(visit: Visit) -> None:
    page = visit.open("index")
    page.locator(".ahead a", has_text="suite-control-v1").click()
    assert shown(page)[0] == ["suite-control-v1"]
    assert page.locator(".tabs input:checked").get_attribute("value") == "suite-control-v1"


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    page = visit.open("index")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(e => e.id || e.getAttribute('role') || e.tagName)(document.activeElement)"
            )
        )
    wanted = {"theme", "INPUT", "f-kind", "f-family", "f-boundaries", "f-name", "BUTTON", "A"}
    assert wanted | {"region", "group"} <= reached


def test_a_curve_is_brought_out(visit: Visit) -> None:
    page = visit.open("tasks/permuted-digits-v1")
    box = page.get_by_role("checkbox", name="hostile")
    line = page.locator("figure.many g[data-entry=hostile]")
    before = line.get_attribute("class")
    box.set_checked(before == "quiet")
    assert (line.get_attribute("class") == "quiet") is (before != "quiet")


def test_script_in_a_submission_stays_text(visit: Visit) -> None:
    for name in ("methods/hostile", "index", "tasks/warm-start-digits-v1"):
        page = visit.open(name)
        assert page.evaluate("window.pwned") is None
        assert page.locator("img, iframe, object").count() == 0
    page = visit.open("methods/hostile")
    assert HOSTILE in page.locator("p.lead").text_content()
    assert HOSTILE in page.locator("dl.facts").text_content()
    assert page.locator("td", has_text=HOSTILE).count() >= 3
    link = page.locator("dl.facts a").get_attribute("href")
    assert link is not None and link.startswith("https://example.org/")


def test_without_javascript_everything_is_there(browser: Any, site: Path) -> None:
    view = Visit(browser, site, java_script_enabled=False)
    page = view.open("index")
    assert page.locator(f"{CORE} tbody tr").count() == 6
    assert not page.locator("#filters").is_visible()
    assert page.locator(f"{CORE} .desk svg").is_visible()
    view.close()
