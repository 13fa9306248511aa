from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.clustering.sinkhorn import sinkhorn
from nearfar.distributed import normalize
from nearfar.losses.assignment import swapped_assignment
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool


def slow_swapped(scores: list[Tensor], codes: list[Tensor], temperature: float) -> float:
    loss = 0.0
    for i, code in enumerate(codes):
        for v, score in enumerate(scores):
            if v == i:
                continue
            for b in range(len(score)):
                exps = [math.exp(float(s) / temperature) for s in score[b]]
                rows = -sum(float(c) * math.log(e / sum(exps)) for c, e in zip(code[b], exps, strict=True))
                loss += rows / len(score) / (len(scores) - 1) / len(codes)
    return loss


def crops(count: int, n: int = 6, k: int = 5) -> list[Tensor]:
    prototypes = unit(k, 4, 99)
    return [unit(n, 4, seed) @ prototypes.T for seed in range(count)]


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_swapped_assignment(count: int, temperature: float) -> None:
    scores = crops(count)
    codes = [sinkhorn(s) for s in scores[:2]]
    want = slow_swapped(scores, codes, temperature)
    assert float(swapped_assignment(scores, codes, temperature=temperature)) == pytest.approx(want)


def test_one_coded_crop() -> None:
    scores = crops(3)
    codes = [sinkhorn(scores[0])]
    assert float(swapped_assignment(scores, codes, temperature=0.1)) == pytest.approx(slow_swapped(scores, codes, 0.1))


def test_equal_prototypes() -> None:
    scores = [s[:, :1].expand(-1, 7) for s in crops(4)]
    loss = swapped_assignment(scores, [sinkhorn(s) for s in scores[:2]], temperature=0.1)
    assert float(loss) == pytest.approx(math.log(7))


def test_order_of_prototypes_and_samples_does_not_matter() -> None:
    scores = crops(3)

    def loss(scores: list[Tensor]) -> Tensor:
        return swapped_assignment(scores, [sinkhorn(s) for s in scores[:2]], temperature=0.1)

    generator = torch.Generator().manual_seed(0)
    k, n = torch.randperm(5, generator=generator), torch.randperm(6, generator=generator)
    torch.testing.assert_close(loss([s[:, k] for s in scores]), loss(scores))
    torch.testing.assert_close(loss([s[n] for s in scores]), loss(scores))


def test_a_queue_changes_the_codes_only() -> None:
    scores = [s.requires_grad_() for s in crops(2)]
    queue = unit(12, 4, 50) @ unit(5, 4, 99).T
    codes = [sinkhorn(torch.cat([queue, s]))[-6:] for s in scores]
    assert not any(code.requires_grad for code in codes)
    assert not torch.allclose(codes[0], sinkhorn(scores[0]))
    want = slow_swapped([s.detach() for s in scores], codes, 0.1)
    assert float(swapped_assignment(scores, codes, temperature=0.1).detach()) == pytest.approx(want)


def test_gradient_is_softmax_minus_code() -> None:
    scores = [s.requires_grad_() for s in crops(2)]
    codes = [sinkhorn(s) for s in scores]
    gradient = torch.autograd.grad(swapped_assignment(scores, codes, temperature=0.1), scores)[0]
    torch.testing.assert_close(gradient, ((scores[0] / 0.1).softmax(1) - codes[1]) / 0.1 / 6 / 2)


def test_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="not 1 and 1"):
        swapped_assignment(crops(1), crops(1), temperature=0.1)
    with pytest.raises(ValueError, match="not 2 and 3"):
        swapped_assignment(crops(2), crops(3), temperature=0.1)


def _swav(z1: Tensor, z2: Tensor, z3: Tensor) -> Tensor:
    prototypes = unit(5, 4, 99).to(z1.dtype)
    scores = [normalize(z) @ prototypes.T for z in (z1, z2, z3)]
    return swapped_assignment(scores, [sinkhorn(s) for s in scores[:2]], temperature=0.1)


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _swav, unit(8, 4, 0), unit(8, 4, 1), unit(8, 4, 2))
