"""Graphs of all sources are the same graphs; what cannot be a graph is left out and counted, or refused by name."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfar.batch import MISSING
from nearfar.data.digests import digests
from nearfar.errors import NotFound, UserError
from nearfar.modalities import kind_of
from nearfar.modalities.graph.graphs import Graphs
from nearfar.modalities.graph.samples import GraphSamples, open_graphs
from tests.modalities.graph.small import array_file, arrays, texts


def same(one: GraphSamples, other: GraphSamples) -> None:
    index = torch.arange(len(one))
    assert digests(one) == digests(other)
    assert torch.equal(one.label, other.label)
    assert one.classes == other.classes
    (a,), (b,) = one.fetch(index), other.fetch(index)
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.nodes, b.nodes)
    assert {tuple(e) for e in a.edge_index.T.tolist()} == {tuple(e) for e in b.edge_index.T.tolist()}


def geometric(n: int = 40) -> list[Any]:
    data = pytest.importorskip("torch_geometric.data")
    held, made = arrays(n), []
    for i in range(n):
        own = held["graph_id"] == i
        first = int(np.flatnonzero(own)[0])
        edges = held["edge_index"][:, own[held["edge_index"][0]]] - first
        x = torch.eye(3)[torch.from_numpy(held["node_label"][own])]
        made.append(data.Data(x=x, edge_index=torch.from_numpy(edges), y=torch.tensor([int(held["graph_label"][i])])))
    return made


def networks(n: int = 40) -> list[Any]:
    nx = pytest.importorskip("networkx")
    held, made = arrays(n), []
    for i in range(n):
        own = held["graph_id"] == i
        first = int(np.flatnonzero(own)[0])
        graph = nx.Graph(label=int(held["graph_label"][i]))
        graph.add_nodes_from((k, {"label": int(c)}) for k, c in enumerate(held["node_label"][own]))
        graph.add_edges_from((held["edge_index"][:, own[held["edge_index"][0]]] - first).T.tolist())
        made.append(graph)
    return made


def test_all_sources_give_the_same_graphs(tmp_path: Path) -> None:
    first = open_graphs(array_file(tmp_path / "a.npz"))
    assert (len(first), first.inputs.width, first.classes) == (40, 3, ["0", "1"])
    folder = texts(tmp_path / "deep" / "SMALL" / "raw")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for path in folder.iterdir():
            file.write(path, f"SMALL/{path.name}")
    for data in (tmp_path / "deep", tmp_path / "a.zip", geometric(), networks()):
        assert kind_of(data) == "graph"
        same(first, open_graphs(data))
    assert kind_of(first) == "graph"
    part = first.subset([7, 3])
    assert digests(part) == [digests(first)[i] for i in (7, 3)]
    (view,) = part.fetch(torch.tensor([1]))
    assert torch.equal(view.x, first.fetch(torch.tensor([3]))[0].x)


def test_one_of_several_sets_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", **arrays(8, name="A"), **arrays(12, name="B"))
    assert len(open_graphs(tmp_path / "two.npz", dataset="b")) == 12
    with pytest.raises(UserError, match=r"A, B: name one by --dataset"):
        open_graphs(tmp_path / "two.npz")
    with pytest.raises(UserError, match=r"--dataset 'C'.*A, B"):
        open_graphs(tmp_path / "two.npz", dataset="C")


def test_inputs_are_labels_numbers_or_degrees(tmp_path: Path) -> None:
    held = arrays(10)
    size = len(held["graph_id"])
    number = np.random.default_rng(0).normal(5, 2, (size, 2))
    np.savez(tmp_path / "a.npz", **held, node_attr=number, edge_attr=np.ones((held["edge_index"].shape[1], 1)))
    widths = {form: open_graphs(tmp_path / "a.npz", form=form).inputs.width for form in ("auto", "labels", "numbers")}
    assert widths == {"auto": 5, "labels": 3, "numbers": 2}
    both = open_graphs(tmp_path / "a.npz")
    (view,) = both.fetch(torch.arange(10))
    assert torch.equal(view.x[:, :3].sum(1), torch.ones(size))
    torch.testing.assert_close(view.x[:, 3:].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    assert view.edge_attr is not None
    assert view.edge_attr.shape[1] == 1
    held["node_label"][:] = 0
    np.savez(tmp_path / "b.npz", **held)
    degrees = open_graphs(tmp_path / "b.npz")
    (view,) = degrees.fetch(torch.arange(10))
    assert torch.equal(view.x.argmax(1), view.degrees())
    assert open_graphs(tmp_path / "b.npz", form="constant").fetch(torch.arange(10))[0].x.unique().tolist() == [1]
    with pytest.raises(UserError, match="--inputs numbers"):
        open_graphs(tmp_path / "b.npz", form="numbers")


def test_a_run_reads_others_by_its_own_inputs(tmp_path: Path) -> None:
    known = open_graphs(array_file(tmp_path / "a.npz")).inputs
    held = arrays(6)
    held["node_label"] = held["node_label"] + 1  # 1, 2 and 3, of which 3 is new
    np.savez(tmp_path / "b.npz", **held)
    other = open_graphs(tmp_path / "b.npz", inputs=known)
    assert any("unknown to the encoder (3)" in note for note in other.notes)
    (view,) = other.fetch(torch.arange(6))
    assert torch.equal(view.x.sum(1) == 0, torch.from_numpy(held["node_label"] == 3))
    del held["node_label"]
    np.savez(tmp_path / "c.npz", **held)
    with pytest.raises(UserError, match="takes node labels"):
        open_graphs(tmp_path / "c.npz", inputs=known)


def test_graphs_that_cannot_be_are_left_out_and_counted(tmp_path: Path) -> None:
    held = arrays(6, fold=True)
    edges = held["edge_index"]
    held["graph_id"] = held["graph_id"] + (held["graph_id"] >= 4)  # there is no node of graph 4
    held["graph_label"] = np.array([0, 1, 0, 1, 5, 0, 1])
    held["fold"] = np.array([0, 1, 0, 1, 0, 1, -1])
    last, zero = len(held["graph_id"]) - 1, int((held["graph_id"] == 0).sum())
    more = np.array([[0, zero], [1000, last]])  # of graph 0 to nowhere, and between graphs 1 and 6
    np.savez(tmp_path / "a.npz", **held | {"edge_index": np.concatenate([edges, more], 1)})
    samples = open_graphs(tmp_path / "a.npz")
    assert samples.names == ["2", "3", "5"]
    assert [name for name, _ in samples.skipped] == ["0", "1", "4", "6"]
    reasons = dict(samples.skipped)
    assert "node 1000, which is not there" in reasons["0"]
    assert "another graph" in reasons["1"]
    assert "another graph" in reasons["6"]
    assert reasons["4"] == "it has no nodes"
    assert "4 graphs of 7 left out" in samples.notes[0]
    assert [samples.classes[i] for i in samples.label.tolist()] == ["0", "1", "0"]
    assert samples.fold.tolist() == [0, 1, 1]
    # A table of labels speaks of all of them.
    (tmp_path / "labels.csv").write_text("index,label\n" + "".join(f"{i},c{i}\n" for i in range(7)))
    named = open_graphs(tmp_path / "a.npz", labels=str(tmp_path / "labels.csv"))
    assert [named.classes[i] for i in named.label.tolist()] == ["c2", "c3", "c5"]


def test_odd_graphs_in_memory(tmp_path: Path) -> None:
    nx = pytest.importorskip("networkx")
    data = pytest.importorskip("torch_geometric.data")
    single, bare, ring = nx.Graph(), nx.Graph(), nx.cycle_graph(4)
    single.add_node(0)
    bare.add_nodes_from(range(3))
    samples = open_graphs([single, bare, ring, nx.Graph()], labels=["a", "b", "a", "b"])
    assert (samples.names, samples.skipped) == (["0", "1", "2"], [("3", "it has no nodes")])
    (view,) = samples.fetch(torch.arange(3))
    assert view.edges().tolist() == [0, 0, 8]
    broken = data.Data(edge_index=torch.tensor([[0, 1], [1, 7]]), num_nodes=3)
    good = data.Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    samples = open_graphs([good, broken])
    assert samples.skipped[0][0] == "1"
    assert "node 7" in samples.skipped[0][1]
    assert bool((samples.label == MISSING).all())
    with pytest.raises(UserError, match="no graph that can be used: edge 1 goes to node 7"):
        open_graphs([broken])


def test_directed_edges_can_be_made_to_go_both_ways() -> None:
    nx = pytest.importorskip("networkx")
    path = nx.DiGraph([(0, 1), (1, 2), (2, 1)])
    samples = open_graphs([path, nx.path_graph(2)], both_ways=True)
    assert samples.graphs.edge_index.T.tolist() == [[0, 1], [1, 2], [2, 1], [1, 0], [3, 4], [4, 3]]
    assert any(note.startswith("1 edge") for note in samples.notes)


@pytest.mark.parametrize(
    ("part", "lines", "words"),
    [
        ("graph_indicator", "1\n1\n2\n", "there are 3 nodes"),
        ("graph_indicator", None, "graphs 1 to 40, and there are 39 graphs"),
        ("A", "1, 2, 3\n", "3 numbers in a line; wanted: 2"),
        ("A", "1, x\n", "'.*SMALL_A.txt'.*x"),
        ("A", "7000, 8000\n", "neither end of edge 0 is a node"),
        ("node_labels", "1\n", "1 of node_label"),
    ],
)
def test_texts_that_do_not_fit_together_are_named(tmp_path: Path, part: str, lines: str | None, words: str) -> None:
    folder = texts(tmp_path / "a")
    if lines is None:
        part, lines = "graph_labels", "".join((folder / "SMALL_graph_labels.txt").read_text().splitlines(True)[1:])
    (folder / f"SMALL_{part}.txt").write_text(lines)
    with pytest.raises(UserError, match=words):
        open_graphs(folder)


def test_what_holds_no_graphs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing at"):
        open_graphs(tmp_path / "none")
    np.savez(tmp_path / "a.npz", edge_index=np.zeros((2, 3)), graph_id=np.zeros(3, int))
    with pytest.raises(UserError, match="whole numbers"):
        open_graphs(tmp_path / "a.npz")
    with pytest.raises(UserError, match="graphs are wanted, and a str"):
        open_graphs(["a"])


def test_numbers_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    held = arrays(6)
    number = np.ones((len(held["graph_id"]), 1))
    number[0] = np.nan
    np.savez(tmp_path / "a.npz", **held, node_attr=number)
    with pytest.raises(UserError, match=r"1 of 6 samples hold NaN.*'0'"):
        open_graphs(tmp_path / "a.npz").insist_finite()


@pytest.mark.parametrize(
    ("name", "graphs", "nodes", "edges", "width"),
    [("MUTAG", 188, 3371, 7442, 7), ("IMDB-BINARY", 1000, 19773, 193062, 129)],
)
def test_benchmark_sets_have_their_published_sizes(
    name: str, graphs: int, nodes: int, edges: int, width: int, shared_data: Path
) -> None:
    one, other = (
        open_graphs(shared_data / "tu_graphs.npz", dataset=name),
        open_graphs(shared_data / "tu_graphs_raw.zip", dataset=name),
    )
    for samples in (one, other):
        assert isinstance(samples.graphs, Graphs)
        assert (len(samples), len(samples.graphs.x), samples.graphs.edge_index.shape[1]) == (graphs, nodes, edges)
        assert samples.inputs.width == width
    assert digests(one) == digests(other)
    assert bool((other.fold == MISSING).all())
    assert sorted(one.fold.unique().tolist())[-10:] == list(range(10))
    assert re.fullmatch(r"[0-9a-f]{16}", digests(one)[0])
