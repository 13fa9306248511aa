from __future__ import annotations

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.data.splits import folds, holdout


def some_labels(n: int, classes: int) -> torch.Tensor:
    label = torch.arange(n) % classes
    return label[torch.randperm(n, generator=torch.Generator().manual_seed(0))]


def test_every_labelled_sample_is_tested_once_and_classes_are_even():
    label = some_labels(100, 4)
    label[::10] = MISSING
    known = set((label != MISSING).nonzero().flatten().tolist())
    tested = []
    for train, test in folds(label, folds=5, seed=1):
        assert set(train.tolist()) | set(test.tolist()) == known
        assert not set(train.tolist()) & set(test.tolist())
        assert train.tolist() == sorted(train.tolist())
        counts = torch.bincount(label[test], minlength=4)
        assert counts.max() - counts.min() <= 2
        tested += test.tolist()
    assert sorted(tested) == sorted(known)


def test_groups_are_never_split_and_samples_without_one_go_alone():
    label = some_labels(120, 3)
    group = torch.arange(120) // 4
    group[60:] = MISSING
    sizes = []
    for train, test in folds(label, group, folds=5):
        assert not set(group[train].tolist()) & set(group[test].tolist()) - {MISSING}
        sizes.append(len(test))
    assert max(sizes) < 40


def test_the_seed_decides():
    label = some_labels(50, 2)
    one, same, other = (folds(label, seed=seed)[0][1].tolist() for seed in (3, 3, 4))
    assert one == same != other


def test_a_rare_class_is_no_obstacle_and_no_warning():
    label = torch.tensor([0] * 20 + [1] * 2)
    parts = folds(label, folds=5)
    assert sum((label[test] == 1).sum().item() for _, test in parts) == 2


def test_too_few_labels_or_groups_for_the_folds():
    with pytest.raises(ValueError, match=r"5 folds were asked for; wanted: 2 to 3. Of 6 labelled .* class has 3"):
        folds(torch.tensor([0, 0, 0, 1, 1, 1, MISSING]))
    with pytest.raises(ValueError, match="and 2 go apart from each other"):
        folds(torch.zeros(10, dtype=torch.int64), torch.arange(10) // 5)
    with pytest.raises(ValueError, match="1 folds were asked for"):
        folds(some_labels(10, 2), folds=1)
    with pytest.raises(ValueError, match="Of 0 labelled samples"):
        folds(torch.full((10,), MISSING))


def test_the_held_out_part_has_its_share_of_each_class():
    label = some_labels(200, 4)
    label[:40] = MISSING
    rest, held = holdout(label, share=0.1, seed=2)
    assert len(held) == 16
    assert sorted([*rest.tolist(), *held.tolist()]) == list(range(40, 200))
    assert torch.bincount(label[held]).min() >= 3


def test_holding_out_with_few_labels_and_with_groups():
    rest, held = holdout(torch.arange(6) % 2, share=0.1)
    assert (len(rest), len(held)) == (4, 2)
    label, group = some_labels(60, 3), torch.arange(60) // 6
    rest, held = holdout(label, group, share=0.2)
    assert not set(group[rest].tolist()) & set(group[held].tolist())
    with pytest.raises(ValueError, match=r"share to hold out is 0.9; wanted: above 0, at most 0.5"):
        holdout(label, share=0.9)
    with pytest.raises(ValueError, match="2 folds were asked for"):
        holdout(torch.arange(5))
