"""Counts of nodes and of their neighborhoods."""

from __future__ import annotations

import torch

from nearfar.modalities.graph import counts
from nearfar.modalities.graph.graphs import Graphs

from .small import graphs
from .test_encoder import renumbered


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
