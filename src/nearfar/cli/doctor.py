"""`nearfar doctor DATA`: what is in the data, before training."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from nearfar.cli.flags import parsed
from nearfar.cli.printing import print
from nearfar.cli.use import DataArg, Reading
from nearfar.errors import AlreadyThere, UserError, printable
from nearfar.ranges import NonNegativeInt


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doctor(Reading):
    """Look at images or a table before training: broken files, copies, uneven classes, columns that are empty or give
    the label away; and how to train on what is there."""

    data: DataArg
    labels: str = ""
    """A CSV or Parquet file of path (or index) and label; or the word folders."""
    kind: str = ""
    """What the samples are: image, table, or the path of your own kind. By default recognized from DATA."""
    label_column: str = "label"
    """The column of that file, or of the table, which holds the labels."""
    drop: tuple[str, ...] = ()
    """Columns of a table to leave out."""
    categorical: tuple[str, ...] = ()
    """Columns of a table whose numbers are codes."""
    keep_words: tuple[str, ...] = ()
    """Words such as NA or None that are values all the same."""
    encoder: str = ""
    """The network to time a step of; resnet18, and mlp for tables, if none is named."""
    size: NonNegativeInt = 0
    """Side of the views to time it with; 0 takes the images' own up to 64, else 128."""
    groups: str = "groups.csv"
    """Where the table of copies goes, if there are any; one that exists is not overwritten."""


def doctor(argv: list[str]) -> int:
    """Examine, and print."""
    asked = parsed(Doctor, "doctor", argv)
    path = Path(asked.groups)
    if path.exists():
        raise AlreadyThere(f"{str(path)!r} is there already: name another --groups")
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from nearfar.modalities import kind as kinds
    from nearfar.training import plan as plans

    plan = plans.make("simclr", asked.data, None, {}, kind=asked.kind)
    given = {
        name: getattr(asked, name)
        for name in ("labels", "label_column", "drop", "categorical", "keep_words", "size", "encoder")
    }
    given |= asked.given()
    flags = {name: value for name, value in given.items() if value and hasattr(plan.settings, name)}
    if strange := [name for name, value in given.items() if value and name not in flags]:
        raise UserError(f"--{strange[0].replace('_', '-')} is not for data of the kind {plan.kind}")
    # All files are looked at, however many are broken; the network to time is that of the kind, not of the recipe.
    flags = {
        "encoder": type(plan.settings)().encoder,
        **({"max_bad": 1.0} if hasattr(plan.settings, "max_bad") else {}),
    } | flags
    plan = plans.make("simclr", asked.data, None, flags, kind=asked.kind)
    kind = kinds.of(plan.kind)
    samples = kind.samples(asked.data, plan.settings)
    examination = kind.examine(samples, plan.settings)
    console = Console(highlight=False, soft_wrap=True)
    facts = Table.grid(padding=(0, 2))
    for name, text in examination.facts:
        facts.add_row(Text(printable(name)), Text(printable(text)))
    console.print(facts)
    for note in samples.notes:
        print(note)
    print()
    for warning in examination.warnings:
        print(f"- {warning}")
    if not examination.warnings:
        print(f"Nothing to mend: {examination.sound}.")
    command = examination.command(shlex.quote(asked.data))
    grouped = any(a.value == "GROUPS" for a in examination.advice)
    if grouped:
        examination.write_groups(path)
        print(f"The sets of copies: {path}")
        command = command.replace("--labels GROUPS", f"--labels {shlex.quote(str(path))}")
    elif asked.labels:
        command += f" --labels {shlex.quote(asked.labels)}"
    if asked.label_column != "label" and (asked.labels or not kind.pixels) and not (grouped and kind.pixels):
        command += f" --label-column {shlex.quote(asked.label_column)}"
    command += "".join(f" --{name.replace('_', '-')} {value}" for name, value in asked.given().items())
    for flag in ("drop", "categorical", "keep_words"):
        if getattr(asked, flag):
            command += f" --{flag.replace('_', '-')} {shlex.join(getattr(asked, flag))}"
    print()
    for advice in examination.advice:
        print(f"  {advice.flag or 'method':<14} {advice.value:<8} {advice.reason}")
    print(f"\n{command}")
    return 0
