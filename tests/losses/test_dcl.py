from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.distributed import normalise
from nearfar.losses.pairwise import dcl, nt_xent
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool


def slow_dcl(z1: Tensor, z2: Tensor, temperature: float) -> float:
    rows = [*z1, *z2]
    n = len(z1)
    losses = []
    for i, anchor in enumerate(rows):
        partner = (i + n) % (2 * n)
        others = [math.exp(float(anchor @ rows[j]) / temperature) for j in range(2 * n) if j not in (i, partner)]
        losses.append(-float(anchor @ rows[partner]) / temperature + math.log(sum(others)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("n", [2, 5])
def test_dcl(n: int, temperature: float) -> None:
    z1, z2 = unit(n, 4, 0), unit(n, 4, 1)
    assert float(dcl(z1, z2, temperature=temperature)) == pytest.approx(slow_dcl(z1, z2, temperature))


def test_dcl_of_equal_rows_and_of_one_sample() -> None:
    z = unit(1, 4, 0).repeat(6, 1)
    assert float(dcl(z, z, temperature=0.1)) == pytest.approx(math.log(10))
    with pytest.raises(ValueError, match="at least 2"):
        dcl(z[:1], z[:1], temperature=0.1)


def test_dcl_is_below_nt_xent() -> None:
    z1, z2 = unit(6, 4, 0), unit(6, 4, 1)
    assert dcl(z1, z2, temperature=0.2) < nt_xent(z1, z2, temperature=0.2)


def test_the_pull_on_the_positive_does_not_fade() -> None:
    """The gradient has no factor 1 - p: its part along the positive is 1 / temperature, however similar the pair is."""
    anchor = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([[0, 0, 1.0], [0, 1.0, 0]], dtype=torch.float64)
    value = dcl(anchor, other, temperature=0.5)
    gradient = torch.autograd.grad(value, anchor)[0]
    # The first sample's positive is the only row with a third coordinate; 4 rows share the mean, and the pair is in 2.
    assert float(gradient[0, 2]) == pytest.approx(-2 / 0.5 / 4)


def test_gradients() -> None:
    z1, z2 = unit(3, 4, 0).requires_grad_(), unit(3, 4, 1).requires_grad_()
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z1, z2, tau: dcl(z1, z2, temperature=tau), (z1, z2, tau))


def _dcl(z1: Tensor, z2: Tensor) -> Tensor:
    return dcl(normalise(z1), normalise(z2), temperature=0.2)


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _dcl, unit(8, 4, 0), unit(8, 4, 1))
