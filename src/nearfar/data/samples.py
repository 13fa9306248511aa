"""What all kinds of data have in common: N samples, and what is known of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from nearfar.batch import MISSING

LEARNED = ("", "train")
"""The splits that are trained on: named so, or not at all."""


@dataclass(slots=True, eq=False, kw_only=True)
class Samples:
    """N samples, known by position.

    names: of each, by which labels find it.  label, group: N, int64, or MISSING; attribute, a second label, likewise.
    classes: the name of each class number.  split: N names, "" where unknown.
    skipped: (name, reason) of each that could not be read.  notes: sentences for the user.
    """

    names: list[str]
    label: Tensor
    classes: list[str]
    group: Tensor
    split: list[str]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    attribute: Tensor = None  # pyright: ignore[reportAssignmentType] (where none is given, it is MISSING for all)

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
        """Some of the samples, in the order given."""
        raise NotImplementedError

    def to(self, device: torch.device | str) -> Self:
        """The same samples, kept on `device` where they fit there."""
        raise NotImplementedError


def digests(data: Samples) -> list[str]:
    """A fingerprint of each sample's contents, by which it is known again, wherever it lies."""
    return [hashlib.blake2b(content, digest_size=8).hexdigest() for content in data.contents()]


def fingerprint(known: list[str], data: Samples) -> str:
    """One fingerprint of all samples, in order, from their `digests`, their labels, groups and attributes."""
    whole = "".join(known).encode() + data.label.numpy().tobytes() + data.group.numpy().tobytes()
    if (data.attribute != MISSING).any():
        whole += data.attribute.numpy().tobytes()
    return hashlib.blake2b(whole, digest_size=8).hexdigest()
