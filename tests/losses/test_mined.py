from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import local
from nearfar.losses.mined import class_weights, mine, supcon_mined
from nearfar.losses.supervised import supcon
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

N, C, SLOTS, D = 6, 3, 4, 5
LABEL = torch.tensor([0, 1, 0, MISSING, 2, 0])
GROUP = torch.tensor([0, 0, MISSING, 1, 1, 2])
OF_QUEUE = torch.arange(C).repeat_interleave(SLOTS)
GROUP_OF_QUEUE = torch.tensor([0, MISSING, 1, 2, 2, 0, 1, 0, MISSING, 0, 1, 2])


def rows() -> tuple[Tensor, Tensor]:
    return unit(N, D, 0), unit(N, D, 1)


@pytest.mark.parametrize(("positives", "negatives"), [(0, 0), (1, 3), (4, 8), (9, 99)])
@pytest.mark.parametrize("grouped", [False, True])
def test_what_is_mined_is_the_hardest(positives: int, negatives: int, grouped: bool) -> None:
    z, queue = unit(N, D, 0), unit(C * SLOTS, D, 2)
    groups = (GROUP, GROUP_OF_QUEUE) if grouped else None
    hard, near = mine(z, LABEL, queue, OF_QUEUE, positives=positives, negatives=negatives, groups=groups)
    for i, y in enumerate(LABEL.tolist()):
        order = sorted(range(len(queue)), key=lambda j: float(z[i] @ queue[j]))  # the least similar first
        own = [j for j in order if OF_QUEUE[j] == y][:positives]
        others = [j for j in reversed(order) if OF_QUEUE[j] != y][:negatives]
        if grouped and GROUP[i] >= 0:
            others = [-1 if GROUP_OF_QUEUE[j] == GROUP[i] else j for j in others]
        if y == MISSING:
            assert set(hard[i].tolist()) | set(near[i].tolist()) <= {-1}
        else:
            assert (hard[i].tolist(), near[i].tolist()) == (own, others)


def slow(
    views: list[Tensor], queue: Tensor, mined: tuple[Tensor, Tensor], weights: Tensor, group: Tensor | None
) -> float:
    z, n, terms = torch.cat(views), len(LABEL), []
    for i in range(len(z)):
        s = [float(z[i] @ other) / 0.2 for other in z]
        y, mine = int(LABEL[i % n]), MISSING if group is None else int(group[i % n])
        alike = [j % n == i % n or (y >= 0 and int(LABEL[j % n]) == y) for j in range(len(z))]
        apart = [group is None or mine < 0 or int(group[j % n]) != mine for j in range(len(z))]
        below = sum(math.exp(s[j]) for j in range(len(z)) if j != i and (alike[j] or apart[j]))
        positive = [s[j] for j in range(len(z)) if j != i and alike[j]]
        for hard, columns in zip((True, False), mined, strict=True):
            for j in columns[i].tolist():
                if j >= 0:
                    below += math.exp(float(z[i] @ queue[j]) / 0.2)
                    positive += [float(z[i] @ queue[j]) / 0.2] if hard else []
        terms.append((1 if y == MISSING else float(weights[y])) * (math.log(below) - sum(positive) / len(positive)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("group", [None, GROUP], ids=["alone", "grouped"])
def test_the_loss_is_that_of_a_loop(group: Tensor | None) -> None:
    views, queue = list(rows()), unit(C * SLOTS, D, 2)
    mined = mine(torch.cat(views), LABEL.repeat(2), queue, OF_QUEUE, positives=2, negatives=3)
    mined[1][0, 1] = -1
    weights = torch.linspace(0.5, 2, C, dtype=torch.float64)
    got = supcon_mined(views, LABEL, queue, mined, temperature=0.2, weight=weights, group=group)
    assert float(got) == pytest.approx(slow(views, queue, mined, weights, group), rel=1e-12)
    even = supcon_mined(views, LABEL, queue, mined, temperature=0.2)
    torch.testing.assert_close(even, supcon_mined(views, LABEL, queue, mined, temperature=0.2, weight=torch.ones(C)))


def test_without_a_queue_it_is_supcon() -> None:
    views, queue = list(rows()), unit(C * SLOTS, D, 2)
    none = mine(torch.cat(views), LABEL.repeat(2), queue, OF_QUEUE, positives=0, negatives=0)
    torch.testing.assert_close(
        supcon_mined(views, LABEL, queue, none, temperature=0.1), supcon(views, LABEL, temperature=0.1)
    )


def test_with_all_of_the_queue_it_is_supcon_over_batch_and_queue() -> None:
    label = torch.tensor([0, 1, 0, 2, 2, 0])
    z1, z2 = (z.requires_grad_() for z in rows())
    queue = unit(C * SLOTS, D, 2)
    z = torch.cat([z1, z2])
    every, of_every = torch.cat([z, queue]), torch.cat([label, label, OF_QUEUE])
    logits = (z @ every.T / 0.1).masked_fill(torch.eye(2 * N, len(every), dtype=torch.bool), -torch.inf)
    positive = label.repeat(2)[:, None] == of_every
    positive[range(2 * N), range(2 * N)] = False
    want = (-logits.log_softmax(1).where(positive, 0).sum(1) / positive.sum(1)).mean()
    mined = mine(z, label.repeat(2), queue, OF_QUEUE, positives=SLOTS, negatives=(C - 1) * SLOTS)
    got = supcon_mined([z1, z2], label, queue, mined, temperature=0.1)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, [z1, z2]), torch.autograd.grad(want, [z1, z2]), strict=True):
        torch.testing.assert_close(a, b)


def test_weights_of_classes() -> None:
    counts = (5000, 500, 50)
    for beta in (0.9, 0.999, 0.999999):
        w = class_weights(counts, beta)
        assert float((1 / w).mean()) == pytest.approx(1, rel=1e-6)
        assert w[0] <= w[1] <= w[2]
        effective = [sum(beta**i for i in range(n)) for n in counts]  # a geometric sum
        torch.testing.assert_close(w, torch.tensor([sum(effective) / 3 / e for e in effective]))
    assert class_weights(counts, 0.0).tolist() == [1, 1, 1]
    torch.testing.assert_close(class_weights((7, 7), 0.999), torch.ones(2))
    assert class_weights((5, 0), 0.9).isfinite().all()
    with pytest.raises(ValueError, match=r"beta of the effective number is 1\.0"):
        class_weights(counts, 1.0)


def test_gradients_pass_through_what_was_mined() -> None:
    views, queue = rows(), unit(C * SLOTS, D, 2)
    mined = mine(torch.cat(views), LABEL.repeat(2), queue, OF_QUEUE, positives=1, negatives=3)

    def loss(z1: Tensor, z2: Tensor) -> Tensor:
        return supcon_mined([z1, z2], LABEL, queue, mined, temperature=0.5)

    assert torch.autograd.gradcheck(loss, tuple(z.requires_grad_() for z in views))


def _loss(z1: Tensor, z2: Tensor) -> Tensor:
    queue, label, group = unit(C * SLOTS, D, 9).to(z1.dtype), local(LABEL), local(GROUP)
    groups = group.repeat(2), GROUP_OF_QUEUE
    mined = mine(torch.cat([z1, z2]), label.repeat(2), queue, OF_QUEUE, positives=1, negatives=3, groups=groups)
    weights = torch.tensor([0.5, 1, 2])
    return supcon_mined([z1, z2], label, queue, mined, temperature=0.2, weight=weights, group=group)


def test_two_ranks_are_one(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _loss, *rows())
