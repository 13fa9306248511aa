from __future__ import annotations

import math

import torch

from nearfar.batch import MISSING
from nearfar.losses.classification import cross_entropy, log_prior, mixed_cross_entropy, per_token

LOGITS = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0], [2.0, 2.0, 2.0]], dtype=torch.float64)
LABEL = torch.tensor([0, MISSING, 2])


def test_it_is_the_mean_over_the_labeled_rows() -> None:
    want = 0.0
    for row, y in ((0, 0), (2, 2)):
        total = sum(math.exp(float(v)) for v in LOGITS[row])
        want -= math.log(math.exp(float(LOGITS[row, y])) / total) / 2
    torch.testing.assert_close(float(cross_entropy(LOGITS, LABEL)), want)


def test_smoothing_gives_the_other_classes_their_part() -> None:
    logs = LOGITS.log_softmax(1)
    want = -(0.7 * logs[[0, 2], [0, 2]] + 0.3 * logs[[0, 2]].mean(1)).mean()
    torch.testing.assert_close(cross_entropy(LOGITS, LABEL, smoothing=0.3), want)


def test_a_mixed_row_has_both_classes_by_their_shares() -> None:
    label, other, own = torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0]), torch.tensor([1.0, 0.5, 0.25]).double()
    target = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(3):
        target[i, label[i]] += own[i]
        target[i, other[i]] += 1 - own[i]
    want = -((0.6 * target + 0.4 / 3) * LOGITS.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(mixed_cross_entropy(LOGITS, label, other, own, smoothing=0.4), want)


def test_an_even_prior_changes_nothing_and_an_uneven_one_asks_more_of_the_rare() -> None:
    torch.testing.assert_close(
        cross_entropy(LOGITS, LABEL, log_prior=log_prior([7, 7, 7])), cross_entropy(LOGITS, LABEL)
    )
    same = torch.zeros(2, 2)
    frequent, rare = (cross_entropy(same, torch.tensor([y, y]), log_prior=log_prior([90, 10])) for y in (0, 1))
    torch.testing.assert_close(torch.stack([frequent, rare]), -torch.tensor([0.9, 0.1]).log())


def test_without_a_label_there_is_nothing_to_learn_and_no_nan() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = cross_entropy(logits, torch.full((3,), MISSING))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_a_class_without_samples_has_a_finite_prior() -> None:
    assert log_prior([5, 0]).isfinite().all()
    assert log_prior([0, 0]).isfinite().all()


def test_per_token_is_the_mean_over_the_tokens_of_the_texts_that_are_kept() -> None:
    lost, tokens = torch.tensor([6.0, math.inf, 1.0]), torch.tensor([3, 5, 2])
    torch.testing.assert_close(per_token(lost, tokens, tokens != 5), torch.tensor(7 / 5))
    torch.testing.assert_close(per_token(lost[[0, 2]], tokens[[0, 2]]), torch.tensor(7 / 5))
    assert per_token(lost, tokens, tokens > 9) == 0
