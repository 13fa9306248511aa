"""Which labels are learned from, which choose, and which measure."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.fewlabels.rows import Rows, all_rows, hold_out, labeled_rows
from tests.fewlabels.conftest import samples


def test_rows_by_split() -> None:
    data = samples(40, split=("", "train", "val", "test", "other"))
    data.label[4:6] = MISSING  # two of split train
    rows = labeled_rows(data)
    assert rows.learn.tolist() == [0, 1, 2, 3, 6, 7, *range(20, 28)]
    assert rows.held.tolist() == [*range(8, 12), *range(28, 32)]
    assert rows.test.tolist() == [*range(12, 16), *range(32, 36)]
    assert rows.classes == data.classes
    both = all_rows(data, data.classes)
    assert both.learn.tolist() == [*range(8), *range(20, 28)]  # labeled or not
    assert torch.equal(both.held, rows.held)
    assert torch.equal(both.test, rows.test)


def test_so_many_of_each_class_and_more_hold_the_fewer() -> None:
    data = samples(80, split=("train",))
    data.label[data.label == 3] = torch.where(torch.arange(20) < 2, 3, MISSING)  # a class of two
    learn = {k: labeled_rows(data, per_class=k).learn for k in (1, 2, 5)}
    for k, rows in learn.items():
        assert torch.bincount(data.label[rows]).tolist() == [k, k, k, min(k, 2)]
    assert set(learn[1].tolist()) < set(learn[2].tolist()) < set(learn[5].tolist())
    assert labeled_rows(data, per_class=5, seed=1).learn.tolist() != learn[5].tolist()
    assert torch.equal(labeled_rows(data, per_class=5).learn, learn[5])


@pytest.mark.parametrize(("share", "each"), [(0.01, 1), (0.24, 4), (1.0, 20)])
def test_a_share_is_the_same_number_of_each_class(share: float, each: int) -> None:
    data = samples(80, split=("train",))
    assert torch.bincount(data.label[labeled_rows(data, share=share).learn]).tolist() == [each] * 4


@pytest.mark.parametrize(
    ("change", "asked", "message"),
    [
        ({}, {"share": 0.1, "per_class": 2}, "--share 0.1 and --per-class 2 both"),
        ({}, {"share": 1.5}, "share 1.5"),
        ({}, {"per_class": -1}, "per_class -1"),
        ({"split": ["test"] * 8}, {}, "give --labels FILE"),
        ({"label": torch.zeros(8, dtype=torch.int64)}, {}, "every label is 'angle0'"),
    ],
)
def test_what_cannot_be_learned_from(change: dict[str, Any], asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        labeled_rows(dataclasses.replace(samples(8, split=("",)), **change), **asked)


def test_classes_are_numbered_anew_and_others_come_behind() -> None:
    data = samples(8, split=("", "test"))
    data.label[:4] = torch.tensor([1, 3, MISSING, 1])  # only two classes have a label to learn from
    rows = labeled_rows(data)
    assert (rows.classes, rows.others) == (["angle1", "angle3"], ["angle0", "angle2"])
    assert rows.label.tolist() == [0, 1, MISSING, 0, 2, 0, 3, 1]
    part = rows.of(data, torch.tensor([5, 0]))
    assert (part.names, part.label.tolist(), part.classes) == (["5", "0"], [0, 0], ["angle1", "angle3"])
    named = all_rows(data, ["angle3", "unheard"])
    assert named.others == ["angle0", "angle1", "angle2"]
    assert named.label.tolist() == [3, 0, MISSING, 3, 2, 3, 4, 0]


def test_some_labels_are_held_out_of_fine_tuning_where_they_are_many() -> None:
    label, group = torch.arange(120) % 4, torch.full((120,), MISSING)
    rows = Rows(
        learn=torch.arange(100), held=label[:0], test=torch.arange(100, 120), label=label, classes=["a", "b", "c", "d"]
    )
    parts = hold_out(rows, group, 0)
    assert sorted([*parts.learn.tolist(), *parts.held.tolist()]) == list(range(100))
    assert torch.bincount(label[parts.held]).tolist() == [5, 5, 5, 5]
    few = dataclasses.replace(rows, learn=torch.arange(60))  # a fifth would be 12
    assert hold_out(few, group, 0) is few
    named = dataclasses.replace(few, held=torch.arange(60, 64))
    assert hold_out(named, group, 0) is named
    grouped = hold_out(rows, torch.arange(120) // 4, 0)
    assert not set((grouped.held // 4).tolist()) & set((grouped.learn // 4).tolist())
