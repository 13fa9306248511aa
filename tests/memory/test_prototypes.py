from __future__ import annotations

import torch
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.distributed import local
from nearfar.memory.prototypes import MovingPrototypes, Prototypes
from tests.two_ranks import Pool


def test_scores_are_cosines() -> None:
    prototypes, z = Prototypes(5, 3), F.normalize(torch.randn(4, 3))
    want = [[float(F.cosine_similarity(a, b, dim=0)) for b in prototypes.weight.detach()] for a in z]
    torch.testing.assert_close(prototypes(z).detach(), torch.tensor(want))


def test_rows_start_on_the_sphere_and_come_back_to_it() -> None:
    prototypes = Prototypes(5, 3)
    torch.testing.assert_close(prototypes.weight.detach().norm(dim=1), torch.ones(5))
    with torch.no_grad():
        direction = prototypes.weight.clone()
        prototypes.weight.mul_(torch.arange(1.0, 6.0)[:, None])
    before = prototypes.weight
    prototypes.renormalize()
    assert prototypes.weight is before  # the optimizer still knows it
    torch.testing.assert_close(prototypes.weight.detach(), direction)


def test_the_gradient_is_that_of_the_rows_as_they_stand() -> None:
    prototypes, z = Prototypes(2, 3), torch.randn(4, 3)
    prototypes(z)[:, 0].sum().backward()
    assert prototypes.weight.grad is not None
    torch.testing.assert_close(prototypes.weight.grad, torch.stack([z.sum(0), torch.zeros(3)]))


def test_each_follows_its_rows_one_after_the_other() -> None:
    prototypes, z = MovingPrototypes(4, 3).double(), F.normalize(torch.randn(9, 3, dtype=torch.float64), dim=1)
    own = torch.tensor([2, 0, 2, MISSING, 2, 0, 3, MISSING, 2])
    want = prototypes.weight.clone()
    for row, c in zip(z, own.tolist(), strict=True):
        if c != MISSING:
            moved = 0.9 * want[c] + 0.1 * row
            want[c] = moved / moved.norm()
    still = prototypes.weight[1].clone()
    prototypes.follow(z, own, keep=0.9)
    torch.testing.assert_close(prototypes.weight, want)
    assert torch.equal(prototypes.weight[1], still)
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert not prototypes.weight.requires_grad


def test_they_stay_where_all_is_kept_or_nothing_is_theirs() -> None:
    prototypes, z = MovingPrototypes(4, 3), F.normalize(torch.randn(5, 3), dim=1)
    before = prototypes.weight.clone()
    prototypes.follow(z, torch.full((5,), MISSING), keep=0.9)
    assert torch.equal(prototypes.weight, before)
    prototypes.follow(z, torch.arange(5) % 4, keep=1.0)
    torch.testing.assert_close(prototypes.weight, before)
    prototypes.follow(z, torch.tensor([MISSING, 1, MISSING, 1, 3]), keep=0.0)
    torch.testing.assert_close(prototypes.weight, torch.stack([before[0], z[3], before[2], z[4]]))


def _followed(prototypes: MovingPrototypes, z: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    prototypes.follow(local(z), local(own), keep=0.9)
    return prototypes.weight.detach()


def test_two_ranks_follow_the_rows_of_both(two_ranks: Pool) -> None:
    prototypes, z = MovingPrototypes(3, 4).double(), F.normalize(torch.randn(8, 4, dtype=torch.float64), dim=1)
    own = torch.tensor([0, 1, 0, MISSING, 0, 2, 2, 0])
    first, second = two_ranks.run(_followed, prototypes, z, own)
    torch.testing.assert_close(first, _followed(prototypes, z, own))
    assert torch.equal(first, second)
