"""`nearfar label-plan` and `helps`: which samples to label, and whether pre-training is worth it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nearfar.cli.use import DataArg


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Which samples to label next: a table to fill in, and an image of them.

    Of a run, those that stand for many (coverage); of a classifier, those that stand for many it is unsure of. Samples
    that have a label, or are of the split test or val, are not asked for. What is written is a table for --labels: fill
    in its label column.
    """

    run: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help="A run, or a directory of `nearfar finetune`.")
    ]
    data: DataArg
    labels: str = ""
    """The labels there are: a CSV or Parquet file of path (or index) and label; or the word folders; or none."""
    label_column: str = ""
    """The column that holds the labels; that of training if none is named."""
    count: int = 20
    """How many samples."""
    by: Literal["auto", "coverage", "uncertainty"] = "auto"
    """auto is coverage for a run, uncertainty for a classifier."""
    out: str = "label-plan.csv"
    """Where the table goes, and beside it the image, of the same name with .png. None is overwritten."""
    seed: int = 0
    """Of the samples that are looked at, where there are more than 5,000."""


def label_plan(argv: list[str]) -> int:
    """Propose samples to label."""
    asked = tyro.cli(Plan, args=argv, prog="nearfar label-plan", config=(tyro.conf.OmitArgPrefixes,))
    table = Path(asked.out)
    image = table.with_suffix(".png")
    for path in (table, image):
        if path.exists():
            raise FileExistsError(f"{str(path)!r} is there already, perhaps with labels in it: name another --out")
    from nearfar.fewlabels.classifier import Classifier, is_classifier
    from nearfar.fewlabels.label_plan import label_plan as plan
    from nearfar.files import replace
    from nearfar.run import load

    run = Classifier(asked.run) if is_classifier(asked.run) else load(asked.run)
    made = plan(
        run,
        asked.data,
        labels=asked.labels or None,
        label_column=asked.label_column,
        count=asked.count,
        by=None if asked.by == "auto" else asked.by,
        seed=asked.seed,
    )
    kind = run.run.kind if isinstance(run, Classifier) else run.kind
    names = [made.samples.names[i] for i in made.chosen.tolist()]
    whys = [f"{place}: stands for {n}" for place, n in enumerate(made.stands_for.tolist(), 1)]
    if made.guess is not None:
        whys = [f"{why}; {made.guess[i]}?" for why, i in zip(whys, made.chosen.tolist(), strict=True)]
    captions = [f"{name}\n{why}" for name, why in zip(names, whys, strict=True)]
    sheet = kind.grid(made.samples, made.chosen, captions)
    replace(image, lambda temporary: sheet.save(temporary, format="PNG"))
    made.write(table, label_column=asked.label_column or "label")
    print(
        f"{asked.count} of {len(made.samples):,} samples to label. With them a sample's nearest labeled one has a "
        f"cosine of {made.near:.2f} on the average; as many drawn at random: {made.near_random:.2f}."
    )
    print(f"To fill in: {table}\nImage:    {image}")
    print(f"Go on:      nearfar finetune {asked.run} {asked.data} --labels {table}")
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Helps:
    """Will pre-training help me? Trains with and without it on parts of the labels, and says so in a sentence.

    Pre-trains on the samples without their labels, then compares classifiers that learn from few labels: from scratch,
    linear on the untrained and on the pre-trained encoder, fine-tuned. Rows of the split test are tested, or a fifth.
    Stopped, even by kill -9, it goes on where it was when it is started again with the same flags.
    """

    data: DataArg
    labels: str = ""
    """A CSV or Parquet file of path (or index) and label, with optional split and group; or the word folders."""
    label_column: str = "label"
    """The column of that file which holds the labels."""
    method: str = "simclr"
    """What pre-trains."""
    epochs: int = 0
    """Of pre-training; 0 as the method's recipe has it."""
    recipe: str = ""
    """Where defaults of pre-training come from, as in training; its views matter most."""
    run: str = ""
    """A run that was pre-trained before, on samples that are not tested, instead."""
    weights: str = ""
    """A local file of weights off the shelf, to be tried too."""
    shelf: str = "resnet18"
    """Their network: the name of a timm model."""
    budgets: tuple[int, ...] = (1, 2, 5, 10, 25)
    """Labels of each class."""
    seeds: int = 3
    """Draws of the labels."""
    tuning: int = 0
    """Epochs of training from scratch and of fine-tuning; 0 as many as suit."""
    encoder: str = ""
    """Another network than the recipe's: conv4 is quick on a CPU."""
    size: int = 0
    """Side of the views; 0 as in training."""
    out: str = "helps"
    """Where everything goes."""


def helps(argv: list[str]) -> int:
    """Answer."""
    asked = tyro.cli(Helps, args=argv, prog="nearfar helps", config=(tyro.conf.OmitArgPrefixes,))
    from nearfar.studies.helps import Ask, lines
    from nearfar.studies.helps import helps as answer

    given = {name: value for name, value in (("encoder", asked.encoder), ("size", asked.size)) if value}
    names = {f.name for f in dataclasses.fields(Ask)} - {"flags"}
    ask = Ask(**{name: value for name, value in dataclasses.asdict(asked).items() if name in names}, flags=given)
    made = answer(ask, Path(asked.out))
    if made is None:
        print(f"Stopped and saved. Go on with: nearfar helps {' '.join(argv)}")
        return 130
    from rich.console import Console
    from rich.table import Table

    header, *rows = lines(made)
    title = (
        f"{made['tested']:,} test samples named right, %; means and 95 % t-intervals over {ask.seeds} draws of labels"
    )
    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        table.add_row(*(cell.replace(" [", "\n[") for cell in row), end_section=True)
    Console().print(table)
    print(f"{made['sentence']}\n")
    print(f"Table: {Path(asked.out) / 'helps.csv'}\nPage:  {Path(asked.out) / 'helps.html'}")
    return 0
