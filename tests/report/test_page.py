from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_run import CLASSES, HOSTILE

from nearfar.files import replace_json
from nearfar.report.beside import beside
from nearfar.report.compared import compared
from nearfar.report.gallery import Gallery
from nearfar.report.page import page_data, report
from nearfar.report.record import Record, read
from nearfar.report.training import curves
from nearfar.training.directory import write_config


class Outline(HTMLParser):
    """The elements of a page and their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] not in ("script", "style"):
            self.texts.append(data)

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]

    def structure(self) -> list[tuple[str, list[str]]]:
        """Elements and the names of their attributes, without those that depend on signs in a name on purpose."""
        return [(tag, list(attributes)) for tag, attributes in self.elements if tag not in ("wbr", "code")]


def outline(path: Path) -> Outline:
    return Outline(path.read_text("utf-8"))


def shown(gallery: Gallery | None) -> list[list[str]]:
    assert gallery is not None
    return [[tile.name for tile in group.tiles] for group in gallery.groups]


def test_the_data_of_a_full_run(run: Path) -> None:
    page = page_data(read(run))
    assert page.title == "moco on flowers"
    assert dict(page.facts) == {
        "Method": "moco",
        "Paper": "He et al. 2020, arXiv 1911.05722",
        "Encoder": "resnet18",
        "Data": "photographs/flowers",
        "Samples": "3,670",
        "Epochs": "100",
        "Batch": "256",
        "Started": "2026-11-20 21:14",
        "Duration": "52 min 7 s",
    }
    assert [(answer.topic, answer.mood) for answer in page.answers] == [
        ("working", "good"),
        ("helping", "good"),
        ("checkpoint", "good"),
    ]
    assert [card.cell["value"] for card in page.cards] == [80.7, 76.3, 0.641]
    assert [made.name for made in page.results[0].table.rows] == ["raw pixels", "untrained encoder", "trained (moco)"]
    assert [curve["key"] for curve in page.curves][:2] == ["loss", "knn"]
    assert page.confusions[0].pairs[0].n == 42
    assert sorted(made.name for made in page.classes[0][1].rows) == sorted(CLASSES)
    assert (len(page.notes), page.skipped[0], page.skipped_count) == (3, ("photos/0000.jpg", "truncated file"), 3)
    details = {heading: dict(rows) for heading, rows in page.details}
    assert details["Configuration"]["views.crop"] == "[0.2, 1.0]"
    assert details["Machine and versions"]["device"] == "NVIDIA RTX 4090"
    assert details["Timings"]["training"] == "47 min 51 s"
    assert list(details["Checkpoints"]) == ["last", "step-1000", "step-2000"]


def test_the_tiles_of_a_full_run_are_those_that_were_stored(run: Path) -> None:
    page = page_data(read(run))
    stored = {
        name: json.loads((run / f"results/{name}.json").read_text()) for name in ("neighbors", "copies", "outliers")
    }
    queries = stored["neighbors"]["queries"]
    assert shown(page.neighbors) == [[tile["name"] for tile in (query, *query["neighbors"])] for query in queries]
    assert shown(page.copies) == [[tile["name"] for tile in one["samples"]] for one in stored["copies"]["sets"]]
    assert shown(page.outliers) == [[tile["name"] for tile in stored["outliers"]["samples"]]]
    assert page.neighbors is not None
    for group in page.neighbors.groups:
        for tile in group.tiles[1:]:
            assert tile.agreement == ("same" if tile.label == group.tiles[0].label else "other")
    assert page.copies is not None
    assert [(group.size, group.labels_differ) for group in page.copies.groups] == [
        (8, True),
        (2, True),
        (3, False),
        (2, False),
    ]
    low, high = page.copies.groups[0].similarities
    assert low <= high == max(tile.similarity or 0 for tile in page.copies.groups[0].tiles[1:])
    assert (page.copies.facts["copies"], page.copies.facts["samples"], page.copies.plural) == (15, 40, "flowers")
    assert page.outliers is not None
    assert page.outliers.facts["total"] == 40


def test_a_run_of_one_config_file_has_a_page(tmp_path: Path, short_scripts: None) -> None:
    write_config(tmp_path, {"method": "simclr"})
    page = page_data(read(tmp_path))
    assert {answer.mood for answer in page.answers} == {"unsure"}
    assert page.map is page.neighbors is page.copies is page.outliers is page.views is None
    assert page.results == page.cards == page.curves == page.confusions == page.classes == page.notes == []
    parts = outline(report(tmp_path)).ids()
    assert parts == ["results", "training", "map", "neighbors", "views", "details", "next", "data", "plotly"]


def test_a_classifier_is_called_one(run: Path, short_scripts: None) -> None:
    facts = {
        "run": "runs/moco-1",
        "data": "few.npz",
        "train": "frozen",
        "learned": 150,
        "calibration": "not calibrated",
    }
    replace_json(run / "classifier.json", {"classes": ["a", "b", "c"], "facts": facts})
    page = page_data(read(run))
    assert (page.classifier, page.encoder_only) == (True, True)
    assert [answer.topic for answer in page.answers] == ["working", "classifying", "calibrated"]
    assert dict(page.facts)["Encoder's run"] == "runs/moco-1"
    assert f"nearfar predict {run} your-files/" in outline(report(run)).texts
    (run / "classifier.json").write_text("{}")
    assert page_data(read(run)).classifier is False


def test_the_page_is_the_same_every_time_and_asks_for_nothing_outside_itself(run: Path) -> None:
    before = {path.name for path in run.iterdir()}
    page = report(run)
    first = page.read_bytes()
    assert report(run) == run / "report.html"
    assert page.read_bytes() == first
    assert {path.name for path in run.iterdir()} == before | {"report.html"}
    made = outline(page)
    assert [tag for tag, _ in made.elements].count("script") == 3
    for tag, attributes in made.elements:
        for name in ("src", "href", "srcset", "poster", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    (policy,) = [a["content"] or "" for tag, a in made.elements if tag == "meta" and a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    assert policy.count("'sha256-") == 2
    assert "http" not in policy


@pytest.mark.parametrize(
    ("name", "hostile"), [("plain", "hostile"), ("cells", "hostile cells"), ("excerpts", "hostile excerpts")]
)
def test_hostile_names_change_nothing_but_text(written: Any, name: str, hostile: str, short_scripts: None) -> None:
    usual, evil = (outline(report(written[one])) for one in (name, hostile))
    assert evil.structure() == usual.structure()
    assert evil.ids() == usual.ids()
    assert "".join(evil.texts).count(HOSTILE.split("`")[0]) > 50


def test_hostile_names_of_runs_change_nothing_but_text(written: Any, run: Path, short_scripts: None) -> None:
    (run / "results/demo.json").rename(run / """results/a "b" id=x.json""")
    facts = {"run": HOSTILE, "data": HOSTILE}
    replace_json(run / "classifier.json", {"classes": [HOSTILE], "facts": facts})
    usual = outline(beside(run, written["unlabeled"])), outline(report(run))
    evil_run = run.rename(run.with_name("""o<img src=x onerror=alert(1)>"'& {{ 1 }}"""))
    evil = outline(beside(evil_run, written["unlabeled"])), outline(report(evil_run))
    assert [made.structure() for made in evil] == [made.structure() for made in usual]
    assert evil_run.name in "".join(evil[0].texts)
    for made in evil:
        assert all(part.replace("-", "").isalnum() for part in made.ids())
        assert len(set(made.ids())) == len(made.ids())


def test_hostile_names_of_a_comparison_change_nothing_but_text(tmp_path: Path, short_scripts: None) -> None:
    def page(evil: str) -> Outline:
        means = {f"way {i}{evil}": {f"kNN{evil}": {"mean": i, "low": i - 1, "high": i + 1}} for i in (1, 2)}
        facts = {f"Seeds{evil}": f"3{evil}", "Left out": None}
        return outline(
            compared(tmp_path / "c.html", f"a{evil}", facts, [f"So.{evil}"], means, by="compare", main=f"way 2{evil}")
        )

    assert page(HOSTILE).structure() == page("").structure()
    assert "".join(page(HOSTILE).texts).count(HOSTILE) == 11


@pytest.mark.parametrize("name", ["cells", "excerpts"])
def test_samples_without_pixels_are_lines_of_a_table(written: Any, name: str, short_scripts: None) -> None:
    made = outline(report(written[name]))
    tables = [a for tag, a in made.elements if tag == "table" and (a.get("class") or "").startswith("rows")]
    assert len(tables) == 8 + 2  # a query each, copies, outliers
    assert [a["class"] for tag, a in made.elements if tag == "img"] == ["sheet"]
    grid = json.loads((written[name] / "results/neighbors.json").read_text())
    pairs = [(query, near) for query in grid["queries"] for near in query["neighbors"]]
    if name == "excerpts":
        assert {tile["excerpt"] for pair in pairs for tile in pair} <= set(made.texts)
        return
    page = written[name].joinpath("report.html").read_text("utf-8")
    part = page[page.index('<section id="neighbors">') :]
    differing = sum(a != b for query, near in pairs for a, b in zip(near["cells"], query["cells"], strict=True))
    assert part[: part.index("</section>")].count('differs"') == differing > 0
    assert "petal_<wbr>0_<wbr>length_<wbr>mm" in part


def test_a_file_name_that_is_not_utf8_does_not_stop_the_report(run: Path, short_scripts: None) -> None:
    path = run / "results/neighbors.json"
    grid = json.loads(path.read_text())
    grid["queries"][0]["name"] = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    replace_json(path, {name: value for name, value in grid.items() if name != "checksum"})
    assert 'title="caf?.jpg"' in report(run).read_text("utf-8")


def test_long_curves_are_drawn_as_means_and_gaps_stay_gaps() -> None:
    lines: list[dict[str, Any]] = [
        {"step": i, "epoch": i / 10, "loss": float(i), "chance": None, "own": 1} for i in range(1000)
    ]
    lines[0]["loss"] = math.nan
    loss, own = curves(Record(Path(), metrics=lines), points=100)
    assert loss["x"][1] == pytest.approx(sum(i / 10 for i in range(10, 20)) / 10)
    assert loss["y"][:2] == [None, 14.5]
    assert len(loss["y"]) == 100
    assert loss["chance"] == [None] * 100
    assert (own["title"], own["axis"]) == ("own", "epoch")


def test_what_is_bounded_is_drawn_from_zero() -> None:
    lines = [{"step": i, "loss": 2.0, "spread": 0.5, "knn": 40.0} for i in range(3)]
    assert {c["key"]: c["zero"] for c in curves(Record(Path(), metrics=lines))} == {
        "loss": False,
        "knn": False,
        "spread": True,
    }
