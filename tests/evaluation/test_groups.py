from __future__ import annotations

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.evaluation.groups import group_accuracy

LABEL = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
ATTRIBUTE = torch.tensor([0, 0, 1, 1, 0, 1, 1, 1])
SAID = torch.tensor([0, 0, 1, 0, 0, 1, 1, 0])  # right in 2 of 2, 1 of 2, 0 of 1, 2 of 3
SCORES = torch.nn.functional.one_hot(SAID, 2).float()


def test_by_hand():
    out = group_accuracy(SCORES, LABEL, ATTRIBUTE, aligned=LABEL == ATTRIBUTE)
    assert out["accuracy"] == pytest.approx(100 * 5 / 8)
    assert (out["worst_group"], out["worst"], out["groups"]) == (0, [1, 0], 4)
    assert out["mean_group"] == pytest.approx(100 * (1 + 1 / 2 + 0 + 2 / 3) / 4)
    assert out["aligned"] == pytest.approx(100 * 4 / 5)
    assert out["conflicting"] == pytest.approx(100 * 1 / 3)
    assert "aligned" not in group_accuracy(SCORES, LABEL, ATTRIBUTE)


def test_small_groups_are_left_out_where_it_is_asked_for():
    out = group_accuracy(SCORES, LABEL, ATTRIBUTE, least=2)
    assert (out["worst_group"], out["worst"], out["groups"]) == (50, [0, 1], 3)
    assert out["accuracy"] == pytest.approx(100 * 5 / 8)
    with pytest.raises(ValueError, match="no group of 4 or more of the 8 rows"):
        group_accuracy(SCORES, LABEL, ATTRIBUTE, least=4)


def test_names_and_order_do_not_matter_and_missing_takes_no_part():
    want = group_accuracy(SCORES, LABEL, ATTRIBUTE)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    other = group_accuracy(SCORES[order], LABEL[order], 7 - ATTRIBUTE[order])
    assert other["worst"] == [1, 7]
    assert {k: other[k] for k in ("accuracy", "worst_group", "mean_group")} == {
        k: want[k] for k in ("accuracy", "worst_group", "mean_group")
    }
    some = torch.where(torch.arange(8) == 4, MISSING, ATTRIBUTE)
    out = group_accuracy(SCORES, LABEL, some)
    assert (out["worst_group"], out["protocol"]["rows"]) == (50, 7)
    assert out == group_accuracy(SCORES, torch.where(torch.arange(8) == 4, MISSING, LABEL), ATTRIBUTE)


def test_one_group_and_errors():
    out = group_accuracy(torch.ones(3, 2), torch.zeros(3).long(), torch.zeros(3).long(), aligned=torch.ones(3).bool())
    assert (out["worst_group"], out["aligned"], out["conflicting"]) == (100, 100, None)
    with pytest.raises(ValueError, match=r"\(8, 2\), \(8,\), \(7,\); wanted N x C, N and N"):
        group_accuracy(SCORES, LABEL, ATTRIBUTE[:7])
    with pytest.raises(ValueError, match="no group of 1 or more of the 8 rows"):
        group_accuracy(SCORES, LABEL, torch.full((8,), MISSING))
