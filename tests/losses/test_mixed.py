from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.distributed import normalize
from nearfar.losses.mixed import mixed_byol, mixed_info_nce, mixed_rows
from nearfar.losses.pairwise import info_nce_batch
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

PARTNER = torch.tensor([3, 1, 5, 0, 2, 4])
LAM = torch.tensor([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], dtype=torch.float64)


def slow(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    logits = q @ torch.cat([k, queue]).T / temperature
    losses = []
    for i, (other, lam) in enumerate(zip(PARTNER, LAM, strict=True)):
        own, its = (F.cross_entropy(logits[i][None], torch.tensor([int(j)])) for j in (i, other))
        losses.append(lam * own + (1 - lam) * its)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("queue", [0, 7])
def test_mixed_info_nce_is_the_mixture_of_two_cross_entropies(queue: int) -> None:
    q, k, old = unit(6, 4, 0).requires_grad_(), unit(6, 4, 1).requires_grad_(), unit(queue, 4, 2)
    got = mixed_info_nce(q, k, PARTNER, LAM, temperature=0.2, queue=(old, torch.full((queue,), -1)))
    want = slow(q, k, old, 0.2)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, [q, k]), torch.autograd.grad(want, [q, k]), strict=True):
        torch.testing.assert_close(a, b)
    if not queue:
        torch.testing.assert_close(mixed_info_nce(q, k, PARTNER, LAM, temperature=0.2), want)


def test_without_mixing_it_is_info_nce() -> None:
    q, k = unit(6, 4, 0), unit(6, 4, 1)
    want = info_nce_batch(q, k, temperature=0.2)
    whole = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(mixed_info_nce(q, k, PARTNER, whole, temperature=0.2), want)
    torch.testing.assert_close(mixed_info_nce(q, k, torch.arange(6), LAM, temperature=0.2), want)


def test_it_is_linear_in_the_shares_and_even_halves_do_not_tell_own_from_partner() -> None:
    q, k = unit(6, 4, 0), unit(6, 4, 1)

    def at(lam: float) -> Tensor:
        return mixed_info_nce(q, k, PARTNER, torch.full((6,), lam, dtype=torch.float64), temperature=0.2)

    torch.testing.assert_close(at(0.7), 0.3 * at(0.0) + 0.7 * at(1.0))
    back = PARTNER.argsort()
    half = torch.full((6,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(at(0.5), mixed_info_nce(q, k[PARTNER], back, half, temperature=0.2))


def test_rows_of_the_group_of_either_sample_are_no_negatives() -> None:
    q, k, old = unit(6, 4, 0), unit(6, 4, 1), unit(3, 4, 2)
    group, groups = torch.tensor([7, 8, 8, -1, -1, 7]), torch.tensor([8, -1, 7])
    got = mixed_info_nce(q, k, PARTNER, LAM, temperature=0.2, queue=(old, groups), group=group)
    logits, every, losses = q @ torch.cat([k, old]).T / 0.2, [*group.tolist(), *groups.tolist()], []
    for i, (other, lam) in enumerate(zip(PARTNER.tolist(), LAM, strict=True)):
        known = {every[i], every[other]} - {-1}
        far = torch.stack([logits[i, j] for j in range(9) if j in (i, other) or every[j] not in known]).logsumexp(0)
        losses.append(far - lam * logits[i, i] - (1 - lam) * logits[i, other])
    torch.testing.assert_close(got, torch.stack(losses).mean())


def test_mixed_byol_is_the_mean_of_squared_distances_to_both_targets() -> None:
    p, z = 3 * unit(6, 4, 0), 2 * unit(6, 4, 1)
    losses = []
    for i, (other, lam) in enumerate(zip(PARTNER, LAM, strict=True)):
        own, its = ((normalize(p)[i] - normalize(z)[j]).square().sum() for j in (i, other))
        losses.append(lam * own + (1 - lam) * its)
    torch.testing.assert_close(mixed_byol(p, z, PARTNER, LAM), torch.stack(losses).mean())


def test_mixed_rows() -> None:
    z = unit(6, 4, 0)
    torch.testing.assert_close(mixed_rows(z, PARTNER, LAM)[0], (z[0] + z[3]) / 2)
    torch.testing.assert_close(mixed_rows(z, PARTNER, LAM)[5], z[5])


def _info_nce(q: Tensor, k: Tensor, partner: Tensor, tenths: Tensor) -> Tensor:
    queue = unit(9, 4, 9).to(q.dtype), torch.full((9,), -1)
    return mixed_info_nce(normalize(q), normalize(k), partner, tenths.to(q.dtype) / 10, temperature=0.2, queue=queue)


def _info_nce_in_groups(q: Tensor, k: Tensor, partner: Tensor, tenths: Tensor) -> Tensor:
    group = partner // 2
    return mixed_info_nce(normalize(q), normalize(k), partner, tenths.to(q.dtype) / 10, temperature=0.2, group=group)


def _byol(q: Tensor, k: Tensor, partner: Tensor, tenths: Tensor) -> Tensor:
    return mixed_byol(q, k, partner, tenths.to(q.dtype) / 10)


@pytest.mark.parametrize("loss", [_info_nce, _info_nce_in_groups, _byol])
def test_two_ranks(two_ranks: Pool, loss) -> None:  # type: ignore[no-untyped-def]
    hold_ranks_to_one(two_ranks, loss, unit(6, 4, 0), unit(6, 4, 1), PARTNER, torch.arange(5, 11))
