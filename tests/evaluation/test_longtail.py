from __future__ import annotations

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.evaluation.longtail import long_tail

LABEL = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
COUNTS = (101, 100, 20, 19)


def test_groups_by_hand() -> None:
    found = long_tail(torch.tensor([0, 0, 1, 0, 0, 2, 0, 0]), LABEL, COUNTS)
    assert found["classes"] == [100, 50, 50, 0]
    assert (found["many"], found["medium"], found["few"]) == (100, 50, 0)  # 100 and 20 are medium
    assert found["all"] == 50
    assert found["spread"] == 100
    assert found["low"] < 50 < found["high"]
    assert found["protocol"]["of"] == {"many": [0], "medium": [1, 2], "few": [3]}


def test_a_group_is_the_mean_over_its_classes_not_over_its_samples() -> None:
    found = long_tail(torch.tensor([0, 0, 0, 0, 0]), torch.tensor([0, 0, 0, 0, 1]), (500, 400))
    assert found["all"] == 80
    assert found["many"] == 50
    assert found["medium"] is None
    assert found["few"] is None


def test_other_bounds_and_samples_without_a_label() -> None:
    label = torch.cat([LABEL, torch.tensor([MISSING])])
    predicted = torch.cat([LABEL, torch.tensor([2])])
    found = long_tail(predicted, label, COUNTS, many=50, few=50)
    assert found["protocol"]["of"] == {"many": [0, 1], "medium": [], "few": [2, 3]}
    assert found["all"] == 100
    assert found["protocol"]["test"] == 8
    none = long_tail(LABEL, LABEL, (*COUNTS, 7))
    assert none["classes"] == [100, 100, 100, 100, None]


def test_renamed_classes_have_the_same_accuracies() -> None:
    predicted, names = torch.tensor([0, 1, 1, 2, 2, 2, 0, 3]), torch.tensor([2, 0, 3, 1])
    one = long_tail(predicted, LABEL, COUNTS)
    counts = [0] * 4
    for c, name in enumerate(names.tolist()):
        counts[name] = COUNTS[c]
    other = long_tail(names[predicted], names[LABEL], counts)
    assert all(one[name] == other[name] for name in ("all", "many", "medium", "few", "spread"))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"counts are of 2 classes, and the 8 labels go up to 3"):
        long_tail(LABEL, LABEL, (3, 4))
    with pytest.raises(ValueError, match=r"the 0 labels go up to nothing"):
        long_tail(LABEL, torch.full((8,), MISSING), COUNTS)
    with pytest.raises(ValueError, match=r"more than 5 training samples are many, and less than 9 few"):
        long_tail(LABEL, LABEL, COUNTS, many=5, few=9)
