from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from nearfar.distributed import local
from nearfar.ops.patches import (
    LEAST,
    PatchHead,
    alike,
    cut,
    drawn,
    each_patch,
    orders,
    permutations,
    resize,
    shuffle,
)
from tests.two_ranks import Pool


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int, channels: int, side: int) -> Tensor:
    """Images no two pixels of which are alike."""
    return torch.arange(n * channels * side * side, dtype=torch.float64).view(n, channels, side, side)


@pytest.mark.parametrize("grid", [1, 2, 3])
def test_cells_in_reading_order_make_up_the_image(grid: int) -> None:
    view = numbered(2, 3, 48)
    patches, s = cut(view, grid), 48 // grid
    assert patches.shape == (2, grid**2, 3, s, s)
    for p in range(grid**2):
        top, left = p // grid * s, p % grid * s
        assert torch.equal(patches[:, p], view[:, :, top : top + s, left : left + s])


def test_cells_overlap_by_half_and_reach_both_edges() -> None:
    view = numbered(1, 1, 64)
    patches = cut(view, 7, overlap=0.5)  # the paper's 7 x 7 patches of 64 px in 256
    assert patches.shape == (1, 49, 1, 16, 16)
    for p in range(49):
        top, left = 8 * (p // 7), 8 * (p % 7)
        assert torch.equal(patches[0, p], view[0, :, top : top + 16, left : left + 16])


def test_a_smaller_patch_lies_anywhere_in_its_cell_and_nowhere_else() -> None:
    view, places = numbered(400, 1, 60), set()
    patches = cut(view, 3, share=0.8, generator=chance())
    assert patches.shape == (400, 9, 1, 16, 16)
    first = patches[:, :, 0, 0, 0].long() % 3600
    for p in range(9):
        top, left = first[:, p] // 60 - 20 * (p // 3), first[:, p] % 60 - 20 * (p % 3)
        places |= set(zip(top.tolist(), left.tolist(), strict=True))
    assert places == set(itertools.product(range(5), range(5)))
    for n, p in ((0, 0), (7, 5), (399, 8)):
        top, left = divmod(int(first[n, p]), 60)
        assert torch.equal(patches[n, p, 0], view[n, 0, top : top + 16, left : left + 16])
    middle = cut(view, 3, share=0.8)
    assert torch.equal(middle[0, 4, 0], view[0, 0, 22:38, 22:38])


def test_small_patches_are_enlarged_and_any_side_can_be_had() -> None:
    view = torch.rand(2, 3, 12, 12)
    small = cut(view, 3)
    assert small.shape == (2, 9, 3, LEAST, LEAST)
    assert small.amin() >= 0
    assert small.amax() <= 1
    assert cut(view, 3, side=24).shape[-1] == 24
    flat = torch.full((1, 1, 12, 12), 0.25)
    torch.testing.assert_close(cut(flat, 3), torch.full((1, 9, 1, LEAST, LEAST), 0.25))
    patches = cut(view, 1, side=16)
    assert resize(patches, 16) is patches
    assert cut(torch.rand(2, 3, 8, 8), 7, overlap=0.5).shape == (2, 49, 3, LEAST, LEAST)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller grid"):
        cut(torch.rand(1, 3, 4, 4), 5)
    with pytest.raises(ValueError, match="share"):
        cut(torch.rand(1, 3, 8, 8), 2, share=1.5)


def test_tiles_of_a_image_get_its_mean_and_spread() -> None:
    view = torch.rand(3, 2, 24, 24) * torch.linspace(0.2, 1, 24)
    tiles = alike(cut(view, 2, side=24), view)
    assert tiles.shape == (3, 4, 2, 24, 24)
    for p in range(4):
        torch.testing.assert_close(tiles[:, p].mean((2, 3)), view.mean((2, 3)))
        torch.testing.assert_close(tiles[:, p].std((2, 3)), view.std((2, 3)), rtol=1e-2, atol=1e-3)
    empty = torch.zeros(1, 1, 24, 24)
    empty[..., :12, :12] = torch.rand(12, 12)
    tiles = alike(cut(empty, 2), empty)
    assert tiles.isfinite().all()
    torch.testing.assert_close(tiles[0, 3], tiles[0, 3, 0, 0, 0].expand(1, LEAST, LEAST))  # the flat stays flat


def test_each_patch_passes_alone_and_the_first_patches_pass_first() -> None:
    patches, seen = torch.rand(3, 4, 2, 5, 5), []

    def network(x: Tensor) -> Tensor:
        seen.append(x)
        return x.flatten(1) * 2

    out = each_patch(network, patches)
    assert torch.equal(out, patches.flatten(2) * 2)
    assert torch.equal(seen[0][:3], patches[:, 0])


def test_a_head_feels_order_by_the_places_of_the_codes_alone() -> None:
    head = PatchHead(nn.Linear(5, 3), nn.Linear(12, 2))
    codes = torch.rand(6, 4, 5)
    want = head.whole(torch.cat([head.each(codes[:, p]) for p in range(4)], 1))
    torch.testing.assert_close(head(codes), want)
    order = orders(6, 4, generator=chance())
    moved = torch.stack([head.each(c)[o] for c, o in zip(codes, order, strict=True)])
    torch.testing.assert_close(head(shuffle(codes, order)), head.whole(moved.flatten(1)))


def test_shuffling_is_undone_by_the_inverse() -> None:
    patches = numbered(8, 9, 4)
    order = orders(8, 9, generator=chance())
    assert torch.equal(order.sort(1).values, torch.arange(9).expand(8, 9))
    assert len({tuple(o) for o in order.tolist()}) == 8
    mixed = shuffle(patches, order)
    assert torch.equal(mixed[3, 2], patches[3, order[3, 2]])
    assert torch.equal(shuffle(mixed, order.argsort(1)), patches)


def _draws() -> Tensor:
    return drawn(4, 3, generator=chance(1))


def test_draws_are_those_of_one_process(two_ranks: Pool) -> None:
    want = torch.rand(8, 3, generator=chance(1))
    assert torch.equal(torch.cat(two_ranks.run(_draws)), want)
    assert torch.equal(drawn(8, 3, generator=chance(1)), local(want))


@pytest.mark.parametrize("patches", [1, 2, 4])
def test_all_permutations_are_there(patches: int) -> None:
    got = permutations(patches, 10**6).tolist()
    assert sorted(got) == [list(order) for order in itertools.permutations(range(patches))]
    assert got[0] == list(range(patches))


def test_permutations_are_far_apart() -> None:
    got = permutations(9, 40)
    assert torch.equal(got.sort(1).values, torch.arange(9).expand(40, 9))
    distance = (got[:, None] != got).sum(2)
    others = distance[~torch.eye(40, dtype=torch.bool)]
    assert others.min() >= 2
    assert others.float().mean() > 8  # of 9; at random 8
    # Greedy: no order left out has a larger sum of distances to those before the last than the last has.
    best = max(sum(a != b for row in got[:-1].tolist() for a, b in zip(row, o, strict=True)) for o in SOME)
    assert best <= int(distance[-1, :-1].sum())


SOME = list(itertools.islice(itertools.permutations(range(9)), 0, math.factorial(9), 997))


def test_permutations_of_many_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 9"):
        permutations(16, 10)
