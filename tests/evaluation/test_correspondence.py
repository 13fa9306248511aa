"""Crops of known geometry, and places that are found again in them: held to a slow loop."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from nearfar.evaluation.correspondence import SHARED, SIDES, crops, cut, found_again


def test_crops_lie_in_their_images_and_share_some_of_it() -> None:
    extents = [(32, 20), (9, 32), (32, 32)] * 5
    boxes = crops(extents, torch.Generator().manual_seed(0))
    again = crops(extents, torch.Generator().manual_seed(0))
    assert torch.equal(boxes, again)
    for (height, width), ((a, b)) in zip(extents, boxes.tolist(), strict=True):
        for top, left, side in (a, b):
            assert min(top, left) >= 0
            assert top + side <= height + 1e-4
            assert left + side <= width + 1e-4
            assert SIDES[0] * min(height, width) <= side <= SIDES[1] * min(height, width)
        shared = [min(a[k] + a[2], b[k] + b[2]) - max(a[k], b[k]) for k in (0, 1)]
        assert min(shared) > 0
        assert shared[0] * shared[1] >= SHARED * a[2] ** 2 - 1e-4


def test_a_crop_holds_what_lies_there() -> None:
    at = torch.arange(16).float() + 0.5
    view = torch.stack([at[:, None].expand(16, 16), at.expand(16, 16)])[None]  # each pixel says where it is
    made = cut(view, torch.tensor([[2.0, 5, 8]]))[0]
    assert torch.allclose(made[0, :, 0], 2 + (torch.arange(16) + 0.5) / 2, atol=1e-4)
    assert torch.allclose(made[1, 0], 5 + (torch.arange(16) + 0.5) / 2, atol=1e-4)


def test_found_again_is_that_of_a_slow_loop() -> None:
    torch.manual_seed(0)
    boxes = crops([(32, 24)] * 4, torch.Generator().manual_seed(1))
    one, other = torch.randn(2, 4, 6, 5, 7)
    share, chance = found_again(one, other, boxes)
    both = torch.stack([one, other], 1)
    both = both - both.mean((1, 3, 4), keepdim=True)
    for n in range(4):
        hits, random, count = 0, 0.0, 0
        (top, left, side), (t, l, s) = boxes[n].tolist()
        for y in range(5):
            for x in range(7):
                v = (top + (y + 0.5) / 5 * side - t) / s * 5 - 0.5
                u = (left + (x + 0.5) / 7 * side - l) / s * 7 - 0.5
                if -0.5 < v < 4.5 and -0.5 < u < 6.5:
                    count += 1
                    scores = F.cosine_similarity(both[n, 0, :, y, x, None, None], both[n, 1], dim=0)
                    best = divmod(int(scores.argmax()), 7)
                    hits += abs(best[0] - v) <= 1 and abs(best[1] - u) <= 1
                    random += sum(abs(a - v) <= 1 and abs(b - u) <= 1 for a in range(5) for b in range(7)) / 35
        assert float(share[n]) == hits / count
        assert abs(float(chance[n]) - random / count) < 1e-9


def test_maps_that_know_their_place_find_it_and_others_do_not() -> None:
    texture = torch.randn(1, 8, 64, 64, generator=torch.Generator().manual_seed(0)).expand(12, -1, -1, -1)
    texture = F.avg_pool2d(texture, 9, 1, 4)
    boxes = crops([(64, 64)] * 12, torch.Generator().manual_seed(2))
    one, other = (F.avg_pool2d(cut(texture, boxes[:, k]), 4) for k in (0, 1))
    share, chance = found_again(one, other, boxes)
    assert float(share.mean()) > 0.9
    noise, _ = found_again(one, torch.randn_like(other), boxes)
    assert abs(float(noise.mean()) - float(chance.mean())) < 0.02
