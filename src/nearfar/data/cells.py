"""Tables of labels cell by cell: what a table says of each sample, as it is written, and a table written from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data import csv
from nearfar.data.labels import natural, plain_path, read_label_rows
from nearfar.data.samples import Samples
from nearfar.files import csv_text, replace_text, with_checksum


@dataclass(slots=True)
class LabelCells:
    """What a table says of N samples.

    key: the column that names them; "" where no table was given.  header: all columns.
    of: the cells of each sample by column; nothing where it has no row.  rest: rows that name no sample.
    """

    key: str = ""
    header: list[str] = field(default_factory=list)
    of: list[Mapping[str, str]] = field(default_factory=list)
    rest: list[Mapping[str, str]] = field(default_factory=list)


def cells(
    header: Sequence[str],
    key: str,
    rows: Sequence[Mapping[str, str]],
    names: Sequence[str],
    root: Path | None = None,
) -> LabelCells:
    """The rows of a table by the samples that they name; a row of a file is for all its pages, FILE#1 and so on.

    names: of the N samples.  root: DATA's folder, to understand absolute paths.
    """
    by_name = {plain_path(csv.short(row[key]), root): row for row in rows}
    of, used = [], set()
    for name in names:
        known_as = (plain_path(name, root), plain_path(re.sub(r"#[0-9]+$", "", name), root))
        found = next((known for known in known_as if known in by_name), None)
        used.add(found)
        of.append({} if found is None else by_name[found])
    rest = [row for known, row in by_name.items() if known not in used]
    return LabelCells(key, list(header), of, rest)


def label_cells(path: str | Path, names: Sequence[str], *, column: str, root: Path | None = None) -> LabelCells:
    """What a table of labels says of each sample: see `nearfar.data.labels.table_labels`."""
    header, key, rows = read_label_rows(Path(path), column, [])
    found = csv.column(header, key) or key
    return cells(header, found, [row for _, row in rows], names, root)


def write_labels(path: Path, samples: Samples, group: Sequence[str], given: LabelCells, *, column: str) -> None:
    """A table that --labels reads, with all that is known of the samples: every column that was given, and label,
    split, group and attribute, as far as there are any. Samples of which nothing is known have no row.

    group: N, the group of each, or "".  column: that of the labels.
    """
    header = list(given.header) or ["index" if samples.numbered else "path"]
    key = given.key or header[0]
    known = {
        column: [samples.classes[y] if y != MISSING else "" for y in samples.label.tolist()],
        "split": samples.split,
        "group": group,
        "attribute": [str(a) if a != MISSING else "" for a in samples.attribute.tolist()],
    }
    called = {name: csv.column(header, name) for name in known}
    header += [name for name, values in known.items() if called[name] is None and (name == column or any(values))]

    def row(i: int) -> list[str]:
        own = dict(given.of[i]) if given.of else {}
        own[key] = samples.names[i]
        for name, values in known.items():
            at = called[name] or name
            # A class is written by its name; of the others the cell that was given, but for groups, which grew.
            own[at] = values[i] or own.get(at, "") if name in (column, "group") else own.get(at) or values[i]
        return [own.get(name, "") for name in header]

    rows = [row(i) for i in range(len(samples))]
    place = header.index(key)
    rows = [cells for cells in rows if any(cells[:place] + cells[place + 1 :])]
    rows += [[cells.get(name, "") for name in header] for cells in given.rest]
    replace_text(path, with_checksum(csv_text([header, *rows]), cells=len(header)))


def joined_groups(group: Tensor, others: Tensor, names: Sequence[str]) -> list[str]:
    """Groups of two sources as one: samples that are together in either are together. N names, "" for those alone.

    group, others: N, int64, or MISSING.  names: N, what the first are called, where anything is known of that.
    A group is called as it was; one of several by these; one of `others` alone copies-1 and so on.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(group)
    first = n + (int(group.max()) + 1 if n else 0)
    edges = [(i, n + g) for i, g in enumerate(group.tolist()) if g != MISSING]
    edges += [(i, first + g) for i, g in enumerate(others.tolist()) if g != MISSING]
    size = first + (int(others.max()) + 1 if n else 0)
    ends = np.array(edges, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(size, size))
    part = connected_components(graph, directed=False)[1][:n].tolist()
    called: dict[int, list[str]] = {}
    for i, (g, other) in enumerate(zip(group.tolist(), others.tolist(), strict=True)):
        if g != MISSING or other != MISSING:
            own = called.setdefault(part[i], [])
            name = (names[i] or f"group-{g}") if g != MISSING else ""
            if name and name not in own:
                own.append(name)
    fresh = _fresh({name for own in called.values() for name in own})
    final = {p: _together(own) or next(fresh) for p, own in called.items()}
    return [final.get(p, "") for p in part]


def _together(names: list[str]) -> str:
    names = sorted(names, key=natural)
    return "+".join(names if len(names) < 4 else [*names[:2], f"{len(names) - 2} more"])


def _fresh(taken: set[str]) -> Iterator[str]:
    """copies-1, copies-2 and so on, but for names that are taken."""
    number = 0
    while True:
        number += 1
        if (name := f"copies-{number}") not in taken:
            yield name
