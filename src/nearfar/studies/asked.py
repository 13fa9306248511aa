"""What the studies are asked: by keywords in Python, by flags on the command line. Free of torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from nearfar.errors import UserError
from nearfar.ranges import AtLeastTwo, Checked, NonNegativeFloat, NonNegativeInt, PositiveInt, Seed
from nearfar.settings import Which

Data = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
Methods = Annotated[
    tuple[str, ...],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="METHODS",
        instance_from_str=lambda words: tuple(name.strip() for name in words[0].split(",") if name.strip()),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(value)],
    ),
]


@dataclass(frozen=True, kw_only=True)
class Question(Checked):
    """What a study is asked. All of it is saved."""

    def saved(self) -> dict[str, Any]:
        """All fields in plain types, as JSON gives them back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


@dataclass(frozen=True, kw_only=True)
class Ask(Question):
    """What every study that trains is asked. It goes on only with the same."""

    labels: str = ""
    """A CSV or Parquet file of path (or index) and label, with optional split (train, val or test) and group; or the
    word folders; where the data bring none."""
    label_column: str = ""
    """The column of that file, or of DATA, which holds the labels; by default label, where there is one."""
    keep_words: tuple[str, ...] = ()
    """Words such as NA or None that are values all the same."""
    seeds: AtLeastTwo = 3
    """How often all is repeated with other random numbers: 2 or more."""
    encoder: str = ""
    """Another network than the recipe's: conv4 is quick on a CPU."""
    batch: NonNegativeInt = 0
    """Samples in a step of training; 0 as in the recipe."""
    size: NonNegativeInt = 0
    """Side of the views; 0 as in the recipe."""

    def flags(self) -> dict[str, Any]:
        """The settings of training runs."""
        chosen = {name: getattr(self, name) for name in ("encoder", "batch", "size") if getattr(self, name)}
        words = {"keep_words": self.keep_words, "label_column": self.label_column}
        return {"labels": self.labels, **words, **chosen}


@dataclass(frozen=True, kw_only=True)
class Compare(Ask):
    """All methods share the budget and the settings."""

    methods: tyro.conf.Positional[Methods]
    """Names with commas between them: simclr,moco,byol."""
    data: Data
    """What they learn from, as in training."""
    epochs: PositiveInt = 10
    """Passes over the samples, the same for all."""
    minutes: NonNegativeFloat = 0.0
    """Instead of that: as many epochs as each method does in so many minutes."""
    encoder: str = ""
    """The network that all methods train; by default one that is quick on a CPU: conv4 for images, mlp for tables."""
    batch: AtLeastTwo = 128
    """Samples in a step."""

    def check(self) -> None:
        super().check()
        if len(set(self.methods)) < 2:
            raise UserError(f"{len(set(self.methods))} method: two are needed to compare")


@dataclass(frozen=True, kw_only=True)
class Helps(Ask):
    """Encoder, batch and size are those of pre-training."""

    data: Data
    """Samples of which some have labels, as in training."""
    method: str = "simclr"
    """What pre-trains."""
    epochs: NonNegativeInt = 0
    """Of pre-training; 0 as the method's recipe has it."""
    recipe: str = ""
    """Where defaults of pre-training come from, as in training; its views matter most."""
    run: str = ""
    """A run that was pre-trained before, on samples that are not tested, instead."""
    trust: bool = False
    """Run the files of code that this run names."""
    weights: str = ""
    """A local file of weights off the shelf, to be tried too."""
    shelf: str = "resnet18"
    """Their network: the name of a timm model."""
    budgets: tuple[PositiveInt, ...] = (1, 2, 5, 10, 25)
    """Labels of each class."""
    tuning: NonNegativeInt = 0
    """Epochs of training from scratch and of fine-tuning; 0 as many as suit."""

    def check(self) -> None:
        super().check()
        if not self.budgets:
            raise UserError("--budgets: one number of labels a class, or more, is needed")


Runs = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]


@dataclass(frozen=True, kw_only=True)
class Transfer(Question):
    """The untrained encoder of each architecture, and what no network has made, are measured beside the runs."""

    runs: Runs
    """Run directories."""
    to: Annotated[str, tyro.conf.arg(metavar="DATASETS")]
    """A folder of data sets, or a list of them. In a folder each sub-folder and each file of data is a data set, by its
    name. A list is a CSV with the columns name, data, labels, label_column, masks, boxes, of which data must be there,
    or a YAML file of the same; its paths are relative to its folder. Where no labels are named, those of a folder are
    in its labels.csv, else its sub-folders are the classes; those of another file NAME.tar are in NAME.labels.csv, else
    in the file itself."""
    label_column: str = ""
    """The column that holds the labels, where a list names no other; by default that of each run's training."""
    shots: tuple[PositiveInt, ...] = (1, 5)
    """Labels of each class, for classifiers on few labels."""
    solver: Literal["ridge", "logistic"] = "ridge"
    """Of the linear classifier: ridge regression, or the slower logistic regression of papers. Its strength is chosen
    on held-out training rows."""
    finetune: bool = False
    """Train each network on as well, from its weights: the longest part by far."""
    tuning: NonNegativeInt = 0
    """Epochs of that; 0 as many as suit."""
    checkpoint: Annotated[Which, tyro.conf.arg(metavar="last|best|auto|EPOCH")] = "last"
    """Which encoder of the runs."""
    tower: str = ""
    """Of runs whose encoder has several towers, the one to measure, by its name."""
    seed: Seed = 0
    """Of folds and draws."""
    trust: bool = False
    """Run the files of code that the runs name."""

    def check(self) -> None:
        super().check()
        if not self.runs:
            raise UserError("no run: name one run directory or more, and the data sets by --to")
