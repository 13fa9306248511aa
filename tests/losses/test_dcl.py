from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nearfar.distributed import normalize
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


@pytest.mark.parametrize("sigma", [0.1, 0.5, 5.0])
def test_dclw_and_its_gradient_are_those_of_a_loop(sigma: float) -> None:
    z1, z2 = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1).requires_grad_()
    rows, cosine = [*z1, *z2], (z1 * z2).sum(1)
    weight = 2 - (cosine / sigma).exp() / (cosine / sigma).exp().mean()
    assert float(weight.mean().detach()) == pytest.approx(1)
    losses = []
    for i, anchor in enumerate(rows):
        others = [(anchor @ rows[j] / 0.2).exp() for j in range(10) if j not in (i, (i + 5) % 10)]
        losses.append(torch.stack(others).sum().log() - weight[i % 5] * cosine[i % 5] / 0.2)
    want, got = torch.stack(losses).mean(), dcl(z1, z2, temperature=0.2, sigma=sigma)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, [z1, z2]), torch.autograd.grad(want, [z1, z2]), strict=True):
        torch.testing.assert_close(a, b)


def test_dclw_is_dcl_where_positives_are_alike_or_sigma_is_large() -> None:
    z1, z2 = unit(5, 4, 0), unit(5, 4, 1)
    torch.testing.assert_close(dcl(z1, z1, temperature=0.2, sigma=0.1), dcl(z1, z1, temperature=0.2))
    torch.testing.assert_close(dcl(z1, z2, temperature=0.2, sigma=1e9), dcl(z1, z2, temperature=0.2))
    assert dcl(z1, z2, temperature=0.2, sigma=0.5) > dcl(z1, z2, temperature=0.2)


def test_nt_xent_is_the_softplus_of_dcl_for_each_anchor() -> None:
    z1, z2 = unit(4, 4, 0).requires_grad_(), unit(4, 4, 1)
    z = torch.cat([z1, z2]).detach()
    s = z @ z.T / 0.2
    eye, partner = torch.eye(8, dtype=torch.bool), torch.eye(8, dtype=torch.bool).roll(4, 1)
    each = s.masked_fill(eye | partner, -math.inf).logsumexp(1) - s[partner]
    torch.testing.assert_close(each.mean(), dcl(z1, z2, temperature=0.2).detach())
    torch.testing.assert_close(torch.nn.functional.softplus(each).mean(), nt_xent(z1, z2, temperature=0.2).detach())


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
    return dcl(normalize(z1), normalize(z2), temperature=0.2)


def _dclw(z1: Tensor, z2: Tensor) -> Tensor:
    return dcl(normalize(z1), normalize(z2), temperature=0.2, sigma=0.5)


@pytest.mark.parametrize("loss", [_dcl, _dclw])
def test_two_ranks(two_ranks: Pool, loss: Callable[..., Tensor]) -> None:
    hold_ranks_to_one(two_ranks, loss, unit(8, 4, 0), unit(8, 4, 1))
