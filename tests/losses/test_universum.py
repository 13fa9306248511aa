from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import normalize
from nearfar.losses.supervised import supcon
from nearfar.losses.universum import universum
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

LABEL = torch.tensor([0, 1, 0, MISSING, 2, MISSING])
PARTNER = torch.tensor([1, 0, 4, 0, 5, 2, 3, 2, 1, 4, 0, 3])  # 2 x 6
GROUP = torch.tensor([3, 3, 4, 4, MISSING, MISSING])


def rows(seed: int = 0) -> list[Tensor]:
    return [unit(6, 4, seed), unit(6, 4, seed + 1)]


def slow(views: list[Tensor], mixed: list[Tensor], label: list[int], *, pull: bool, group: list[int] | None) -> float:
    z, v = torch.cat(views), torch.cat(mixed)
    names = [y if y != MISSING else -10 - i for i, y in enumerate(label)] * 2
    groups = [MISSING] * 12 if group is None else group * 2
    second = [MISSING if group is None else group[p] for p in PARTNER]
    terms = []
    for i in range(12):
        foreign = [groups[i] == MISSING or groups[i] not in (groups[j], second[j]) for j in range(12)]
        strange = [groups[i] == MISSING or groups[i] != groups[j] for j in range(12)]
        positive = [j for j in range(12) if j != i and names[j] == names[i]]
        if pull:
            below = [z[i] @ v[j] / 0.2 for j in range(12) if j != i and (foreign[j] or j in positive)]
            above = [z[i] @ v[j] / 0.2 for j in positive]
        else:
            below = [z[i] @ z[j] / 0.2 for j in range(12) if j != i and (strange[j] or j in positive)]
            below += [z[i] @ v[j] / 0.2 for j in range(12) if foreign[j]]
            above = [z[i] @ z[j] / 0.2 for j in positive]
        terms.append(torch.stack(below).logsumexp(0) - torch.stack(above).mean())
    return torch.stack(terms).mean().item()


@pytest.mark.parametrize("pull", [True, False])
@pytest.mark.parametrize("group", [None, GROUP])
def test_the_loss_is_that_of_a_loop(pull: bool, group: Tensor | None) -> None:
    views, mixed = rows(), rows(5)
    got = universum(views, mixed, LABEL, PARTNER, temperature=0.2, pull=pull, group=group)
    want = slow(views, mixed, LABEL.tolist(), pull=pull, group=None if group is None else group.tolist())
    assert got.item() == pytest.approx(want, abs=1e-12)
    scaled = universum(views, mixed, LABEL, PARTNER, temperature=0.2, pull=pull, group=group, base_temperature=0.1)
    torch.testing.assert_close(scaled, 2 * got)


def test_mixtures_that_are_the_rows_give_supcon() -> None:
    views = rows()
    want = supcon(views, LABEL, temperature=0.2)
    torch.testing.assert_close(universum(views, views, LABEL, PARTNER, temperature=0.2), want)


def test_as_negatives_they_only_push_and_from_afar_they_do_not() -> None:
    views, mixed = rows(), [x.requires_grad_() for x in rows(5)]
    loss = universum(views, mixed, LABEL, PARTNER, temperature=0.2, pull=False)
    assert loss > supcon(views, LABEL, temperature=0.2)
    near = [x.clone() for x in views]
    assert universum(views, near, LABEL, PARTNER, temperature=0.2, pull=False) > loss
    # All rows lie on one side of the sphere, and the mixtures on the other.
    flat = [normalize(torch.cat([x[:, :3], torch.zeros(6, 1)], 1).double() + 1) for x in rows()]
    want = supcon(flat, LABEL, temperature=0.01)
    away = [-x for x in flat]
    torch.testing.assert_close(universum(flat, away, LABEL, PARTNER, temperature=0.01, pull=False), want)


def test_unique_labels_find_the_mixture_of_the_other_view() -> None:
    views, mixed = rows(), rows(5)
    s = torch.cat(views) @ torch.cat(mixed).T / 0.2  # 12 x 12
    off = s.masked_fill(torch.eye(12, dtype=torch.bool), float("-inf"))
    want = torch.nn.functional.cross_entropy(off, torch.arange(12).roll(6))
    for label in (torch.arange(6), torch.full((6,), MISSING)):
        torch.testing.assert_close(universum(views, mixed, label, PARTNER, temperature=0.2), want)


@pytest.mark.parametrize("pull", [True, False])
def test_swapped_views_have_the_same_loss_and_both_kinds_get_a_gradient(pull: bool) -> None:
    views, mixed = [x.requires_grad_() for x in rows()], [x.requires_grad_() for x in rows(5)]
    loss = universum(views, mixed, LABEL, PARTNER, temperature=0.2, pull=pull)
    swapped = universum(views[::-1], mixed[::-1], LABEL, PARTNER.roll(6), temperature=0.2, pull=pull)
    torch.testing.assert_close(loss, swapped)
    assert all(slope.any(1).all() for slope in torch.autograd.grad(loss, [*views, *mixed]))


def _pulled(z1: Tensor, z2: Tensor, v1: Tensor, v2: Tensor, label: Tensor, group: Tensor, partner: Tensor) -> Tensor:
    return _loss(z1, z2, v1, v2, label, group, partner, True)


def _pushed(z1: Tensor, z2: Tensor, v1: Tensor, v2: Tensor, label: Tensor, group: Tensor, partner: Tensor) -> Tensor:
    return _loss(z1, z2, v1, v2, label, group, partner, False)


def _loss(
    z1: Tensor, z2: Tensor, v1: Tensor, v2: Tensor, label: Tensor, group: Tensor, partner: Tensor, pull: bool
) -> Tensor:
    z, v = [normalize(z1), normalize(z2)], [normalize(v1), normalize(v2)]
    return universum(z, v, label, partner.T.flatten(), temperature=0.2, pull=pull, group=group)


@pytest.mark.parametrize("loss", [_pulled, _pushed])
def test_two_ranks(two_ranks: Pool, loss) -> None:  # type: ignore[no-untyped-def]
    embeddings = [unit(6, 4, seed) for seed in range(4)]
    hold_ranks_to_one(two_ranks, loss, *embeddings, LABEL, GROUP, PARTNER.view(2, 6).T)
