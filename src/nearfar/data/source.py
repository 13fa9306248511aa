"""What training asks of data and of views, whatever their kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor


class Source(Protocol):
    """Training samples: N of them, known by position."""

    label: Tensor  # N int64, or MISSING
    group: Tensor  # N int64, or MISSING
    attribute: Tensor  # N int64, or MISSING

    def __len__(self) -> int: ...
    def fetch(self, index: Tensor) -> tuple[Any, ...]:
        """The inputs of some samples, in the form in which the views take them."""
        ...


class Views(Protocol):
    """What turns inputs into views, by draws that were made for the whole global batch."""

    def __len__(self) -> int: ...

    def draw(self, n: int, generator: torch.Generator) -> Any: ...

    __call__: Callable[..., list[Any]]
