"""What an encoder is told of the nodes and edges of a graph: labels, one-hot, numbers, or degrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.modalities.graph.graphs import Graphs

MOST_DEGREE = 128
"""Degrees above that are one input."""


@dataclass(frozen=True)
class Known:
    """What samples know of nodes, or of edges: the first column is the number of a label, where there are names of
    these; the others are numbers.

    names: of the labels.  numbers: how many there are.
    """

    names: tuple[str, ...] = ()
    numbers: int = 0


@dataclass(frozen=True)
class Inputs:
    """What of that becomes inputs, as it was learned from training graphs.

    labels: of nodes, by name, an input each; a node with another label has none of them.  numbers: so many of each
    node.  mean, std: of these, by which they are scaled.  degrees: 0, or the highest degree that is an input, which all
    higher ones share.  constant: one input, 1 for every node.  edge_labels, edge_numbers: the same of edges.
    """

    labels: tuple[str, ...] = ()
    numbers: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    degrees: int = 0
    constant: bool = False
    edge_labels: tuple[str, ...] = ()
    edge_numbers: int = 0

    @property
    def width(self) -> int:
        """Inputs of a node."""
        return len(self.labels) + self.numbers + (self.degrees + 1 if self.degrees else 0) + self.constant

    @property
    def edge_width(self) -> int:
        """Inputs of an edge."""
        return len(self.edge_labels) + self.edge_numbers

    def spec(self) -> dict[str, Any]:
        """In plain JSON types."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Inputs:
        known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in spec.items()}
        return cls(**known)

    @classmethod
    def learn(cls, graphs: Graphs, node: Known, edge: Known, form: str) -> Inputs:
        """From graphs to learn from.  form: see `Settings.inputs`."""
        labels, numbers = form in ("auto", "labels", "both"), form in ("auto", "numbers", "both")
        there = graphs.x[:, 0].unique().long().tolist() if node.names else []
        # One label for all tells nothing, and leaves it to the degrees.
        names = [node.names[i] for i in there] if labels and (len(there) > 1 or form != "auto") else []
        count = node.numbers if numbers else 0
        rows = graphs.x[:, bool(node.names) :].double()
        rows = rows[rows.isfinite().all(1)]  # others are refused, with their count, by whoever opens them
        degrees = form == "degrees" or (form == "auto" and not names and not count)
        most = int(graphs.degrees().clamp(max=MOST_DEGREE).max()) if degrees and len(graphs.x) else 0
        attr = graphs.edge_attr
        edges = attr[:, 0].unique().long().tolist() if attr is not None and edge.names else []
        return cls(
            labels=tuple(names),
            numbers=count,
            mean=tuple(rows.mean(0).tolist()) if count else (),
            std=tuple(rows.std(0, correction=0).clamp(min=1e-8).tolist()) if count else (),
            degrees=max(1, most) if degrees else 0,
            constant=form == "constant",
            edge_labels=tuple(edge.names[i] for i in edges) if len(edges) > 1 else (),
            edge_numbers=edge.numbers,
        )

    def of(self, graphs: Graphs, node: Known, edge: Known) -> Graphs:
        """Graphs with what an encoder is told, made of what samples know."""
        rows = graphs.x[:, bool(node.names) :]
        parts = []
        if self.labels:
            parts.append(_one_hot(graphs.x[:, 0], node.names, self.labels))
        if self.numbers:
            mean, std = rows.new_tensor(self.mean), rows.new_tensor(self.std)
            parts.append((rows - mean) / std)
        if self.degrees:
            parts.append(F.one_hot(graphs.degrees().clamp(max=self.degrees), self.degrees + 1).float())
        if self.constant:
            parts.append(rows.new_ones(len(rows), 1))
        attr = None
        if self.edge_width and graphs.edge_attr is not None:
            told = [_one_hot(graphs.edge_attr[:, 0], edge.names, self.edge_labels)] if self.edge_labels else []
            attr = torch.cat([*told, graphs.edge_attr[:, bool(edge.names) :]], 1)
        return Graphs(torch.cat(parts, 1), graphs.edge_index, graphs.nodes, attr)


def _one_hot(code: Tensor, names: Sequence[str], known: Sequence[str]) -> Tensor:
    """An input for each known label: rows x known, of the labels by their numbers among `names`."""
    place = {name: i for i, name in enumerate(known)}
    table = torch.zeros(len(names), len(known))
    for i, name in enumerate(names):
        if name in place:
            table[i, place[name]] = 1
    return table.to(code.device)[code.long()]
