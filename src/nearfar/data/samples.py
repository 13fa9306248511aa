"""N samples of any kind, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from nearfar.batch import MISSING

LEARNED = ("", "train")
"""The splits that are trained on: named so, or not at all."""


@dataclass(slots=True, eq=False, kw_only=True)
class Samples:
    """N samples, known by position. A kind extends it by what its samples are, and says which fields have a value each.

    names: of each, by which labels find it.  label, group: N, int64, or MISSING; attribute, a second label, likewise.
    classes: the name of each class number.  split: N names, "" where unknown.
    skipped: (name, reason) of each that could not be read.  notes: sentences for the user.
    label_column: whence the labels are, where they were in a column.
    """

    PER_SAMPLE: ClassVar[tuple[str, ...]] = ()
    """The fields of the kind, tensors or lists, that hold a value for each sample: `subset` takes some of each."""

    names: list[str]
    label: Tensor
    classes: list[str]
    group: Tensor
    split: list[str]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    attribute: Tensor = None  # pyright: ignore[reportAssignmentType] (where none is given, it is MISSING for all)
    label_column: str = ""

    def __post_init__(self) -> None:
        if self.attribute is None:
            self.attribute = torch.full((len(self.names),), MISSING)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def numbered(self) -> bool:
        """Whether names are positions, so that tables find samples by index and not by path."""
        return self.names == [str(i) for i in range(len(self))]

    def of_split(self, *names: str) -> Tensor:
        """Which samples are of one of these splits: N, bool. That of LEARNED is what a method may see."""
        return torch.tensor([split in names for split in self.split], dtype=torch.bool)

    def fetch(self, index: Tensor) -> tuple[Any, ...]:
        """What views take, of some samples."""
        raise NotImplementedError

    def contents(self) -> Iterator[bytes]:
        """What each sample is known by, wherever it lies."""
        raise NotImplementedError

    def subset(self, index: Tensor | Sequence[int]) -> Self:
        """Some of the samples, in the order given. Everything that is not of single samples is shared."""
        index = torch.as_tensor(index, dtype=torch.int64, device="cpu")
        which = index.tolist()

        def taken(values: Tensor | list[Any]) -> Tensor | list[Any]:
            return values[index.to(values.device)] if isinstance(values, Tensor) else [values[i] for i in which]

        own = {field.name for field in fields(self)} - {field.name for field in fields(Samples)}
        if own and not self.PER_SAMPLE:
            raise NotImplementedError(
                f"{type(self).__name__} has the fields {', '.join(sorted(own))}: its PER_SAMPLE must name those "
                "that hold a value for each sample, or a subset would keep the values of other samples"
            )
        each = ("names", "label", "group", "attribute", "split", *self.PER_SAMPLE)
        return replace(self, **{name: taken(getattr(self, name)) for name in each})

    def without_labels(self) -> Self:
        """The same samples, of which no label is known."""
        return replace(self, label=torch.full_like(self.label, MISSING), classes=[])

    def to(self, device: torch.device | str) -> Self:
        """The same samples, kept on `device` where they fit there."""
        raise NotImplementedError
