from __future__ import annotations

import math
from statistics import fmean, pvariance, stdev

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import normalize
from nearfar.losses import strips
from nearfar.losses.fairness import fairkl, fairkl_released
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

LABEL = torch.tensor([0, 0, 0, 1, 1, 1, MISSING, 0, 1])
BIAS = torch.tensor([0, 0, 1, 1, 1, 0, 0, MISSING, 1])
GROUP = torch.tensor([0, MISSING, 1, 0, 1, MISSING, 0, 0, 2])
both = pytest.mark.parametrize("penalty", [fairkl, fairkl_released])


def pairs(z: Tensor, group: Tensor | None, *, itself: bool) -> dict[tuple[bool, bool], list[float]]:
    """The similarities of (one class, aligned), over ordered pairs."""
    found: dict[tuple[bool, bool], list[float]] = {(a, b): [] for a in (True, False) for b in (True, False)}
    y, b = LABEL.tolist(), BIAS.tolist()
    for i in range(len(z)):
        for j in range(len(z)):
            if (i == j and not itself) or MISSING in (y[i], y[j], b[i], b[j]):
                continue
            if group is not None and y[i] != y[j] and group[i] == group[j] != MISSING:
                continue
            found[y[i] == y[j], b[i] == b[j]].append(float(z[i] @ z[j]))
    return found


def kl(aligned: list[float], conflicting: list[float], floor: float) -> float:
    v, w = pvariance(aligned) + floor, pvariance(conflicting) + floor
    return ((v + (fmean(aligned) - fmean(conflicting)) ** 2) / w - math.log(v / w) - 1) / 2


@pytest.mark.parametrize("group", [None, GROUP], ids=["alone", "grouped"])
@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_kl_is_that_of_a_loop_over_pairs(group: Tensor | None, floor: float) -> None:
    z = unit(9, 4, 0)
    of = pairs(z, group, itself=False)
    want = sum(kl(of[same, True], of[same, False], floor) for same in (True, False))
    assert float(fairkl(z, LABEL, BIAS, group=group, floor=floor)) == pytest.approx(want)


@pytest.mark.parametrize("group", [None, GROUP], ids=["alone", "grouped"])
def test_released_is_that_of_a_loop_over_pairs(group: Tensor | None) -> None:
    z = unit(9, 4, 0)
    of = pairs(z, group, itself=True)
    m = {kind: fmean(s) for kind, s in of.items()}
    d = {kind: stdev(s + [0.0] * (81 - len(s))) for kind, s in of.items()}
    want = sum((m[same, True] - m[same, False]) ** 2 + (d[same, True] - d[same, False]) ** 2 for same in (True, False))
    want += m[False, True] - m[True, False]
    assert float(fairkl_released(z, LABEL, BIAS, group=group)) == pytest.approx(want)


def test_without_deviations_only_means_are_compared() -> None:
    z = unit(9, 4, 0)
    of = {kind: fmean(s) for kind, s in pairs(z, None, itself=False).items()}
    want = sum((of[same, True] - of[same, False]) ** 2 / 2 for same in (True, False))
    assert float(fairkl(z, LABEL, BIAS, deviations=False)) == pytest.approx(want)
    m = {kind: fmean(s) for kind, s in pairs(z, None, itself=True).items()}
    want = sum((m[same, True] - m[same, False]) ** 2 for same in (True, False)) + m[False, True] - m[True, False]
    assert float(fairkl_released(z, LABEL, BIAS, deviations=False)) == pytest.approx(want)


def test_kl_is_0_where_the_bias_makes_no_difference() -> None:
    """Classes at right angles, all rows of a class alike; and a penalty where a bias turns them."""
    z = torch.eye(3, dtype=torch.float64)[[0, 0, 0, 0, 1, 1, 1, 1]]
    label, bias = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 1, 1] * 2)
    assert float(fairkl(z, label, bias)) == pytest.approx(0, abs=1e-12)
    turned = normalize(z + 0.5 * torch.eye(3, dtype=torch.float64)[2] * bias[:, None])
    assert float(fairkl(turned, label, bias)) > 0.1
    # cos 26.6 deg between the colors of a class: squared difference of means over the floor.
    gap = 1 - 1 / math.sqrt(1.25)
    only = fairkl(turned[:4], label[:4], bias[:4])
    assert float(only) == pytest.approx(gap**2 / (2 * 0.01))


@both
def test_names_order_and_rotation_do_not_matter(penalty) -> None:  # type: ignore[no-untyped-def]
    z = unit(9, 4, 0)
    want = penalty(z, LABEL, BIAS)
    torch.testing.assert_close(penalty(z, LABEL, torch.where(BIAS < 0, BIAS, 7 - BIAS)), want)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(penalty(z[order], LABEL[order], BIAS[order]), want)
    torch.testing.assert_close(penalty(z @ torch.linalg.qr(unit(4, 4, 1))[0], LABEL, BIAS), want)


@both
def test_where_a_kind_is_empty_it_is_finite(penalty) -> None:  # type: ignore[no-untyped-def]
    for label, bias in (
        (LABEL, torch.zeros_like(BIAS)),
        (LABEL, LABEL),
        (torch.zeros_like(LABEL), BIAS),
        (torch.full_like(LABEL, MISSING), BIAS),
        (LABEL, torch.full_like(BIAS, MISSING)),
    ):
        z = unit(9, 4, 0).requires_grad_()
        value = penalty(z, label, bias)
        assert torch.autograd.grad(value, z)[0].isfinite().all()
    assert float(fairkl(unit(9, 4, 0), LABEL, torch.zeros_like(BIAS))) == 0
    z = torch.zeros(9, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(penalty(z, LABEL, BIAS), z)[0].isfinite().all()
    one = unit(1, 4, 0).requires_grad_()
    assert torch.autograd.grad(penalty(one, LABEL[:1], BIAS[:1]), one)[0].isfinite().all()


@both
def test_gradient_is_that_of_differences_also_in_strips(penalty, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def loss(z: Tensor) -> Tensor:
        return penalty(normalize(z), LABEL, BIAS)

    z = unit(9, 4, 0).requires_grad_()
    assert torch.autograd.gradcheck(loss, z)
    value, gradient = loss(z), torch.autograd.grad(loss(z), z)[0]
    monkeypatch.setattr(strips, "ENTRIES", 20)
    torch.testing.assert_close(loss(z), value)
    torch.testing.assert_close(torch.autograd.grad(loss(z), z)[0], gradient)


def _kl(z: Tensor, label: Tensor, bias: Tensor) -> Tensor:
    return fairkl(normalize(z), label, bias)


def _released(z: Tensor, label: Tensor, bias: Tensor) -> Tensor:
    return fairkl_released(normalize(z), label, bias, group=label.clamp(min=0) + bias)


@pytest.mark.parametrize("loss", [_kl, _released])
def test_two_ranks(two_ranks: Pool, loss) -> None:  # type: ignore[no-untyped-def]
    hold_ranks_to_one(two_ranks, loss, unit(8, 4, 0), LABEL[:8], BIAS[:8])
