"""Graphs from the command line to a report, and what is refused before anything long begins."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import nearfar
from nearfar.cli import main
from nearfar.modalities.graph.views import PLAIN
from tests.tiny import evaluated

from .small import FLAGS, array_file, arrays, graphs, texts
from .test_samples import geometric

METHODS = ["simclr", "byol", "barlow", "supcon", "moco", "dcl", "hcl"]


def test_from_a_folder_to_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = texts(tmp_path / "SMALL"), tmp_path / "run"
    assert main(["train", "graphcl", str(data), "--out", str(out), *FLAGS]) == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["kind"], config["settings"]["changed"], config["settings"]["views"]) == (
        "graph",
        "second",
        "random4",
    )
    assert main(["evaluate", str(out), str(data), "--svm"]) == 0
    result = json.loads(evaluated(out).read_text())
    rows = {row["name"]: row["values"] for row in result["rows"]}
    assert list(rows) == ["node counts", "WL counts", "untrained encoder", "trained encoder"]
    assert rows["WL counts"]["linear (%)"]["value"] > 90  # paths and stars differ in their neighborhoods
    assert result["columns"][:3] == ["kNN (%)", "linear (%)", "SVM (%)"]
    assert result["protocol"]["svm"]["splits"] == 10
    assert main(["embed", str(out), str(data)]) == 0
    assert main(["export", str(out)]) == 0
    together = pytest.importorskip("torch_geometric.data").Batch.from_data_list(geometric())
    encode = runpy.run_path(str(out / "export" / "encoder.py"))["encode"]
    with torch.no_grad():
        torch.testing.assert_close(encode(together), nearfar.load(out).embed(str(data)), rtol=1e-4, atol=1e-4)
    assert main(["report", str(out), "--data", str(data)]) == 0
    assert "data:image/jpeg" in (out / "report.html").read_text()
    with Image.open(out / "views.png") as sheet:
        assert len(sheet.convert("RGB").getcolors(1 << 20) or []) > 10
    run = nearfar.load(out)
    trained, first = run.encoder, run.untrained()
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), first.parameters(), strict=True))
    shown = capsys.readouterr().out
    assert "alarm" not in shown


@pytest.mark.parametrize("method", METHODS)
def test_methods_take_steps_on_graphs(method: str, tmp_path: Path) -> None:
    data, out = array_file(tmp_path / "a.npz", 32), tmp_path / "run"
    small = {"moco": ("--queue", "16"), "byol": ("--hidden", "16"), "barlow": ("--dim", "16")}.get(method, ())
    assert (
        main(["train", method, str(data), "--out", str(out), *FLAGS[:4], "--probe-every", "0", *FLAGS[4:6], *small])
        == 0
    )
    features = nearfar.load(out).embed(str(data))
    assert features.isfinite().all()
    assert features.std(0).max() > 0


def test_the_folds_of_the_data_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = arrays(40, fold=True)
    held["fold"][:4] = -1
    np.savez(tmp_path / "a.npz", **held)
    run = nearfar.fit(
        tmp_path / "a.npz", "graphcl", out=tmp_path / "run", encoder="gin-2x8", epochs=1, say=lambda t: None
    )
    samples = run.open(tmp_path / "a.npz")
    parts, tested = run.splits(samples, 0, print)
    assert [test.tolist() for _, test in parts] == [[i for i in range(4, 40) if i // 2 % 5 == f] for f in range(5)]
    assert all(set(range(4)) <= set(learn.tolist()) for learn, _ in parts)
    assert sorted(tested.tolist()) == list(range(4, 40))
    assert "4 labeled graphs are in no fold" in capsys.readouterr().out


def test_plain_graphs_are_as_they_are() -> None:
    given = graphs(3)
    assert PLAIN(given) == [given]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--encoder", "gat"], "no encoder of graphs is called"),
        (["--views", "blur"], "none of node_drop"),
        (["--dataset", "C"], r"--dataset 'C' is not in"),
        (["--strength", "1.5"], "strength"),
        (["--inputs", "numbers"], "--inputs numbers"),
        (["--view-count", "3"], "takes 2 views"),
        (["--label-column", "color"], "no column 'color'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_run_begins(
    flags: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    array_file(tmp_path / "a.npz")
    assert main(["train", "graphcl", "a.npz", "--out", "run", *FLAGS, *flags]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(words, error), error
    assert not (tmp_path / "run" / "config.yaml").exists()
