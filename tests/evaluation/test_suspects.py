from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.suspects import suspects


def toy(n: int = 240, classes: int = 6, noise: float = 0.6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(n) % classes
    return 2 * torch.randn(classes, 12, generator=generator)[label] + noise * torch.randn(
        n, 12, generator=generator
    ), label


@pytest.mark.parametrize("seed", [0, 1])
def test_turned_labels_are_found_and_no_others(seed: int) -> None:
    x, label = toy()
    generator = torch.Generator().manual_seed(seed)
    turned = torch.randperm(len(x), generator=generator)[:12]  # 5 %
    given = label.clone()
    given[turned] = (label[turned] + torch.randint(1, 6, (12,), generator=generator)) % 6
    found = suspects(x, given)
    hit = torch.isin(found.index, turned)
    assert hit.double().mean() >= 0.95
    assert len(found.index) >= 9
    assert torch.equal(found.proposed[hit], label[found.index[hit]])
    assert torch.equal(found.given, given[found.index])
    assert found.judged == len(x)
    assert 0.93 <= found.confirmed <= 0.96
    assert bool((found.margin.diff() <= 0).all())
    assert 0 < float(found.margin[0]) <= 1


@pytest.mark.parametrize("noise", [0.6, 1.5])
def test_none_are_invented_on_clean_labels(noise: float) -> None:
    assert len(suspects(*toy(noise=noise)).index) == 0


def test_rows_without_a_label_are_not_judged_and_groups_are_not_torn() -> None:
    x, label = toy()
    label[:40] = MISSING
    label[100], label[101] = 5, 5  # both copies of a sample: what judges one must not have learned from the other
    x[101] = x[100]
    group = torch.full((len(x),), MISSING)
    group[100:102] = 0
    found = suspects(x, label, group=group)
    assert found.judged == 200
    assert {100, 101} <= set(found.index.tolist())
    assert not set(range(40)) & set(found.index.tolist())


def test_one_label_of_each_cannot_be_judged() -> None:
    with pytest.raises(UserError, match="cannot be learned from and tested in turn"):
        suspects(torch.randn(4, 3), torch.arange(4))
