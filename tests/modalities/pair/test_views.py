from __future__ import annotations

import torch

from nearfar.modalities.pair.views import Draws, Entries, PairViews


class Plain:
    """V views of numbers: the number, and a draw of the sample's own."""

    def __init__(self, count: int = 1) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        return Draws([], torch.rand(n, self.count, generator=generator))

    def __call__(self, x: torch.Tensor, draws: Draws | None = None) -> list[torch.Tensor]:
        chance = torch.zeros(len(x), self.count) if draws is None else draws.chance
        return [torch.stack([x, chance[:, v]], 1) for v in range(self.count)]


def entries(counts: list[int], start: int = 0) -> Entries:
    return Entries((torch.arange(start, start + sum(counts)).float(),), torch.tensor(counts))


def test_each_view_has_a_view_of_every_side() -> None:
    views = PairViews({"a": Plain(2), "b": Plain(2)})
    draws = views.draw(3, torch.Generator().manual_seed(0))
    made = views(entries([1, 1, 1]), entries([1, 1, 1], 10), draws=draws)
    assert len(views) == len(made) == 2
    assert [list(view) for view in made] == [["a", "b"]] * 2
    assert made[1]["b"][:, 0].tolist() == [10, 11, 12]
    assert torch.equal(made[1]["b"][:, 1], draws.sides[1].chance[:, 1])


def test_of_several_entries_each_is_drawn_as_often_and_the_plain_view_takes_the_first() -> None:
    views, counts = PairViews({"a": Plain()}), [3] * 600
    draws = views.draw(600, torch.Generator().manual_seed(0))
    (view,) = views(entries(counts), draws=draws)
    turn = view["a"][:, 0] - 3 * torch.arange(600)
    assert min(turn.long().bincount().tolist()) > 150
    (plain,) = views(entries(counts))
    assert torch.equal(plain["a"][:, 0], 3.0 * torch.arange(600))


def test_what_a_sample_takes_does_not_depend_on_the_others() -> None:
    views = PairViews({"a": Plain(), "b": Plain()})
    draws = views.draw(6, torch.Generator().manual_seed(0))
    counts = [2, 1, 3, 2, 4, 1]
    (whole,) = views(entries(counts), entries(counts), draws=draws)
    (part,) = views(entries(counts[2:4], 3), entries(counts[2:4], 3), draws=draws.rows(slice(2, 4)))
    for side in "ab":
        assert torch.equal(part[side], whole[side][2:4])


def test_sides_of_the_same_entries_take_different_ones_where_there_are_several() -> None:
    views, counts = PairViews({"a": Plain(), "b": Plain()}, {"b": "a"}), [1, 2, 5] * 100
    draws = views.draw(300, torch.Generator().manual_seed(0))
    (view,) = views(entries(counts), entries(counts), draws=draws)
    same = (view["a"][:, 0] == view["b"][:, 0]).view(100, 3)
    assert same[:, 0].all()
    assert not same[:, 1:].any()
    apart = (view["b"][2::3, 0] - view["a"][2::3, 0]) % 5
    assert set(apart.tolist()) == {1, 2, 3, 4}
