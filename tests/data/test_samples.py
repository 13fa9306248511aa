from __future__ import annotations

import dataclasses

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.data.samples import LEARNED, Samples
from nearfar.modalities.image.samples import open_images
from tests.tiny import tiny_images


def test_samples_are_found_by_their_split() -> None:
    data = dataclasses.replace(open_images(tiny_images(4)), split=["", "train", "test", "val"])
    assert data.of_split(*LEARNED).tolist() == [True, True, False, False]
    assert data.of_split("test").tolist() == [False, False, True, False]
    assert data.subset([]).of_split("test").dtype == torch.bool


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class Sentences(Samples):
    PER_SAMPLE = ("words", "length")

    words: list[str]
    length: torch.Tensor
    vocabulary: list[str]


def test_a_subset_takes_what_is_of_single_samples_and_shares_the_rest() -> None:
    data = Sentences(
        names=["a", "b", "c"],
        label=torch.tensor([0, 1, 1]),
        classes=["old", "new"],
        group=torch.tensor([5, 6, 7]),
        split=["train", "", "test"],
        words=["one", "two", "three"],
        length=torch.tensor([[3], [3], [5]]),
        vocabulary=["e", "n", "o"],
    )
    some = data.subset([2, 0])
    assert (some.names, some.split, some.words) == (["c", "a"], ["test", "train"], ["three", "one"])
    assert (some.label.tolist(), some.group.tolist(), some.length.tolist()) == ([1, 0], [7, 5], [[5], [3]])
    assert some.attribute.tolist() == [MISSING, MISSING]
    assert some.classes is data.classes
    assert some.vocabulary is data.vocabulary
    assert (len(data), len(data.subset(torch.tensor([], dtype=torch.int64)))) == (3, 0)


def test_samples_of_an_array_are_numbered_until_some_are_taken_out() -> None:
    data = open_images(tiny_images(4))
    assert data.numbered
    assert data.subset([0, 1]).numbered
    assert not data.subset([1, 2]).numbered


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class Forgetful(Samples):
    words: list[str]


def test_a_kind_that_does_not_say_what_is_of_single_samples_has_no_subsets() -> None:
    label = torch.zeros(2, dtype=torch.int64)
    data = Forgetful(names=["a", "b"], label=label, classes=["c"], group=label, split=["", ""], words=["x", "y"])
    with pytest.raises(NotImplementedError, match="words"):
        data.subset([1])
