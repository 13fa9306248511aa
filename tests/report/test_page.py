import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_run import HOSTILE

from nearfar.report import parts
from nearfar.report.page import report
from nearfar.report.record import Record
from nearfar.report.training import curves


class Outline(HTMLParser):
    """The elements of a page and their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] not in ("script", "style"):
            self.said.append(data)


def visible(path: Path) -> str:
    return re.sub(r"\s+", " ", " ".join(Outline(path.read_text("utf-8")).said))


def test_a_full_run_shows_all_its_parts(run):
    page = report(run)
    assert page == run / "report.html"
    said = visible(page)
    for part in (
        "moco on flowers",
        "He et al. 2020, arXiv 1911.05722",
        "3,670",
        "2026-11-20 21:14",
        "52 min 7 s",
        "Is it working?",
        "Will it help me?",
        "Which checkpoint?",
        "95 % interval 78.3 to 83.0",
        "raw pixels",
        "untrained encoder",
        "0.641",
        "Protocol: version 1 · k 20",
        "Nearest neighbors",
        "lily of the valley",
        "15 of 120 samples are in 4 sets of copies; of 2 the labels contradict each other.",
        "8 copies, 6 shown",
        "For half of the 120 samples this mean is above",
        "what it was taken for by nearest neighbors.",
        "42 of 148 · 28 %",
        "weakest class first",
        "truncated file",
        "views.crop",
        "NVIDIA RTX 4090",
        "nearfar export",
    ):
        assert part in said, part
    assert "absent" not in said


def test_a_run_of_one_config_file_says_what_is_absent_and_why(tmp_path):
    (tmp_path / "config.yaml").write_text("method: simclr\n")
    said = visible(report(tmp_path))
    for part in (
        "No labels: last is the only checkpoint to take.",
        "no loss has been written",
        "Nothing has been measured yet.",
        "metrics.jsonl is absent or empty",
        "results/map.json is absent",
        "results/neighbors.json is absent",
        "views.png is absent",
    ):
        assert part in said or part.replace("last", " last ") in said, part


def test_the_page_is_the_same_every_time_and_nothing_else_is_left_behind(run):
    before = {path.name for path in run.iterdir()}
    first = report(run).read_bytes()
    assert report(run).read_bytes() == first
    assert {path.name for path in run.iterdir()} == before | {"report.html"}


def test_the_page_asks_for_nothing_outside_itself(run):
    for tag, attributes in Outline(report(run).read_text("utf-8")).elements:
        for name in ("src", "href", "srcset", "poster", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        if tag == "meta" and attributes.get("http-equiv"):
            assert (attributes["content"] or "").startswith("default-src 'none'")


@pytest.mark.parametrize("name", ["hostile", "hostile rows"])
def test_hostile_names_stay_text(written, name):
    page = report(written[name])
    outline = Outline(page.read_text("utf-8"))
    assert not any(name.startswith("on") for _, attributes in outline.elements for name in attributes)
    assert [tag for tag, _ in outline.elements].count("script") == 3
    assert not any(attributes.get("src") == "x" for _, attributes in outline.elements)
    assert HOSTILE.split("`")[0] in "".join(outline.said)


def test_rows_are_shown_as_rows(written):
    page = report(written["rows"])
    grid = json.loads((written["rows"] / "results/neighbors.json").read_text())
    outline = Outline(page.read_text("utf-8"))
    said = visible(page)
    assert "14 of 16 columns are shown." in said
    assert "15 of 60 samples are in 4 sets of copies" in said
    assert "8 copies, 6 shown" in said
    assert [a["class"] for tag, a in outline.elements if tag == "table" and a.get("class") == "rows"] == ["rows"] * 10
    assert not [a for tag, a in outline.elements if tag == "img" and "views" not in (a.get("alt") or "").lower()]
    differing = sum(
        a != b
        for query in grid["queries"]
        for near in query["neighbors"]
        for a, b in zip(near["cells"], query["cells"], strict=True)
    )
    whole = page.read_text("utf-8")
    part = whole[whole.index('<section id="neighbors">') :]
    assert part[: part.index("</section>")].count('differs"') == differing > 0
    assert "petal_<wbr>0_<wbr>length_<wbr>mm" in part


def test_images_that_are_no_images_are_not_shown(run):
    where = {
        "map": lambda found: found,
        "neighbors": lambda found: found["queries"][0],
        "copies": lambda found: found["sets"][0]["samples"][1],
        "outliers": lambda found: found["samples"][0],
    }
    for name, place in where.items():
        path = run / f"results/{name}.json"
        found = json.loads(path.read_text())
        place(found)["sprite" if name == "map" else "image"] = "https://example.org/spy.png"
        path.write_text(json.dumps(found))
    assert "example.org" not in report(run).read_text("utf-8")


def test_a_file_name_that_is_not_utf8_does_not_stop_the_report(run):
    path = run / "results/map.json"
    found = json.loads(path.read_text())
    found["name"][0] = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    path.write_text(json.dumps(found))
    assert "caf?.jpg" in report(run).read_text("utf-8")


def test_long_curves_are_drawn_as_means_and_gaps_stay_gaps():
    lines = [{"step": i, "epoch": i / 10, "loss": float(i), "chance": None, "own": 1} for i in range(1000)]
    lines[0]["loss"] = math.nan
    loss, own = curves(Record(Path(), metrics=lines), points=100)
    assert loss["x"][1] == pytest.approx(sum(i / 10 for i in range(10, 20)) / 10)
    assert loss["y"][:2] == [None, 14.5]
    assert len(loss["y"]) == 100
    assert loss["chance"] == [None] * 100
    assert (own["title"], own["axis"]) == ("own", "epoch")


@pytest.mark.parametrize(
    ("value", "places", "said"),
    [(81.25, 1, "81.2"), (-0.5, 3, "−0.500"), (12345.0, 0, "12,345"), (None, 1, "–"), (math.nan, 1, "–")],
)
def test_numbers(value, places, said):
    assert parts.number(value, places) == said


def test_a_classifier_is_called_one(run):
    facts = {
        "run": "runs/moco-1",
        "data": "few.npz",
        "train": "frozen",
        "learned": 150,
        "calibration": "not calibrated",
    }
    (run / "classifier.json").write_text(json.dumps({"classes": ["a", "b", "c"], "facts": facts}))
    said = visible(report(run))
    for part in (
        "A classifier of 3 classes",
        "Labels learned from 150",
        "of the run runs/moco-1",
        "Does it name well?",
        "Training of the encoder",
        "nearfar predict",
    ):
        assert part in said, part
    assert "Which checkpoint?" not in said
    (run / "classifier.json").write_text("{}")
    assert "classifier.json could not be read" in visible(report(run))


def test_what_is_bounded_is_drawn_from_zero():
    lines = [{"step": i, "loss": 2.0, "spread": 0.5, "knn": 40.0} for i in range(3)]
    assert {c["key"]: c["zero"] for c in curves(Record(Path(), metrics=lines))} == {
        "loss": False,
        "knn": False,
        "spread": True,
    }


def test_a_protocol_is_short():
    told = {"protocol": {"temperature": 1.3636058919101133, "notes": [], "labels": "", "parts": [56.0, 59.3333333]}}
    assert parts.protocol(told) == '<p class="protocol">Protocol: temperature 1.364 · parts [56.0, 59.33]</p>'


@pytest.mark.parametrize(("values", "places"), [([81.2, 3.1], 1), ([0.61, 0.2], 3), ([3.0, 12.0, None], 0), ([], 0)])
def test_a_column_has_one_number_of_decimals(values, places):
    assert parts.decimals(values) == places
    assert parts.decimals(values, "accuracy (%)") == min(places, 1)


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.125, "4.12 s"), (59.9, "59.9 s"), (192, "3 min 12 s"), (7500.4, "2 h 5 min")]
)
def test_durations(seconds, said):
    assert parts.duration(seconds) == said
