"""A run directory, read into memory: all that the report knows of a run, whoever wrote it.

Every file is optional, and one that is missing, damaged or without its checksum (see `nearfar.files`) becomes a
sentence in `Record.damage`, never an error: a report of a run that crashed is worth more than none.

- `config.yaml`: free; the header shows `method`, `encoder`, `data` (each a name, or a mapping with `name`), `samples`,
  `epochs`, `batch`.
- `environment.json`: free; the header shows `started` (ISO time), `seconds`, `paper`; `notes` is a list of sentences,
  `timings` maps a part of the work to seconds.
- `metrics.jsonl`: one object a line, `{"step", "epoch", "loss", "chance", "lr", ...}` or `{"step", "epoch", "knn",
  "knn_low", "knn_high", "knn_samples", "knn_bank", "knn_right", ...}`. The line of step 0 has the probe and
  the readings (spread, effective_rank, accuracy, ...) before the first step, and no loss; runs of earlier versions lack
  it.
- `classifier.json`: of a classifier: `classes`, and `facts` with `run`, `data`, `train`, `learned`, `calibration`.
- `skipped.csv`: a heading, then rows of name, reason.   - `views.png`.   - `checkpoints/*`.
- `results/map.json`, `neighbors.json`, `copies.json` and `outliers.json`: see `embedding_map`, `neighbor_grid`,
  `copy_sets` and `outliers`.   - `results/found.json`: `directions`, each a `name` and what `found_grid` gives.
- `results/look.json`: `run`, `checkpoint`, `data`, and `sections`, as `nearfar.report.look` gives them.
- `results/written.json`: `rows`, each concepts, what was written for them, and a true sentence.
- `results/NAME.json`, all others: a table,

      {"title": "Does it help?", "note": "One sentence.", "columns": ["kNN (%)", "linear (%)"],
       "rows": [{"name": "raw pixels", "values": {"kNN (%)": {"value": 41.0, "low": 38.2, "high": 43.9}}},
                {"name": "trained", "main": true, "values": {...}}],
       "gains": {"raw pixels": {"kNN (%)": {"value": 3.1, "low": 1.2, "high": 5.0}}},
       "seen": {"samples": 0, "of": 1200, "with labels": false},
       "per_class": {"columns": [...], "rows": [...]},
       "confusion": {"by": "nearest neighbors", "classes": [names], "counts": [[class, taken for, samples], ...]},
       "protocol": {"version": 1, ...}}

  `data` is what they were measured on, in a few words; `own`, whether these are the data of the run; `written`, when it
  was measured (ISO time). What is judged by one table goes by the first: tables are in order, those of the run's own
  data before others, and the newest of either first.
  `suite` holds the parts of a whole evaluation (`nearfar.suite`), which may be without columns of its own.
  `picture` is an image in a data URI, which is shown with the table.
  `low` and `high` (the 95 % interval), `note`, `gains`, `seen`, `per_class`, `confusion` and `protocol` may be left
  out, and a row may lack a column. A row may say under `chosen`, by column, what its measure chose on training rows: a
  list of texts.
  `main` marks the encoder of this run; without it the last row is meant. Where rows are compared, higher must be better
  in every column. `gains`: what the main row gains over another, measured on the same samples. `seen`: how many of the
  tested samples were in training, and whether with their labels. A cell may have `right`, which answers to the tested
  samples are right (`nearfar.evaluation.protocol.packed`), and the table `group`, of each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from nearfar.data.tiles import FACES, Face, contained, picture_uri
from nearfar.errors import NotFound, UserError
from nearfar.files import read_json, read_yaml
from nearfar.looking import LOOKS
from nearfar.report.suite import suite_of
from nearfar.training.directory import read_environment, read_skipped, unchanged
from nearfar.training.journal import Journal

SPECIAL = ("map", "neighbors", "copies", "outliers", "found", "written", "look")
REMEDIES = dict.fromkeys(SPECIAL, "`nearfar report RUN --data DATA` writes it again") | {
    "found": "`nearfar evaluate RUN DATA` writes it again",
    "look": "`nearfar look RUN DATA` writes it again",
    "written": "`nearfar evaluate RUN DATA` writes it again",
    "finetune": "make the classifier again, with `nearfar finetune` or `nearfar distill`",
    "classifier": "make the classifier again, with `nearfar finetune` or `nearfar distill`",
}
"""What brings a file back, by its name."""
T = TypeVar("T")


@dataclass
class Record:
    """What is known of one run. Missing files leave their field empty.

    notes: sentences on the run.  damage: sentences on what could not be read of its directory.
    damaged: the names of files that could not be read at all.
    bare: whole evaluations whose table has no column, by which nothing can be judged.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    bare: dict[str, dict[str, Any]] = field(default_factory=dict)
    map: dict[str, Any] | None = None
    neighbors: dict[str, Any] | None = None
    copies: dict[str, Any] | None = None
    outliers: dict[str, Any] | None = None
    found: list[dict[str, Any]] = field(default_factory=list)
    written: list[list[str]] = field(default_factory=list)
    look: dict[str, Any] | None = None
    classifier: dict[str, Any] | None = None
    views: str | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def fact(self, name: str) -> Any:
        """An entry of the config or the environment; of a mapping, its name. None where there is none."""
        value = self.config.get(name, self.environment.get(name))
        return value.get("name") if isinstance(value, dict) else value

    def curve(self, name: str) -> list[dict[str, Any]]:
        """The metrics lines that hold the number `name`, in the order of steps."""
        return [line for line in self.metrics if isinstance(line.get(name), int | float)]

    def main_row(self, table: dict[str, Any]) -> dict[str, Any]:
        """The row of this run's encoder: the one marked `main`, else the last."""
        return next((row for row in table["rows"] if row.get("main")), table["rows"][-1])


def read(run_dir: str | Path) -> Record:
    """All that a run directory holds that can be read; FileNotFoundError where it is none."""
    record = outline(run_dir)
    folder, attempt = record.folder, partial(_attempt, record)
    record.skipped = attempt("skipped.csv", read_skipped, [])
    record.views = attempt("views.png", lambda path: _views(path, record.config), None)
    record.checkpoints = sorted(p.name for p in folder.glob("checkpoints/*") if not p.name.startswith("."))
    record.map = attempt("results/map.json", _map, None)
    record.neighbors = attempt("results/neighbors.json", _neighbors, None)
    record.copies = attempt("results/copies.json", _copies, None)
    record.outliers = attempt("results/outliers.json", _outliers, None)
    record.found = attempt("results/found.json", _found, [])
    record.written = attempt("results/written.json", _written, [])
    record.look = attempt("results/look.json", lambda path: check_look(_json(path)), None)
    return record


def outline(run_dir: str | Path) -> Record:
    """What a run directory says of the run without its pictures: configuration, environment, numbers and tables.

    Else as `read`.
    """
    folder = Path(run_dir)
    if not (folder / "config.yaml").is_file() and not (folder / "metrics.jsonl").is_file():
        raise NotFound(
            f"{str(folder)!r} is not a run directory: it has neither config.yaml nor metrics.jsonl. "
            "Give the directory that `nearfar train` wrote."
        )
    record = Record(folder)
    attempt = partial(_attempt, record)
    record.config = attempt("config.yaml", lambda path: read_yaml(path, "bring it back from a copy"), {})
    record.environment = attempt("environment.json", lambda path: read_environment(folder), {})
    record.metrics = attempt("metrics.jsonl", lambda path: _metrics(path, record.damage), [])
    record.classifier = attempt("classifier.json", _classifier, None)
    for path in sorted(folder.glob("results/*.json")):
        if path.stem not in SPECIAL and (table := attempt(f"results/{path.name}", _table, None)):
            (record.tables if table["columns"] else record.bare)[path.stem] = table
    notes = record.environment.get("notes", [])
    record.notes += [str(note) for note in (notes if isinstance(notes, list) else [notes])]
    return in_order(record)


def _attempt(record: Record, name: str, load: Callable[[Path], T], otherwise: T) -> T:
    """What `load` makes of a file of the run; `otherwise`, and a sentence of damage, where it cannot be read."""
    path = record.folder / name
    if not path.is_file():
        return otherwise
    try:
        return load(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = error if isinstance(error, UserError | OSError) else f"{type(error).__name__}: {error}"
        record.damage.append(f"{name} could not be read: {reason}")
        record.damaged.append(name)
        return otherwise


def in_order(record: Record) -> Record:
    """The record with its tables in order: those of the run's own data first, and of these the newest."""
    newest = sorted(record.tables.items(), key=lambda item: str(item[1].get("written") or ""), reverse=True)
    record.tables = dict(sorted(newest, key=lambda item: not item[1].get("own")))
    return record


def _json(path: Path) -> dict[str, Any]:
    return read_json(path, REMEDIES.get(path.stem, "remove it, and measure again, as by `nearfar evaluate`"))


def _views(path: Path, config: dict[str, Any]) -> str:
    """The sheet of views as a data URI, a quarter of the size that it has as PNG. Without its config nothing says
    whether it is the one that was written."""
    with Image.open(unchanged(path.parent, path.name, config) if config else path) as sheet:
        return picture_uri(sheet.convert("RGB"), "JPEG")


def _metrics(path: Path, damage: list[str]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    journal = Journal(path)
    for line in journal.read():
        # A run that was cut off and resumed writes some steps twice: the later line is the true one.
        while lines and lines[-1]["step"] > line["step"]:
            lines.pop()
        lines.append(line)
    if note := journal.note():
        damage.append(note)
    return lines


def _classifier(path: Path) -> dict[str, Any]:
    """The facts of a classifier, with the number of its classes."""
    content = _json(path)
    return {str(name): value for name, value in content["facts"].items()} | {"classes": len(content["classes"])}


def _table(path: Path) -> dict[str, Any]:
    """A results table whose every value has `value`, and finite numbers or None in `low` and `high`."""
    table = _json(path)
    for part in [table, *([table["per_class"]] if table.get("per_class") else [])]:
        part["columns"] = [str(column) for column in part["columns"]]
        for row in part["rows"]:
            row["name"] = str(row["name"])
            row["values"] = {
                str(column): {key: _finite(cell.get(key)) for key in ("value", "low", "high")}
                for column, cell in row["values"].items()
            }
    for other, gains in (table.get("gains") or {}).items():
        table["gains"][other] = {
            str(column): {key: float(cell[key]) for key in ("value", "low", "high")} for column, cell in gains.items()
        }
    if not isinstance(table.get("seen") or {}, dict):
        raise UserError("`seen` is no mapping")
    if confusion := table.get("confusion"):
        confusion["classes"] = [str(name) for name in confusion["classes"]]
        known = range(len(confusion["classes"]))
        if not all(truth in known and answer in known and n > 0 for truth, answer, n in confusion["counts"]):
            raise UserError("its confusion counts classes that have no name")
    if suite_of(table) is None and not table["columns"]:
        raise UserError("the table is empty")
    if not table["rows"] or (table["columns"] and not (table.get("per_class") or table)["columns"]):
        raise UserError("the table is empty")
    table["title"] = str(table.get("title") or path.stem)
    return table


def _map(path: Path) -> dict[str, Any]:
    """An embedding map whose lists are of one length, whose numbers are finite, and whose neighbors exist."""
    drawn = _json(path)
    points = range(len(drawn["x"]))
    counts = {key: len(drawn[key]) for key in ("x", "y", "name", "label", "near", "similarity")}
    colors = drawn.get("colors", {})
    counts |= {f"the colors by {name}": len(values) for name, values in colors.items()}
    if len(set(counts.values())) != 1:
        raise UserError(f"its lists differ in length: {counts}")
    if None in map(_finite, [*drawn["x"], *drawn["y"]]):
        raise UserError("a coordinate is not a finite number")
    if not all(j in points for near in drawn["near"] for j in near):
        raise UserError("a neighbor is none of the points")
    if drawn["placed"] not in ("t-SNE", "collapsed", "few"):
        raise UserError(f"`placed` is {drawn['placed']!r}: known are t-SNE, collapsed and few")
    _face(drawn).check_map(drawn, len(points))
    drawn["similarity"] = [[_finite(value) for value in row] for row in drawn["similarity"]]
    drawn["colors"] = {
        str(name): [None if value is None else str(value) for value in values] for name, values in colors.items()
    }
    return drawn | {"total": int(drawn["total"]), "perplexity": _finite(drawn["perplexity"])}


def _neighbors(path: Path) -> dict[str, Any]:
    """A neighbor grid whose every tile is whole, with similarities that are finite or None."""
    return check_grid(_json(path))


def check_grid(grid: dict[str, Any]) -> dict[str, Any]:
    """Bring what `nearfar.report.samples.neighbor_grid` gave into the form that templates take."""
    face = _face(grid)
    for query in grid["queries"]:
        _check_tiles([query, *query["neighbors"]], grid, face)
    return grid


def _found(path: Path) -> list[dict[str, Any]]:
    """Grids of what one side of pairs finds in another, each with its name."""
    grids = _json(path)["directions"]
    for grid in grids:
        check_grid(grid)["name"] = str(grid["name"])
    return grids


def check_look(content: dict[str, Any]) -> dict[str, Any]:
    """Bring what `nearfar.report.look` gave into the form that templates take: known sections alone, whose pictures are
    inside the page."""
    for one in content["sections"]:
        if one["kind"] not in LOOKS:
            raise UserError(f"there is no section {one['kind']!r}: known are {', '.join(LOOKS)}")
        one.update({key: str(one[key]) for key in ("missing", "finding")})
        for row in one["rows"]:
            row.update(name=str(row["name"]), words=str(row["words"]))
            row["label"] = None if row["label"] is None else str(row["label"])
            for scored in row["scored"]:
                words = [(str(word), max(-1.0, min(1.0, _finite(share) or 0.0))) for word, share in scored["words"]]
                scored.update(caption=str(scored["caption"]), words=words)
            for picture in row["pictures"]:
                picture.update(caption=str(picture["caption"]), alt=str(picture["alt"]), uri=contained(picture["uri"]))
        if one["grid"] is not None:
            check_grid(one["grid"])
    return content | {key: str(content[key]) for key in ("run", "checkpoint", "data")}


def _written(path: Path) -> list[list[str]]:
    """Concepts, what was written for them, and a true sentence."""
    return [[str(a), str(b), str(c)] for a, b, c in _json(path)["rows"]]


def _copies(path: Path) -> dict[str, Any]:
    """Sets of copies, each of two or more, with its size."""
    copies = _json(path)
    face = _face(copies)
    for one in copies["sets"]:
        one.update(size=int(one["size"]), labels_differ=bool(one["labels_differ"]))
        if not one["samples"]:
            raise UserError("a set of copies has no samples")
        _check_tiles(one["samples"], copies, face)
    copies["count"] = {key: int(copies["count"][key]) for key in ("samples", "copies", "sets", "labels_differ")}
    return copies | {"meaning": str(copies["meaning"])}


def _outliers(path: Path) -> dict[str, Any]:
    """Samples that are like few others."""
    outliers = _json(path)
    _check_tiles(outliers["samples"], outliers, _face(outliers))
    return outliers | {"median": _finite(outliers["median"]), "total": int(outliers["total"])}


def _face(result: dict[str, Any]) -> type[Face]:
    """How the tiles of a result are drawn; what is said of all of them is checked."""
    if (face := FACES.get(result["face"])) is None:
        raise UserError(f"there is no face {result['face']!r} of tiles: known are {', '.join(FACES)}")
    result.update(noun=str(result["noun"]), plural=str(result["plural"]))
    face.check_head(result)
    return face


def _check_tiles(tiles: list[dict[str, Any]], result: dict[str, Any], face: type[Face]) -> None:
    for tile in tiles:
        label = tile.get("label")
        tile.update(
            name=str(tile["name"]),
            label=None if label is None else str(label),
            similarity=_finite(tile.get("similarity")),
        )
        face.check_tile(tile, result)


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
