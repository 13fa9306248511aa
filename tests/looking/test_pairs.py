"""Hard positives and suspicious negatives."""

from __future__ import annotations

import math

import torch

from nearfar.batch import MISSING
from nearfar.looking.pairs import gradient_shares, hardest_positives, suspicious_anchors


def test_the_farthest_views_come_first() -> None:
    first = torch.tensor([[1.0, 0], [1, 0], [0, 2], [1, 0]])
    second = torch.tensor([[2.0, 0], [-1, 0], [1, 1], [0, 1]])
    positions, cosine = hardest_positives(first, second, 3)
    assert positions.tolist() == [1, 3, 2]
    torch.testing.assert_close(cosine, torch.tensor([1, -1, math.sqrt(0.5), 0]))


def test_a_share_is_the_gradient_of_what_pushes() -> None:
    z, anchors = torch.randn(6, 3), torch.tensor([4, 0])
    group = torch.tensor([1, 2, MISSING, 1, MISSING, 2])
    share, cosine = gradient_shares(z, anchors, temperature=0.3, group=group)
    unit = z / z.norm(dim=1, keepdim=True)
    for row, i in enumerate(anchors.tolist()):
        others = [j for j in range(6) if j != i and not (group[i] == group[j] != MISSING)]
        s = (unit[i] @ unit[others].T / 0.3).requires_grad_()
        s.logsumexp(0).backward()
        assert s.grad is not None
        torch.testing.assert_close(share[row, others], s.grad)
        torch.testing.assert_close(cosine[row, others], unit[others] @ unit[i])
    torch.testing.assert_close(share.sum(1), torch.ones(2))
    assert share[1, [0, 3]].tolist() == [0, 0]
    even, _ = gradient_shares(torch.ones(5, 2), torch.tensor([0]), temperature=0.1)
    torch.testing.assert_close(even[0], torch.tensor([0, 0.25, 0.25, 0.25, 0.25]))
    none, _ = gradient_shares(z, anchors, temperature=0.3, group=torch.zeros(6, dtype=torch.int64))
    assert none.eq(0).all()


def test_a_pair_is_shown_once() -> None:
    nearest, partner = torch.tensor([0.9, 0.9, 0.5, 0.7]), torch.tensor([1, 0, 0, 2])
    assert suspicious_anchors(nearest, partner, 3).tolist() == [0, 3]
    assert suspicious_anchors(nearest, partner, 1).tolist() == [0]
