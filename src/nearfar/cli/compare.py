"""`nearfar compare METHODS DATA`: several methods at equal budget."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from nearfar.cli.use import DataArg


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Train several methods on the same data at equal budget, over seeds, and say which differences are there.

    Stopped, even by kill -9, it goes on where it was when it is started again with the same flags.
    """

    methods: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="METHODS")]
    """Names with commas between them: simclr,moco,byol."""
    data: DataArg
    labels: str = ""
    """What they are judged by: a CSV or Parquet file of path (or index) and label, or the word folders; where the data
    bring none."""
    label_column: str = "label"
    """The column of that file which holds the labels."""
    epochs: int = 10
    """Passes over the samples, the same for all."""
    minutes: float = 0.0
    """Instead of that: as many epochs as each method does in so many minutes."""
    seeds: int = 3
    """Runs of each method."""
    encoder: str = "conv4"
    """conv4, or the name of any timm model."""
    batch: int = 128
    """Samples in a step."""
    size: int = 0
    """Side of the views; 0 as in training."""
    out: str = "compare"
    """Where everything goes."""


def compare(argv: list[str]) -> int:
    """Run what is missing, and print the table."""
    asked = tyro.cli(Compare, args=argv, prog="nearfar compare", config=(tyro.conf.OmitArgPrefixes,))
    from nearfar.studies.comparison import Ask, lines, sentences
    from nearfar.studies.comparison import compare as run

    ask = Ask(
        methods=tuple(name.strip() for name in asked.methods.split(",") if name.strip()),
        data=asked.data,
        labels=asked.labels,
        label_column=asked.label_column,
        epochs=asked.epochs,
        minutes=asked.minutes,
        seeds=asked.seeds,
        flags={"encoder": asked.encoder, "batch": asked.batch, "size": asked.size},
    )
    made = run(ask, Path(asked.out))
    if made is None:
        print(f"Stopped and saved. Go on with: nearfar compare {' '.join(argv)}")
        return 130
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    header, *rows = lines(made)
    title = f"Equal budget, {ask.seeds} seeds; means and 95 % t-intervals"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    shown = [i for i, name in enumerate(header) if name not in ("samples seen", "verdict")]  # these are in the CSV
    for i in shown:
        name = header[i].replace("gain over ", "gain over\n")
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[i].replace(" [", "\n[") for i in shown), end_section=True)
    Console().print(table)
    print("\n".join(sentences(made)))
    print()
    print(f"Table: {Path(asked.out) / 'compare.csv'}\nPage:  {Path(asked.out) / 'compare.html'}")
    return 0
