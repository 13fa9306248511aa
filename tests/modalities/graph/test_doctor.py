"""What is said of graphs before training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nearfar.cli import main
from nearfar.modalities.graph import doctor
from nearfar.modalities.graph.samples import open_graphs

from .small import arrays


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
