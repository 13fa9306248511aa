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


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class Numbers(Samples):
    PER_SAMPLE = ("numbers",)
    numbers: torch.Tensor

    def fetch(self, index: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        return {"number": self.numbers[index]}, index


def test_inputs_that_are_not_finite_are_counted_and_named() -> None:
    n = 1200  # more than are looked at at once
    numbers, none = torch.zeros(n, 2), torch.full((n,), MISSING)
    data = Numbers(
        names=[f"row{i}" for i in range(n)], label=none, classes=[], group=none, split=[""] * n, numbers=numbers
    )
    data.insist_finite()
    numbers[[3, 700, 701], [0, 1, 0]] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    with pytest.raises(ValueError, match=r"^3 of 1,200 samples hold NaN or infinite numbers, such as 'row3', 'row700'"):
        data.insist_finite()
    data.subset([0, 1, 2]).insist_finite()


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
