from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import normalize
from nearfar.losses.centers import centers
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

LABEL = torch.tensor([0, 1, 0, MISSING, 3, MISSING])


@pytest.mark.parametrize("count", [1, 2])
def test_the_loss_is_that_of_a_loop(count: int) -> None:
    w, views = unit(5, 4, 9), [unit(6, 4, seed) for seed in range(count)]
    rows = [(z, y) for view in views for z, y in zip(view, LABEL.tolist(), strict=True)]
    terms = []
    for c in (0, 1, 3):
        all_rows = math.log(sum(math.exp(float(w[c] @ z) / 0.2) for z, _ in rows))
        own = [float(w[c] @ z) / 0.2 for z, y in rows if y == c]
        terms.append(all_rows - sum(own) / len(own))
    got = centers(w, views, LABEL, temperature=0.2)
    assert got.item() == pytest.approx(sum(terms) / 3, abs=1e-12)


def test_only_centers_of_the_batch_learn_and_without_labels_none() -> None:
    w, z = unit(5, 4, 9).requires_grad_(), unit(6, 4, 0).requires_grad_()
    slopes = torch.autograd.grad(centers(w, [z], LABEL, temperature=0.2), [w, z])
    assert slopes[0].any(1).tolist() == [True, True, False, True, False]
    assert slopes[1].any(1).all(), "rows without a label are negatives"
    loss = centers(w, [z], torch.full((6,), MISSING), temperature=0.2)
    assert loss == 0
    assert not any(slope.any() for slope in torch.autograd.grad(loss, [w, z]))


def test_equal_rows() -> None:
    z = torch.ones(6, 4, dtype=torch.float64) / 2
    assert centers(unit(5, 4, 9), [z, z], LABEL, temperature=0.2).item() == pytest.approx(math.log(12))


def _both(z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
    w = unit(5, 4, 9).to(z1.dtype)
    return centers(w, [normalize(z1), normalize(z2)], label, temperature=0.2)


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _both, unit(6, 4, 0), unit(6, 4, 1), LABEL)
