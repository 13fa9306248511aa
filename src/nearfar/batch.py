"""What a method sees of the data: the views of some samples, and what is known of each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

MISSING = -1
"""The label, group or attribute of a sample without one. Users' own labels, -1 included, are names, numbered from 0."""


@dataclass(slots=True)
class Batch:
    """Some samples, seen V times.

    views: V views; a view is whatever the encoder takes, with N samples along its first dimension.
    index: N, int64, the position of each sample in its data set.
    label: N, int64, the class of each sample, or MISSING.
    group: N, int64, what must not be pushed apart (clip, patient, duplicates), or MISSING; None where there are none.
    attribute: N, int64, a second label (a bias, a camera, a domain), or MISSING; None where there are none.
    """

    views: list[Any]
    index: Tensor
    label: Tensor
    group: Tensor | None = None
    attribute: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)
