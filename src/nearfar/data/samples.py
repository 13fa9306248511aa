"""N samples of any kind, and what is known of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from nearfar.batch import MISSING, tensors
from nearfar.errors import UserError

LEARNED = ("", "train")
"""The splits that are trained on: named so, or not at all."""


def drawn(count: int, most: int, seed: int) -> Tensor:
    """Positions below `count` in their order: all, or `most` of them, drawn with the seed."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values


@dataclass(slots=True, eq=False, kw_only=True)
class Samples:
    """N samples, known by position. A kind extends it by what its samples are, and says which fields have a value each.

    names: of each, by which labels find it.  label, group: N, int64, or MISSING; attribute, a second label, likewise.
    classes: the name of each class number.  split: N names, "" where unknown.
    skipped: (name, reason) of each that could not be read.  notes: sentences for the user.
    digest: of each, by which it is known again; where it is not given, `nearfar.data.digests` takes it of `contents`.
    max_bad: the share of the samples without which training may go on when they can be read no more: see
        `nearfar.errors.Lost`. None where they do not lie in files that could change.
    label_column: whence the labels are, where they were in a column.
    """

    PER_SAMPLE: ClassVar[tuple[str, ...]] = ()
    """The fields of the kind, tensors or lists, that hold a value for each sample: `subset` takes some of each."""

    FINITE: ClassVar[bool] = False
    """Whether the kind sees to it that inputs are finite, or lets NaN mean something: they are not looked through."""

    names: list[str]
    label: Tensor
    classes: list[str]
    group: Tensor
    split: list[str]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    attribute: Tensor = None  # pyright: ignore[reportAssignmentType] (where none is given, it is MISSING for all)
    digest: list[str] | None = None
    max_bad: float | None = None
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
        """What views take, of some samples. Raises Lost where some can be read no more."""
        raise NotImplementedError

    def contents(self) -> Iterator[bytes]:
        """What each sample is known by, wherever it lies: all of it, in one form."""
        raise NotImplementedError

    def insist_finite(self) -> None:
        """Raise ValueError, with their count, where inputs of samples hold NaN or infinite numbers."""
        if self.FINITE:
            return
        broken: list[int] = []
        for index in torch.arange(len(self)).split(512):
            if not self._finite(index):
                broken += [i for i in index.tolist() if not self._finite(torch.tensor([i]))]
        if broken:
            raise UserError(
                f"{len(broken):,} of {len(self):,} samples hold NaN or infinite numbers, such as "
                f"{', '.join(repr(self.names[i]) for i in broken[:3])}: mend them, or leave them out"
            )

    def _finite(self, index: Tensor) -> bool:
        return all(bool(part.isfinite().all()) for given in self.fetch(index) for part in tensors(given))

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
        each = ["names", "label", "group", "attribute", "split", *self.PER_SAMPLE]
        each += ["digest"] if self.digest is not None else []
        return replace(self, **{name: taken(getattr(self, name)) for name in each})

    def at_most(self, count: int, seed: int) -> Self:
        """The same samples, or so many of them, drawn with `seed`, in their order."""
        if len(self) <= count:
            return self
        return self.subset(drawn(len(self), count, seed))

    def without_labels(self) -> Self:
        """The same samples, of which no label is known."""
        return replace(self, label=torch.full_like(self.label, MISSING), classes=[])

    def to(self, device: torch.device | str) -> Self:
        """The same samples, kept on `device` where they fit there."""
        raise NotImplementedError


def insist_few_bad(bad: Sequence[tuple[str, str]], count: int, most: float, of: str, read: str = "read") -> None:
    """Raise ValueError where no sample can be read, or more than a share of them cannot.

    bad: name and reason of each that cannot.  count: of all.  most: the share.  of: what they are, such as
    "images of 'photos'".  read: what cannot be done with them.
    """
    first = "; ".join(f"{name!r}: {reason}" for name, reason in bad[:3]) + ("; ..." if len(bad) > 3 else "")
    if len(bad) == count:
        raise UserError(f"None of the {count} {of} can be {read} ({first}).")
    if len(bad) > most * count:
        raise UserError(
            f"{len(bad)} of {count} {of} cannot be {read}, {len(bad) / count:.1%}, where {most:.1%} are allowed "
            f"({first}). Repair or remove them, or allow more: --max-bad {math.ceil(len(bad) / count * 100) / 100:g}."
        )
