"""The page in a real browser, Chromium through chromedriver: what no parser can tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_run import RUNS
from tests.browser import resize, show

from nearfar.files import replace_json
from nearfar.report.page import report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages(written) -> dict[str, Path]:
    return {name: report(written[name]) for name in RUNS}


def point(browser: Any, i: int) -> tuple[int, int]:
    """Where point i of the map is in the window, with the map scrolled into it."""
    return tuple(
        browser.execute_script(
            """const plot = document.querySelector(".map .plot");
            plot.scrollIntoView({block: "center", behavior: "instant"});
            const box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout, trace = plot.data[0];
            return [box.left + xaxis._offset + xaxis.l2p(trace.x[arguments[0]]),
                    box.top + yaxis._offset + yaxis.l2p(trace.y[arguments[0]])].map(Math.round);""",
            i,
        )
    )


def pointing(browser: Any, i: int, click: bool) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    x, y = point(browser, i)
    actions = ActionChains(browser)
    actions.w3c_actions.pointer_action.move_to_location(x - 3, y)
    actions.w3c_actions.pointer_action.move_to_location(x, y)
    if click:
        actions.w3c_actions.pointer_action.click()
    actions.perform()


def until(browser: Any, condition: str) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 15, poll_frequency=0.05).until(lambda b: b.execute_script(f"return {condition}"))


@pytest.mark.parametrize("name", ["plain", "unlabeled", "hostile", "cells", "hostile cells", "hostile excerpts"])
def test_it_loads_without_an_error_or_a_request(browser, pages, name):
    show(browser, pages[name])
    until(browser, "document.querySelector('.map .plot')._fullLayout && !document.querySelector('.no-webgl')")
    # Chromium's own remarks on software WebGL are warnings; whatever the page does wrong is SEVERE.
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked  # the page itself
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert browser.execute_script("return typeof window.hacked") == "undefined"
    assert browser.execute_script("return [...document.images].every((image) => image.naturalWidth > 0)")
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('.curve .plot')].map((p) => p.data[0].y.length)"
    )
    assert len(drawn) == (5 if name == "unlabeled" else 6)
    assert min(drawn) > 0


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_pointing_shows_an_image_and_clicking_its_neighbors(browser, pages, name):
    show(browser, pages[name])
    data = json.loads((pages[name].parent / "results/map.json").read_text())
    pointing(browser, 3, click=False)
    until(browser, "!document.querySelector('.hover').hidden")
    hover = browser.execute_script("return document.querySelector('.hover').textContent")
    shown = next(i for i, name in enumerate(data["name"]) if name in hover)  # overlapping points: any near one will do
    assert hover == data["label"][shown] + data["name"][shown]
    sprite = "getComputedStyle(document.querySelector('.hover .sprite')).backgroundImage"
    assert browser.execute_script(f"return {sprite}").startswith('url("data:image/jpeg;base64,')

    pointing(browser, 3, click=True)
    until(browser, "document.querySelectorAll('.near .tile').length > 0")
    clicked = browser.execute_script("return document.querySelector('.near .chosen').textContent")
    i = next(i for i, name in enumerate(data["name"]) if name in clicked)
    titles = browser.execute_script("return [...document.querySelectorAll('.near .tile')].map((tile) => tile.title)")
    assert titles == [data["name"][j] for j in data["near"][i]]
    assert browser.execute_script("return document.querySelector('.map .plot').data[1].x.length") == 1 + len(titles)
    assert browser.execute_script("return typeof window.hacked") == "undefined"


@pytest.mark.parametrize("name", ["cells", "hostile cells"])
def test_rows_are_shown_by_their_cells(browser, pages, name):
    show(browser, pages[name])
    data = json.loads((pages[name].parent / "results/map.json").read_text())

    def read(where: str) -> list[list[str]]:
        script = f"return [...document.querySelectorAll('{where} :is(dt, dd)')].map((e) => e.textContent)"
        texts = browser.execute_script(script)
        return [list(pair) for pair in zip(texts[::2], texts[1::2], strict=True)]

    def cells(i: int, other: int | None = None) -> list[list[str]]:
        return [
            [column, cell or "–"]
            for c, (column, cell) in enumerate(zip(data["columns"], data["cells"][i], strict=True))
            if other is None or cell != data["cells"][other][c]
        ]

    pointing(browser, 5, click=False)
    until(browser, "!document.querySelector('.hover').hidden")
    assert read(".hover") in [cells(i) for i in range(len(data["x"]))]
    assert browser.execute_script("return document.querySelector('.hover .sprite')") is None

    pointing(browser, 5, click=True)
    until(browser, "document.querySelectorAll('.near .tile').length > 0")
    said = browser.execute_script("return document.querySelector('.near .chosen div').textContent")
    i = next(i for i in range(len(data["x"])) if said == data["label"][i] + data["name"][i])
    assert read(".near .chosen") == cells(i)
    for k, j in enumerate(data["near"][i], 1):
        assert read(f".near .tile:nth-child({k})") == cells(j, i)
    assert browser.execute_script("return typeof window.hacked") == "undefined"


def test_excerpts_are_read(browser, pages):
    show(browser, pages["hostile excerpts"])
    data = json.loads((pages["hostile excerpts"].parent / "results/map.json").read_text())
    pointing(browser, 5, click=True)
    until(browser, "document.querySelectorAll('.near .tile').length > 0")
    read = "return [...document.querySelectorAll('.near .excerpt')].map((e) => e.textContent)"
    chosen, *near = browser.execute_script(read)
    i = data["excerpts"].index(chosen)
    assert near == [data["excerpts"][j] for j in data["near"][i]]


def test_a_class_can_be_brought_forward(browser, pages):
    show(browser, pages["plain"])
    browser.execute_script("document.querySelector('.chips button').click()")
    faded = browser.execute_script(
        "return document.querySelector('.map .plot').data[0].marker.opacity.map((o) => o < 0.5)"
    )
    first = browser.execute_script("return document.querySelector('.chips button').textContent")
    labels = json.loads((pages["plain"].parent / "results/map.json").read_text())["label"]
    assert faded == [label != first for label in labels]


def test_points_can_be_colored_by_something_else(browser, written, run):
    path = run / "results/map.json"
    drawn = json.loads(path.read_text())
    drawn.pop("checksum", None)
    drawn["colors"] = {"<b>side": ["left" if x < 0 else "right" for x in drawn["x"]]}
    replace_json(path, drawn)
    show(browser, report(run))
    browser.execute_script(
        "const by = document.querySelector('.chips .by'); by.value = '<b>side'; by.dispatchEvent(new Event('change'))"
    )
    chips = "return [...document.querySelectorAll('.chips button span')].map((e) => e.textContent)"
    assert browser.execute_script(chips) == ["left", "right"]
    colors = browser.execute_script("return document.querySelector('.map .plot').data[0].marker.color")
    assert len(set(colors)) == 2
    assert [color == colors[0] for color in colors] == [(x < 0) == (drawn["x"][0] < 0) for x in drawn["x"]]
    assert browser.execute_script("return document.querySelectorAll('.chips b').length") == 0


@pytest.mark.parametrize("name", ["plain", "hostile", "unlabeled", "cells", "hostile cells", "hostile excerpts"])
def test_no_window_is_too_narrow(browser, pages, name):
    """Neither one in which the page is loaded, nor one that is made wider or narrower afterwards."""
    wide = """return [...document.querySelectorAll("main *")].filter((e) => !e.closest(".scroll, .plot, code, .hidden")
        && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 200))"""
    show(browser, pages[name], 400)
    for width in (400, 760, 1600, 400):
        resize(browser, width)
        # Plots follow some time after the window.
        until(browser, f"innerWidth === {width} && document.documentElement.scrollWidth <= {width}")
        assert browser.execute_script(wide) == []


def test_a_small_number_that_never_changes_is_not_drawn_as_zero(browser, pages):
    show(browser, pages["plain"])
    script = """const figure = document.querySelector(".curve"), curve = data.curves[figure.dataset.curve];
        curve.y = curve.y.map(() => 0.006); curve.chance = null; curve.beside = null; drawCurve(figure);
        return figure.querySelector(".plot")._fullLayout.yaxis.range"""
    assert browser.execute_script(script) == [0, 0.012]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_in_both_schemes(browser, pages, scheme):
    show(browser, pages["plain"])
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    colors = browser.execute_script(
        """const style = getComputedStyle(document.documentElement);
        return Object.fromEntries(["page", "panel", "wash", "ink", "soft", "faint", "accent", "accent-wash", "good",
            "unsure", "bad"]
            .map((name) => [name, style.getPropertyValue("--" + name).trim()]))"""
    )
    # WCAG 2.2: 4.5 for text.
    for text in ("ink", "soft", "faint", "accent", "good", "unsure", "bad"):
        for ground in ("page", "panel", "wash") if text in ("ink", "soft") else ("page", "panel"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground, colors)
    assert contrast(colors["accent"], colors["accent-wash"]) >= 4.5
    # Plots are drawn anew some time after the scheme has changed.
    until(browser, f"document.querySelector('.curve .plot').data[0].line.color === '{colors['accent']}'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_of_the_heat_map_stand_out_from_every_shade(browser, pages, scheme):
    show(browser, pages["plain"])
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    # A canvas turns whatever way of writing a color the browser prefers into bytes.
    shades = browser.execute_script(
        """const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
        const hex = (color) => {
            pen.fillStyle = color; pen.fillRect(0, 0, 1, 1);
            return "#" + [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)
                .map((v) => v.toString(16).padStart(2, "0")).join("");
        };
        const cell = document.querySelector(".heat td.right[style]"), shades = [];
        for (const kind of ["right", "wrong"]) for (const share of [0.12, 0.5, 1]) {
            cell.className = kind; cell.style.setProperty("--share", share);
            const style = getComputedStyle(cell);
            shades.push([hex(style.color), hex(style.backgroundColor)]);
        }
        return shades"""
    )
    assert len({ground for _, ground in shades}) == 6
    for text, ground in shades:
        assert contrast(text, ground) >= 4.5, (text, ground)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colors, WCAG 2.2."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_two_runs_are_drawn_over_one_another(browser, written, run):
    from nearfar.report.beside import beside

    marked = run.rename(run.with_name("<b>run & <a href='https:'>co"))  # Plotly knows these elements
    show(browser, beside(marked, written["unlabeled"]))
    traces = browser.execute_script(
        "return [...document.querySelectorAll('.curve .plot')].map((p) => p.data.map((t) => t.name || ''))"
    )
    assert traces
    legend = browser.execute_script("return [...document.querySelectorAll('.legendtext')].map((t) => t.textContent)")
    assert legend == [marked.name, "unlabeled"] * len(traces)
    assert browser.execute_script("return document.querySelectorAll('.curve a').length") == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
