"""`nearfar doctor DATA`: what is in the data, before training."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import tyro

from nearfar.cli.use import DataArg


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doctor:
    """Look at pictures before training: broken files, copies, uneven classes; and how to train on what is there."""

    data: DataArg
    labels: str = ""
    """A CSV or Parquet file of path (or index) and label; or the word folders."""
    label_column: str = "label"
    """The column of that file which holds the labels."""
    encoder: str = "resnet18"
    """The network to time a step of."""
    size: int = 0
    """Side of the views to time it with; 0 takes the pictures' own up to 64, else 128."""
    groups: str = "groups.csv"
    """Where the table of copies goes, if there are any; one that exists is not overwritten."""


def doctor(argv: list[str]) -> int:
    """Examine, and print."""
    asked = tyro.cli(Doctor, args=argv, prog="nearfar doctor", config=(tyro.conf.OmitArgPrefixes,))
    path = Path(asked.groups)
    if path.exists():
        raise FileExistsError(f"{str(path)!r} is there already: name another --groups")
    from rich.console import Console
    from rich.table import Table

    from nearfar.batch import MISSING
    from nearfar.doctor import examine
    from nearfar.pictures import open_pictures, view_size
    from nearfar.settings import Settings

    settings = Settings(labels=asked.labels, label_column=asked.label_column, size=asked.size, max_bad=1)
    images = open_pictures(asked.data, settings)
    found = examine(images, encoder=asked.encoder, size=view_size(settings, images.side))
    console = Console(highlight=False, soft_wrap=True)
    facts = Table.grid(padding=(0, 2))
    for name, text in found.facts:
        facts.add_row(name, text)
    console.print(facts)
    for note in images.notes:
        console.print(note, markup=False)
    console.print()
    for warning in found.warnings:
        console.print(f"- {warning}", markup=False)
    if not found.warnings:
        console.print("Nothing to mend: no broken files, no copies, no uneven classes.")
    command = found.command(shlex.quote(asked.data))
    if (found.copies.group != MISSING).any():
        found.write_groups(path)
        console.print(f"The sets of copies: {path}", markup=False)
        command = command.replace("--labels GROUPS", f"--labels {shlex.quote(str(path))}")
    elif asked.labels:
        command += f" --labels {shlex.quote(asked.labels)}"
    console.print()
    for advice in found.advice:
        console.print(f"  {advice.flag or 'method':<14} {advice.value:<8} {advice.reason}", markup=False)
    console.print(f"\n{command}", markup=False)
    return 0
