"""Graphs by counts alone: rows that no network has made, with which a representation is compared; and copies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.modalities.graph.graphs import Graphs
from nearfar.modalities.graph.views import mixed

ROUNDS = 3
"""In which nodes look at their neighbors."""

MOST = 2048
"""Kinds of neighborhoods that are counted: those in most graphs."""


def colors(graphs: Graphs, rounds: int = ROUNDS) -> list[Tensor]:
    """Weisfeiler and Lehman's colors of nodes before the first round and after each: nodes, int64.

    Nodes have one color where what is known of them is the same, and so far as rounds reach, of their neighbors and
    the edges to these.
    """
    start, end = graphs.edge_index
    color = _hashed(graphs.x)
    edge = 0 if graphs.edge_attr is None else _hashed(graphs.edge_attr)
    found = [color]
    for _ in range(rounds):
        told = mixed(color[start] + edge)
        color = mixed(mixed(color) + torch.zeros_like(color).index_add(0, end, told))
        found.append(color)
    return found


def whole(graphs: Graphs) -> Tensor:
    """A number for each graph, the same where graphs are alike to Weisfeiler and Lehman: N, int64."""
    last = mixed(colors(graphs)[-1])
    return torch.zeros_like(graphs.nodes).index_add(0, graphs.batch, last) + graphs.nodes


def counted(graphs: Graphs) -> dict[str, Tensor]:
    """How often each of what is known of a node occurs in a graph; and the same of neighborhoods, of all rounds (the
    Weisfeiler-Lehman subtree features of Shervashidze et al. 2011). Each N x kinds, float32."""
    batch, n = graphs.batch, len(graphs.nodes)
    every = colors(graphs)
    return {"node counts": _counts(batch, every[:1], n), "WL counts": _counts(batch, every, n)}


def _counts(batch: Tensor, every: Sequence[Tensor], n: int) -> Tensor:
    rounds = torch.stack([color + number for number, color in enumerate(map(mixed, every))])  # one color, one round
    kinds, place = rounds.unique(return_inverse=True)
    table = torch.zeros(n, len(kinds)) if len(kinds) <= MOST else None
    cells = (batch * len(kinds) + place).flatten()
    cell, count = cells.unique(return_counts=True)
    row, column = cell // len(kinds), cell % len(kinds)
    if table is None:
        often = torch.bincount(column, minlength=len(kinds)).argsort(descending=True, stable=True)[:MOST]
        new = torch.full((len(kinds),), -1)
        new[often] = torch.arange(MOST)
        kept = new[column] >= 0
        row, column, count = row[kept], new[column[kept]], count[kept]
        table = torch.zeros(n, MOST)
    table[row, column] = count.float()
    return table


def _hashed(rows: Tensor) -> Tensor:
    """A number for each row, the same where rows are the same: int64."""
    color = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for column in rows.double().T:
        color = mixed(color + column.contiguous().view(torch.int64))
    return color
