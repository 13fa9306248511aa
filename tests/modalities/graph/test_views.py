"""Views of graphs keep what the paper says, and what the released code does with `official`."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.errors import UserError
from nearfar.modalities.graph.graphs import Graphs
from nearfar.modalities.graph.settings import VIEWS
from nearfar.modalities.graph.views import Change, Draws, uniform, views
from tests.modalities.graph.small import graphs


def seeds(n: int, seed: int = 0) -> Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (n,), generator=torch.Generator().manual_seed(seed))


def whole(view: Graphs) -> None:
    """What holds for any batch of graphs: edges go to nodes of their own graph, and stand in its order."""
    assert int(view.nodes.sum()) == len(view.x)
    assert view.edge_index.numel() == 0 or 0 <= int(view.edge_index.min()) <= int(view.edge_index.max()) < len(view.x)
    of = view.batch[view.edge_index]
    assert torch.equal(of[0], of[1])
    assert bool((of[0].diff() >= 0).all())


def pairs(view: Graphs) -> set[tuple[int, int]]:
    return set(map(tuple, view.edge_index.T.tolist()))


def parts(view: Graphs) -> list[int]:
    """How many connected parts each graph has."""
    found = []
    for i in range(view.count()):
        one = view.select(torch.tensor([i]))
        color = torch.arange(len(one.x))
        for _ in range(len(one.x)):
            color = color.scatter_reduce(0, one.edge_index[1], color[one.edge_index[0]], "amin")
        found.append(len(color.unique()))
    return found


@pytest.mark.parametrize("strength", [0.1, 0.2, 0.9, 1.0])
def test_node_drop_leaves_so_many_and_one_at_least(strength: float) -> None:
    given = graphs(8)
    view = Change(("node_drop",), strength)(given, seeds(8))
    whole(view)
    wanted = [max(1, n - int(strength * n)) for n in given.nodes.tolist()]
    assert view.nodes.tolist() == wanted
    # Each row is one of the graph's own, in order, and the edges among those that stay all stay.
    place = [int((given.x == row).all(1).nonzero()[0]) for row in view.x]
    assert place == sorted(place)
    number = {old: new for new, old in enumerate(place)}
    assert pairs(view) == {(number[a], number[b]) for a, b in pairs(given) if a in number and b in number}


def test_perturbed_edges_stay_as_many_and_go_both_ways() -> None:
    given = graphs(8, edges=2)
    view = Change(("edge_perturb",), 0.3)(given, seeds(8))
    whole(view)
    assert torch.equal(view.x, given.x)
    assert torch.equal(view.edges(), given.edges())
    moved = (view.edge_index != given.edge_index).any(0)
    both = given.edges() // 2
    changed = torch.bincount(given.batch[given.edge_index[0]][moved], minlength=8) // 2
    assert bool((changed <= (0.3 * both).floor()).all())
    assert int(changed.sum()) > 0.7 * int((0.3 * both).floor().sum())  # a random pair may be the one that was there
    assert pairs(view) == {(b, a) for a, b in pairs(view)}
    assert not any(a == b for a, b in pairs(view))
    assert view.edge_attr is not None
    told = [(a, b, *row) for (a, b), row in zip(view.edge_index.T.tolist(), view.edge_attr.tolist(), strict=True)]
    assert sorted(told) == sorted((b, a, *row) for a, b, *row in told)


def test_directed_edges_are_perturbed_one_by_one() -> None:
    ring = torch.arange(10)
    given = Graphs(torch.rand(10, 2), torch.stack([ring, (ring + 1) % 10]), torch.tensor([10]))
    view = Change(("edge_perturb",), 0.5)(given, seeds(1, 3))
    assert 3 <= int((view.edge_index != given.edge_index).any(0).sum()) <= 5


def test_masked_nodes_are_the_mean_of_their_graph() -> None:
    given = graphs(8)
    view = Change(("attribute_mask",), 0.25)(given, seeds(8))
    assert torch.equal(view.edge_index, given.edge_index)
    changed = (view.x != given.x).any(1)
    assert torch.bincount(given.batch[changed], minlength=8).tolist() == [n // 4 for n in given.nodes.tolist()]
    for i in range(8):
        own = given.batch == i
        torch.testing.assert_close(view.x[own & changed], given.x[own].mean(0).expand(int((own & changed).sum()), -1))


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_subgraph_is_connected_and_of_its_size(share: float) -> None:
    given = graphs(12)
    view = Change(("subgraph",), subgraph=share)(given, seeds(12))
    whole(view)
    assert view.nodes.tolist() == [min(n, int(n * share) + 1) for n in given.nodes.tolist()]
    assert parts(view) == [1] * 12


def test_a_subgraph_stays_within_its_part() -> None:
    """Of a graph in two parts it is in one; of a node alone it is that node."""
    two = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    given = Graphs(torch.arange(5.0)[:, None], two, torch.tensor([5]))
    for seed in range(6):
        view = Change(("subgraph",), subgraph=0.9)(given, seeds(1, seed))
        assert view.x[:, 0].tolist() in ([0, 1], [2, 3], [4])


def test_any_border_edge_is_as_likely_to_be_next() -> None:
    """From the middle of a path of three, both ends are reached as often; from an end only the middle."""
    path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    given = Graphs(torch.arange(3.0)[:, None], path, torch.tensor([3]))
    many = given.select(torch.zeros(3000, dtype=torch.int64))
    view = Change(("subgraph",), subgraph=0.4)(many, seeds(3000))  # two nodes each
    lowest = view.x[:, 0].view(-1, 2)[:, 0]
    assert 0.46 < float((lowest == 0).float().mean()) < 0.54


def test_official_edges_are_only_removed_each_way_by_itself() -> None:
    given = graphs(8)
    view = Change(("edge_perturb",), 0.1, official=True)(given, seeds(8))
    assert pairs(view) < pairs(given)
    assert view.edges().tolist() == [e - e // 10 for e in given.edges().tolist()]
    assert view.nodes.tolist() == given.nodes.tolist()


def test_official_subgraph_stays_among_the_neighbors_of_one_node() -> None:
    ring = torch.arange(20)
    index = torch.cat([torch.stack([ring, (ring + 1) % 20]), torch.stack([(ring + 1) % 20, ring])], 1)
    given = Graphs(torch.arange(20.0)[:, None], index, torch.tensor([20]))
    assert Change(("subgraph",), subgraph=0.5)(given, seeds(1)).nodes.tolist() == [11]
    assert Change(("subgraph",), subgraph=0.5, official=True)(given, seeds(1)).nodes.tolist() == [3]


def test_official_masks_are_noise() -> None:
    given = graphs(40, width=20)
    view = Change(("attribute_mask",), 0.5, official=True)(given, seeds(40))
    new = view.x[(view.x != given.x).any(1)]
    assert float(new.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(new.std()) == pytest.approx(0.5, abs=0.03)


def test_official_drop_cuts_nodes_left_alone_and_loops() -> None:
    """Of a star, without its middle nothing is left but one node, which stands for the graph."""
    star = torch.tensor([[0, 0, 0, 1, 2, 3, 3], [1, 2, 3, 0, 0, 0, 3]])
    given = Graphs(torch.arange(4.0)[:, None], star, torch.tensor([4]))
    seen = set()
    for seed in range(20):
        view = Change(("node_drop",), 0.25, official=True)(given, seeds(1, seed))
        seen.add(tuple(view.x[:, 0].tolist()))
        assert not any(a == b for a, b in pairs(view))
    assert (3.0,) in seen or (0.0,) in seen  # 3 had a loop
    assert any(len(left) == 3 for left in seen)


def test_of_a_mixture_each_graph_has_one_change() -> None:
    given = graphs(400)
    view = views("random4", strength=0.3)(given, draws=Draws(seeds(400)[:, None].expand(-1, 2)))[0]
    whole(view)
    kinds = [0, 0, 0, 0]
    for i in range(400):
        old, new = given.select(torch.tensor([i])), view.select(torch.tensor([i]))
        n = len(old.x)
        if len(new.x) == n - int(0.3 * n):
            kinds[0] += 1
        elif len(new.x) == int(0.2 * n) + 1:
            kinds[1] += 1
        else:
            assert len(new.x) == n
            kinds[2 if torch.equal(new.x, old.x) else 3] += 1
    assert min(kinds) > 70


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("name", VIEWS)
def test_a_graph_alone_has_the_view_that_it_has_in_a_batch(name: str, official: bool) -> None:
    given = graphs(10, edges=1)
    made = views(name, official=official)
    draws = made.draw(10, torch.Generator().manual_seed(0))
    together = made(given, draws=draws)
    for rows in (slice(0, 3), slice(3, 10)):
        index = torch.arange(10)[rows]
        for whole_view, part in zip(together, made(given.select(index), draws=draws.rows(rows)), strict=True):
            wanted = whole_view.select(index)
            assert torch.equal(wanted.edge_index, part.edge_index)
            assert torch.equal(wanted.nodes, part.nodes)
            torch.testing.assert_close(wanted.x, part.x)
            torch.testing.assert_close(wanted.edge_attr, part.edge_attr)


@pytest.mark.parametrize("official", [False, True])
def test_graphs_of_one_node_or_without_edges_pass_all_views(official: bool) -> None:
    none = torch.zeros(2, 0, dtype=torch.int64)
    given = Graphs(torch.rand(5, 2), none, torch.tensor([1, 4]))
    for name in VIEWS:
        made = views(name, official=official, strength=0.5)
        for view in made(given, draws=made.draw(2, torch.Generator().manual_seed(1))):
            whole(view)
            assert view.count() == 2
            assert int(view.nodes.min()) >= 1


def test_the_first_view_can_stay_as_it_is() -> None:
    given = graphs(4)
    made = views("node_drop", changed="second", count=3)
    first, *others = made(given, draws=made.draw(4, torch.Generator().manual_seed(0)))
    assert first is given
    assert [len(view.x) < len(given.x) for view in others] == [True, True]
    assert not torch.equal(others[0].x, others[1].x)


def test_unknown_views_are_named() -> None:
    with pytest.raises(UserError, match=r"'swap'.*node_drop.*random4"):
        views("swap")


def test_uniform_numbers_are_uniform_and_of_their_seed() -> None:
    rows = uniform(seeds(4)[:, None], torch.arange(20000), 1)
    assert float(rows.min()) >= 0
    assert float(rows.max()) < 1
    assert torch.allclose(rows.mean(1), torch.tensor(0.5).double(), atol=0.01)
    assert torch.allclose(rows.var(1), torch.tensor(1 / 12).double(), atol=0.003)
    assert (
        torch.corrcoef(torch.cat([rows, uniform(seeds(4)[:, None], torch.arange(20000), 2)])).triu(1).abs().max() < 0.03
    )
    # splitmix64's first number for a state of 0, as published: 0xE220A8397B1DCDAF
    from nearfar.modalities.graph.views import mixed

    assert int(mixed(torch.tensor(0))) & (2**64 - 1) == 0xE220A8397B1DCDAF
    assert math.isfinite(float(uniform(torch.tensor([5]))))
