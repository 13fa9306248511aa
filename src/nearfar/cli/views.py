"""`nearfar views DATA`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nearfar.cli.flags import ForceArg, parsed
from nearfar.cli.printing import print
from nearfar.cli.use import Reading
from nearfar.errors import UserError
from nearfar.files import insist_free
from nearfar.ranges import NonNegativeInt, PositiveInt, Seed
from nearfar.training import plan as plans

if TYPE_CHECKING:
    from nearfar.modalities.examination import Meaning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet(Reading):
    """What a method would see: a contact sheet of samples and their views."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """As in training."""
    out: str = "views.png"
    """Where the picture goes."""
    force: ForceArg = False
    method: str = "simclr"
    """Whose recipe names the views."""
    kind: str = ""
    """As in training."""
    recipe: str = ""
    """As in training."""
    views: str = ""
    """Other views than the recipe's; `nearfar train METHOD DATA --help` names them."""
    set: tuple[str, ...] = ()
    """Changes of the views of images, as in training, such as color=0 rotate=90 vflip=0.5."""
    compare: str = ""
    """Views side by side in one picture, by names with commas between them, each with changes if you like:
    simclr,simclr+color=0+vflip=0.5,turned. Of labeled images also what each change keeps of their meaning, as a table
    and, beside --out, as .json."""
    labels: str = ""
    """As in training: for --compare."""
    label_column: str = ""
    """The column of a table that holds the labels, and is no input; by default label, where there is one."""
    keep_words: tuple[str, ...] = ()
    """As in training."""
    size: NonNegativeInt = 0
    """Side of the views in pixels, for images; 0 as in training."""
    samples: PositiveInt = 8
    """How many samples, spread over the data."""
    seed: Seed = 0
    """Of the draws."""


def views(argv: list[str]) -> int:
    """Draw a contact sheet, of the views of a recipe or of several side by side."""
    asked = parsed(Sheet, "views", argv)
    out, table = Path(asked.out), Path(asked.out).with_suffix(".json")
    insist_free(out, force=asked.force)
    if asked.compare:
        insist_free(table, force=asked.force)
    planned = dict(_planned(asked))
    import torch

    from nearfar.files import replace, replace_json
    from nearfar.modalities import kind as kinds
    from nearfar.modalities.sheets import side_by_side
    from nearfar.training.build import settled

    first = next(iter(planned.values()))
    kind = kinds.of(first.kind)
    if asked.compare:
        for plan in planned.values():
            kind.insist_settings(plan.settings)
    samples = kind.samples(asked.data, first.settings)
    suited, reasons = kind.suited_views(samples)
    some = torch.linspace(0, len(samples) - 1, min(asked.samples, len(samples))).long().unique()
    sheets, viewers, plan = [], {}, first
    for name, plan in planned.items():
        plan = settled(plan, samples)
        viewer = kind.views(samples, plan.settings, kind.facts(samples, plan.settings))
        draws = viewer.draw(len(some), torch.Generator().manual_seed(asked.seed))
        sheets.append((name, kind.sheet(samples, viewer, some, draws)))
        viewers[name] = viewer
    sheet = side_by_side(sheets) if asked.compare else sheets[0][1]
    path = replace(out, lambda temporary: sheet.save(temporary, format="PNG"))
    for note in samples.notes:
        print(note)
    shown = ", ".join(planned) if asked.compare else plan.settings.views
    named = f" ({shown})" if shown else ""
    print(f"{len(some)} of {len(samples)} samples and their views{named}: {path}")
    if asked.compare:
        try:
            found = kind.meaning(samples, viewers, asked.seed)
        except UserError as error:
            print(f"No table of what each change keeps: {error}.")
        else:
            print("\n".join(told(found)))
            print(f"The table: {replace_json(table, dataclasses.asdict(found), indent=1)}")
    if suited:
        print(f"Views that suit these {kind.noun}: --views {suited}")
    for reason in reasons:
        print(f"- {reason}")
    return 0


def _planned(asked: Sheet) -> Iterator[tuple[str, plans.Plan]]:
    """By a name, what each of the views that are asked for is made by."""
    if asked.compare and (asked.views or asked.set):
        raise UserError(
            "--compare names the views and their changes itself, such as simclr,simclr+color=0: leave --views and "
            "--set out"
        )
    several = asked.compare.split(",") if asked.compare else [""]
    # A comma also stands between the ends of a range, as in simclr+area=0.2,1.
    several = _joined(several)
    if asked.compare and len(several) < 2:
        raise UserError(f"--compare {asked.compare!r}: two views or more are compared, such as simclr,turned")
    if twice := [name for name in several if several.count(name) > 1]:
        raise UserError(f"--compare {asked.compare!r} names {twice[0]!r} twice")
    common = {"size": asked.size} if asked.size else {}
    common |= {
        "labels": asked.labels,
        "label_column": asked.label_column,
        "keep_words": asked.keep_words,
        **asked.given(),
    }
    for each in several:
        name, *changes = each.split("+") if asked.compare else [asked.views, *asked.set]
        own: dict[str, Any] = ({"views": name} if name else {}) | ({"set": tuple(changes)} if changes else {})
        if asked.compare and not name:
            raise UserError(f"--compare {asked.compare!r}: a name is missing")
        yield each or name, plans.make(asked.method, asked.data, asked.recipe, common | own, kind=asked.kind)


def _joined(parts: list[str]) -> list[str]:
    """The parts between commas, where a number that follows a change belongs to it."""
    whole: list[str] = []
    for part in parts:
        head = part.partition("+")[0]
        if whole and "=" in whole[-1] and head.replace(".", "", 1).isdecimal():
            whole[-1] += f",{part}"
        else:
            whole.append(part)
    return whole


def told(found: Meaning) -> Iterator[str]:
    """What is left of the meaning, as the lines of a table."""
    yield (
        f"Of the 5 nearest other images {found.untouched:.0%} have the label of an image as it is, and "
        f"{found.chance:.0%} by chance ({found.images} labeled images). Kept of these, where one change alone is "
        "made of all images:"
    )
    changes = dict.fromkeys(row.change for rows in found.views.values() for row in rows if row.change != "all")
    names, width = list(found.views), max(map(len, [*changes, "all together"])) + 2
    columns = [max(len(name), 16) for name in names]
    yield " " * width + "  ".join(name.rjust(wide) for name, wide in zip(names, columns, strict=True))
    for change in [*changes, "all"]:
        cells = []
        for name, wide in zip(names, columns, strict=True):
            row = next((row for row in found.views[name] if row.change == change), None)
            text = "" if row is None else f"{row.kept:.0%}{'' if row.setting is None else f' ({_said(row.setting)})'}"
            cells.append(text.rjust(wide))
        yield ("all together" if change == "all" else change).ljust(width) + "  ".join(cells)
    for name in names:
        rows = [row for row in found.views[name] if row.change != "all" and row.lost.low > 0]
        if rows:
            worst = max(rows, key=lambda row: row.lost.mean)
            yield (
                f"Of {name}, {worst.change} costs the most meaning here: {100 * worst.lost.mean:.0f} points of such "
                f"neighbors [{100 * worst.lost.low:.0f}, {100 * worst.lost.high:.0f}]. See what training makes of "
                f"less: --set {worst.change}=…"
            )
        elif len(found.views[name]) > 1:
            yield f"Of {name}, no change alone costs meaning that could be seen."


def _said(setting: Any) -> str:
    return "-".join(f"{value:g}" for value in setting) if isinstance(setting, list) else f"{setting:g}"
