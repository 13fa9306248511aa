from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.losses.conditional import conditional_contrastive, data_to_data, hinge

from .ranks import unit

LABEL = torch.tensor([0, 1, 0, 2, 2, 0, MISSING, 3])
N, D, T = len(LABEL), 6, 0.4


def rows() -> tuple[Tensor, Tensor]:
    return unit(N, D, 0).requires_grad_(), unit(N, D, 1).requires_grad_()


def slow(z: Tensor, proxy: Tensor, label: Tensor, t: float) -> Tensor:
    losses = []
    for i, y in enumerate(label.tolist()):
        if y == MISSING:
            continue
        above = below = (z[i] @ proxy[i] / t).exp()
        for j in range(len(z)):
            if j != i:
                score = (z[i] @ z[j] / t).exp()
                below = below + score
                above = above + score * (label[j] == y)
        losses.append(-(above / below).log())
    return torch.stack(losses).mean()


def slow_data_to_data(z: Tensor, proxy: Tensor, label: Tensor, t: float, margin: float, *, released: bool) -> Tensor:
    losses = []
    for i, y in enumerate(label.tolist()):
        if y == MISSING:
            continue
        near = F.relu((margin - z[i] @ proxy[i]) / t)
        scores = {j: (z[i] @ z[j] + margin - 1) / t for j in range(len(z)) if j != i}
        top = max(float(score.detach()) for score in scores.values()) if released else 0.0
        push = sum((F.relu(score) - top).exp() for j, score in scores.items() if label[j] != y)
        losses.append(near + ((-near).exp() + push).log())
    return torch.stack(losses).mean()


def hold(got: Tensor, want: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs))


@pytest.mark.parametrize("t", [T, 1.0, 0.02])
def test_2c_is_the_slow_loop_with_its_gradient(t: float) -> None:
    z, proxy = rows()
    hold(conditional_contrastive(z, proxy, LABEL, temperature=t), slow(z, proxy, LABEL, t), z, proxy)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("margin", [0.98, 0.5])
def test_d2d_ce_is_the_slow_loop_with_its_gradient(margin: float, released: bool) -> None:
    z, proxy = rows()
    got = data_to_data(z, proxy, LABEL, temperature=T, margin=margin, released=released)
    hold(got, slow_data_to_data(z, proxy, LABEL, T, margin, released=released), z, proxy)


def test_of_classes_that_are_alone_2c_is_a_softmax_whose_positive_is_the_proxy() -> None:
    z, proxy = rows()
    logits = torch.cat([(z * proxy).sum(1, keepdim=True), z @ z.T - torch.diag(torch.full((N,), math.inf))], 1) / T
    want = F.cross_entropy(logits, torch.zeros(N, dtype=torch.int64))
    torch.testing.assert_close(conditional_contrastive(z, proxy, torch.arange(N), temperature=T), want)


def test_of_one_class_2c_is_0_and_d2d_ce_has_no_push() -> None:
    z, proxy = rows()
    label = torch.ones(N, dtype=torch.int64)
    assert float(conditional_contrastive(z, proxy, label, temperature=T).detach()) == pytest.approx(0, abs=1e-12)
    assert float(data_to_data(z, proxy, label, temperature=T, margin=0.9).detach()) == pytest.approx(0, abs=1e-12)
    unlabeled = torch.full((N,), MISSING)
    assert float(conditional_contrastive(z, proxy, unlabeled, temperature=T).detach()) == 0


def test_2c_at_a_high_temperature_counts_and_order_does_not_matter() -> None:
    z, proxy = rows()
    label = LABEL.clamp(min=0)
    same = torch.tensor([int((label == y).sum()) for y in label])
    want = -(same / N).log().mean()  # the proxy and the others of the class, of the proxy and all others
    assert float(conditional_contrastive(z, proxy, label, temperature=1e6).detach()) == pytest.approx(
        float(want), rel=1e-5
    )
    order = torch.tensor([3, 0, 7, 5, 1, 2, 6, 4])
    for loss in (
        conditional_contrastive,
        lambda *given, temperature: data_to_data(*given, temperature=temperature, margin=0.9),
    ):
        torch.testing.assert_close(
            loss(z[order], proxy[order], LABEL[order], temperature=T), loss(z, proxy, LABEL, temperature=T)
        )


def test_a_positive_that_is_taken_away_makes_2c_larger() -> None:
    z, proxy = rows()
    pair, alone = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 3, 1, 2])  # of the first row, all else being equal
    both = [conditional_contrastive(z[:4], proxy[:4], label, temperature=T) for label in (pair, alone)]
    assert 0 < both[0] < both[1]


def test_the_hinge_stops_at_its_margins() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, -0.25, 1.0])
    assert float(hinge(real, fake)) == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 0.75 + 2) / 3)
