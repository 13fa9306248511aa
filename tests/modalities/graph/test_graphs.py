"""A batch of graphs is one view: it is counted, joined, cut and chosen from."""

from __future__ import annotations

import torch

from nearfar.batch import cat, select, size, split, to
from tests.modalities.graph.small import graphs


def test_select_cat_and_split_give_the_same_graphs() -> None:
    given = graphs(7, edges=2)
    assert size(given) == 7
    pieces = split(given, [3, 0, 4])
    assert [size(piece) for piece in pieces] == [3, 0, 4]
    again = cat([pieces[0], pieces[2]])
    for name in ("x", "edge_index", "nodes", "edge_attr"):
        assert torch.equal(getattr(again, name), getattr(given, name)), name
    index = torch.tensor([5, 0, 5])
    chosen = select(given, index)
    for place, i in enumerate(index.tolist()):
        one, own = select(given, torch.tensor([i])), select(chosen, torch.tensor([place]))
        assert torch.equal(one.x, own.x)
        assert torch.equal(one.edge_index, own.edge_index)
        assert torch.equal(one.x, given.x[given.batch == i])
        assert int(one.edge_index.max()) < len(one.x)
    assert torch.equal(to(given, "cpu").nodes, given.nodes)
    assert len(split(given, 3)) == 3


def test_degrees_edges_and_sums_are_counted_graph_by_graph() -> None:
    given = graphs(5)
    ones = torch.ones(len(given.x), 1)
    assert given.sums(ones)[:, 0].long().tolist() == given.nodes.tolist()
    own = [given.select(torch.tensor([i])) for i in range(5)]
    assert given.edges().tolist() == [one.edge_index.shape[1] for one in own]
    assert given.degrees().tolist() == [d for one in own for d in one.degrees().tolist()]
