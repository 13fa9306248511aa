from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nearfar import distributed
from nearfar.batch import MISSING
from nearfar.distributed import normalize
from nearfar.losses.negatives import group_sizes, hcl, renyi
from nearfar.losses.pairwise import nt_xent
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

GROUPS = [[0, 0, 1, MISSING, MISSING, 1], [MISSING] * 6, [0] * 6, [5, 4, 3, 2, 1, 0], [7, 7, 7, MISSING, 2, 2]]


def same(a: int, b: int) -> bool:
    return a == b and a != MISSING


def slow_hcl(
    z1: Tensor, z2: Tensor, temperature: float, beta: float, tau_plus: float, group: list[int] | None = None
) -> tuple[Tensor, int]:
    """The loss, differentiable, and how many anchors stand at the lower bound."""
    rows, n = [*z1, *z2], len(z1)
    group = group or [MISSING] * n
    losses, bound = [], 0
    for i, anchor in enumerate(rows):
        partner = (i + n) % (2 * n)
        others = [j for j in range(2 * n) if j not in (i, partner) and not same(group[i % n], group[j % n])]
        pos, ng = (anchor @ rows[partner] / temperature).exp(), torch.zeros((), dtype=z1.dtype)
        if others:
            e = torch.stack([(anchor @ rows[j] / temperature).exp() for j in others])
            r = (e**beta * e).sum() / (e**beta).mean()
            ng = (r - tau_plus * len(e) * pos) / (1 - tau_plus)
            least = len(e) * math.exp(-1 / temperature)
            bound += bool(ng < least)
            ng = ng.clamp(min=least)
        losses.append(-(pos / (pos + ng)).log())
    return torch.stack(losses).mean(), bound


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("tau_plus", [0, 0.1, 0.4])
@pytest.mark.parametrize("beta", [0, 0.5, 1, 2])
def test_hcl_and_its_gradient_are_those_of_a_loop(beta: float, tau_plus: float, temperature: float) -> None:
    z1, z2 = unit(6, 4, 0).requires_grad_(), normalize(unit(6, 4, 0) + unit(6, 4, 1)).requires_grad_()
    want, bound = slow_hcl(z1, z2, temperature, beta, tau_plus)
    if (beta, tau_plus) == (0, 0.4):
        assert 0 < bound < 12  # both branches are met
    got = hcl(z1, z2, temperature=temperature, beta=beta, tau_plus=tau_plus)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, [z1, z2]), torch.autograd.grad(want, [z1, z2]), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(("beta", "tau_plus"), [(0, 0.1), (1, 0), (1, 0.3)])
def test_hcl_with_groups(group: list[int], beta: float, tau_plus: float) -> None:
    z1, z2 = unit(6, 4, 0).requires_grad_(), unit(6, 4, 1).requires_grad_()
    want, _ = slow_hcl(z1, z2, 0.2, beta, tau_plus, group)
    got = hcl(z1, z2, temperature=0.2, beta=beta, tau_plus=tau_plus, group=torch.tensor(group))
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, [z1, z2]), torch.autograd.grad(want, [z1, z2]), strict=True):
        torch.testing.assert_close(a, b)


def test_without_tilt_and_correction_it_is_nt_xent() -> None:
    z1, z2 = unit(6, 4, 0), unit(6, 4, 1)
    torch.testing.assert_close(hcl(z1, z2, temperature=0.2, beta=0, tau_plus=0), nt_xent(z1, z2, temperature=0.2))


def test_one_sample_has_no_negatives() -> None:
    z1, z2 = unit(1, 4, 0).requires_grad_(), unit(1, 4, 1)
    for beta, tau_plus in ((0, 0), (1, 0), (0, 0.1), (1, 0.1)):
        value = hcl(z1, z2, temperature=0.2, beta=beta, tau_plus=tau_plus)
        assert float(value.detach()) == 0
        assert (torch.autograd.grad(value, z1)[0] == 0).all()


def test_the_loss_grows_with_beta_up_to_the_hardest_negative() -> None:
    z1, z2 = unit(6, 4, 0), unit(6, 4, 1)
    values = [float(hcl(z1, z2, temperature=0.5, beta=beta, tau_plus=0)) for beta in (0, 0.5, 1, 2, 8)]
    assert values == sorted(values)
    z = torch.cat([z1, z2])
    e = (z @ z.T / 0.5).exp()
    pos = e[torch.arange(12), torch.arange(12).roll(6)]
    e[torch.arange(12), torch.arange(12)] = e[torch.arange(12), torch.arange(12).roll(6)] = 0
    hardest = 10 * e.amax(1)
    want = (1 + hardest / pos).log().mean()
    torch.testing.assert_close(hcl(z1, z2, temperature=0.5, beta=5000, tau_plus=0), want, rtol=1e-3, atol=0)


def test_equal_negatives_do_not_feel_beta_and_equal_rows_feel_nothing() -> None:
    anchors = torch.eye(5, dtype=torch.float64)  # all negatives are at right angles
    values = [float(hcl(anchors, anchors, temperature=0.5, beta=beta, tau_plus=0.1)) for beta in (0, 1, 3)]
    assert values == pytest.approx([values[0]] * 3)
    equal = unit(1, 4, 0).repeat(6, 1)
    for beta in (0, 2):
        for tau_plus in (0, 0.1, 0.5):
            assert float(hcl(equal, equal, temperature=0.1, beta=beta, tau_plus=tau_plus)) == pytest.approx(
                math.log(11)
            )


def test_the_correction_takes_from_a_near_positive_and_adds_to_a_far_one() -> None:
    z = unit(6, 4, 0)
    shares = (0.0, 0.02, 0.05, 0.1)
    near = [float(hcl(z, z, temperature=0.5, beta=0, tau_plus=tau)) for tau in shares]
    apart = [float(hcl(z, -z, temperature=0.5, beta=0, tau_plus=tau)) for tau in shares]
    assert near == sorted(near, reverse=True)
    assert apart == sorted(apart)
    assert near[0] > near[-1]
    assert apart[0] < apart[-1]


def test_at_the_lower_bound_negatives_push_no_more() -> None:
    z = torch.eye(4, dtype=torch.float64)
    z1, z2 = z.clone().requires_grad_(), z.clone()
    value = hcl(z1, z2, temperature=0.1, beta=0, tau_plus=0.5)
    assert float(value.detach()) == pytest.approx(math.log(1 + 6 * math.exp(-10) / math.exp(10)))
    assert (torch.autograd.grad(value, z1)[0] * (1 - z) == 0).all()


@pytest.mark.parametrize("temperature", [0.01, 0.07, 10.0])
def test_half_precision_and_small_temperatures_stay_finite(temperature: float) -> None:
    z1, z2 = (unit(9, 8, s).to(torch.bfloat16).requires_grad_() for s in (0, 1))
    for value in (
        hcl(z1, z2, temperature=temperature, beta=3, tau_plus=0.2),
        hcl(z1, z1, temperature=temperature, beta=0, tau_plus=0.2),
        renyi([z1], z2.detach(), temperature=temperature),
    ):
        assert value.isfinite()
        assert torch.autograd.grad(value, z1)[0].isfinite().all()


def test_hcl_learns_its_temperature_and_refuses_what_is_no_share() -> None:
    z1, z2 = unit(4, 4, 0), unit(4, 4, 1)
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda tau: hcl(z1, z2, temperature=tau), (tau,))
    with pytest.raises(ValueError, match=r"not 1.0 and 1"):
        hcl(z1, z2, temperature=0.5, tau_plus=1)
    with pytest.raises(ValueError, match="not -1 and"):
        hcl(z1, z2, temperature=0.5, beta=-1)


def slow_renyi(
    sources: list[Tensor], b: Tensor, temperature: float, gamma: float, alpha: float, group: list[int] | None = None
) -> Tensor:
    group = group or [MISSING] * len(b)
    pos, neg = [], []
    for a in sources:
        for i, row in enumerate(a):
            pos.append(row @ b[i] / temperature)
            neg += [row @ b[j] / temperature for j in range(len(b)) if j != i and not same(group[i], group[j])]
    p = torch.stack(pos)
    n = (gamma * torch.stack(neg)).exp().mean() if neg else torch.zeros(())
    drawn = p.mean() if gamma == 1 else ((gamma - 1) * p).exp().mean().log() / (gamma - 1)
    return (alpha * (gamma * p).exp().mean() + (1 - alpha) * n).log() / gamma - drawn


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("alpha", [0, 2**-16, 0.3])
@pytest.mark.parametrize("gamma", [0.5, 1, 1.5, 2])
def test_renyi(gamma: float, alpha: float, views: int) -> None:
    sources, b = [unit(5, 4, s).requires_grad_() for s in range(views)], unit(5, 4, 9)
    want = slow_renyi(sources, b, 0.5, gamma, alpha)
    got = renyi(sources, b, temperature=0.5, gamma=gamma, alpha=alpha)
    torch.testing.assert_close(got, want)
    for x, y in zip(torch.autograd.grad(got, sources), torch.autograd.grad(want, sources), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("group", GROUPS)
def test_renyi_with_groups(group: list[int]) -> None:
    sources, b = [unit(6, 4, s).requires_grad_() for s in range(2)], unit(6, 4, 9)
    got = renyi(sources, b, temperature=0.5, alpha=0.1, group=torch.tensor(group))
    want = slow_renyi(sources, b, 0.5, 2, 0.1, group)
    torch.testing.assert_close(got, want)
    for x, y in zip(torch.autograd.grad(got, sources), torch.autograd.grad(want, sources), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("gamma", [1, 1.5, 2])
def test_the_released_surrogate_has_the_same_gradient(gamma: float) -> None:
    a, b, alpha = unit(6, 4, 0).requires_grad_(), unit(6, 4, 1), 0.01
    s = a @ b.T / 0.5
    p, n = s.diagonal(), s[~torch.eye(6, dtype=torch.bool)]
    raised, low = (gamma * p).exp().detach(), ((gamma - 1) * p).exp().detach()
    pushed = (gamma * n).exp().detach()
    above = alpha * (p * raised).mean() + (1 - alpha) * (n * pushed).mean()
    below = alpha * raised.mean() + (1 - alpha) * pushed.mean()
    surrogate = above / below - (p * low).mean() / low.mean()
    want = torch.autograd.grad(surrogate, a)[0]
    got = torch.autograd.grad(renyi([a], b, temperature=0.5, gamma=gamma, alpha=alpha), a)[0]
    torch.testing.assert_close(got, want)


def test_renyi_in_closed_form() -> None:
    a, b = unit(6, 4, 0), unit(6, 4, 1)
    s = a @ b.T / 0.5
    bound = torch.logsumexp(s[~torch.eye(6, dtype=torch.bool)], 0) - math.log(30) - s.diagonal().mean()
    torch.testing.assert_close(renyi([a], b, temperature=0.5, gamma=1, alpha=0), bound)  # Donsker and Varadhan
    equal = unit(1, 4, 0).repeat(6, 1)
    assert float(renyi([equal], equal, temperature=0.5)) == pytest.approx(0, abs=1e-12)
    # Where nothing but the positives is left, the skew keeps the loss from falling without end.
    assert float(renyi([a[:1]], a[:1], temperature=0.1, alpha=0.01)) == pytest.approx(math.log(0.01) / 2)
    with pytest.raises(ValueError, match="at least 2 samples"):
        renyi([a[:1]], a[:1], temperature=0.1, alpha=0)
    with pytest.raises(ValueError, match="not 2 and 1"):
        renyi([a], b, temperature=0.1, gamma=2, alpha=1)


def test_renyi_does_not_feel_a_constant_added_to_all_logits() -> None:
    a, b = unit(6, 4, 0), unit(6, 4, 1)
    wider = [torch.cat([x, torch.full((6, 1), c, dtype=x.dtype)], 1) for x, c in ((a, 1.0), (b, 0.7))]
    torch.testing.assert_close(renyi([wider[0]], wider[1], temperature=0.5), renyi([a], b, temperature=0.5))


def test_hard_pairs_weigh_more_among_negatives_and_less_among_positives() -> None:
    a, b = unit(6, 4, 0).requires_grad_(), unit(6, 4, 1)
    s = (a @ b.T).detach()
    gradient = torch.autograd.grad(renyi([a], b, temperature=0.5, alpha=1e-9), a)[0]
    pull = torch.softmax(s.diagonal() / 0.5, 0)
    push = torch.softmax(2 * s[~torch.eye(6, dtype=torch.bool)] / 0.5, 0)
    want = torch.zeros(6, 4, dtype=b.dtype)
    for i in range(6):
        want[i] -= pull[i] * b[i] / 0.5
    for weight, (i, j) in zip(push, (~torch.eye(6, dtype=torch.bool)).nonzero().tolist(), strict=True):
        want[i] += weight * b[j] / 0.5
    torch.testing.assert_close(gradient, want)


def test_group_sizes() -> None:
    ids = torch.tensor([3, MISSING, 3, 5, MISSING, 3])
    assert group_sizes(ids).tolist() == [3, 1, 3, 1, 1, 3]
    assert group_sizes(ids, alone=2).tolist() == [3, 2, 3, 1, 2, 3]


def _group(z: Tensor) -> Tensor:
    index = distributed.rank() * len(z) + torch.arange(len(z))
    return torch.where(index % 4 == 3, MISSING, index % 3)


def _hcl(z1: Tensor, z2: Tensor) -> Tensor:
    return hcl(normalize(z1), normalize(z2), temperature=0.2, tau_plus=0.2)


def _debiased_small_temperature(z1: Tensor, z2: Tensor) -> Tensor:
    return hcl(normalize(z1), normalize(z2), temperature=0.02, beta=0)


def _hcl_groups(z1: Tensor, z2: Tensor) -> Tensor:
    return hcl(normalize(z1), normalize(z2), temperature=0.2, group=_group(z1))


def _renyi(z1: Tensor, z2: Tensor) -> Tensor:
    both = [normalize(z1), normalize(z2)]
    return renyi(both, both[1].detach(), temperature=0.5, alpha=0.1)


def _renyi_groups(z1: Tensor, z2: Tensor) -> Tensor:
    return renyi([normalize(z1)], normalize(z2), temperature=0.5, group=_group(z1))


@pytest.mark.parametrize("loss", [_hcl, _debiased_small_temperature, _hcl_groups, _renyi, _renyi_groups])
def test_two_ranks(two_ranks: Pool, loss: Callable[..., Tensor]) -> None:
    hold_ranks_to_one(two_ranks, loss, unit(8, 4, 0), unit(8, 4, 1))
