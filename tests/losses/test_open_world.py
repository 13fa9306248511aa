from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.distributed import local
from nearfar.losses.open_world import divergence, unfamiliar, unlabeled_shares
from tests.losses.ranks import hold_ranks_to_one
from tests.two_ranks import Pool

# Three prototypes, the last of a new class. Each row's largest standardized score with the others is, times the root
# of 2, 2 and 0, and where there is no label the root of 3 and -1.
SCORE = torch.tensor([[0.0, 3.0, 0.0], [0.0, 1.0, 2.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).double()
LABELED = torch.tensor([True, True, False, False])


def slow(score: Tensor, labeled: Tensor, known: int, percentile: float) -> list[bool]:
    """Row by row, with the percentile between the two nearest of the sorted scores."""
    best = []
    for row in score.tolist():
        mean = sum(row) / len(row)
        spread = (sum((x - mean) ** 2 for x in row) / (len(row) - 1)) ** 0.5
        best.append(max((x - mean) / spread for x in row[:known]))
    of_labeled = sorted(b for b, known_label in zip(best, labeled.tolist(), strict=True) if known_label)
    place = (len(of_labeled) - 1) * (1 - percentile / 100)
    low = int(place)
    high = min(low + 1, len(of_labeled) - 1)
    threshold = of_labeled[low] + (place - low) * (of_labeled[high] - of_labeled[low])
    return [not known_label and b < threshold for b, known_label in zip(best, labeled.tolist(), strict=True)]


@pytest.mark.parametrize("percentile", [0.0, 30.0, 70.0, 95.0, 100.0])
def test_unfamiliar_is_what_a_loop_over_rows_finds(percentile: float) -> None:
    score = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labeled = torch.arange(40) % 3 == 0
    got = unfamiliar(score, labeled, known=4, percentile=percentile)
    assert got.tolist() == slow(score, labeled, 4, percentile)
    assert not got[labeled].any()
    assert got.any()


def test_the_ends_of_the_percentile_are_the_least_and_the_most_familiar_labeled_row() -> None:
    assert unfamiliar(SCORE, LABELED, known=2, percentile=100).tolist() == [False, False, False, True]
    assert unfamiliar(SCORE, LABELED, known=2, percentile=0).tolist() == [False, False, True, True]


def test_without_labeled_rows_or_with_scores_that_are_all_one_nothing_is_unfamiliar() -> None:
    assert not unfamiliar(SCORE, torch.zeros(4, dtype=torch.bool), known=2, percentile=70).any()
    assert not unfamiliar(torch.ones(4, 3), LABELED, known=2, percentile=70).any()
    assert not unfamiliar(torch.ones(4, 1), LABELED, known=1, percentile=70).any()


def test_divergence_by_hand_and_where_it_is_least() -> None:
    prior = torch.tensor([0.25, 0.25, 0.5])
    p = torch.tensor([[0.5, 0.0, 0.5], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    keep = torch.tensor([True, True, False])
    # The mean of the first two is (0.5, 0.25, 0.25).
    want = 0.5 * torch.tensor(2.0).log() + 0.25 * torch.tensor(0.5).log()
    torch.testing.assert_close(divergence(p, prior, keep), want)
    even = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
    torch.testing.assert_close(divergence(even, prior, keep[:2]), torch.zeros(()))
    random = torch.rand(20, 4, 3, generator=torch.Generator().manual_seed(0)).softmax(2)
    assert all(divergence(rows, prior, torch.ones(4, dtype=torch.bool)) > 0 for rows in random)


def test_divergence_of_no_row_is_0_and_of_a_class_that_nobody_takes_has_a_finite_gradient() -> None:
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    assert divergence(p, torch.tensor([0.5, 0.5]), torch.zeros(2, dtype=torch.bool)) == 0
    slope = torch.autograd.grad(divergence(p, torch.tensor([1.0, 0.0]), torch.ones(2, dtype=torch.bool)), p)[0]
    assert slope.isfinite().all()


def test_shares_of_what_has_no_label() -> None:
    # 40 samples of 4 classes, 10 each: 5 of each of the known two have labels, so 5 are left, and 10 of the new.
    torch.testing.assert_close(unlabeled_shares(40, (5, 5), 2), torch.tensor([5.0, 5, 10, 10]) / 30)
    torch.testing.assert_close(unlabeled_shares(7, (1, 1), 2, 0.5), torch.tensor([1.0, 1, 2, 2]) / 6)
    torch.testing.assert_close(unlabeled_shares(40, (20, 20), 0), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(unlabeled_shares(40, (20, 20), 1), torch.tensor([0.1, 0.1, 1]) / 1.2)
    everything = unlabeled_shares(20, (20, 20), 1, 1.0)
    assert (everything > 0).all()
    torch.testing.assert_close(everything.sum(), torch.ones(()))


KEEP = torch.tensor([True, False, True, True, False, False, False, False])


def _divergence(x: Tensor) -> Tensor:
    keep = local(KEEP) if len(x) < len(KEEP) else KEEP
    return divergence(x.softmax(1), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=x.dtype), keep)


def _unfamiliar(score: Tensor, labeled: Tensor) -> Tensor:
    return unfamiliar(local(score), local(labeled), known=3, percentile=70)


def test_two_ranks(two_ranks: Pool) -> None:
    g = torch.Generator().manual_seed(1)
    hold_ranks_to_one(two_ranks, _divergence, torch.randn(8, 4, generator=g, dtype=torch.float64))
    score, labeled = torch.randn(16, 5, generator=g), torch.arange(16) < 5  # all labeled rows are on the first rank
    want = unfamiliar(score, labeled, known=3, percentile=70)
    assert want[8:].any()
    assert not want[8:].all()
    assert torch.equal(torch.cat(two_ranks.run(_unfamiliar, score, labeled)), want)
