from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar.cli import main
from nearfar.embeddings import explore
from nearfar.embeddings.shards import Embeddings
from nearfar.errors import UserError
from tests.browser import resize, show
from tests.tiny import FLAGS, tiny_images

EVIL = '"><b>bold'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, photos and their embeddings in shards."""
    place = tmp_path_factory.mktemp("explored")
    for i, image in enumerate(tiny_images(40)):
        path = place / "photos" / f"class{i % 4}" / (f"{i:02d}{EVIL}.png" if i == 8 else f"{i:02d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    words = ["train", "simclr", place / "photos", *FLAGS, "--labels", "folders", "--out", place / "run"]
    assert main(list(map(str, words))) == 0
    words = ["embed", place / "run", place / "photos", "--labels", "folders", "--out", place / "emb", "--shard", "15"]
    assert main(list(map(str, words))) == 0
    return place


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(place, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    return tmp_path / "own"


def content(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', Path(page).read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def numbers(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_points_lie_by_the_principal_components_of_all(here: Path) -> None:
    held = Embeddings("emb")
    places = explore.by_components(held, torch.arange(40))
    unit = held.unit.double()
    left, singular, _ = torch.linalg.svd(unit - unit.mean(0), full_matrices=False)
    wanted = left[:, :2] * singular[:2]
    for axis in range(2):
        one, other = places.xy[:, axis].double(), wanted[:, axis]
        assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) == pytest.approx(1, abs=1e-5)
    share = float((singular[:2] ** 2).sum() / (singular**2).sum())
    assert f" {100 * share:.0f} % " in places.how
    assert float(places.xy.abs().max()) == pytest.approx(1)
    some = torch.tensor([3, 30])  # of a part, the axes are those of all
    apart = places.xy[some[0]] - places.xy[some[1]]
    drawn = explore.by_components(held, some).xy
    assert torch.allclose((drawn[0] - drawn[1]) / (drawn[0] - drawn[1]).norm(), apart / apart.norm(), atol=1e-5)


def test_the_page_holds_what_the_shards_hold(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "emb", "--pictures", "10"]) == 0
    held, made = Embeddings("emb"), content("explore.html")
    assert made["name"] == held.names
    assert numbers(made["row"], "<i4").tolist() == list(range(40))
    assert set(made["columns"]) == {"label"}  # the others hold one value, or are what a row is called
    column = made["columns"]["label"]
    assert [column["values"][code] for code in numbers(column["codes"], "<i4")] == held.rows["label"]
    xy = numbers(made["xy"], "<u2").reshape(-1, 2) / 65535 * 2 - 1
    assert np.allclose(xy, explore.by_components(held, torch.arange(40)).xy, atol=1e-4)
    assert len(set(numbers(made["pictures"]["of"], "<i4").tolist())) == 10
    assert made["pictures"]["sprite"].startswith("data:image/")
    assert main(["explore", "emb"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["explore", "emb", "--force", "--points", "12", "--pictures", "0", "--projection", "tsne"]) == 0
    made = content("explore.html")
    rows = numbers(made["row"], "<i4").tolist()
    assert len(set(rows)) == 12
    assert made["name"] == [held.names[row] for row in rows]
    assert made["pictures"] is None
    assert "12 of 40 images, drawn at random" in Path("explore.html").read_text()


def test_what_cannot_be_shown_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(explore, "TSNE_MOST", 20)
    assert main(["explore", "emb", "--projection", "tsne"]) == 2
    assert "--points 20" in capsys.readouterr().err
    for words in (["--points", "200001"], ["--out", "page.txt"], ["--run", "nothing"]):
        assert main(["explore", "emb", *words]) == 2
    assert not (here / "explore.html").exists()
    shutil.rmtree("photos")
    assert main(["explore", "emb"]) == 0
    assert "Without pictures" in capsys.readouterr().out
    assert content("explore.html")["pictures"] is None
    with pytest.raises(UserError, match="no directory of embeddings"):
        Embeddings("run")


@pytest.mark.browser
def test_the_page_in_a_browser(here: Path, browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    assert main(["explore", "emb"]) == 0
    show(browser, here / "explore.html")
    held, run = Embeddings("emb"), browser.execute_script
    assert run("return gl !== null")
    run("drawNow()")
    # What is drawn: colored pixels lie where the points are said to be, and none in the corner.
    seen = run(
        """drawNow(); const pixel = new Uint8Array(4), ratio = devicePixelRatio;
        const at = (x, y) => {
          gl.readPixels(x * ratio, canvas.height - y * ratio, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
          return pixel[3];
        };
        return [at(...place(0)), at(...place(39)), at(3, 3)];"""
    )
    assert seen[0] > 100
    assert seen[1] > 100
    assert seen[2] == 0

    field = browser.find_element("css selector", ".field")
    run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", field)

    def spot(x: float, y: float) -> tuple[int, int]:
        box = run(
            "const b = field.getBoundingClientRect(); return [b.left + field.clientLeft, b.top + field.clientTop]"
        )
        return round(box[0] + x), round(box[1] + y)

    def point(*path: tuple[float, float], press: bool = False) -> None:
        actions = ActionChains(browser, duration=0)
        pointer = actions.w3c_actions.pointer_action
        pointer.move_to_location(*spot(*path[0]))
        if press:
            pointer.pointer_down()
        for x, y in path[1:]:
            pointer.move_to_location(*spot(x, y))
        if press:
            pointer.pointer_up()
        actions.perform()

    point(tuple(run("return place(0)")))
    hover = browser.find_element("css selector", ".hover")
    told = run("return data.name[nearest(...place(0), 12)]")
    assert told in hover.text
    assert hover.find_element("css selector", ".sprite").get_attribute("aria-label") == f"Picture of {told}"

    # Zoom and pan bring the same point elsewhere; the keys and the wheel agree with what is drawn.
    before = run("return place(5)")
    field.send_keys("+", Keys.ARROW_RIGHT)
    assert run("return state.zoom") == pytest.approx(1.4)
    after = run("return place(5)")
    assert after != before
    middle = run("return [field.clientWidth / 2, field.clientHeight / 2]")
    assert after[0] == pytest.approx(middle[0] + 1.4 * (before[0] - middle[0]) - 60, abs=0.01)
    field.send_keys("0")
    assert run("return place(5)") == pytest.approx(before)
    point((200, 100), (260, 140), press=True)
    assert run("return place(5)") == pytest.approx([before[0] + 60, before[1] + 40], abs=1.1)
    field.send_keys("0", Keys.ENTER)
    assert "In the middle: " in browser.find_element("css selector", ".told").text

    # The lasso chooses what lies in it, and the table that is saved has these rows.
    browser.find_element("id", "lasso").send_keys(Keys.SPACE)
    width, height = run("return [field.clientWidth, field.clientHeight]")
    half = width / 2 + 7.3
    point((4, 4), (half, 4), (half, height - 4), (4, height - 4), press=True)
    places = [run(f"return place({i})") for i in range(40)]
    wanted = [i for i, (x, y) in enumerate(places) if x < round(half) and 4 < y < height - 4]
    assert 0 < len(wanted) < 40
    run("window.saved = []; URL.createObjectURL = (blob) => { saved.push(blob); return '#'; }")
    browser.find_element("id", "save").click()
    text = browser.execute_async_script("const done = arguments[0]; saved[0].text().then(done)")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["row"]) for row in rows] == wanted
    assert [row["label"] for row in rows] == [held.rows["label"][i] for i in wanted]
    assert [row["path"] for row in rows] == [held.names[i] for i in wanted]
    browser.find_element("id", "clear").click()
    assert not browser.find_element("id", "chosen").is_displayed()

    # Search finds text in names and values; what is found is gone to by keys, and chosen.
    search = browser.find_element("id", "find")
    search.send_keys("<B>BOLD", Keys.ENTER)
    assert run("return state.matches") == [held.names.index(f"class0/08{EVIL}.png")]
    search.clear()
    search.send_keys("class2", Keys.ENTER)
    assert run("return state.matches") == [i for i in range(40) if held.rows["label"][i] == "class2"]
    field.send_keys("n")
    assert "2 of 10: " in browser.find_element("css selector", ".told").text
    browser.find_element("id", "take").click()
    assert len(browser.find_elements("css selector", "#chosen tbody tr")) == 10
    assert run("return ['=1+1', '-3', '+x', 'a,b', \"'q\"].map(cell)") == ["'=1+1", "-3", "'+x", '"a,b"', "''q"]
    by = browser.find_element("id", "by")
    by.send_keys("nothing")
    assert not browser.find_elements("css selector", ".chips button")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if url.startswith(("http", "ws"))] == []
    resize(browser, 420)
    assert run("return document.documentElement.scrollWidth") <= 420
    resize(browser, 1200)
