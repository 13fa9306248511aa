"""`nearfar finetune`, `predict` and `distill`: from a run and a few labels to names for new samples."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from nearfar.cli.use import DataArg, RunArg

ClassifierArg = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="CLASSIFIER", help="A directory that `nearfar finetune` or distill made."),
]
SHOWN = 20
"""Samples whose predictions are shown in the terminal; those of more go to a file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetune:
    """A classifier on few labels, from the encoder of a run: a linear layer on frozen features, or the whole network
    fine-tuned. Rows of the split test are measured, rows of the split val choose; of the rest a part may be asked for.

    What is written is a run directory with a classifier in it: `nearfar predict` names new samples with it, and
    evaluate, embed, export and report work on it as on any run."""

    run: RunArg
    data: DataArg
    labels: str = ""
    """A CSV or Parquet file of path (or index) and label, with optional split and group; or the word folders."""
    label_column: str = ""
    """The column that holds the labels; that of training if none is named."""
    share: float = 0.0
    """The share of the labels to learn from, the same number of each class: 0.01 is 1 %."""
    per_class: int = 0
    """Or so many labels of each class; by default all are learned from."""
    train: Literal["frozen", "full"] = "frozen"
    """frozen fits a linear layer to the features (seconds); full trains the whole network on."""
    layer: int = 0
    """Keep the method's projector up to this layer: 0 is none of it, 1 is SimCLRv2's choice."""
    weights: Literal["trained", "untrained"] = "trained"
    """untrained begins with the random weights that the run began with: what the labels alone give."""
    views: str = ""
    """For full: the views of which one is made of each sample; by default crop and flip, for drawings a mild map."""
    epochs: int = 0
    """For full: passes over the labeled samples; 0 is 60, or as many as make 300 steps."""
    batch: int = 64
    """For full: labeled samples in a step."""
    lr: float = 3e-4
    """For full: peak learning rate of the network (AdamW); the new layer has ten times that."""
    device: str = "auto"
    """For full: auto takes a GPU if there is one; else cpu, cuda, cuda:1, mps."""
    checkpoint: Literal["last", "best"] = "last"
    """Which encoder of the run."""
    out: str = ""
    """Where it goes; runs/finetune-DATA-N by default. One that exists is never overwritten."""
    seed: int = 0
    """Of which labels are learned from, and of all else that is random."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Label, probability and the nearest labeled samples of new samples, by a classifier that `nearfar finetune` made.

    Up to 20 are shown here; more, or with --out, go to a CSV of path, label, probability, calibrated (yes or no),
    near_1, near_1_label, near_1_similarity, and so on."""

    classifier: ClassifierArg
    data: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="DATA", help="Image files, or a folder, an archive, a list of paths, or a table."),
    ]
    out: str = ""
    """Where the CSV goes; predictions.csv by default. One that exists is not overwritten."""
    near: int = 3
    """Labeled samples to name beside each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distill:
    """Another network, of the same size or smaller, learns what a classifier says of samples without labels (SimCLRv2,
    arXiv 2006.10029). Samples of the splits val and test take no part; labeled ones of test are measured."""

    classifier: ClassifierArg
    data: DataArg
    student: str = ""
    """The network that learns: conv4, or the name of any timm model; by default that of the classifier."""
    from_run: str = ""
    """A run whose encoder the student begins with, instead of random weights."""
    labels: str = ""
    """Labels of some samples, as in finetune: to measure, and to learn from where --alpha is below 1."""
    label_column: str = ""
    """The column that holds the labels; that of training if none is named."""
    alpha: float = 1.0
    """The share of the teacher in the loss; the rest is that of the labels."""
    temperature: float = 1.0
    """That teacher's and student's logits are divided by: 0.1 makes the teacher sure of what it says."""
    scaled: bool = False
    """Multiply the teacher's part by the temperature squared, as the released code does."""
    views: str = ""
    """The views of which one is made of each sample; by default crop and flip, for drawings a mild map."""
    epochs: int = 0
    """Passes over the samples; 0 is 20, or as many as make 300 steps."""
    batch: int = 256
    """Samples in a step."""
    lr: float = 1e-3
    """Peak learning rate (AdamW)."""
    device: str = "auto"
    """auto takes a GPU if there is one; else cpu, cuda, cuda:1, mps."""
    out: str = ""
    """Where it goes; runs/distill-DATA-N by default. One that exists is never overwritten."""
    seed: int = 0
    """All that is random follows from it."""


def _parse(kind: Any, name: str, argv: list[str]) -> Any:
    return tyro.cli(kind, args=argv, prog=f"nearfar {name}", config=(tyro.conf.OmitArgPrefixes,))


def finetune(argv: list[str]) -> int:
    """Make a classifier."""
    asked: Finetune = _parse(Finetune, "finetune", argv)
    from nearfar.cli.console import Console
    from nearfar.fewlabels.finetuning import Tuning
    from nearfar.fewlabels.finetuning import finetune as run
    from nearfar.run import load

    with Console() as console:
        made = run(
            load(asked.run, asked.checkpoint),
            asked.data,
            labels=asked.labels or None,
            label_column=asked.label_column,
            share=asked.share,
            per_class=asked.per_class,
            train=asked.train,
            layer=asked.layer,
            weights=asked.weights,
            views=asked.views,
            tuning=Tuning(epochs=asked.epochs, batch=asked.batch, lr=asked.lr, device=asked.device),
            seed=asked.seed,
            out=asked.out or None,
            say=console.say,
            watch=console.watch,
        )
    _told(made)
    return 0


def distill(argv: list[str]) -> int:
    """Teach another network."""
    asked: Distill = _parse(Distill, "distill", argv)
    from nearfar.cli.console import Console
    from nearfar.fewlabels.classifier import Classifier
    from nearfar.fewlabels.distillation import DistillTuning
    from nearfar.fewlabels.distillation import distill as run

    tuning = DistillTuning(epochs=asked.epochs, batch=asked.batch, lr=asked.lr, seed=asked.seed, device=asked.device)
    with Console() as console:
        made = run(
            Classifier(asked.classifier),
            asked.data,
            student=asked.student,
            start=asked.from_run,
            labels=asked.labels or None,
            label_column=asked.label_column,
            alpha=asked.alpha,
            temperature=asked.temperature,
            scaled=asked.scaled,
            views=asked.views,
            tuning=tuning,
            out=asked.out or None,
            say=console.say,
            watch=console.watch,
        )
    _told(made)
    return 0


def _told(made: Any) -> None:
    """Where a classifier is, how far its probabilities can be trusted, and what to do with it."""
    print(f"Probabilities: {made.facts['calibration']}.")
    print(f"Classifier: {made.path}\nReport:     {made.run.report()}")
    print(f"Go on:      nearfar predict {made.path} FILES")


def predict(argv: list[str]) -> int:
    """Name new samples."""
    asked: Predict = _parse(Predict, "predict", argv)
    if len(asked.data) == 0:
        raise ValueError("nothing to name: give image files, a folder, an archive, a list of paths, or a table")
    out = Path(asked.out or "predictions.csv")
    if asked.out and out.exists():
        raise FileExistsError(f"{asked.out!r} is there already: name another --out")
    from nearfar.fewlabels.classifier import Classifier

    classifier = Classifier(asked.classifier)
    (first, *others) = asked.data
    samples = classifier.open(asked.data if others else first)
    if len(samples) > SHOWN and out.exists():
        raise FileExistsError(f"{str(out)!r} is there already: name another file with --out")
    found = classifier.predict(samples, near=asked.near)
    if len(found) <= SHOWN:
        _show(found)
    if len(found) > SHOWN or asked.out:
        print(f"{len(found):,} predictions: {found.write(out)}")
    if samples.skipped:
        print(f"{len(samples.skipped)} files could not be read and have no row, such as {samples.skipped[0][0]!r}")
    if not found.calibrated:
        print(f"The probabilities are {classifier.facts['calibration']}: take them as an order, not as chances.")
    return 0


def _show(found: Any) -> None:
    rows = zip(found.names, found.label, found.probability.tolist(), found.near, strict=True)
    for name, label, p, near in rows:
        print(f"{name}\n  {label}  {100 * p:.0f} %")
        for other, own, s in near:
            print(f"    {s:.2f} like {other}, which is {own}")
