"""Graphs in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data import csv, tables
from nearfar.data.labels import LabelColumn, number, some
from nearfar.data.samples import LEARNED, Samples
from nearfar.errors import UserError, counted
from nearfar.modalities.graph.graphs import Graphs
from nearfar.modalities.graph.inputs import Inputs, Known
from nearfar.modalities.graph.sources import Raw, read


@dataclass(slots=True, eq=False, kw_only=True)
class GraphSamples(Samples):
    """N graphs. names: the position of each in the data, from 0, as text: those that cannot be are left out, and count.

    graphs: all that were opened, of whose nodes and edges is known what `node` and `edge` say.  edges: how many each of
    these has.  row: N, int64, which of them each sample is.  fold: N, int64, that of a given cross-validation, or
    MISSING.  inputs: what an encoder is told of them.
    """

    PER_SAMPLE = ("row", "fold")

    graphs: Graphs
    node: Known
    edge: Known
    edges: Tensor
    row: Tensor
    fold: Tensor
    inputs: Inputs

    def known(self, index: Tensor) -> Graphs:
        """What is known of some samples."""
        return self.graphs.select(self.row[index.to(self.row.device)], self.edges)

    def fetch(self, index: Tensor) -> tuple[Graphs]:
        """What views take: some graphs, as an encoder is told of them."""
        return (self.inputs.of(self.known(index), self.node, self.edge),)

    def contents(self) -> Iterator[bytes]:
        """Nodes in their order with what is known of each, and edges in the order of these."""
        rows = _rows(self.graphs.x, self.node)
        attr = None if self.graphs.edge_attr is None else _rows(self.graphs.edge_attr, self.edge)
        first, start = self.graphs.first.tolist(), (self.edges.cumsum(0) - self.edges).tolist()
        nodes, edges = self.graphs.nodes.tolist(), self.edges.tolist()
        ends = self.graphs.edge_index.cpu().numpy().T
        for i in self.row.tolist():
            own = slice(start[i], start[i] + edges[i])
            pairs = ends[own] - first[i]
            order = np.lexsort(pairs.T[::-1])
            told = b"" if attr is None else b"\0".join(attr[own.start + j] for j in order)
            yield b"\1".join((b"\0".join(rows[first[i] : first[i] + nodes[i]]), pairs[order].tobytes(), told))

    def to(self, device: torch.device | str) -> Self:
        from nearfar.batch import to

        return replace(self, graphs=to(self.graphs, device), edges=self.edges.to(device), row=self.row.to(device))


def _rows(values: Tensor, known: Known) -> list[bytes]:
    """What is known of each node or edge, a label by its name and numbers as float64."""
    numbers = values[:, bool(known.names) :].cpu().double().numpy()
    names = [known.names[i].encode() for i in values[:, 0].long().tolist()] if known.names else [b""] * len(values)
    return [name + row.tobytes() for name, row in zip(names, numbers, strict=True)]


def open_graphs(
    data: Any,
    *,
    dataset: str = "",
    form: str = "auto",
    both_ways: bool = False,
    labels: Any = None,
    label_column: str | LabelColumn = "",
    keep: Sequence[str] = (),
    every: bool = False,
    inputs: Inputs | None = None,
) -> GraphSamples:
    """Open graphs for training, or for an encoder that was trained on `inputs`.

    data, dataset: see `sources.read`.  form, both_ways: see `Settings.inputs` and `Settings.both_ways`.
    labels: a table of index and label, an array, or None for what the data say, by the name `label_column`.
    keep: words that are labels, though they usually say that nothing is known.
    Inputs are learned from the graphs whose split is train, or unknown.  every: from all.

    Raises FileNotFoundError where there is nothing, ValueError where it is no set of graphs, or nothing is left of it.
    """
    if isinstance(data, GraphSamples):
        return data
    raw = read(data, dataset)
    given = f"'{data}'" if isinstance(data, str) else f"the {type(data).__name__}"
    if not len(raw.nodes):
        why = f": {raw.skipped[0][1]}" if raw.skipped else ""
        raise UserError(f"{given} holds no graph that can be used{why}")
    wanted = LabelColumn.of(label_column)
    columns = {name: values for name, values in raw.columns.items() if name != "fold"}
    cells = [pa.array([csv.as_text(value) or None for value in values], pa.string()) for values in columns.values()]
    table = pa.Table.from_arrays(cells, names=list(columns)) if columns else None
    if table is None and labels is None:
        wanted.find((), given)
    position = [str(i) for i in range(len(raw.names) + len(raw.skipped))]
    if labels is not None and raw.skipped:
        # A table of labels, or an array, speaks of all graphs that were given.
        place = {name: i for i, name in enumerate(raw.names)}
        table = None if table is None else table.take(pa.array([place.get(name) for name in position], pa.int64()))
    of = position if labels is not None else raw.names
    known = tables.known(table, of, given, labels, wanted, keep, noun="graph")
    which = torch.tensor([int(name) for name in raw.names] if labels is not None else list(range(len(raw.names))))
    notes = list(known.notes)
    if raw.skipped:
        reasons = some([f"{name}: {reason}" for name, reason in raw.skipped])
        notes.insert(0, f"{counted(len(raw.skipped), 'graphs')} of {len(position):,} left out ({reasons}).")
    graphs, node, edge, edges = _graphs(raw)
    if both_ways:
        graphs, edges, more = _reversed(graphs, edges)
        notes.append(f"{counted(more, 'edges')} were added, each the reverse of one that is there.")
    split = [known.split[i] for i in which.tolist()]
    if inputs is None:
        learn = [i for i, part in enumerate(split) if every or part in LEARNED]
        if not learn:
            raise UserError(f"no graph of {given} may be learned from: learn from all by --split all")
        inputs = Inputs.learn(graphs.select(torch.tensor(learn), edges), node, edge, form)
        if not inputs.width:
            raise UserError(f"--inputs {form}: nothing such is known of the nodes of {given}: take degrees or constant")
    else:
        notes += _strange(inputs, node, edge, given)
    fold = raw.columns.get("fold")
    folds = torch.tensor([MISSING if f is None or int(f) < 0 else int(f) for f in fold]) if fold is not None else None
    return GraphSamples(
        names=raw.names,
        label=known.label[which],
        classes=known.classes,
        group=known.group[which],
        attribute=known.attribute[which],
        split=split,
        skipped=raw.skipped,
        notes=notes,
        label_column=wanted.name if labels is None and bool((known.label != MISSING).any()) else "",
        graphs=graphs,
        node=node,
        edge=edge,
        edges=edges,
        row=torch.arange(len(raw.nodes)),
        fold=torch.full((len(raw.nodes),), MISSING) if folds is None else folds,
        inputs=inputs,
    )


def _graphs(raw: Raw) -> tuple[Graphs, Known, Known, Tensor]:
    """What was read as tensors, what the columns of nodes and of edges are, and how many edges each graph has."""

    def told(label: Any, numbers: Any, rows: int) -> tuple[Tensor, Known]:
        parts, names = [torch.zeros(rows, 0)], []
        if label is not None:
            code, names = number(label.tolist())
            names = [*names, ""] if bool((code == MISSING).any()) else names
            parts.append(torch.where(code == MISSING, len(names) - 1, code).float()[:, None])
        if numbers is not None:
            parts.append(torch.from_numpy(numbers))
        return torch.cat(parts, 1), Known(tuple(names), 0 if numbers is None else numbers.shape[1])

    x, node = told(raw.node_label, raw.node_number, int(raw.nodes.sum()))
    attr, edge = told(raw.edge_label, raw.edge_number, len(raw.edges))
    nodes = torch.from_numpy(raw.nodes.astype(np.int64))
    index = torch.from_numpy(np.ascontiguousarray(raw.edges.T.astype(np.int64)))
    graphs = Graphs(x, index, nodes, attr if attr.shape[1] else None)
    return graphs, node, edge, graphs.edges()


def _reversed(graphs: Graphs, edges: Tensor) -> tuple[Graphs, Tensor, int]:
    """With the reverse of each edge that lacks it, how many edges each graph has then, and how many were added."""
    size = len(graphs.x)
    key, back = graphs.edge_index[0] * size + graphs.edge_index[1], graphs.edge_index[1] * size + graphs.edge_index[0]
    lacks = ~torch.isin(back, key)
    index = torch.cat([graphs.edge_index, graphs.edge_index[:, lacks].flip(0)], 1)
    order = graphs.batch[index[0]].argsort(stable=True)
    attr = graphs.edge_attr
    attr = None if attr is None else torch.cat([attr, attr[lacks]])[order]
    made = Graphs(graphs.x, index[:, order], graphs.nodes, attr)
    return made, made.edges(), int(lacks.sum())


def _strange(inputs: Inputs, node: Known, edge: Known, given: str) -> list[str]:
    """What is to be said where an encoder is told less than it was in training, or cannot be told what it takes."""
    notes = []
    for what, labels, known in (("node", inputs.labels, node), ("edge", inputs.edge_labels, edge)):
        if labels and not known.names:
            raise UserError(f"the encoder takes {what} labels, and {given} has none")
        if labels and (new := sorted(set(known.names) - set(labels))):
            notes.append(f"{counted(len(new), f'{what} labels')} are unknown to the encoder ({some(new)}).")
    for what, numbers, known in (("node", inputs.numbers, node), ("edge", inputs.edge_numbers, edge)):
        if numbers and known.numbers != numbers:
            raise UserError(f"the encoder takes {numbers} numbers of each {what}, and {given} has {known.numbers}")
    return notes
