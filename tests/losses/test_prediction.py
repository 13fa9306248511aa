from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.losses.prediction import classify, solved, weighted_classes
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool


def slow(logits: Tensor, target: list[list[float]], weight: list[float]) -> float:
    terms = []
    for row, t, w in zip(logits.tolist(), target, weight, strict=True):
        total = sum(math.exp(v) for v in row)
        terms.append(-w * sum(p * math.log(math.exp(v) / total) for p, v in zip(t, row, strict=True)))
    return sum(terms) / len(terms)


def hard(target: Tensor, classes: int) -> list[list[float]]:
    return torch.nn.functional.one_hot(target.flatten(), classes).double().tolist()


def test_classify() -> None:
    logits, target = 3 * unit(6, 5, 0), torch.tensor([0, 4, 2, 2, 1, 3])
    assert float(classify(logits, target)) == pytest.approx(slow(logits, hard(target, 5), [1] * 6))
    pairs = logits.view(3, 2, 5), target.view(3, 2)
    assert float(classify(*pairs)) == pytest.approx(float(classify(logits, target)))
    assert float(classify(torch.zeros(3, 2, 5), target.view(3, 2))) == pytest.approx(math.log(5))


def test_solved() -> None:
    logits = torch.eye(4)[[0, 1, 1, 3]]
    assert float(solved(logits, torch.tensor([0, 1, 2, 3]))) == 0.75
    assert float(solved(logits.view(2, 2, 4), torch.tensor([[0, 1], [1, 0]]))) == 0.75
    assert float(solved(logits, torch.tensor([0, MISSING, 2, MISSING]))) == 0.5
    assert float(solved(logits, torch.full((4,), MISSING))) == 0


def test_weighted_classes() -> None:
    logits, target = 3 * unit(6, 5, 0), unit(6, 5, 1).softmax(1)
    weight = torch.rand(6, dtype=torch.float64)
    want = slow(logits, target.tolist(), weight.tolist())
    assert float(weighted_classes(logits, target, weight)) == pytest.approx(want)
    cells = weighted_classes(logits.view(2, 3, -1), target.view(2, 3, -1), weight.view(2, 3))
    assert float(cells) == pytest.approx(want)
    equal = float(weighted_classes(torch.zeros(6, 5), target, weight))
    assert equal == pytest.approx(float(weight.mean()) * math.log(5))


def test_sharp_targets_of_weight_one_are_classes() -> None:
    logits, target = 3 * unit(6, 5, 0), torch.tensor([0, 4, 2, 2, 1, 3])
    sharp = torch.tensor(hard(target, 5))
    torch.testing.assert_close(weighted_classes(logits, sharp, torch.ones(6)), classify(logits, target))


def test_half_precision_is_computed_in_single() -> None:
    logits = (30 * unit(6, 5, 0)).to(torch.bfloat16).requires_grad_()
    for value in (
        classify(logits, torch.zeros(6, dtype=torch.long)),
        weighted_classes(logits, torch.full((6, 5), 0.2), torch.ones(6)),
    ):
        assert value.dtype == torch.float32
        assert torch.autograd.grad(value, logits)[0].isfinite().all()


def _weighted(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return weighted_classes(logits, target.softmax(1), weight.square().sum(1))


@pytest.mark.parametrize("loss", [classify])
def test_two_ranks(two_ranks: Pool, loss) -> None:  # type: ignore[no-untyped-def]
    hold_ranks_to_one(two_ranks, loss, unit(8, 5, 0), torch.arange(8) % 5)
    hold_ranks_to_one(two_ranks, _weighted, unit(8, 5, 0), unit(8, 5, 1), unit(8, 5, 2))
