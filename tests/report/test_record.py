import pytest
from fake_run import table

from nearfar.files import replace_json, with_checksum
from nearfar.report.record import read
from nearfar.training.journal import Journal

CELLS = {"face": "cells", "noun": "row", "plural": "rows", "columns": ["a", "b"], "median": 0.5, "total": 9}
MAP = {
    "face": "excerpts",
    "noun": "line",
    "plural": "lines",
    "excerpts": ["words"],
    "x": [0.0],
    "y": [0.0],
    "name": ["a"],
    "label": [None],
    "colors": {"group": ["group 1"]},
    "near": [[0]],
    "similarity": [[1.0]],
    "placed": "few",
    "perplexity": None,
    "total": 1,
}


def test_the_parts_that_tests_break_are_whole(run):
    replace_json(run / "results/map.json", MAP)
    replace_json(run / "results/outliers.json", CELLS | {"samples": [{"name": "x", "cells": ["1", 2]}]})
    record = read(run)
    assert record.map == MAP
    assert record.outliers is not None
    assert record.outliers["samples"] == [{"name": "x", "label": None, "similarity": None, "cells": ["1", "2"]}]


def test_a_folder_that_is_no_run_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'.*nowhere' is not a run directory.*nearfar train"):
        read(tmp_path / "nowhere")


def test_all_of_a_run_is_read(run):
    record = read(run)
    assert record.fact("method") == "moco"
    assert record.fact("paper") == "He et al. 2020, arXiv 1911.05722"
    assert record.fact("nothing") is None
    assert len(record.curve("loss")) == 700
    assert len(record.curve("knn")) == 10
    assert list(record.tables) == ["demo"]
    assert record.main_row(record.tables["demo"])["name"] == "trained (moco)"
    assert record.map is not None
    assert record.neighbors is not None
    assert record.copies is not None
    assert record.outliers is not None
    assert record.views is not None
    assert record.skipped[0] == ("photos/0000.jpg", "truncated file")
    assert record.checkpoints == ["last", "step-1000", "step-2000"]
    assert len(record.notes) == 2
    assert len(record.damage) == 1  # the line that a crash cut off


def test_a_line_written_twice_by_a_resumed_run_counts_once(tmp_path):
    lines = [{"step": step, "loss": loss} for step, loss in [(0, 5.0), (10, 4.0), (20, 3.5), (10, 4.1), (20, 3.0)]]
    lines.insert(3, {"step": 20, "knn": 50.0})
    for line in lines:
        Journal(tmp_path / "metrics.jsonl").write(line)
    record = read(tmp_path)
    assert [(line["step"], line["loss"]) for line in record.curve("loss")] == [
        (0, 5.0),
        (10, 4.0),
        (10, 4.1),
        (20, 3.0),
    ]
    assert not record.curve("knn")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", with_checksum("- a\n- list\n")),
        ("config.yaml", with_checksum("a: [unclosed\n")),
        ("config.yaml", with_checksum("a: &a [1]\nb: *a\n")),
        ("config.yaml", with_checksum("a: " + "[" * 3000 + "]" * 3000 + "\n")),
        ("config.yaml", "a: 1\n"),
        ("environment.json", "not json"),
        ("environment.json", '{"no": "checksum"}'),
        ("results/demo.json", {"accuracy": 3}),
        ("results/demo.json", {"columns": ["a"], "rows": []}),
        ("results/demo.json", {"columns": ["a"], "rows": [{"name": "x", "values": {"a": {"value": "high"}}}]}),
        ("results/map.json", {"x": [0.0], "y": [], "name": [], "label": [], "near": [], "similarity": []}),
        ("results/map.json", MAP | {"near": [[1]]}),
        ("results/map.json", MAP | {"x": [float("inf")]}),
        ("results/map.json", MAP | {"excerpts": []}),
        ("results/map.json", MAP | {"colors": {"group": []}}),
        ("results/look.json", {"sections": [{"kind": "features", "missing": "", "finding": "", "rows": [{}]}]}),
        ("results/map.json", MAP | {"face": "thumbnails"}),
        ("results/map.json", MAP | {"face": "of our own"}),
        ("results/map.json", MAP | {"placed": "by hand"}),
        ("results/demo.json", {"columns": ["a"], "rows": [], "confusion": {"classes": ["x"], "counts": [[0, 1, 2]]}}),
        ("results/copies.json", CELLS | {"sets": [{"size": 2, "labels_differ": False, "samples": []}]}),
        ("results/outliers.json", CELLS | {"samples": [{"similarity": 0.3}]}),
        ("results/outliers.json", CELLS | {"samples": []} | {"face": None}),
        ("results/map.json", {"nothing": 0}),
        ("results/outliers.json", CELLS | {"samples": [{"name": "x", "cells": ["1"]}]}),
        ("results/outliers.json", CELLS | {"samples": [{"name": "x"}]}),
        ("results/neighbors.json", CELLS | {"queries": [{"neighbors": []}]}),
        ("skipped.csv", "\0"),
        ("views.png", "no image"),
    ],
)
def test_a_broken_file_is_noted_and_the_rest_still_read(run, name, content):
    if isinstance(content, dict):
        replace_json(run / name, content)
    else:
        (run / name).write_text(content)
    record = read(run)
    assert any(note.startswith(f"{name} could not be read: ") for note in record.damage)
    assert name in record.damaged
    assert record.curve("loss")


def test_numbers_that_are_none_become_none(run):
    given = table()
    given["rows"][0]["values"]["kNN accuracy (%)"] = {"value": float("nan"), "low": float("-inf")}
    replace_json(run / "results/demo.json", given)
    assert read(run).tables["demo"]["rows"][0]["values"]["kNN accuracy (%)"] == {
        "value": None,
        "low": None,
        "high": None,
    }
