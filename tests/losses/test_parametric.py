from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.distributed import local
from nearfar.losses.parametric import parametric
from nearfar.losses.supervised import supcon
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

N, C, K, D = 6, 3, 9, 4
LABEL = torch.tensor([0, 1, 0, MISSING, 2, 0])
OF_QUEUE = torch.tensor([0, 1, MISSING, 2, 0, MISSING, 1, 1, 0])
GROUP = torch.tensor([0, 0, MISSING, 1, 1, 2])
GROUP_OF_QUEUE = torch.tensor([0, MISSING, 1, 2, 2, 0, 1, 0, MISSING])
NONE = torch.empty(0, D, dtype=torch.float64)
EMPTY = NONE, OF_QUEUE[:0], OF_QUEUE[:0]


def made(anchors: int = 1, keys: int = 1) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Anchors, logits, keys and a queue."""
    logits = 2 * unit(anchors * N, C, 3)
    z = unit(anchors * N, D, 0)
    return z, logits, unit(keys * N, D, 1) if keys else NONE, (unit(K, D, 2), OF_QUEUE, GROUP_OF_QUEUE)


def slow(
    z: Tensor,
    logits: Tensor,
    label: Tensor,
    keys: Tensor,
    queue: tuple[Tensor, Tensor, Tensor],
    *,
    temperature: float,
    alpha: float,
    beta: float = 1.0,
    gamma: float = 1.0,
    smoothing: float = 0.0,
    group: Tensor | None = None,
) -> float:
    n, classes = len(label), logits.shape[1]
    every = [*z, *keys, *queue[0]]
    sample = [i % n for i in range(len(z) + len(keys))] + [-1] * len(queue[0])  # whose view a column is
    labels = [int(label[s]) if s >= 0 else int(queue[1][j - len(z) - len(keys)]) for j, s in enumerate(sample)]
    groups = [MISSING] * len(every)
    if group is not None:
        groups = [int(group[s]) if s >= 0 else int(queue[2][j - len(z) - len(keys)]) for j, s in enumerate(sample)]
    terms = []
    for i in range(len(z)):
        y = labels[i]
        s = [float(z[i] @ every[j]) / temperature for j in range(len(every))]
        alike = [sample[j] == sample[i] or (y >= 0 and labels[j] == y) for j in range(len(every))]
        positive = [j for j in range(len(every)) if j != i and alike[j]]
        apart = [j for j in range(len(every)) if j != i and (alike[j] or groups[i] < 0 or groups[j] != groups[i])]
        below = gamma * sum(math.exp(s[j]) for j in apart)
        weight, drawn = alpha * len(positive), alpha * sum(s[j] for j in positive)
        if y >= 0:
            below += sum(math.exp(float(b)) for b in logits[i])
            for c in range(classes):
                part = 1 - smoothing if c == y else smoothing / (classes - 1)
                weight += beta * part
                drawn += beta * part * float(logits[i, c])
        if weight > 0 and below > 0:
            terms.append(math.log(below) - drawn / weight)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("anchors", [1, 2])
@pytest.mark.parametrize("keys", [0, 1])
@pytest.mark.parametrize(
    "flags",
    [
        {"alpha": 0.05},
        {"alpha": 0.5, "beta": 0.3, "gamma": 0.7},
        {"alpha": 0.0},
        {"alpha": 0.0, "gamma": 0.0},
        {"alpha": 0.2, "smoothing": 0.1},
        {"alpha": 1.0, "beta": 0.0},
    ],
    ids=str,
)
def test_it_is_that_of_a_loop(anchors: int, keys: int, flags: dict[str, float]) -> None:
    z, logits, others, queue = made(anchors, keys)
    for group in (None, GROUP):
        arguments: dict[str, Any] = {"temperature": 0.2, "group": group, **flags}
        got = parametric(z, logits, LABEL, others, queue, **arguments)
        assert float(got) == pytest.approx(slow(z, logits, LABEL, others, queue, **arguments), rel=1e-12)


def test_without_centers_and_queue_it_is_supcon() -> None:
    z, logits, _, _ = made(2, 0)
    z.requires_grad_()
    flags: dict[str, Any] = {"temperature": 0.1, "alpha": 0.3, "beta": 0.0}
    got = parametric(z, torch.full_like(logits, -1e4), LABEL, NONE, EMPTY, **flags)
    want = supcon(list(z.chunk(2)), LABEL, temperature=0.1)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, z), torch.autograd.grad(want, z), strict=True):
        torch.testing.assert_close(a, b)


def test_with_centers_alone_it_is_cross_entropy_and_samples_below_make_it_larger() -> None:
    z, logits, keys, queue = made()
    known = LABEL >= 0
    for smoothing in (0.0, 0.1):
        want = F.cross_entropy(logits[known], LABEL[known])
        if smoothing:
            part = torch.full((C,), smoothing / (C - 1), dtype=torch.float64)
            target = torch.where(F.one_hot(LABEL[known], C).bool(), 1 - smoothing, part)
            want = F.cross_entropy(logits[known], target)
        flags: dict[str, Any] = {"temperature": 0.2, "alpha": 0.0, "smoothing": smoothing}
        torch.testing.assert_close(parametric(z, logits, LABEL, keys, queue, gamma=0.0, **flags), want)
        assert parametric(z[known], logits[known], LABEL[known], keys[known], queue, **flags) > want


def test_a_uniform_share_of_the_classes_counts_only_beside_samples() -> None:
    z, logits, keys, queue = made()
    uniform = logits - math.log(C)
    for gamma, same in ((0.0, True), (1.0, False)):
        flags: dict[str, Any] = {"temperature": 0.2, "alpha": 0.0, "gamma": gamma}
        one, other = (parametric(z, b, LABEL, keys, queue, **flags) for b in (logits, uniform))
        assert torch.isclose(one, other) == same


def test_the_optimum_gives_center_and_samples_their_weights() -> None:
    """An anchor, its center and two positives: the center has p = 1 / (1 + alpha |P|), each positive alpha p."""
    alpha, temperature = 0.25, 1.0
    p = 1 / (1 + 2 * alpha)
    s, b = math.log(alpha * p), math.log(p)
    z, key = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[s, 0.0]], dtype=torch.float64)
    queue = (key.clone(), torch.zeros(1, dtype=torch.long), torch.full((1,), MISSING))
    label, logits = torch.zeros(1, dtype=torch.long), torch.tensor([[b]], dtype=torch.float64, requires_grad=True)
    z.requires_grad_()
    loss = parametric(z, logits, label, key, queue, temperature=temperature, alpha=alpha)
    assert float(loss.detach()) == pytest.approx(-p * (b + 2 * alpha * s))
    for slope in torch.autograd.grad(loss, [z, logits]):
        assert float(slope.abs().max()) < 1e-12


def test_order_of_the_queue_and_names_of_the_classes_do_not_matter() -> None:
    z, logits, keys, queue = made()
    flags: dict[str, Any] = {"temperature": 0.2, "alpha": 0.1, "group": GROUP}
    want = parametric(z, logits, LABEL, keys, queue, **flags)
    order = torch.randperm(K, generator=torch.Generator().manual_seed(0))
    shuffled = queue[0][order], queue[1][order], queue[2][order]
    torch.testing.assert_close(parametric(z, logits, LABEL, keys, shuffled, **flags), want)
    names = torch.tensor([2, 0, 1])
    renamed = [torch.where(y < 0, MISSING, names[y]) for y in (LABEL, queue[1])]
    other = torch.empty_like(logits).index_copy_(1, names, logits)
    got = parametric(z, other, renamed[0], keys, (queue[0], renamed[1], queue[2]), **flags)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_without_any_label_it_and_its_gradient_are_finite(gamma: float) -> None:
    z, logits, keys, queue = made()
    for x in (z, logits):
        x.requires_grad_()
    nobody = torch.full_like(LABEL, MISSING)
    loss = parametric(z, logits, nobody, keys, queue, temperature=0.2, alpha=0.1, gamma=gamma)
    loss.backward()
    assert loss.isfinite()
    assert (loss == 0) == (gamma == 0)
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_gradients() -> None:
    z, logits, keys, queue = made()
    inputs = tuple(x.requires_grad_() for x in (z, logits, keys))

    def loss(z: Tensor, logits: Tensor, keys: Tensor) -> Tensor:
        return parametric(z, logits, LABEL, keys, queue, temperature=0.5, alpha=0.3, smoothing=0.1)

    assert torch.autograd.gradcheck(loss, inputs)


def _paco(q: Tensor, k: Tensor) -> Tensor:
    queue = unit(K, D, 9).to(q.dtype), OF_QUEUE, GROUP_OF_QUEUE
    logits = q @ unit(C, D, 8).to(q.dtype).T
    return parametric(q, logits, local(LABEL), k, queue, temperature=0.2, alpha=0.1, group=local(GROUP))


def test_two_ranks_are_one(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _paco, unit(N, D, 0), unit(N, D, 1))
