"""What the loop is told, and what it may raise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from nearfar.method import Look
from nearfar.training.checkpoints import Checkpoints
from nearfar.training.journal import Journal

Precision = Literal["float32", "bf16", "fp16"]


class Source(Protocol):
    """Training samples: N of them, known by position."""

    label: Tensor  # N int64, or MISSING
    group: Tensor  # N int64, or MISSING
    attribute: Tensor  # N int64, or MISSING

    def __len__(self) -> int: ...
    def fetch(self, index: Tensor) -> tuple[Any, ...]:
        """The inputs of some samples, in the form in which the views take them."""
        ...


class Viewer(Protocol):
    """What turns inputs into views, by draws that were made for the whole global batch."""

    def __len__(self) -> int: ...

    def draw(self, n: int, generator: torch.Generator) -> Any: ...

    __call__: Callable[..., list[Any]]


class Diverged(ArithmeticError):
    """The loss or a parameter is no longer a finite number."""

    def __init__(self, what: str, loop: Loop) -> None:
        saved = loop.checkpoints.all() if loop.checkpoints is not None else []
        stays = f"; the last finite checkpoint is {str(saved[-1])!r}" if saved else ""
        remedies = ["a lower --lr", "a smaller --clip" if loop.clip else "--clip 1"]
        if loop.precision != "float32":
            remedies.append("--precision float32" if loop.precision == "bf16" else "--precision bf16 or float32")
        super().__init__(f"{what}{stays}. Start anew with {', or '.join(remedies)}")


@dataclass(kw_only=True)
class Loop:
    """How to train: what `fit` is told besides the method, the data and the views.

    epochs, batch: passes over the data; samples in a step on all ranks together.
    schedule: factor on each group's learning rate, from (step, steps).
    clip: largest gradient norm, or None.  save_every: epochs between checkpoints.
    sampler, per_class: how samples are drawn, and how many of a class, where it is not as the method says.
    look: a pass over all samples, for methods that want one before each epoch.
    probe: numbers about the encoder, taken after every `probe_every` epochs; the highest "knn" marks the best
        checkpoint.
    watch: called with (step, steps, numbers) whenever numbers are read.
    """

    epochs: int
    batch: int
    schedule: Callable[[int, int], float]
    seed: int = 0
    precision: Precision = "float32"
    clip: float | None = None
    journal: Journal | None = None
    checkpoints: Checkpoints | None = None
    save_every: float = 1.0
    sampler: str = ""
    per_class: int = 0
    look: Look | None = None
    probe: Callable[[], dict[str, float]] | None = None
    probe_every: int = 1
    watch: Callable[[int, int, dict[str, float]], None] = field(default=lambda step, steps, numbers: None)
    say: Callable[[str], None] = print
