"""What can be set about classifiers on few labels: by keywords in Python, by flags on the command line.

Free of torch, so that `--help` is quick.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from tyro.constructors import PrimitiveConstructorSpec

from nearfar.errors import UserError, WrongType
from nearfar.ranges import (
    AtLeastTwo,
    Checked,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    Seed,
    UnitInterval,
)
from nearfar.settings import meant

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Labels = Annotated[
    Any,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="FILE",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    ),
]
"""Labels in any form that opening data takes, "" for none of one's own; on the command line a file, or a word."""


@dataclass(frozen=True, kw_only=True)
class Labeled(Checked):
    """Which labels the samples have."""

    labels: Labels = ""
    """A CSV or Parquet file of path (or index) and label, with optional split (train, val or test) and group; or the
    word folders."""
    label_column: str = ""
    """The column that holds the labels; that of training if none is named."""
    keep_words: tuple[str, ...] = ()
    """Words such as NA or None that are labels all the same."""


@dataclass(frozen=True, kw_only=True)
class Tuning(Checked):
    """How a whole network is trained, by AdamW, on one random view of each sample."""

    least: ClassVar[int] = 60
    """Epochs, where they are not set and make 300 steps or more."""

    views: str = ""
    """The views of which one is made of each sample; by default mild ones, as the kind of data has them."""
    epochs: NonNegativeInt = 0
    """Passes over the samples; 0 takes 60, or as many as make 300 steps."""
    batch: AtLeastTwo = 64
    """Samples in a step."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate of the network; a new layer on a trained one has ten times that."""
    device: str = "auto"
    """auto takes a GPU on which torch can compute, if there is one; else cpu, cuda, cuda:1."""
    seed: Seed = 0
    """All that is random follows from it: draws of labels, views, new weights."""

    def passes(self, rows: int) -> int:
        """The epochs, for so many samples."""
        return self.epochs or max(self.least, -(-300 // (rows // min(self.batch, rows))))


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(Tuning, Labeled):
    """Views, epochs, batch and learning rate are for --train full."""

    share: UnitInterval = 0.0
    """The share of the labels to learn from, the same number of each class: 0.01 is 1 %."""
    per_class: NonNegativeInt = 0
    """Or so many labels of each class; by default all are learned from."""
    train: Literal["frozen", "full"] = "frozen"
    """frozen fits a linear layer to the features (seconds); full trains the whole network on."""
    layer: Annotated[int, Range(ge=-1)] = 0
    """Keep the method's projector up to this layer: 0 is none of it, 1 is SimCLRv2's choice (arXiv 2006.10029)."""
    weights: Literal["trained", "untrained"] = "trained"
    """untrained begins with the random weights that the run began with, or would have without given ones: what
    the labels alone give."""

    def check(self) -> None:
        super().check()
        if self.share and self.per_class:
            raise UserError(f"--share {self.share:g} and --per-class {self.per_class} both say how many: give one")
        if self.layer and self.weights == "untrained":
            raise UserError(
                f"--layer {self.layer} keeps a part of the trained projector, and --weights untrained nothing that was "
                "trained: give one of them"
            )


@dataclass(frozen=True, kw_only=True)
class DistillSettings(Tuning, Labeled):
    """Labels measure the student; with an alpha below 1 they also teach it."""

    least: ClassVar[int] = 20

    student: str = ""
    """The student's network, named as for training; by default that of the classifier."""
    from_run: str = ""
    """A run whose encoder the student begins with, instead of random weights."""
    alpha: UnitInterval = 1.0
    """The share of the teacher in the loss; the rest is that of the labels."""
    temperature: PositiveFloat = 1.0
    """What the logits of teacher and student are divided by: 0.1 makes the teacher sure of its answers."""
    scaled: bool = False
    """Multiply the teacher's part by the temperature squared, as the released code of SimCLRv2 does."""
    epochs: NonNegativeInt = 0
    """Passes over the samples; 0 takes 20, or as many as make 300 steps."""
    batch: AtLeastTwo = 256
    """Samples in a step."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate."""


@dataclass(frozen=True, kw_only=True)
class LabelPlanSettings(Labeled):
    """With --labels none no sample counts as labeled."""

    count: PositiveInt = 20
    """How many samples."""
    by: Literal["auto", "coverage", "uncertainty"] = "auto"
    """auto is coverage for a run, uncertainty for a classifier."""
    seed: Seed = 0
    """Of the samples that are compared, where there are more than 5,000."""


def given(settings: Labeled) -> Any:
    """The labels, or None where there are none of one's own."""
    labels = settings.labels
    return None if isinstance(labels, str) and not labels else labels


S = TypeVar("S", bound="DataclassInstance")


def with_keywords(settings: S, keywords: dict[str, Any]) -> S:
    """Settings with other values for some fields. Raises TypeError for a name that is no field."""
    names = [field.name for field in dataclasses.fields(settings)]
    for name in keywords:
        if name not in names:
            hint = meant(name, names) or f"; there are {', '.join(names)}"
            raise WrongType(f"there is no argument {name!r}{hint}")
    return dataclasses.replace(settings, **keywords)
