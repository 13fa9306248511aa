"""Sums over pixels that are never made, the discriminant of them, and measures of label maps: held to slow loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.evaluation import segmentation
from nearfar.evaluation.segmentation import Grid, Sums, confusion, discriminant, overlaps, sampled, sums


def pictures(count: int = 3) -> list[tuple[list[Tensor], Grid, Tensor]]:
    """Maps of two depths in squares of 16 px, of images that take part of these, and masks of their own sizes."""
    torch.manual_seed(0)
    made = []
    for i in range(count):
        maps = [torch.randn(3, 8, 8), torch.randn(4, 2, 2)]
        extent, shape = [(16, 10), (7, 16), (16, 16)][i % 3], [(20, 11), (9, 24), (16, 16)][i % 3]
        mask = torch.randint(3, shape)
        mask[:3, :4] = MISSING
        made.append((maps, Grid.of(maps, extent, 16, shape), mask))
    return made


def features(maps: list[Tensor], grid: Grid) -> Tensor:
    """What the sums are over: D x H x W, upsampled for once."""
    return torch.cat([grid.upsampled(d, m) for d, m in enumerate(maps)])


def test_upsampling_is_bilinear_and_sees_no_padding() -> None:
    x = torch.randn(2, 6, 6)
    grid = Grid([sampled(6, 6, 15)], [sampled(6, 6, 9)])
    wanted = F.interpolate(x[None], (15, 9), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(grid.upsampled(0, x), wanted, atol=1e-6)
    padded = sampled(6, 4, 9)
    assert torch.allclose(padded[:, :4], sampled(4, 4, 9))
    assert not padded[:, 4:].any()
    assert torch.allclose(sampled(6, 3.5, 9).sum(1), torch.ones(9))
    assert not sampled(6, 3.5, 9)[:, 4:].any()


def test_sums_are_those_of_a_loop_over_pixels() -> None:
    for maps, grid, mask in pictures():
        x = features(maps, grid)
        square, own, count = torch.zeros(7, 7), torch.zeros(3, 7), torch.zeros(3)
        for y, row in enumerate(mask.tolist()):
            for z, c in enumerate(row):
                if c != MISSING:
                    square += torch.outer(x[:, y, z], x[:, y, z])
                    own[c] += x[:, y, z]
                    count[c] += 1
        made, n = sums(maps, grid, mask, 3), count.sum()
        assert not sums(maps, grid, torch.full_like(mask, MISSING), 3).count.any()
        assert torch.allclose(made.square.float(), square / n, atol=1e-5)
        assert torch.allclose(made.own.float(), own / n, atol=1e-5)
        assert torch.allclose(made.count.float(), count / n)


def test_the_discriminant_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    maps, grid, mask = pictures()[2]
    x, y = features(maps, grid).flatten(1).T.numpy().astype(np.float64), mask.flatten().numpy()
    known = y != MISSING
    lda = LinearDiscriminantAnalysis(solver="lsqr").fit(x[known], y[known])
    made = discriminant(sums(maps, grid, mask, 3), 0.0, 1.0)
    ours = (made.scores(maps, grid) + made.bias[:, None, None]).flatten(1).T.numpy()[known]
    theirs = lda.decision_function(x[known])
    (named,) = made.named(maps, grid)
    assert named.flatten().numpy()[known].tolist() == ours.argmax(1).tolist()
    monkeypatch.setattr(segmentation, "MOST", 3 * 16 * 5)  # five rows at a time
    assert torch.equal(made.named(maps, grid, [made.bias, made.bias])[1], named)
    np.testing.assert_allclose(ours - ours[:, :1], theirs - theirs[:, :1], atol=2e-3)


def test_channels_are_left_out_and_a_class_that_was_never_seen_is_never_named() -> None:
    maps, grid, mask = pictures()[0]
    whole, part = (
        sums(which, Grid(grid.rows[a:], grid.columns[a:]), mask, 4) for a, which in ((0, maps), (1, maps[1:]))
    )
    one, other = discriminant(whole, 0.1, 0.5, first=3), discriminant(part, 0.1, 0.5)
    assert torch.allclose(one.weight, other.weight, atol=1e-4)
    assert torch.allclose(one.bias, other.bias, atol=1e-4)
    assert one.bias[3] == -torch.inf
    dead = Sums(torch.zeros(2, 2).double(), torch.zeros(2, 2).double(), torch.ones(2).double())
    assert discriminant(dead, 0.1, 0.0).weight.abs().max() == 0  # a channel that is 0 everywhere


def test_overlaps_are_those_of_sets() -> None:
    mask, named = torch.tensor([[0, 0, 1, MISSING], [1, 1, 0, 1]]), torch.tensor([[0, 1, 1, 2], [1, 2, 0, 0]])
    counts = confusion(named, mask, 4)
    iou, dice = overlaps(counts)
    for c in (0, 1):
        true, taken = ((which == c) & (mask != MISSING) for which in (mask, named))
        both = int((true & taken).sum())
        assert float(iou[c]) == pytest.approx(both / int((true | taken).sum()))
        assert float(dice[c]) == pytest.approx(2 * both / int(true.sum() + taken.sum()))
    assert iou[2:].isnan().all()  # no pixel is of class 2, which one was taken for
    assert counts.sum() == 7


def test_a_grid_puts_each_pixel_of_a_mask_where_it_is_in_the_view() -> None:
    for side, extent, shape in ((16, (16, 10), (40, 25)), (16, (6, 16), (15, 40))):
        at = (torch.arange(8) + 0.5) * 2  # the middles of 8 cells, in pixels of the view
        maps = [torch.stack([at[:, None].expand(8, 8), at.expand(8, 8)])]
        y, x = Grid.of(maps, extent, side, shape).upsampled(0, maps[0])
        for found, pixels, taken in ((y[:, 0], shape[0], extent[0]), (x[0], shape[1], extent[1])):
            wanted = (torch.arange(pixels) + 0.5) * taken / pixels
            assert torch.allclose(found, wanted.clamp(1, max(1, 2 * -(-taken // 2) - 1)), atol=1e-4)
