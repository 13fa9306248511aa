from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import cat, layout, pin, select, size, split, tensors, to


@dataclass(frozen=True)
class Pair:
    """A view within a view, a part that is not there, and a field with the name of a method."""

    count: Tensor
    inner: dict[str, Tensor]
    absent: Tensor | None = None


@dataclass(frozen=True)
class Sentences:
    """Padded at the right: joined, all are as long as the longest."""

    tokens: Tensor  # N x L
    length: Tensor  # N

    def cat(self, others: Sequence[Sentences]) -> Sentences:
        views = [self, *others]
        longest = max(view.tokens.shape[1] for view in views)
        tokens = [F.pad(view.tokens, (0, longest - view.tokens.shape[1])) for view in views]
        return Sentences(torch.cat(tokens), torch.cat([view.length for view in views]))


@dataclass(frozen=True)
class Graphs:
    """A row for each node; edges name nodes."""

    node: Tensor  # nodes
    edge: Tensor  # 2 x edges
    nodes: Tensor  # N, how many each graph has

    def count(self) -> int:
        return len(self.nodes)

    def cat(self, others: Sequence[Graphs]) -> Graphs:
        views = [self, *others]
        before = torch.tensor([0, *(len(view.node) for view in views)]).cumsum(0)
        edges = [view.edge + shift for view, shift in zip(views, before, strict=False)]
        return Graphs(
            torch.cat([v.node for v in views]), torch.cat(edges, 1), torch.cat([view.nodes for view in views])
        )

    def select(self, index: Tensor) -> Graphs:
        first = self.nodes.cumsum(0) - self.nodes
        parts = []
        for i in index.tolist():
            start, count = int(first[i]), int(self.nodes[i])
            own = (self.edge[0] >= start) & (self.edge[0] < start + count)
            parts.append(Graphs(self.node[start : start + count], self.edge[:, own] - start, self.nodes[i : i + 1]))
        return parts[0].cat(parts[1:])


def tensor(n: int, seed: int) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def nested(n: int, seed: int) -> Pair:
    return Pair(tensor(n, seed), {"a": tensor(n, seed + 1), "b": torch.arange(n)})


def sentences(n: int, seed: int) -> Sentences:
    length = torch.arange(n) % 3 + 1 + seed
    tokens = torch.arange(n * 9).view(n, 9)[:, : int(length.max())] + 1
    return Sentences(tokens * (torch.arange(tokens.shape[1]) < length[:, None]), length)


def graphs(n: int, seed: int) -> Graphs:
    nodes = torch.arange(n) % 3 + 1
    first = nodes.cumsum(0) - nodes
    ring = [torch.arange(int(count)) for count in nodes]  # each node points to the next of its graph
    edges = [torch.stack([at, (at + 1) % len(at)]) + start for at, start in zip(ring, first, strict=True)]
    return Graphs(torch.arange(int(nodes.sum())) + 100 * seed, torch.cat(edges, 1), nodes)


def plain(view: Any) -> list[Any]:
    """What a view holds of each sample, in lists without padding."""
    if isinstance(view, Graphs):
        ends = view.nodes.cumsum(0).tolist()
        starts = [end - count for end, count in zip(ends, view.nodes.tolist(), strict=True)]
        follower = dict(zip(*view.edge.tolist(), strict=True))
        return [
            (view.node[a:b].tolist(), [follower[i] - a for i in range(a, b)]) for a, b in zip(starts, ends, strict=True)
        ]
    if isinstance(view, Sentences):
        return [row[:n] for row, n in zip(view.tokens.tolist(), view.length.tolist(), strict=True)]
    return list(zip(*(part.tolist() for part in tensors(view)), strict=True))


every_form = pytest.mark.parametrize("make", [tensor, nested, sentences, graphs])


@every_form
def test_views_are_joined_cut_and_chosen_from_as_lists_are(make: Callable[[int, int], Any]) -> None:
    one, two = make(5, 0), make(3, 1)
    assert (size(one), size(two)) == (5, 3)
    assert layout(one) == layout(two)
    both = cat([one, two])
    whole = plain(both)
    assert size(both) == 8
    assert whole == plain(one) + plain(two)
    assert [plain(part) for part in split(both, [1, 4, 3])] == [whole[:1], whole[1:5], whole[5:]]
    assert [plain(part) for part in split(both, 3)] == [whole[:3], whole[3:6], whole[6:]]
    assert plain(select(both, torch.tensor([7, 0, 0, 3]))) == [whole[7], whole[0], whole[0], whole[3]]
    assert plain(to(both, "cpu", non_blocking=True)) == whole
    assert {part.device.type for part in tensors(to(both, "meta"))} == {"meta"}


def test_a_class_moves_and_cuts_in_its_own_way() -> None:
    class Own:
        def to(self, device: torch.device) -> str:
            return f"on {device}"

        def pin(self) -> str:
            return "pinned"

        def split(self, sizes: Sequence[int]) -> list[int]:
            return [2 * size for size in sizes]

        def count(self) -> int:
            return 4

    assert (to(Own(), "cpu"), pin(Own())) == ("on cpu", "pinned")
    assert split(Own(), 3) == [4, 2, 2]


def test_parts_that_disagree_views_that_do_not_fit_and_what_is_no_view() -> None:
    with pytest.raises(ValueError, match=r"count 3, inner 2"):
        size(Pair(torch.zeros(3), {"a": torch.zeros(2)}))
    with pytest.raises(ValueError, match="no parts"):
        size({})
    narrow, wide = {"x": torch.zeros(2, 3)}, {"x": torch.zeros(2, 4)}
    assert layout(narrow) != layout(wide)
    with pytest.raises(ValueError, match=r"\(3,\).*\(4,\)"):
        cat([narrow, wide])
    assert layout(nested(2, 0)) != layout({part.name: getattr(nested(2, 0), part.name) for part in fields(Pair)})
    for function in (size, layout, pin):
        with pytest.raises(TypeError, match="list"):
            function([torch.zeros(2)])
