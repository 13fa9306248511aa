from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.sweetspots import (
    HUES,
    SERIES,
    UNTRAINED,
    Ask,
    Line,
    main,
    one,
    table,
    tinted,
    turned,
    turned_alone,
)

from benchmarks import sweetspots
from nearfar import methods
from nearfar.modalities.image import kind as image_kind
from nearfar.modalities.image import named
from nearfar.modalities.image.samples import open_images
from nearfar.training import plan as plans


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sweetspots, "RESULTS", tmp_path)
    return tmp_path


def result(name: str, line: str, seed: int, **numbers: float) -> dict[str, Any]:
    told = dict.fromkeys([*SERIES[name].columns, "shared"], 50.0 + seed)
    results = dict.fromkeys((line, UNTRAINED), told | numbers)
    return {"results": results, "method": "simclr", "source": "of old", "seed": seed, "cpu_seconds": 60, "seconds": 61}


@pytest.mark.parametrize("name", SERIES)
def test_lines_have_one_budget(name: str) -> None:
    series = SERIES[name]
    plan = [
        plans.make(line.method, "noise", "small_images:default", sweetspots.SHARED | line.flags)
        for line in series.lines.values()
    ]
    assert len({(p.settings.encoder, p.settings.batch, p.settings.optimizer, p.settings.lr) for p in plan}) == 1
    assert {line.method for line in series.lines.values()} <= set(methods.names())
    assert {side for pair in series.pairs for side in pair} == set(series.lines)
    assert set(series.compared) <= set(series.columns)


def test_lines_of_one_name_are_one_run() -> None:
    known: dict[str, tuple[Any, ...]] = {}
    for series in SERIES.values():
        for name, line in series.lines.items():
            run = (line, series.measure, series.epochs)
            assert known.setdefault(name, run) == run


def test_only_what_is_missing_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ran = []

    def once(name: str, line: str, seed: int, asked: Ask) -> dict[str, Any]:
        ran.append((line, seed))
        return result(name, line, seed)

    monkeypatch.setattr(sweetspots, "one", once)
    main(Ask(("local",), seeds=2))
    assert ran == [(line, seed) for seed in (0, 1) for line in SERIES["local"].lines]
    main(Ask(("local",), seeds=2))
    main(Ask(table=True, seeds=5))
    assert len(ran) == 2 * len(SERIES["local"].lines)
    assert "| loco - simclr, jitter 0.5 | +0.0 [+0.0, +0.0], none seen |" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no series 'nothing'; there are negatives"):
        main(Ask(("nothing",)))


def test_the_table_pairs_seeds_and_leaves_out_what_there_is_not(folder: Path) -> None:
    asked = Ask(epochs=3)
    for seed in range(3):
        for line, numbers in (("moco, all", {}), ("looc", {"turn": 60.0 + 1.1 * seed})):
            path = folder / f"{line.replace(', ', '-')}-10000x3-seed{seed}.json"
            path.write_text(json.dumps(result("turns", line, seed, **numbers)))
    lines = table("turns", asked).splitlines()
    assert lines[2].startswith(f"| {UNTRAINED} (the method was changed since) | 51.0 [48.5, 53.5] |")
    assert lines[3].startswith("| moco, all (the method was changed since) | 51.0 [48.5, 53.5] |")
    assert lines[-1].startswith("| looc - moco, all | +10.1 [+9.9, +10.3] | +0.0 [+0.0, +0.0], none seen |")
    found = result("negatives", "moco", 0)
    del found["results"]["moco"]["precision"]
    for seed in range(2):
        (folder / f"moco-10000x3-seed{seed}.json").write_text(json.dumps(found))
    assert table("negatives", asked).splitlines()[2].split(" | ")[1] == ""


def test_the_curve_is_drawn_where_there_are_seeds(folder: Path) -> None:
    for seed in range(2):
        for jitter, knn in (("0.5", 44.0), ("1", 43.0)):
            found = result("curve", f"simclr, jitter {jitter}", seed, shared=float(jitter), knn=knn + seed)
            (folder / f"simclr-jitter-{jitter}-10000x3-seed{seed}.json").write_text(json.dumps(found))
    main(Ask(("curve",), table=True))
    drawing = (folder / "curve.svg").read_text()
    assert ">jitter 0.5</text>" in drawing
    assert drawing.count("<circle") == 2


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (96, 32, 32, 3), generator=draws).to(torch.uint8)
    images = open_images(pixels.numpy())
    images.label, images.classes = torch.arange(96) % 10, [str(c) for c in range(10)]
    monkeypatch.setattr(sweetspots, "data", lambda name: (images, images, images))
    monkeypatch.setattr(sweetspots, "CANDIDATES", 32)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("negatives", "fnc, attract"),
        ("turns", "moco, no color"),
        ("curve", "simclr, jitter 2"),
        ("colors", "split, learned"),
    ],
)
def test_a_run_is_trained_and_measured(name: str, line: str, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    own = SERIES[name].lines[line]
    small = own.flags | {"batch": 16} | ({"queue": 32} if "queue" in own.flags else {})
    monkeypatch.setitem(SERIES[name].lines, line, Line(method=own.method, flags=small, views=own.views))
    before = image_kind.named_views
    found = one(name, line, 1, Ask(samples=32, epochs=2))
    assert image_kind.named_views is before
    assert set(found["results"]) == {line}
    assert set(found["results"][line]) == set(SERIES[name].columns)
    assert found["protocol"] == {"bank": 96, "test": 96, "epoch": "last"}
    assert found["results"][line].get("shared", 0) <= math.log(32)


def test_images_are_changed_each_in_its_own_way() -> None:
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    out = turned(x, torch.tensor([0, 1, 2, 3]))
    assert out[0].equal(x[0])
    assert out[2].equal(x[2].flip(1, 2))
    assert out[1][:, 0, 0].equal(x[1][:, 0, -1])
    assert turned(out, torch.tensor([0, 3, 2, 1])).equal(x)
    out = tinted(x, torch.tensor([0, 1, 1, 0]))
    torch.testing.assert_close(tinted(x * 0 + 0.5, torch.zeros(4).long()), x * 0 + 0.5)  # gray has no hue
    assert not out[1].equal(x[1])
    pale = 0.4 + 0.2 * x  # no color of it leaves the range
    torch.testing.assert_close(tinted(pale, torch.tensor([0, 1, 1, 0])).mean(1), pale.mean(1))
    assert HUES.tolist() == pytest.approx([-0.1, 0.1])


def test_views_that_no_setting_names() -> None:
    (view, other), of = turned_alone(32).views, named.looc(32).views[0]
    assert view == other
    assert (view.quarter_turns, view.colored, view.area) == (of.quarter_turns, False, of.area)
    assert of.colored
    strong = SERIES["curve"].lines["simclr, jitter 1"].views
    assert strong is not None
    assert strong(32).views[0].hue == pytest.approx(2 * named.simclr(32).views[0].hue)
