from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar import distributed
from nearfar.batch import MISSING
from nearfar.losses.support import Mode, captioning, hardest_hinge, support_weights
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

N, D, K = 6, 4, 9
GROUP = [0, MISSING, 0, 1, MISSING, 1]
OF_PAST = [1, MISSING, 0]
MODES: tuple[Mode, ...] = ("cross", "hybrid", "full", "identity")


def weights(mode: Mode, temperature: float = 0.3, *, groups: bool = False) -> Tensor:
    """Of six captions over the six samples of the batch and three of a bank."""
    t, keys, group = unit(N, D, 0), unit(K, D, 1), torch.tensor(GROUP)
    apart = [(group, torch.tensor(GROUP + OF_PAST))] if groups else []
    return support_weights(t, keys, mode=mode, temperature=temperature, own=torch.arange(N), apart=apart)


def slow_weights(mode: Mode, temperature: float, groups: bool) -> list[list[float]]:
    t, keys, group = unit(N, D, 0).tolist(), unit(K, D, 1).tolist(), GROUP + OF_PAST
    rows = []
    for i in range(N):

        def over(which: list[int], i: int = i) -> list[float]:
            e = {j: math.exp(sum(a * b for a, b in zip(t[i], keys[j], strict=True)) / temperature) for j in which}
            return [e.get(j, 0.0) / sum(e.values()) for j in range(K)]

        alike = [j for j in range(K) if groups and group[j] == GROUP[i] != MISSING]
        if mode == "cross":
            rows.append(over([j for j in range(K) if j != i and j not in alike]))
        elif mode == "identity":
            rows.append(over([i]))
        elif mode == "full":
            rows.append(over(list(range(K))))
        else:
            rows.append([(a + b) / 2 for a, b in zip(over(list(range(K))), over([i]), strict=True)])
    return rows


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("groups", [False, True])
def test_weights_are_those_of_a_loop_and_add_up_to_one(mode: Mode, groups: bool) -> None:
    w = weights(mode, groups=groups)
    torch.testing.assert_close(w, torch.tensor(slow_weights(mode, 0.3, groups), dtype=w.dtype))
    torch.testing.assert_close(w.sum(1), torch.ones_like(w[:, 0]))


def test_cross_leaves_out_itself_and_full_is_cross_and_itself() -> None:
    cross, full = weights("cross"), weights("full")
    own = full.diagonal()[:, None]
    assert not cross.diagonal().any()
    torch.testing.assert_close(full, (1 - own) * cross + own * torch.eye(N, K, dtype=full.dtype))
    assert torch.equal(weights("identity"), torch.eye(N, K, dtype=full.dtype))


def test_a_cold_softmax_takes_the_nearest_other_and_a_hot_one_the_mean() -> None:
    s = (unit(N, D, 0) @ unit(K, D, 1).T).fill_diagonal_(-torch.inf)
    cold = weights("cross", 1e-4)
    torch.testing.assert_close(cold, torch.nn.functional.one_hot(s.argmax(1), K).to(cold.dtype))
    torch.testing.assert_close(
        weights("cross", 1e6), (1 - torch.eye(N, K, dtype=cold.dtype)) / (K - 1), atol=1e-5, rtol=0
    )


def test_a_sample_that_has_nobody_else_has_no_weights_and_no_gradient_that_is_not_a_number() -> None:
    t, same = unit(3, D, 0).requires_grad_(), torch.zeros(3, dtype=torch.long)
    w = support_weights(t, unit(3, D, 1), mode="cross", temperature=0.1, own=torch.arange(3), apart=[(same, same)])
    w.square().sum().backward()
    assert not w.any()
    assert t.grad is not None
    assert not t.grad.any()
    one = support_weights(unit(1, D, 0), unit(1, D, 1), mode="cross", temperature=0.1, own=torch.arange(1))
    assert not one.any()


def slow_hinge(q: list[list[float]], k: list[list[float]], margin: float, group: list[int]) -> float:
    total = 0.0
    s = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in k] for x in q]
    for i in range(len(q)):
        for row in (s[i], [s[j][i] for j in range(len(q))]):
            others = [row[j] for j in range(len(q)) if j != i and not group[j] == group[i] != MISSING]
            total += max([max(0.0, margin - s[i][i] + other) for other in others], default=0.0)
    return total / len(q)


@pytest.mark.parametrize("group", [None, GROUP])
def test_the_hinge_is_that_of_a_loop(group: list[int] | None) -> None:
    q, k = unit(N, D, 2), unit(N, D, 3)
    want = slow_hinge(q.tolist(), k.tolist(), 0.2, group or [MISSING] * N)
    got = hardest_hinge(q, k, margin=0.2, group=None if group is None else torch.tensor(group))
    assert float(got) == pytest.approx(want)


def test_the_hinge_is_0_where_partners_are_ahead_by_the_margin_and_twice_the_margin_where_all_are_alike() -> None:
    apart = torch.eye(4, dtype=torch.float64)
    assert hardest_hinge(apart, apart, margin=1.0) == 0
    equal = unit(1, D, 0).expand(4, -1)
    assert float(hardest_hinge(equal, equal, margin=0.2)) == pytest.approx(0.4)
    copies = torch.zeros(4, dtype=torch.long)
    assert hardest_hinge(equal, equal, margin=0.2, group=copies) == 0  # or each would be its own hardest negative


def test_a_caption_costs_the_mean_over_its_own_words() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    ids, length = torch.randint(7, (3, 5), generator=generator), [5, 2, 3]
    each = []
    for i, n in enumerate(length):
        p = [
            math.log(sum(math.exp(x) for x in logits[i, k].tolist())) - float(logits[i, k, ids[i, k]]) for k in range(n)
        ]
        each.append(sum(p) / n)
    assert float(captioning(logits, ids, torch.tensor(length))) == pytest.approx(sum(each) / 3)
    keep = torch.tensor([True, False, True])
    assert float(captioning(logits, ids, torch.tensor(length), keep)) == pytest.approx((each[0] + each[2]) / 2)
    assert captioning(logits, ids, torch.tensor(length), keep & False) == 0
    assert captioning(logits[:1], ids[:1], torch.tensor([0])) == 0  # a text without a word


PAST = unit(3, D, 9)


def written(t: Tensor, v: Tensor, group: Tensor, mode: Mode, bank: int) -> Tensor:
    """The mixture read as logits of two words that the sample's number names: a caption loss without a network."""
    keys = torch.cat([distributed.gather(v), PAST[:bank].to(v.dtype)])
    apart = [(group, torch.cat([distributed.gather(group), torch.tensor(OF_PAST)[:bank]]))]
    w = support_weights(t, keys, mode=mode, temperature=0.3, own=distributed.columns(t), apart=apart)
    logits = (w @ keys)[:, None].expand(-1, 2, -1)
    ids = torch.stack([group.clamp(min=0), (group + 1).clamp(min=0)], 1)
    return captioning(logits, ids, 1 + (group > 0).long(), w.any(1)) + hardest_hinge(t, v, margin=0.3, group=group)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bank", [0, 3])
def test_two_ranks_have_the_value_and_gradient_of_one(two_ranks: Pool, mode: Mode, bank: int) -> None:
    arguments: tuple[Any, ...] = (unit(N, D, 0), unit(N, D, 1), torch.tensor(GROUP))
    hold_ranks_to_one(two_ranks, Written(mode, bank), *arguments)


class Written:
    """The loss of a mode, as what a process can be sent."""

    def __init__(self, mode: Mode, bank: int) -> None:
        self.mode: Mode = mode
        self.bank = bank

    def __call__(self, t: Tensor, v: Tensor, group: Tensor) -> Tensor:
        return written(t, v, group, self.mode, self.bank)


def test_what_a_sample_shows_does_not_change_its_own_caption_but_that_of_others() -> None:
    t, v, group = unit(N, D, 0), unit(N, D, 1), torch.arange(N)
    u = unit(N, 3, 4).requires_grad_()
    w = support_weights(t, v, mode="cross", temperature=0.3, own=torch.arange(N))
    for i in range(N):
        (gradient,) = torch.autograd.grad((w[i] @ u).square().sum(), u, retain_graph=True)
        assert not gradient[i].any()
        assert gradient[group != i].any(1).all()


def test_the_cost_of_writing_reaches_the_side_that_is_written_by_the_weights_alone() -> None:
    t = unit(N, D, 0).requires_grad_()
    for mode in MODES:
        w = support_weights(t, unit(N, D, 1), mode=mode, temperature=0.3, own=torch.arange(N))
        assert w.requires_grad == (mode != "identity")
        if w.requires_grad:
            (gradient,) = torch.autograd.grad((w @ unit(N, 3, 4)).square().sum(), t)
            assert gradient.any(1).all()
