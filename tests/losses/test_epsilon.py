from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import normalize
from nearfar.losses import strips
from nearfar.losses.epsilon import epsilon_supcon, sup_info_nce, sup_info_nce_in
from nearfar.losses.pairwise import nt_xent
from nearfar.losses.supervised import supcon
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

FORMS = {"out": sup_info_nce, "in": sup_info_nce_in, "supcon": epsilon_supcon}
every_form = pytest.mark.parametrize("form", FORMS)
LABELS = [[0, 1, 0, 2, 1, 0], [0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5], [MISSING] * 6, [MISSING, 0, MISSING, 0, 1, 7]]
GROUP = [0, 0, MISSING, 1, MISSING, 1]


def slow(form: str, views: list[Tensor], label: list[int], tau: float, eps: float, group: list[int] | None) -> float:
    """As the paper writes them, anchor by anchor and positive by positive."""
    rows = [(z, sample) for view in views for sample, z in enumerate(view)]
    losses = []
    for i, (anchor, mine) in enumerate(rows):
        positive, negative = [], []
        for j, (z, other) in enumerate(rows):
            e = math.exp(float(anchor @ z) / tau)
            if j != i and (mine == other or (label[mine] == label[other] != MISSING)):
                positive.append(e)
            elif j != i and (group is None or group[mine] == MISSING or group[mine] != group[other]):
                negative.append(e)
        if not positive:
            continue
        n, count = sum(negative), len(positive)
        if form == "out":
            losses.append(sum(-math.log(p / (p * math.exp(-eps) + n)) for p in positive) / count)
        elif form == "in":
            losses.append(-math.log(sum(positive) / (sum(positive) * math.exp(-eps) / count + n)))
        else:
            losses.append(sum(-math.log(p / (sum(positive) * math.exp(-eps) + n)) for p in positive) / count)
    return sum(losses) / max(len(losses), 1)


@every_form
@pytest.mark.parametrize(("count", "group"), [(1, GROUP), (2, None), (3, GROUP)])
def test_a_loop_over_anchors(form: str, count: int, group: list[int] | None) -> None:
    views = [unit(6, 4, seed) for seed in range(count)]
    groups = None if group is None else torch.tensor(group)
    for label in LABELS:
        want = slow(form, views, label, 0.2, 0.3, group)
        got = FORMS[form](views, torch.tensor(label), temperature=0.2, epsilon=0.3, group=groups)
        assert float(got) == pytest.approx(want, abs=1e-12), label


@every_form
@pytest.mark.parametrize("group", [None, torch.tensor(GROUP)], ids=["alone", "grouped"])
def test_one_positive_a_row(form: str, group: Tensor | None) -> None:
    """The three are one then, and at epsilon 0 NT-Xent."""
    views = [unit(6, 4, 0), unit(6, 4, 1)]
    for label in (torch.full((6,), MISSING), torch.arange(6)):
        want = nt_xent(*views, temperature=0.1, group=group)
        torch.testing.assert_close(FORMS[form](views, label, temperature=0.1, epsilon=0.0, group=group), want)
        out, this = (f(views, label, temperature=0.1, epsilon=0.4, group=group) for f in (sup_info_nce, FORMS[form]))
        torch.testing.assert_close(this, out)


def test_epsilon_0_and_supcon() -> None:
    views, label = [unit(6, 4, 0), unit(6, 4, 1)], torch.tensor([0, 1, 0, MISSING, 1, 0])
    for group in (None, torch.tensor(GROUP)):
        want = supcon(views, label, temperature=0.1, group=group)
        torch.testing.assert_close(epsilon_supcon(views, label, temperature=0.1, epsilon=0.0, group=group), want)
        assert sup_info_nce(views, label, temperature=0.1, epsilon=0.0, group=group) < want


@every_form
def test_it_falls_with_epsilon_down_to_a_bound(form: str) -> None:
    views, label = [unit(8, 4, 0), unit(8, 4, 1)], torch.arange(8) % 3
    losses = [float(FORMS[form](views, label, temperature=0.1, epsilon=e)) for e in (0.0, 0.1, 0.5, 2.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1] + 0.01
    # Two classes at the poles: negatives vanish, and each positive exceeds them by far.
    z = torch.tensor([[1.0, 0], [1, 0], [1, 0], [-1, 0], [-1, 0], [-1, 0]], dtype=torch.float64)
    bound = {"out": -0.3, "in": -0.3 - math.log(5), "supcon": -0.3 + math.log(5)}[form]
    got = FORMS[form]([z, z], torch.arange(6) // 3, temperature=0.05, epsilon=0.3)
    assert float(got) == pytest.approx(bound, abs=1e-12)


@every_form
def test_rows_without_positive_have_no_say_and_no_bad_gradient(form: str) -> None:
    z = unit(3, 4, 0).requires_grad_()
    loss = FORMS[form]([z], torch.tensor([0, 0, 1]), temperature=0.5, epsilon=0.2)
    assert loss.isfinite()
    gradient = torch.autograd.grad(loss, z)[0]
    assert gradient.isfinite().all()
    assert gradient[2].any()  # but it pushes
    for label in (torch.arange(3), torch.full((3,), MISSING)):
        loss = FORMS[form]([z], label, temperature=0.5, epsilon=0.2)
        assert float(loss.detach()) == 0
        assert not torch.autograd.grad(loss, z)[0].any()
    loss = FORMS[form]([z], torch.zeros(3, dtype=torch.long), temperature=0.5, epsilon=0.2)  # and no negative
    assert torch.autograd.grad(loss, z)[0].isfinite().all()


@every_form
def test_order_names_and_base_temperature(form: str) -> None:
    views, label = [unit(6, 4, 0), unit(6, 4, 1)], torch.tensor([0, 1, 0, MISSING, 1, 2])
    want = FORMS[form](views, label, temperature=0.1, epsilon=0.2)
    order = torch.tensor([3, 5, 0, 2, 1, 4])
    torch.testing.assert_close(
        FORMS[form]([v[order] for v in views[::-1]], label[order], temperature=0.1, epsilon=0.2), want
    )
    renamed = torch.tensor([9, 4, 9, MISSING, 4, 0])
    torch.testing.assert_close(FORMS[form](views, renamed, temperature=0.1, epsilon=0.2), want)
    scaled = FORMS[form](views, label, temperature=0.1, epsilon=0.2, base_temperature=0.07)
    torch.testing.assert_close(scaled, want * 0.1 / 0.07)


def test_gradient_is_that_of_differences_also_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    label = torch.tensor([0, 1, 0, 1])

    def loss(z: Tensor) -> Tensor:
        return sup_info_nce(list(normalize(z).chunk(2)), label, temperature=0.3, epsilon=0.2)

    z = unit(8, 3, 0).requires_grad_()
    assert torch.autograd.gradcheck(loss, z)
    want = torch.autograd.grad(loss(z), z)[0]
    monkeypatch.setattr(strips, "ENTRIES", 24)
    torch.testing.assert_close(torch.autograd.grad(loss(z), z)[0], want)


def _out(z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
    return sup_info_nce([normalize(z1), normalize(z2)], label, temperature=0.2, epsilon=0.3)


def _in(z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
    return sup_info_nce_in([normalize(z1), normalize(z2)], label, temperature=0.2, epsilon=0.3)


def _supcon(z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
    return epsilon_supcon([normalize(z1), normalize(z2)], label, temperature=0.2, epsilon=0.3)


def _one_view(z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
    group = label.clamp(min=0) // 2
    return sum(
        (f([normalize(z1)], label, temperature=0.2, epsilon=0.3, group=group) for f in FORMS.values()), 0 * z2.sum()
    )


@pytest.mark.parametrize("loss", [_out, _in, _supcon, _one_view])
def test_two_ranks(two_ranks: Pool, loss) -> None:  # type: ignore[no-untyped-def]
    label = torch.tensor([0, 1, 0, MISSING, 1, 2, 7, MISSING])
    hold_ranks_to_one(two_ranks, loss, unit(8, 4, 0), unit(8, 4, 1), label)
