from __future__ import annotations

from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.method import Encoder, Stage
from nearfar.modalities.image.encoder import image_encoder
from nearfar.ops.explanation import at_rest, essence, gradcam, saliency, slope, to_one


class Plain(Encoder):
    """One convolution of stride 2, then its square, then the mean of each channel: N x 2 x H x W -> N x 3."""

    dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 2, stride=2)

    def stages(self) -> list[Stage]:
        return [Stage(self.conv, dim=3), Stage(Square(), dim=3), Stage(nn.AdaptiveAvgPool2d(1), nn.Flatten(), dim=3)]

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages():
            x = stage(x)
        return x


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square()


def make(seed: int = 0) -> tuple[Plain, nn.Linear, Tensor, Tensor]:
    torch.manual_seed(seed)
    encoder, classifier = Plain().double(), nn.Linear(3, 4).double()
    return encoder, classifier, torch.rand(5, 2, 6, 8, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2])


@pytest.mark.parametrize("stage", [1, 2])
def test_gradcam_is_what_the_paper_writes(stage: int) -> None:
    encoder, classifier, x, label = make()
    got = gradcam(encoder, classifier, x, label, stage=stage)
    a = encoder.conv(x) if stage == 1 else encoder.conv(x).square()  # 5 x 3 x 3 x 4
    for n, y in enumerate(label.tolist()):
        # d logit / d A: of the mean of A (stage 2) or of its square (stage 1), by hand.
        slopes = classifier.weight[y][:, None, None] / 12 * (torch.ones_like(a[n]) if stage == 2 else 2 * a[n])
        map = sum(slopes[c].mean() * a[n, c] for c in range(3))
        want = F.interpolate(cast(Tensor, map)[None, None], (6, 8), mode="bilinear")[0, 0]
        torch.testing.assert_close(got[n], want.detach())
    assert all(p.grad is None for p in [*encoder.parameters(), *classifier.parameters()])


def test_saliency_is_the_numerical_slope_summed_over_channels() -> None:
    encoder, classifier, x, label = make()
    got = saliency(encoder, classifier, x, label)
    for n, i, j in ((0, 0, 0), (3, 5, 7), (4, 2, 3)):
        want = 0.0
        for c in range(2):
            ends = []
            for step in (1e-6, -1e-6):
                there = x.clone()
                there[n, c, i, j] += step
                ends.append(classifier(encoder(there))[n, label[n]].item())
            want += abs(ends[0] - ends[1]) / 2e-6
        assert float(got[n, i, j]) == pytest.approx(want, abs=1e-7)
    assert not got.requires_grad
    with torch.no_grad():
        assert torch.equal(saliency(encoder, classifier, x, label), got), "it makes its own graph"


def test_slopes_of_other_rows_and_other_labels_do_not_enter() -> None:
    encoder, classifier, x, label = make()
    network = lambda x: classifier(encoder(x))
    one = slope(network, x, label)
    other = slope(network, x[1:3], label[1:3])
    torch.testing.assert_close(one[1:3], other)
    assert not torch.allclose(slope(network, x, (label + 1) % 4), one)


def test_to_one_scales_each_map_by_itself() -> None:
    maps = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[-1e-20, 0.0], [1e-20, 0.0]], [[7.0, 7.0], [7.0, 7.0]]])
    got = to_one(maps)
    torch.testing.assert_close(got[0], torch.tensor([[0.0, 0.5], [0.25, 1.0]]))
    torch.testing.assert_close(got[1], torch.tensor([[0.0, 0.5], [1.0, 0.5]]))
    assert not got[2].any(), "a map that says nothing keeps nothing"
    one = torch.linspace(0.1, 9, 300).view(-1, 1, 1, 1)
    spread = F.interpolate(one, (16, 15), mode="bilinear")[:, 0]
    assert bool((spread != one[:, 0]).any()), "the same everywhere but for rounding"
    assert not to_one(spread).any()


@pytest.mark.parametrize("explain", [saliency, partial(gradcam, stage=2)])
def test_what_is_below_the_threshold_takes_the_mean_color_in_all_channels(explain: Any) -> None:
    encoder, classifier, x, label = make()
    encoder.register_buffer("mean", torch.tensor([0.25, 0.75], dtype=torch.float64).view(-1, 1, 1))
    shares = []
    for threshold in (-0.1, 0.2, 0.5, 0.8, 1.0):
        left, right = essence(explain, encoder, classifier, x, label, threshold=threshold)
        map = to_one(explain(encoder, classifier, x, label))
        gone = map <= threshold  # 5 x 6 x 8
        assert torch.equal(left.movedim(1, -1)[~gone], x.movedim(1, -1)[~gone])
        assert (left.movedim(1, -1)[gone] == torch.tensor([0.25, 0.75])).all()
        assert torch.equal(right, classifier(encoder(left)).argmax(1) == label)
        shares.append(float(gone.double().mean()))
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1


def test_missing_labels_are_never_given_and_parts_are_the_whole() -> None:
    encoder, classifier, x, label = make()
    label[2:] = -1
    whole = essence(saliency, encoder, classifier, x, label, threshold=0.3)
    assert not whole[1][2:].any()
    parts = essence(saliency, encoder, classifier, x, label, threshold=0.3, at_once=2)
    for one, two in zip(whole, parts, strict=True):
        assert torch.equal(one, two)


def test_at_rest_gives_each_layer_its_mode_back_and_moves_no_statistics() -> None:
    torch.manual_seed(0)
    encoder = image_encoder("conv4", channels=1, size=16).train()
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    norms[1].eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    classifier = nn.Linear(encoder.dim, 3)
    x, label = torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 2, 0])
    with at_rest(encoder):
        assert not any(m.training for m in encoder.modules())
    for stage in (1, 2, 4):
        left, _ = essence(partial(gradcam, stage=stage), encoder, classifier, x, label, threshold=0.5)
        alone, _ = essence(partial(gradcam, stage=stage), encoder, classifier, x[:1], label[:1], threshold=0.5)
        assert left.shape == x.shape
        torch.testing.assert_close(alone, left[:1])
    assert [norm.training for norm in norms] == [True, False, True, True]
    assert encoder.training
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_the_bright_spot_that_decides_is_what_is_kept() -> None:
    torch.manual_seed(0)
    encoder = Plain()
    nn.init.constant_(encoder.conv.weight, 0.5)
    nn.init.zeros_(encoder.conv.bias)
    classifier = nn.Linear(3, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[1.0, 1, 1], [-1, -1, -1]]))
        classifier.bias.zero_()
    x = torch.full((1, 2, 8, 8), 0.1)
    x[:, :, 4:, 4:] = 1
    for explain in (partial(gradcam, stage=2), saliency):
        left, right = essence(explain, encoder, classifier, x, torch.tensor([0]), threshold=0.5)
        assert torch.equal(left[:, :, 5:, 5:], x[:, :, 5:, 5:])
        assert (left[:, :, :4, :4] == 0.5).all()
        assert bool(right)
