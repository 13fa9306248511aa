"""The built site in a headless browser; skips, saying so, where `make docs` has not been run or no browser is there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.browser import resize

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[1]
MOST = 600_000
"""Bytes of all that the start page loads."""
PAGES = ["index", "choose", "commands/train", "methods/swav", "api/losses", "results", "guides/images", "glossary"]


@pytest.fixture(scope="module")
def site() -> Path:
    """Where the site is: NEARFAR_SITE, or site/."""
    folder = Path(os.environ.get("NEARFAR_SITE") or ROOT / "site")
    if not (folder / "index.html").exists():
        pytest.skip(f"no site at '{folder}': `make docs` builds it")
    return folder


def show(browser: Any, page: Path, width: int = 1200, scheme: str = "light") -> list[str]:
    """Open a page at a width, light or dark; what it asked for."""
    if browser.current_url.startswith("file:"):
        browser.execute_script("localStorage.clear()")  # which remembers the scheme
        browser.get("about:blank")  # as a page that is open would remember the new one
    resize(browser, width)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


LIGHT = "(getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) > 384)"
"""Whether the page is light, in JavaScript."""


def until(browser: Any, condition: str) -> Any:
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda b: b.execute_script(f"return {condition}"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 420])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_without_an_error_or_a_request(
    browser: Any, site: Path, page: str, width: int, scheme: str
) -> None:
    asked = show(browser, site / f"{page}.html", width, scheme)
    assert asked  # the page itself
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.execute_script("return [...document.images].every((image) => image.naturalWidth > 0)")
    wide = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "the page scrolls sideways"
    # The theme sets its colors by a script of its own, which may come a moment later.
    until(
        browser,
        f"matchMedia('(prefers-color-scheme: {scheme})').matches && {LIGHT} === {str(scheme == 'light').lower()}",
    )


def test_the_start_page_is_light(browser: Any, site: Path) -> None:
    asked = show(browser, site / "index.html")
    until(browser, "document.readyState === 'complete' && 'IFrameWorker' in window")
    loaded = {url.partition("?")[0].removeprefix("file://") for url in asked if url.startswith("file:")}
    # What is asked for after the page is there: the search, which begins with its index.
    loaded |= {str(site / "search" / "search_index.js"), *map(str, site.glob("assets/javascripts/workers/*.js"))}
    assert sum(Path(path).stat().st_size for path in loaded) < MOST


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("hard negatives", "guides/sentences|faq|methods/"),
        ("SwAV", "methods/swav"),
        ("--micro-batch", "guides/large|train"),
    ],
)
def test_search_finds(browser: Any, site: Path, words: str, found: str) -> None:
    show(browser, site / "index.html")
    until(browser, "document.readyState === 'complete'")
    field = browser.find_element("css selector", ".md-search__input")
    browser.execute_script("arguments[0].focus()", field)
    field.send_keys(words)
    until(browser, "document.querySelector('.md-search-result__link') !== null")
    links = browser.execute_script(
        "return [...document.querySelectorAll('.md-search-result__link')].map((link) => link.href)"
    )
    assert any(re.search(found, link) for link in links[:8]), links[:8]


def test_no_page_names_a_place_of_a_machine(site: Path) -> None:
    """Where it was built, or where its reader's files should be."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/(?:work|root|home)/|(?<!\w)/tmp/(?!x)|unpkg|googleapis", text), page
