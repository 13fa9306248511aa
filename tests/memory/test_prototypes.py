from __future__ import annotations

import torch
from torch.nn import functional as F

from nearfar.memory.prototypes import Prototypes


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
    prototypes.renormalise()
    assert prototypes.weight is before  # the optimiser still knows it
    torch.testing.assert_close(prototypes.weight.detach(), direction)


def test_the_gradient_is_that_of_the_rows_as_they_stand() -> None:
    prototypes, z = Prototypes(2, 3), torch.randn(4, 3)
    prototypes(z)[:, 0].sum().backward()
    assert prototypes.weight.grad is not None
    torch.testing.assert_close(prototypes.weight.grad, torch.stack([z.sum(0), torch.zeros(3)]))
