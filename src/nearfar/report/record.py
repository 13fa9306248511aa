"""A run directory, read into memory: all that the report knows of a run, whoever wrote it.

Every file is optional, and one that cannot be read becomes a sentence in `Record.notes`, never an error: a report of a
run that crashed is worth more than none.

- `config.yaml`: free; the header shows `method`, `encoder`, `data` (each a name, or a mapping with `name`), `samples`,
  `epochs`, `batch`.
- `environment.json`: free; the header shows `started` (ISO time), `seconds`, `paper`; `notes` is a list of sentences,
  `timings` maps a part of the work to seconds.
- `metrics.jsonl`: one object a line, `{"step", "epoch", "loss", "chance", "lr", ...}` or `{"step", "epoch", "knn"}`.
- `classifier.json`: of a classifier: `classes`, and `facts` with `run`, `data`, `train`, `learned`, `calibration`.
- `skipped.csv`: a heading, then rows of name, reason.   - `views.png`.   - `checkpoints/*`.
- `results/map.json`, `neighbors.json`, `copies.json` and `outliers.json`: see `embedding_map`, `neighbor_grid`,
  `copy_sets` and `outliers`.
- `results/NAME.json`, all others: a table,

      {"title": "Does it help?", "note": "One sentence.", "columns": ["kNN (%)", "linear (%)"],
       "rows": [{"name": "raw pixels", "values": {"kNN (%)": {"value": 41.0, "low": 38.2, "high": 43.9}}},
                {"name": "trained", "main": true, "values": {...}}],
       "per_class": {"columns": [...], "rows": [...]},
       "confusion": {"by": "nearest neighbors", "classes": [names], "counts": [[class, taken for, samples], ...]},
       "protocol": {"version": 1, ...}}

  `low` and `high` (the 95 % interval), `note`, `per_class`, `confusion` and `protocol` may be left out, and a row may
  lack a column.
  `main` marks the encoder of this run; without it the last row is meant. In the first column, higher must be better.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

SPECIAL = ("map", "neighbors", "copies", "outliers")
T = TypeVar("T")


@dataclass
class Record:
    """What is known of one run. Missing files leave their field empty."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    map: dict[str, Any] | None = None
    neighbors: dict[str, Any] | None = None
    copies: dict[str, Any] | None = None
    outliers: dict[str, Any] | None = None
    classifier: dict[str, Any] | None = None
    views: bytes | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

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
    """All that a run directory holds; FileNotFoundError where it is none."""
    folder = Path(run_dir)
    if not (folder / "config.yaml").is_file() and not (folder / "metrics.jsonl").is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} is not a run directory: it has neither config.yaml nor metrics.jsonl. "
            "Give the directory that `nearfar train` wrote."
        )
    record = Record(folder)

    def attempt(name: str, load: Callable[[Path], T], otherwise: T) -> T:
        path = folder / name
        if not path.is_file():
            return otherwise
        try:
            return load(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error, yaml.YAMLError) as error:
            record.notes.append(f"{name} could not be read: {error}")
            return otherwise

    record.config = attempt("config.yaml", lambda path: _mapping(yaml.safe_load(path.read_text("utf-8"))), {})
    record.environment = attempt("environment.json", _json, {})
    record.metrics = attempt("metrics.jsonl", lambda path: _metrics(path, record.notes), [])
    record.classifier = attempt("classifier.json", _classifier, None)
    record.skipped = attempt("skipped.csv", _skipped, [])
    record.views = attempt("views.png", Path.read_bytes, None)
    record.checkpoints = sorted(p.name for p in folder.glob("checkpoints/*") if not p.name.startswith("."))
    record.map = attempt("results/map.json", _map, None)
    record.neighbors = attempt("results/neighbors.json", _neighbors, None)
    record.copies = attempt("results/copies.json", _copies, None)
    record.outliers = attempt("results/outliers.json", _outliers, None)
    for path in sorted(folder.glob("results/*.json")):
        if path.stem not in SPECIAL and (table := attempt(f"results/{path.name}", _table, None)):
            record.tables[path.stem] = table
    notes = record.environment.get("notes", [])
    record.notes += [str(note) for note in (notes if isinstance(notes, list) else [notes])]
    return record


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a mapping was wanted, not {type(value).__name__}")
    return {str(key): item for key, item in value.items()}


def _json(path: Path) -> dict[str, Any]:
    return _mapping(json.loads(path.read_text("utf-8")))


def _metrics(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    broken = 0
    for text in path.read_text("utf-8", errors="replace").splitlines():
        try:
            line = _mapping(json.loads(text))
            step = line["step"] + 0
        except (ValueError, KeyError, TypeError):
            broken += 1
            continue
        # A run that was cut off and resumed writes some steps twice: the later line is the true one.
        while lines and lines[-1]["step"] > step:
            lines.pop()
        lines.append(line)
    if broken:
        notes.append(f"Lines of metrics.jsonl that could not be read and were left out: {broken}.")
    return lines


def _classifier(path: Path) -> dict[str, Any]:
    """The facts of a classifier, with the number of its classes."""
    found = _json(path)
    return {str(name): value for name, value in found["facts"].items()} | {"classes": len(found["classes"])}


def _skipped(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        return [(row[0], ", ".join(row[1:])) for row in list(csv.reader(file))[1:] if row]


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
    if confusion := table.get("confusion"):
        confusion["classes"] = [str(name) for name in confusion["classes"]]
        known = range(len(confusion["classes"]))
        if not all(truth in known and answer in known and n > 0 for truth, answer, n in confusion["counts"]):
            raise ValueError("its confusion counts classes that have no name")
    if not table["rows"] or not table["columns"]:
        raise ValueError("the table is empty")
    table["title"] = str(table.get("title") or path.stem)
    return table


def _map(path: Path) -> dict[str, Any]:
    """An embedding map whose lists are of one length and whose numbers are finite."""
    drawn = _json(path)
    rows = _rows(drawn)
    lists = ("x", "y", "name", "label", "near", "similarity", *(["cells"] if rows else []))
    counts = {key: len(drawn[key]) for key in lists}
    if len(set(counts.values())) != 1:
        raise ValueError(f"its lists differ in length: {counts}")
    numbers = () if rows else ("across", "side")
    if None in map(_finite, [*drawn["x"], *drawn["y"]]) or not all(isinstance(drawn[key], int) for key in numbers):
        raise ValueError("a coordinate, `across` or `side` is not a number")
    if rows:
        drawn["cells"] = [_cells(cells, drawn) for cells in drawn["cells"]]
    drawn["similarity"] = [[_finite(value) for value in row] for row in drawn["similarity"]]
    return drawn


def _neighbors(path: Path) -> dict[str, Any]:
    """A neighbor grid whose every image has a name, and whose similarities are finite or None."""
    grid = _json(path)
    _rows(grid)
    for query in grid["queries"]:
        _check_tiles([query, *query["neighbors"]], grid)
    return grid


def _copies(path: Path) -> dict[str, Any]:
    """Sets of copies, each with its size."""
    found = _json(path)
    _rows(found)
    for copies in found["sets"]:
        copies["size"] = int(copies["size"])
        _check_tiles(copies["samples"], found)
    return found


def _outliers(path: Path) -> dict[str, Any]:
    """Samples that are like few others."""
    found = _json(path)
    _rows(found)
    _check_tiles(found["samples"], found)
    return found


def _rows(found: dict[str, Any]) -> bool:
    """Whether samples are rows of a table; then their columns have names."""
    if "columns" not in found:
        return False
    found["columns"] = [str(name) for name in found["columns"]]
    found.update(numbers=int(found.get("numbers", 0)), hidden=int(found.get("hidden", 0)))
    return True


def _cells(cells: list[Any], found: dict[str, Any]) -> list[str]:
    if len(cells) != len(found["columns"]):
        raise ValueError(f"a row has {len(cells)} cells for {len(found['columns'])} columns")
    return [str(cell) for cell in cells]


def _check_tiles(tiles: list[dict[str, Any]], found: dict[str, Any]) -> None:
    for shown in tiles:
        shown.update(name=str(shown["name"]), similarity=_finite(shown.get("similarity")))
        if "columns" in found:
            shown["cells"] = _cells(shown["cells"], found)


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
