"""`nearfar generate`: images by a run that learned to make them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from nearfar.cli.flags import CheckpointArg, ForceArg, parsed
from nearfar.cli.printing import print
from nearfar.cli.use import RunArg, TrustArg, opened
from nearfar.errors import UserError, counted
from nearfar.ranges import Checked, PositiveInt, Seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate(Checked):
    """Images of each class as PNG files, and a sheet: each with the nearest training image below, and what lies between
    two of them. With --judge or --weights, also how near they come to real ones, beside other real images."""

    run: RunArg
    out: str
    """The folder: OUT/images/CLASS/NUMBER.png and OUT/sheet.png."""
    classes: Annotated[tuple[str, ...], tyro.conf.arg(name="class")] = ()
    """Names of classes; all of them by default."""
    count: PositiveInt = 16
    """Images of each class."""
    seed: Seed = 0
    """Of the noise."""
    data: str = ""
    """Real images, for the nearest ones and for comparison; those of training by default."""
    labels: str = ""
    """Their labels, as in training; those of training by default."""
    label_column: str = ""
    """The column that holds them; that of training if none is named."""
    judge: str = ""
    """A run whose encoder compares images: FID, precision and recall, and class accuracy."""
    network: str = "inception_v3"
    """With --weights: the network of timm that they are for."""
    weights: str = ""
    """A file of weights of such a network, which compares images in place of a run's encoder."""
    force: ForceArg = False
    checkpoint: CheckpointArg = "last"
    trust: TrustArg = False


def generate(argv: list[str]) -> int:
    """Write images, and compare them."""
    asked = parsed(Generate, "generate", argv)
    if asked.judge and asked.weights:
        raise UserError("--judge and --weights both say what compares the images: give one of them")
    folder = Path(asked.out)
    from nearfar import generation
    from nearfar.run import load

    generation.insist_room(folder, force=asked.force)
    run = opened(asked.run, asked.checkpoint, trust=asked.trust)
    generation.insist_generates(run)
    generation.chosen(run, asked.classes)
    judge = None
    if asked.judge:
        judge = generation.Judge.of(load(asked.judge, trust=asked.trust))
    elif asked.weights:
        judge = generation.Judge.off_the_shelf(run, asked.network, asked.weights)
    data, labels = asked.data or run.config["data"], asked.labels or run.settings.labels or None
    known = asked.data or generation.is_there(run, data)
    if not known and judge is not None:
        raise UserError(f"the images of training, {data!r}, are not there: name real ones by --data")
    samples = (
        (judge.open if judge else run.open)(data, labels=labels, label_column=asked.label_column) if known else None
    )
    if not known:
        print(f"The images of training, {data!r}, are not there: --data names others to find the nearest of.")
    made = generation.generate(run, asked.classes, count=asked.count, seed=asked.seed)
    drawn = generation.sheet(run, made, judge, samples, seed=asked.seed)
    generation.write(run, made, drawn, folder)
    print(f"{counted(len(made.label), 'images')}: {folder / 'images'}\nSheet:   {folder / 'sheet.png'}")
    if judge is None or samples is None:
        return 0
    table = generation.quality(run, made, samples, judge, seed=asked.seed, origin=data)
    print("")
    for name, cell in table["rows"][0]["values"].items():
        ends = f"  ({cell['low']:.1f} to {cell['high']:.1f})" if "low" in cell else ""
        print(f"{name:<56} {cell['value']:8.2f}{ends}")
    print(f"\n{table['note']}\n")
    print(f"Result:  {run.path / 'results' / table['name']}.json\nReport:  {run.report(print)}")
    return 0
