from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.method import Encoder, start_epoch
from nearfar.methods.colorization import Colorization, gamut
from nearfar.ops.lab import lab_to_rgb, rgb_to_lab

from .small import OLD, TinyEncoder, clock, form, freeze_norms, grown

color = form("colorization")


def build(**arguments: Any) -> Colorization:
    return cast(Colorization, color.build(**arguments))


def image(*lab: float, side: int = 16) -> Tensor:
    return lab_to_rgb(torch.tensor(lab).view(1, 3, 1, 1).expand(1, 3, side, side))


def test_the_bins_are_the_cells_of_the_plane_that_screens_can_show() -> None:
    bins = gamut()
    assert len(bins) == 261
    assert len(torch.unique(bins, dim=0)) == len(bins)
    assert [0.0, 0.0] in bins.tolist()
    rgb = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ab = rgb_to_lab(rgb)[0, 1:].flatten(1).T
    assert torch.cdist(ab, bins).amin(1).max() <= 5 * math.sqrt(2) + 1e-3


@pytest.mark.parametrize("ab", [(0.0, 0.0), (12.0, -7.0), (40.0, 30.0), (-30.0, 33.0)])
def test_a_color_comes_back_from_its_target(ab: tuple[float, float]) -> None:
    method = build(parts=2)
    target = method.target(torch.tensor(ab).view(1, 2, 1, 1).expand(1, 2, 8, 8))
    assert target.shape == (1, 4, 261)
    assert ((target > 0).sum(2) == 5).all()
    torch.testing.assert_close(target.sum(2), torch.ones(1, 4))
    torch.testing.assert_close((target @ method.bins)[0], torch.tensor(ab).expand(4, 2), atol=5, rtol=0)
    annealed = (target.clamp(min=1e-12).log() / 0.38).softmax(2)
    torch.testing.assert_close((annealed @ method.bins)[0], torch.tensor(ab).expand(4, 2), atol=5, rtol=0)


def test_target_is_that_of_a_loop() -> None:
    method, rgb = build(parts=2).double(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    ab = rgb_to_lab(rgb)[:, 1:]
    got = method.target(ab)
    for n in range(2):
        for p in range(4):
            top, left = 4 * (p // 2), 4 * (p % 2)
            mean = ab[n, :, top : top + 4, left : left + 4].mean((1, 2)).tolist()
            far = [math.dist(mean, b) for b in method.bins.tolist()]
            five = sorted(range(261), key=far.__getitem__)[:5]
            total = sum(math.exp(-(far[b] ** 2) / 50) for b in five)
            want = [math.exp(-(far[b] ** 2) / 50) / total if b in five else 0.0 for b in range(261)]
            torch.testing.assert_close(got[n, p], torch.tensor(want, dtype=torch.float64))


def test_the_encoder_sees_no_color_and_gray_images_are_gray() -> None:
    method, batch = build(), color.batch(4)
    gray, ab = method.split(batch.views[0])
    torch.testing.assert_close(gray[:, 0], gray[:, 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(gray[:, 0], gray[:, 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(rgb_to_lab(gray)[:, 0], rgb_to_lab(batch.views[0])[:, 0], atol=1e-2, rtol=0)
    assert ab.std() > 1
    target = method.target(method.split(gray)[1])
    assert (method.bins[target.argmax(2)] == 0).all()


def test_rare_colors_weigh_more_and_weights_average_to_one() -> None:
    method, p = build(), torch.zeros(261)
    common = [(gamut() == torch.tensor([b])).all(1).nonzero().flatten()[0] for b in ((0.0, 0.0), (60.0, 40.0))]
    p[common[0]], p[common[1]] = 0.95, 0.05
    weight = method.rebalance(p)
    assert (weight * p).sum() == pytest.approx(1)
    assert weight[common[1]] > 5 * weight[common[0]]
    assert weight.argmin() == common[0]
    method.balance = 1.0
    torch.testing.assert_close(method.rebalance(p), torch.ones(261))


def test_the_training_set_is_counted_once() -> None:
    method = build()
    assert (method.weight == 1).all()
    start_epoch(method, color.look(method))
    counted = method.weight.clone()
    views: list[Tensor] = []
    color.look(method)(lambda view: views.append(view) or view)
    p = method.target(rgb_to_lab(views[0])[:, 1:]).mean((0, 1))
    torch.testing.assert_close(counted, method.rebalance(p))
    method.clock = clock(3)
    method.weight.fill_(7)
    start_epoch(method, color.look(method))
    assert (method.weight == 7).all()


def test_loss_is_weighted_cross_entropy() -> None:
    method, batch = cast(Colorization, grown(color, dtype=torch.float64)), color.batch(4, dtype=torch.float64)
    method.clock = clock(OLD)
    freeze_norms(method)
    gray, ab = method.split(batch.views[0])
    target = method.target(ab)
    logits = method.classifier(method.codes(method.encoder(gray)))
    each = F.cross_entropy(logits.flatten(0, 1), target.flatten(0, 1), reduction="none")
    want = (method.weight[target.argmax(2).flatten()] * each).mean()
    torch.testing.assert_close(method(batch).loss, want)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_without_color_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"3 channels, got {channels}"):
        Colorization(cast(Encoder, TinyEncoder()), channels=channels)
