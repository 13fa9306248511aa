"""N graphs as one: their nodes and edges, one graph's behind the other's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Graphs:
    """N graphs, as PyTorch Geometric has them in a batch.

    x: what is known of each node, nodes x D.  edge_index: 2 x edges, int64, from which node to which, by their numbers
    among all nodes here; an edge that goes both ways stands there twice.  edge_attr: edges x E, or None.
    nodes: N, int64, how many nodes each graph has, which stand one graph's behind the other's, as its edges do.
    """

    x: Tensor
    edge_index: Tensor
    nodes: Tensor
    edge_attr: Tensor | None = None

    @property
    def batch(self) -> Tensor:
        """The graph of each node: nodes, int64."""
        return numbered(self.nodes, len(self.x))

    @property
    def first(self) -> Tensor:
        """The first node of each graph: N, int64."""
        return self.nodes.cumsum(0) - self.nodes

    def count(self) -> int:
        return len(self.nodes)

    def cat(self, others: Sequence[Graphs]) -> Graphs:
        every = [self, *others]
        shifts = [0]
        for one in every[:-1]:
            shifts.append(shifts[-1] + len(one.x))
        attr = [one.edge_attr for one in every if one.edge_attr is not None]
        return Graphs(
            torch.cat([one.x for one in every]),
            torch.cat([one.edge_index + shift for one, shift in zip(every, shifts, strict=True)], 1),
            torch.cat([one.nodes for one in every]),
            torch.cat(attr) if attr else None,
        )

    def select(self, index: Tensor, edges: Tensor | None = None) -> Graphs:
        """Some graphs.  edges: what `edges` gives, where it is known."""
        index = index.to(self.x.device)
        edges = self.edges() if edges is None else edges
        nodes, rows = spans(self.first, self.nodes, index)
        count, kept = spans(edges.cumsum(0) - edges, edges, index)
        new = nodes.cumsum(0) - nodes
        shift = (new - self.first[index])[numbered(count, len(kept))]
        attr = None if self.edge_attr is None else self.edge_attr[kept]
        return Graphs(self.x[rows], self.edge_index[:, kept] + shift, nodes, attr)

    def edges(self) -> Tensor:
        """How many edges each graph has: N, int64."""
        return torch.bincount(self.batch[self.edge_index[0]], minlength=len(self.nodes))

    def degrees(self) -> Tensor:
        """How many edges leave each node: nodes, int64."""
        return torch.bincount(self.edge_index[0], minlength=len(self.x))

    def kept(self, node: Tensor, edge: Tensor | None = None) -> Graphs:
        """Without some nodes and the edges that they had.  node: nodes, bool.  edge: edges, bool, those that may stay;
        None for all."""
        stays = node[self.edge_index].all(0)
        stays = stays if edge is None else stays & edge
        number = node.cumsum(0) - 1
        batch = self.batch[node]
        attr = None if self.edge_attr is None else self.edge_attr[stays]
        return Graphs(
            self.x[node], number[self.edge_index[:, stays]], torch.bincount(batch, minlength=len(self.nodes)), attr
        )

    def sums(self, rows: Tensor) -> Tensor:
        """Of rows of nodes, nodes x D, the sum over each graph: N x D."""
        return rows.new_zeros(len(self.nodes), rows.shape[1]).index_add(0, self.batch, rows)

    def with_x(self, x: Tensor) -> Graphs:
        """The same graphs, of whose nodes something else is known."""
        return replace(self, x=x)


def numbered(counts: Tensor, total: int) -> Tensor:
    """0 so often as the first count says, then 1, and so on: `total`, int64.  total: the sum of the counts."""
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=total)


def spans(first: Tensor, counts: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Of some of many spans, each `counts` long and beginning at `first`: their lengths, and all numbers in them."""
    chosen = counts[index]
    total = int(chosen.sum())
    shift = first[index] - (chosen.cumsum(0) - chosen)
    return chosen, torch.arange(total, device=counts.device) + shift.repeat_interleave(chosen, output_size=total)
