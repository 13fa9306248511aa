"""Views of graphs: nodes dropped, edges perturbed, attributes masked, or a subgraph (GraphCL, arXiv 2010.13902).

Everything is done to all graphs of a batch at once. A graph's chance is one number, its seed, from which those of its
nodes and edges follow by a hash: so they depend neither on the batch nor on the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import UserError
from nearfar.modalities.graph.graphs import Graphs
from nearfar.modalities.graph.settings import VIEWS

NODES, EDGES, MASK, SEED, WAY, ENDS, NOISE, CHOICE = range(8)
"""What a uniform number is for."""


@dataclass(frozen=True, slots=True)
class Draws:
    """The chance behind the views of N graphs: seeds, N x V, int64."""

    seeds: Tensor

    def rows(self, rows: slice) -> Draws:
        return Draws(self.seeds[rows])


def uniform(seed: Tensor, *numbers: Tensor | int) -> Tensor:
    """A number in [0, 1) that follows from a seed and further numbers, int64, by splitmix64: float64."""
    state = seed
    for number in numbers:
        state = mixed(state ^ (number + 1) * 0x2545F4914F6CDD1D if isinstance(number, Tensor) else state + number + 1)
    return (state >> 11 & (1 << 53) - 1).double() * 2.0**-53


def mixed(z: Tensor) -> Tensor:
    z = z + -0x61C8864680B583EB
    z = (z ^ (z >> 30 & (1 << 34) - 1)) * -0x40A7B892E31B1A47
    z = (z ^ (z >> 27 & (1 << 37) - 1)) * -0x6B2FB644ECCEEE15
    return z ^ (z >> 31 & (1 << 33) - 1)


@dataclass(frozen=True)
class Change:
    """What is done to graphs. kinds: of `CHANGES`, one of which is drawn for each graph.  strength: the share of nodes
    dropped or masked, or of edges perturbed.  subgraph: the share of nodes that a subgraph keeps.  official: as in the
    released code for unsupervised learning."""

    kinds: tuple[str, ...]
    strength: float = 0.1
    subgraph: float = 0.2
    official: bool = False

    def __call__(self, graphs: Graphs, seed: Tensor) -> Graphs:
        """seed: N, int64."""
        drawn = (uniform(seed, CHOICE) * len(self.kinds)).long()  # N
        on = {kind: drawn == number for number, kind in enumerate(self.kinds)}
        batch, made = graphs.batch, graphs
        node = edge = None
        if "edge_perturb" in on:
            made, edge = self._perturbed(made, seed, batch, on["edge_perturb"])
        if "attribute_mask" in on:
            made = self._masked(made, seed, batch, on["attribute_mask"])
        if on.keys() & {"node_drop", "subgraph"}:
            node = torch.ones_like(batch, dtype=torch.bool)
        if node is not None and "node_drop" in on:
            rows, of, place = _nodes(graphs, batch, on["node_drop"])
            gone = torch.minimum((graphs.nodes * self.strength).floor(), graphs.nodes - 1)
            rank, _ = _rank_of(uniform(seed[of], place, NODES), of, len(gone))
            node[rows] = rank >= gone[of]
        if node is not None and "subgraph" in on:
            self._subgraph(graphs, seed, batch, on["subgraph"], node)
        if self.official and node is not None:
            node, edge = self._cut(made, node, edge, on.get("subgraph"), batch)
        if node is None and edge is None:
            return made
        return made.kept(torch.ones_like(batch, dtype=torch.bool) if node is None else node, edge)

    def _perturbed(self, graphs: Graphs, seed: Tensor, batch: Tensor, on: Tensor) -> tuple[Graphs, Tensor | None]:
        """A share of the edges goes elsewhere: as many are removed as random ones are added. Of an edge that goes both
        ways both go.  official: some are removed, each way by itself; which stay is told: edges, bool."""
        rows = on[batch[graphs.edge_index[0]]].nonzero()[:, 0]
        start, end = graphs.edge_index[:, rows]
        of = batch[start]
        if self.official:
            count = torch.bincount(of, minlength=len(on))
            place = torch.arange(len(of), device=of.device) - (count.cumsum(0) - count)[of]
            rank, _ = _rank_of(uniform(seed[of], place, EDGES), of, len(on))
            stays = torch.ones_like(graphs.edge_index[0], dtype=torch.bool)
            stays[rows] = rank >= (count * self.strength).floor()[of]
            return graphs, stays
        size, first = graphs.nodes[of], graphs.first[of]
        pair = _pair(start, end, first, size)
        rank, count = _rank_of(uniform(seed[of], pair, EDGES), of, len(on))  # the same both ways
        moved = (rank < (count * self.strength).floor()[of]) & (size > 1)
        rows, forth, of, pair, size, first = (x[moved] for x in (rows, start <= end, of, pair, size, first))
        here = (uniform(seed[of], pair, ENDS, 0) * size).long()
        there = (here + 1 + (uniform(seed[of], pair, ENDS, 1) * (size - 1)).long()) % size
        index = graphs.edge_index.clone()
        index[:, rows] = torch.stack([torch.where(forth, here, there), torch.where(forth, there, here)]) + first
        return Graphs(graphs.x, index, graphs.nodes, graphs.edge_attr), None

    def _masked(self, graphs: Graphs, seed: Tensor, batch: Tensor, on: Tensor) -> Graphs:
        """The attributes of some nodes are the mean of their graph's.  official: noise about 1/2."""
        rows, of, place = _nodes(graphs, batch, on)
        rank, _ = _rank_of(uniform(seed[of], place, MASK), of, len(on))
        hidden = rank < (graphs.nodes * self.strength).floor()[of]
        rows, of, place = rows[hidden], of[hidden], place[hidden]
        if self.official:
            entry = place[:, None] * graphs.x.shape[1] + torch.arange(graphs.x.shape[1], device=batch.device)
            one, two = (uniform(seed[of, None], entry, NOISE, k) for k in (0, 1))
            normal = (-2 * (1 - one).log()).sqrt() * (2 * math.pi * two).cos()
            new = (0.5 + 0.5 * normal).to(graphs.x.dtype)
        else:
            new = (graphs.sums(graphs.x) / graphs.nodes.clamp(min=1)[:, None])[of]
        return graphs.with_x(graphs.x.index_put((rows,), new))

    def _subgraph(self, graphs: Graphs, seed: Tensor, batch: Tensor, on: Tensor, node: Tensor) -> None:
        """Mark the nodes that a subgraph keeps, of the graphs that are `on`. It begins at one node and grows along
        edges, of which any at its border is as likely to be the next (first passage, with an exponential time for each
        edge).  official: it does not grow beyond the neighbors of the first node.  node: nodes, bool, written."""
        edges = on[batch[graphs.edge_index[0]]].nonzero()[:, 0]
        start, end = graphs.edge_index[:, edges]
        of, first = batch[start], graphs.first
        wait = -(1 - uniform(seed[of], _pair(start, end, first[of], graphs.nodes[of]), WAY)).log()
        time = wait.new_full((len(batch),), math.inf)
        root = first + (uniform(seed, SEED) * graphs.nodes).long()
        time[root[on & (graphs.nodes > 0)]] = 0
        for step in range(len(batch)):
            before = time
            time = time.scatter_reduce(0, end, time[start] + wait, "amin")
            # Whether nothing is nearer than before is asked now and then: on a GPU the answer must be waited for.
            if (self.official and step == 0) or (step % 4 == 3 and torch.equal(time, before)):
                break
        rows, of, _ = _nodes(graphs, batch, on)
        time = time[rows]
        near = time.isfinite()
        rank, _ = _rank_of(torch.where(near, time / (1 + time), 1.0), of, len(on))
        node[rows] = near & (rank <= (graphs.nodes * self.subgraph).floor()[of])

    def _cut(
        self, graphs: Graphs, keep: Tensor, edge: Tensor | None, subgraph: Tensor | None, batch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of what is kept, the nodes that still have an edge, and edges that are no loops. The nodes of a subgraph stay
        in any case, and one node of a graph of which nothing would be left."""
        start, end = graphs.edge_index
        stays = keep[start] & keep[end]
        stays = stays if edge is None else stays & edge
        touched = torch.zeros_like(keep)
        touched[start[stays]] = True
        touched[end[stays]] = True
        if subgraph is not None:
            touched |= subgraph[batch]
        left = keep & touched
        empty = (torch.bincount(batch[left], minlength=len(graphs.nodes)) == 0) & (graphs.nodes > 0)
        left[graphs.first[empty]] = True
        return left, stays & (start != end)


def _nodes(graphs: Graphs, batch: Tensor, on: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nodes of the graphs that are `on`, the graph of each, and its number there, from 0."""
    rows = on[batch].nonzero()[:, 0]
    of = batch[rows]
    return rows, of, rows - graphs.first[of]


def _pair(start: Tensor, end: Tensor, first: Tensor, size: Tensor) -> Tensor:
    """A number for each edge in its graph, the same both ways."""
    return (torch.minimum(start, end) - first) * size + torch.maximum(start, end) - first


def _rank_of(value: Tensor, of: Tensor, graphs: int) -> tuple[Tensor, Tensor]:
    """How many lower values there are among those of the same graph, equal ones counted once; and how many values each
    graph has, likewise.  value: float64, 0 to 1.  of: the graph of each.  graphs: how many there are."""
    key, order = (of + value / 2).sort()
    new = torch.ones_like(key, dtype=torch.bool)
    new[1:] = key[1:] != key[:-1]
    count = torch.bincount(of[order[new]], minlength=graphs)
    rank = torch.empty_like(order)
    rank[order] = new.cumsum(0) - 1
    return rank - (count.cumsum(0) - count)[of], count


class Views:
    """Turn graphs into V views. changes: how each is made; None leaves the graph as it is."""

    alike = True

    def __init__(self, changes: Sequence[Change | None]) -> None:
        self.changes = tuple(changes)

    def __len__(self) -> int:
        return len(self.changes)

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        return Draws(torch.randint(-(2**63), 2**63 - 1, (n, len(self)), generator=generator))

    def __call__(self, graphs: Graphs, draws: Draws | None = None) -> list[Graphs]:
        """draws: from `draw`; not needed where nothing is changed."""
        seeds = None if draws is None else draws.seeds.to(graphs.x.device)
        return [
            graphs if change is None or seeds is None else change(graphs, seeds[:, v])
            for v, change in enumerate(self.changes)
        ]


def views(
    name: str,
    *,
    strength: float = 0.1,
    subgraph: float = 0.2,
    official: bool = False,
    changed: str = "all",
    count: int = 0,
) -> Views:
    """The views of that name.  changed: "second" leaves the first as it is.  count: so many; 0 makes two.

    Raises ValueError for another name.
    """
    if name not in VIEWS:
        raise UserError(f"--views {name!r} is not for graphs: choose one of {', '.join(VIEWS)}")
    change = Change(VIEWS[name], strength, subgraph, official)
    made: list[Change | None] = [change] * (count or 2)
    return Views([None, *made[1:]] if changed == "second" else made)


PLAIN = Views([None])
"""Graphs as they are."""
