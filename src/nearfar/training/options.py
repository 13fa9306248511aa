"""What a step and the loop are given, and what a step gives."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from nearfar.errors import Diverged
from nearfar.method import Look, Step
from nearfar.training.checkpoints import Checkpoints
from nearfar.training.journal import Journal

Precision = Literal["float32", "bf16", "fp16"]


@dataclass(kw_only=True)
class StepOptions:
    """How one step is made.

    schedule: factor on each group's learning rate, from (step, steps).
    precision: arithmetic of the forward pass.  clip: largest gradient norm, or None.
    frozen: share of the steps, from the first on, in which the encoder stands still.
    pull: adds to the gradients what pulls weights to where they began; None where nothing does.
    """

    schedule: Callable[[int, int], float] = lambda step, steps: 1.0
    precision: Precision = "float32"
    clip: float | None = None
    frozen: float = 0.0
    pull: Callable[[], None] | None = None


@dataclass(slots=True)
class StepResult:
    """A step that was made.

    out: what the forward pass gave.  norm: of the gradient, before it was clipped; a scalar on the device.
    Where the step was inspected: representations, what the encoder made of the batch, pass by pass; negatives, by how
    many of them an anchor is pushed, in effect, or None where that is not known.
    chance: this rank's share of what the loss would have been had the encoder given the same for every sample; None
    where that is no number, or was not asked for.
    """

    out: Step
    norm: Tensor
    representations: list[Tensor] | None = None
    negatives: float | None = None
    chance: Tensor | None = None


class Stateful(Protocol):
    """What can be kept in a checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@dataclass(kw_only=True)
class Loop(StepOptions):
    """How to train: what `fit` needs besides the method, the data and the views.

    epochs, batch: passes over the data; samples in a step on all ranks together.
    save_every: epochs between checkpoints.  keep_every: epochs between those that stay; 0 keeps none.
    sampler, per_class: how samples are drawn, and how many of a class, where it is not as the method says.
    look: a pass over all samples, for methods that want one before each epoch.
    probe: numbers about the encoder; the highest "knn" after a step marks the best checkpoint.
    probe_after: the epochs after which the probe is taken; after 0 is before the first step.
    given: whether the encoder begins with given weights, which then may be the best.
    scores: numbers about the encoder that take no labels, of a step.  scores_after: as probe_after.
    stop_if_worse: whether to stop after a probe that is worse than the first one.
    watch: called with (step, steps, numbers) whenever numbers are read.
    tell: called on the first rank with the step and the numbers of each line of the journal, once it is written.
    lost: samples that cannot be read any more, by position, with name and reason; those that are found are added.
    beside: what checkpoints keep besides the method, the optimizer and the scaler.
    quiet: whether nothing is said of epochs and speed.
    """

    epochs: int
    batch: int
    seed: int = 0
    journal: Journal | None = None
    checkpoints: Checkpoints | None = None
    save_every: float = 1.0
    keep_every: int = 0
    sampler: str = ""
    per_class: int = 0
    look: Look | None = None
    probe: Callable[[], dict[str, float]] | None = None
    probe_after: Collection[int] = ()
    given: bool = False
    scores: Callable[[int], dict[str, float]] | None = None
    scores_after: Collection[int] = ()
    stop_if_worse: bool = False
    watch: Callable[[int, int, dict[str, float]], None] = field(default=lambda step, steps, numbers: None)
    tell: Callable[[int, dict[str, Any]], object] | None = None
    say: Callable[[str], None] = print
    lost: dict[int, tuple[str, str]] = field(default_factory=dict)
    beside: Stateful | None = None
    quiet: bool = False

    def diverged(self, what: str) -> Diverged:
        """The error that ends this run, and what to do."""
        saved = self.checkpoints.all() if self.checkpoints is not None else []
        return Diverged(what, saved=saved[-1] if saved else None, clip=self.clip, precision=self.precision)
