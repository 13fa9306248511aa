"""The runs below a folder, side by side: what differs between them, and what came out of each."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfar.errors import NotFound, UserError
from nearfar.files import name_text
from nearfar.owner import is_at_work
from nearfar.report.html import write
from nearfar.report.numbers import duration, flat, number, signed
from nearfar.report.record import Record, outline
from nearfar.report.verdict import STARTS
from nearfar.training.directory import damaged

OURS = ("environment.json", "metrics.jsonl", "samples.parquet", "encoder.json", "checkpoints")
"""What makes a directory with a config.yaml one of our runs, and not that of another program."""
ASKED = ("method", "recipe", "kind", "data", "settings", "arguments")
"""The parts of a config that somebody asked for; all else follows from these and the data."""
PROBE = "kNN probe (%)"


@dataclass(frozen=True)
class Came:
    """A number that came out of a run.  before: the same of what its encoder began with; None where it is not known."""

    value: float
    before: float | None = None

    def text(self, places: int = 1) -> str:
        """The number, with that before training in brackets."""
        return number(self.value, places) + (f" ({number(self.before, places)})" if self.before is not None else "")

    @property
    def gain(self) -> str:
        """The difference, with its sign; "" where it is not known."""
        return "" if self.before is None else signed(self.value - self.before)


@dataclass(frozen=True)
class Listed:
    """One run.

    state: finished, stopped, training or damaged.  why: of one that is damaged, a sentence.
    asked: what was asked for, as text, by dotted name.  came: numbers by column.  measured: on what; "" where nothing
    was.  start: what those before training are of.
    """

    name: str
    state: str
    why: str
    started: str
    seconds: float | None
    asked: dict[str, str]
    came: dict[str, Came]
    measured: str
    start: str


@dataclass(frozen=True)
class Cell:
    """text: what is shown.  key: by what its column is sorted; "" is last.  came: of one that came out."""

    text: str
    key: float | str
    numeric: bool = False
    came: Came | None = None


@dataclass(frozen=True)
class Overview:
    """A table of runs.

    head: the names of the columns.  rows: as many cells in each.  settings: which columns are settings that differ.
    same: settings that all have, with the value.  notes: sentences.  numeric: of each column, whether it holds numbers.
    """

    head: list[str]
    rows: list[list[Cell]]
    settings: list[str]
    same: list[tuple[str, str]]
    notes: list[str]

    def without(self, names: Sequence[str]) -> Overview:
        """The table without some columns."""
        kept = [i for i, name in enumerate(self.head) if name not in names]
        rows = [[row[i] for i in kept] for row in self.rows]
        return dataclasses.replace(self, head=[self.head[i] for i in kept], rows=rows)

    @property
    def numeric(self) -> list[bool]:
        return [any(row[i].numeric for row in self.rows) for i in range(len(self.head))]

    def table(self) -> list[list[str]]:
        """As text: the head, then the rows."""
        return [self.head, *([cell.text for cell in row] for row in self.rows)]

    def plain(self) -> list[list[str | float]]:
        """For other programs: the head, then the rows; numbers as they are, those before training in columns of their
        own, seconds, and nothing where nothing is known."""
        before = {i for row in self.rows for i, cell in enumerate(row) if cell.came and cell.came.before is not None}
        made: list[list[str | float]] = [
            [
                name
                for i, head in enumerate(self.head)
                for name in [head, *([f"{head} before training"] * (i in before))]
            ]
        ]
        for row in self.rows:
            made.append([])
            for i, cell in enumerate(row):
                known = cell.came.before if cell.came else None
                made[-1] += [cell.key, *(["" if known is None else known] * (i in before))]
        return made


@dataclass(frozen=True, kw_only=True)
class RunsPage:
    title: str
    by: str
    facts: list[tuple[str, object]]
    overview: Overview


def find(folder: str | Path) -> list[Path]:
    """The run directories at and below a folder, in order of their names; what lies in a run is no other run.

    Raises NotFound where the folder is not there, or holds no run.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "a file" if root.exists() else "not there"
        raise NotFound(f"{str(folder)!r} is {what}, and a folder with runs is wanted: `nearfar train` writes runs/")
    found = list(_walk(root))
    if not found:
        raise NotFound(f"no run lies in {str(folder)!r} or below it: name the folder that --out of training was in")
    return found


def _walk(root: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(root):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        own = {*folders, *files}
        if ("config.yaml" in own and own & {*OURS}) or {"environment.json", "checkpoints"} <= own:
            folders.clear()
            yield Path(name)


def listed(path: Path, root: Path) -> Listed:
    """What a run directory says of itself, as far as it can be read."""
    name = name_text(str(path.relative_to(root))) if path != root else name_text(path.resolve().name)
    try:
        record = outline(path)
    except UserError as error:  # no config, and no numbers yet
        return Listed(name, "damaged", str(error), "", None, {}, {}, "", "")
    why = _damage(record)
    state = "finished" if record.environment.get("finished") else "stopped"
    seconds = record.environment.get("seconds")
    asked = {k: v for part in ASKED for k, v in _asked(record.config, part)}
    came, measured, start = _came(record)
    return Listed(
        name=name,
        state="damaged" if why else "training" if state == "stopped" and is_at_work(path) else state,
        why=why,
        started=str(record.environment.get("started") or "")[:16].replace("T", " "),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        asked=asked,
        came=came,
        measured=measured,
        start=start,
    )


def _asked(config: dict[str, Any], part: str) -> Iterator[tuple[str, str]]:
    value = config.get(part)
    if isinstance(value, dict):
        yield from flat(value)
    elif value is not None:
        yield part, str(value)


def _damage(record: Record) -> str:
    """What is damaged of a run, in a sentence; "" where nothing is."""
    lost = [name for name in ("config.yaml", "environment.json") if not (record.folder / name).is_file()]
    if lost:
        return f"{lost[0]} is missing"
    if record.damaged:
        return record.damage[0]
    if other := damaged(
        record.folder, record.config if isinstance(record.config.get("files"), dict) else {"files": {}}
    ):
        return f"{other[0]} is missing, or is not the file that it was"
    return ""


def _came(record: Record) -> tuple[dict[str, Came], str, str]:
    """The numbers of a run by column, on what they were measured, and what those before training are of."""
    came: dict[str, Came] = {}
    measured = start = ""
    table = next((one for one in record.tables.values() if one.get("own")), None)
    if table is not None:
        main = record.main_row(table)
        rows = {row["name"]: row for row in table["rows"] if row is not main}
        start = next((name for name in STARTS if name in rows), "")
        other = rows[start]["values"] if start else {}
        for column in table["columns"]:
            if (value := main["values"].get(column, {}).get("value")) is not None:
                came[column] = Came(value, other.get(column, {}).get("value"))
        measured = str(table.get("data") or "")
    probes = record.curve("knn")
    if probes and (last := probes[-1])["step"] > 0:
        first = probes[0]
        came[PROBE] = Came(last["knn"], first["knn"] if first["step"] == 0 else None)
    return came, measured, start


def overview(runs: Sequence[Listed]) -> Overview:
    """A table of runs: what came out, then what differs between them. What is the same of all is not a column."""
    names = list(dict.fromkeys(key for run in runs for key in run.asked))
    known = [run for run in runs if run.asked]
    differ = [key for key in names if len({run.asked.get(key) for run in known}) > 1]
    same = [(key, known[0].asked[key]) for key in names if key not in differ]
    columns = list(dict.fromkeys(column for run in runs for column in run.came))
    columns = [*(c for c in columns if c != PROBE), *(c for c in columns if c == PROBE)]
    places = {run.measured for run in runs if run.measured}
    head = ["run", "state", *columns, *differ, *(["measured on"] if len(places) > 1 else []), "time", "started"]
    rows = []
    for run in runs:
        row = [_word(run.name), _word(run.state), *(_number(run.came.get(column)) for column in columns)]
        row += [_setting(run.asked.get(key, "")) for key in differ]
        row += [_word(run.measured)] if len(places) > 1 else []
        row += [_time(run.seconds), _word(run.started)]
        rows.append(row)
    return Overview(head, rows, differ, same, _notes(runs, places, columns))


def _notes(runs: Sequence[Listed], places: set[str], columns: Sequence[str]) -> list[str]:
    notes = [f"{run.name} is damaged: {run.why}." for run in runs if run.why]
    starts = {run.start for run in runs if run.start}
    if starts or PROBE in columns:
        of = " or ".join(sorted(starts, key=STARTS.index)) or "untrained encoder"
        notes.append(f"In brackets: the same of the {of}, before training. `nearfar evaluate` has the intervals.")
    if len(places) > 1:
        notes.append(f"Results are of {len(places)} different data sets, and rows of different ones do not compare.")
    if PROBE in columns:
        notes.append(
            "The kNN probe is taken of few held-out samples while a run trains: where it differs little, it tells "
            "nothing."
        )
    if bare := [run.name for run in runs if not run.measured]:
        some = ", ".join(bare[:3]) + (f" and {len(bare) - 3} more" if len(bare) > 3 else "")
        notes.append(f"Without a result on data of their own: {some}. `nearfar evaluate RUN DATA` measures one.")
    return notes


def _word(text: str) -> Cell:
    return Cell(text or "–", text)


def _setting(text: str) -> Cell:
    try:
        value = json.loads(text)
    except ValueError:
        return _word(text)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(text, float(value), True) if is_number else _word(text)


def _number(came: Came | None) -> Cell:
    return Cell("–", "", True) if came is None else Cell(came.text(), came.value, True, came)


def _time(seconds: float | None) -> Cell:
    return Cell("–", "", True) if seconds is None else Cell(duration(round(seconds)), seconds, True)


def page(target: Path, folder: str, made: Overview) -> Path:
    """Write the page of an overview.  folder: as it was named."""
    data = RunsPage(
        title=f"Runs in {name_text(Path(folder).resolve().name)}",
        by="runs",
        facts=[("Runs", len(made.rows)), ("Folder", name_text(folder))],
        overview=made,
    )
    return write(target, "runs.html", data, None, script="runs.js")
