from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from benchmarks.bench.plot import curve, loglog
from benchmarks.bench.results import Found, Setting, environment, machine_kind, save
from benchmarks.bench.section import SECTIONS
from benchmarks.bench.targets import TARGETS, reports, table
from benchmarks.bench.timing import OURS, Row, Spread


def test_targets_are_judged_on_the_threads_they_name(tmp_path: Path) -> None:
    for threads, ratio in ((1, 4.5), (4, 3.5)):
        found = Found()
        ratios = {"plain": Spread(ratio, ratio - 1, ratio + 1), OURS: Spread(1, 1, 1)}
        found.add(Row("NT-Xent", {"N": 4096, "D": 128}, dict(ratios), ratios, 3), "NT-Xent N4096 D128")
        found.numbers[f"NT-Xent N4096 D128: three matrix products / {OURS}"] = Spread(0.8, 0.7, 0.9)
        path = tmp_path / f"losses-{threads}-threads-{machine_kind()}.json"
        save(path, "losses", Setting(threads=threads), "command", found, environment())
    text = table(reports(tmp_path, machine_kind()))
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    first = lines[f"NT-Xent N4096 D128: plain / {OURS}"]
    assert first.endswith("yes")
    assert "4.5 (3.5 to 5.5)" in first
    assert "3.5 (2.5 to 4.5)" in first
    floor = lines[f"NT-Xent N4096 D128: {OURS} / three matrix products"]
    assert floor.endswith("NO")
    assert "1.25 (1.11 to 1.43)" in floor
    assert f"1 of 2 measured targets met; {len(TARGETS) - 2} not judged" in text


def test_quick_runs_are_not_judged(tmp_path: Path) -> None:
    found = Found(numbers={f"kNN: lightly / {OURS}": Spread(5, 5, 5)})
    save(tmp_path / "knn-1-threads-here.json", "knn", Setting(threads=1, quick=True), "command", found, {})
    text = table(reports(tmp_path, "here"))
    assert "tiny sizes" in next(line for line in text.splitlines() if line.startswith("kNN"))
    assert "0 of 0 measured targets met" in text


def test_targets_name_sections() -> None:
    assert {target.section for target in TARGETS} <= set(SECTIONS)


def test_peaks_become_ratios_and_say_what_does_not_fit() -> None:
    found = Found()
    found.peak("NT-Xent", {"N": 8}, {"plain": 30.0, "lightly": "does not fit", OURS: 2.0}, "NT-Xent N8")
    assert found.numbers == {f"NT-Xent N8 memory: plain / {OURS}": Spread(15.0, 15.0, 15.0)}


def test_plot_is_a_image_with_every_name() -> None:
    svg = loglog("a < b", "N", "s", {"nearfar": [(1, 2.0), (4, 30.0)], "plain": [(1, 3.0), (2, 31.0)], "none": []})
    root = ET.fromstring(svg)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"a < b", "nearfar", "plain", "N", "s"} <= set(texts)
    assert len([e for e in root.iter() if e.tag.endswith("circle")]) == 4
    with pytest.raises(ValueError, match="positive"):
        loglog("t", "x", "y", {"nearfar": [(0, 1.0)]})


def test_a_curve_shows_each_point_with_its_interval() -> None:
    svg = curve("a < b", "x", "y", {"right": (2.0, 41.0, 40.5, 41.5), "left": (1.0, 40.0, 39.2, 40.8)})
    root = ET.fromstring(svg)
    texts = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {"a < b", "left", "right", "39", "42", "1.5"} <= texts
    (line,) = (element for element in root.iter() if element.tag.endswith("polyline"))
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in line.get("points", "").split())
    assert x1 < x2
    assert y1 > y2  # up is less
    with pytest.raises(ValueError, match="no points"):
        curve("t", "x", "y", {})
