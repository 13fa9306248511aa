"""Graphs from the command line to a report, and what is refused before anything long begins."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import nearfar
from nearfar.cli import main
from nearfar.modalities.graph import counts, doctor
from nearfar.modalities.graph.graphs import Graphs
from nearfar.modalities.graph.samples import open_graphs
from nearfar.modalities.graph.views import PLAIN
from tests.tiny import evaluated

from .small import FLAGS, array_file, arrays, graphs, texts
from .test_encoder import renumbered

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


def test_views_and_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = arrays(20)
    size = len(held["graph_id"])
    held["graph_id"] = np.append(held["graph_id"], [20, 21, 21])  # one of a single node, one without edges
    held["graph_label"] = np.append(held["graph_label"], [0, 1])
    held["node_label"] = np.append(held["node_label"], [0, 0, 0])
    held["edge_index"] = np.concatenate([held["edge_index"], [[0], [2]]], 1)  # one way only
    assert size + 3 == len(held["graph_id"])
    np.savez(tmp_path / "a.npz", **held)
    out = tmp_path / "views.png"
    for name in ("random4", "subgraph"):
        assert main(["views", str(tmp_path / "a.npz"), "--views", name, "--out", str(out), "--force"]) == 0
    with Image.open(out) as sheet:
        assert sheet.width > 400
    assert main(["doctor", str(tmp_path / "a.npz"), "--out", str(tmp_path / "labels.csv")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 graph has one node (20)" in shown
    assert "1 graph has no edge (21)" in shown
    assert "listed one way only" in shown
    assert "nearfar train" in shown


def test_copies_are_known_whatever_the_order_of_their_nodes() -> None:
    nx = pytest.importorskip("networkx")
    one, other = nx.path_graph(6), nx.relabel_nodes(nx.path_graph(6), dict(enumerate([3, 1, 5, 0, 2, 4])))
    mixed = nx.Graph()
    mixed.add_nodes_from(range(6))
    mixed.add_edges_from(other.edges)
    found = doctor.copies(open_graphs([one, mixed, nx.star_graph(5), one.copy()]))
    assert found.group.tolist() == [0, 0, -1, 0]
    assert found.same.tolist()[0] == found.same.tolist()[3] != -1
    assert (found.exact, found.near) == (1, 1)


def test_counts_do_not_feel_the_order_of_nodes_and_are_counts() -> None:
    given = graphs(6, edges=1)
    order = torch.cat([torch.arange(len(given.x))[given.batch == i].flip(0) for i in range(6)])
    plain = Graphs((given.x > 0.5).float(), given.edge_index, given.nodes)
    for name, rows in counts.counted(plain).items():
        assert torch.equal(rows, counts.counted(renumbered(plain, order))[name])
        rounds = 1 if name == "node counts" else counts.ROUNDS + 1
        assert rows.sum(1).tolist() == [rounds * n for n in plain.nodes.tolist()]
    kinds = len(plain.x.unique(dim=0))
    assert counts.counted(plain)["node counts"].shape[1] == kinds
    # A path and a ring of equal labels differ after a round, and not before.
    place = torch.arange(6)
    ring = torch.stack([place, (place + 1) % 6])
    path = ring[:, :5]
    both = Graphs(
        torch.ones(12, 1), torch.cat([ring, ring.flip(0), path + 6, path.flip(0) + 6], 1), torch.tensor([6, 6])
    )
    made = counts.counted(both)
    assert torch.equal(made["node counts"][0], made["node counts"][1])
    assert not torch.equal(made["WL counts"][0], made["WL counts"][1])


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
