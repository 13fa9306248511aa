from __future__ import annotations

import warnings

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.data.splits import as_many_of_each, folds, given_folds, holdout, long_tail


def some_labels(n: int, classes: int) -> torch.Tensor:
    label = torch.arange(n) % classes
    return label[torch.randperm(n, generator=torch.Generator().manual_seed(0))]


def test_every_labeled_sample_is_tested_once_and_classes_are_even():
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


@pytest.mark.parametrize(
    ("label", "group", "number"),
    [
        ([0, 0, 0, 1, 1, 1, MISSING], None, 3),
        ([0] * 10, [0] * 5 + [1] * 5, 2),
        ([0, 1] * 24, [i % 3 for i in range(48)], 3),
        ([0, 0, 1, 1, 2, 2, 3, 3], list(range(8)), 2),
        ([0, 1] * 20, None, 5),
    ],
)
def test_there_are_as_many_folds_as_labels_and_groups_allow(
    label: list[int], group: list[int] | None, number: int
) -> None:
    parts = folds(torch.tensor(label), None if group is None else torch.tensor(group))
    assert len(parts) == number
    assert sum(len(test) for _, test in parts) == sum(y != MISSING for y in label)


def test_too_few_labels_or_groups_for_two_folds():
    with pytest.raises(ValueError, match=r"3 labeled samples .* the largest class has 1, .*Label two or more"):
        folds(torch.tensor([0, 1, 2, MISSING]))
    with pytest.raises(ValueError, match="all are of one group"):
        folds(torch.zeros(10, dtype=torch.int64), torch.zeros(10, dtype=torch.int64))
    with pytest.raises(ValueError, match="1 folds were asked for"):
        folds(some_labels(10, 2), folds=1)
    with pytest.raises(ValueError, match="0 labeled samples"):
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
    with pytest.raises(ValueError, match="the largest class has 1"):
        holdout(torch.arange(5))


@pytest.mark.parametrize(
    ("classes", "each", "factor", "total"), [(10, 5000, 100, 12_406), (100, 500, 100, 10_847), (3, 7, 1, 21)]
)
def test_a_long_tail_has_the_known_sizes(classes: int, each: int, factor: float, total: int) -> None:
    label = some_labels(classes * each, classes)
    kept = long_tail(label, factor=factor)
    sizes = torch.bincount(label[kept], minlength=classes)
    assert len(kept) == total
    assert (sizes[0], sizes[-1]) == (each, each // factor)
    assert sizes.tolist() == sorted(sizes.tolist(), reverse=True)
    assert kept.tolist() == sorted(set(kept.tolist()))


def test_a_long_tail_by_hand():
    label = torch.cat([torch.zeros(9), torch.ones(8), torch.full((30,), 2), torch.full((5,), MISSING)]).long()
    assert torch.bincount(label[long_tail(label, factor=4)]).tolist() == [8, 4, 2]  # 8 x (1, 1/2, 1/4)
    assert torch.bincount(label[long_tail(label, factor=4, profile="step")]).tolist() == [8, 8, 2]
    assert long_tail(label, seed=1, factor=4).tolist() == long_tail(label, seed=1, factor=4).tolist()
    assert long_tail(label, seed=1, factor=4).tolist() != long_tail(label, seed=2, factor=4).tolist()
    assert torch.bincount(label[long_tail(label, factor=3)]).tolist() == [8, 4, 2]  # 8 / sqrt 3 and 8 / 3, cut off


def test_what_cannot_have_a_long_tail():
    with pytest.raises(ValueError, match=r"is to be 0.5 times the smallest; wanted: 1 or more"):
        long_tail(torch.arange(4), factor=0.5)
    with pytest.raises(ValueError, match=r"The samples of each class are \[2, 0, 1\]"):
        long_tail(torch.tensor([0, 0, 2, MISSING]))
    with pytest.raises(ValueError, match=r"The samples of each class are \[\]"):
        long_tail(torch.tensor([MISSING]))


def test_classes_are_made_even_by_repeating():
    label = torch.tensor([0, 1, 1, 1, 1, 1, MISSING, 0, 3])
    rows = as_many_of_each(label, seed=1)
    assert torch.bincount(label[rows]).tolist() == [5, 5, 0, 5]
    assert sorted(torch.bincount(rows, minlength=9).tolist()) == [0, 1, 1, 1, 1, 1, 2, 3, 5]
    assert rows.tolist() == as_many_of_each(label, seed=1).tolist() != as_many_of_each(label, seed=2).tolist()
    assert as_many_of_each(torch.full((3,), MISSING)).tolist() == []


@pytest.mark.parametrize(("n", "classes", "number", "seed"), [(12, 3, 4, 0), (100, 7, 10, 1), (57, 11, 5, 2)])
def test_folds_are_those_of_scikit_learn(n: int, classes: int, number: int, seed: int) -> None:
    from sklearn.model_selection import StratifiedKFold

    label = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    y = label.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer samples than folds
        wanted = list(StratifiedKFold(number, shuffle=True, random_state=seed).split(y, y))
    for (train, test), (wanted_train, wanted_test) in zip(folds(label, folds=number, seed=seed), wanted, strict=True):
        assert train.tolist() == wanted_train.tolist()
        assert test.tolist() == wanted_test.tolist()


def test_given_folds_are_taken_as_they_are() -> None:
    label = torch.tensor([0, 1, 0, 1, 0, MISSING])
    fold = torch.tensor([2, 2, 0, 0, MISSING, 0])
    alone = torch.full((6,), MISSING)
    parts = given_folds(label, alone, fold)
    assert [(learn.tolist(), test.tolist()) for learn, test in parts] == [([0, 1, 4], [2, 3]), ([2, 3, 4], [0, 1])]
    with pytest.raises(ValueError, match="1 folds with labels"):
        given_folds(label, alone, torch.zeros(6, dtype=torch.int64))
    parts = given_folds(label, torch.tensor([3, 1, 3, 2, 4, 5]), fold)  # 0 and 2 are of one group
    assert [test.tolist() for _, test in parts] == [[3], [1]]
    with pytest.raises(ValueError, match="0 with samples of groups"):
        given_folds(label, torch.zeros(6, dtype=torch.int64), fold)
