"""Tables as a kind of data: opened, and turned into views, as the settings of a run say."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from nearfar.batch import MISSING
from nearfar.data.samples import digests
from nearfar.modalities.table import views
from nearfar.modalities.table.columns import Columns
from nearfar.modalities.table.encoder import TableEncoder
from nearfar.modalities.table.samples import Table, open_table
from nearfar.modalities.table.sheet import row_sheet
from nearfar.report.shown import Cells, Shown
from nearfar.settings import Settings

RAW = "raw columns"

MOST_COLUMNS = 14
"""That reports show."""


def open_samples(data: Any, settings: Settings) -> Table:
    """The rows of a run, with the labels that its settings name."""
    if isinstance(data, Table):
        rows = data
    else:
        rows = open_table(
            data,
            labels=settings.labels if settings.labels not in ("", "none") else None,
            label_column=settings.label_column,
            drop=settings.drop,
            categorical=settings.categorical,
        )
    if settings.labels == "none":
        rows = dataclasses.replace(rows, label=torch.full_like(rows.label, MISSING), classes=[])
    return rows


def open_as(data: Any, made: dict[str, Any], *, labels: Any, label_column: str, max_bad: float) -> Table:
    """Cells as the encoder of a run saw its training rows."""
    if isinstance(data, Table):
        return data
    columns = Columns.from_spec(made["encoder"]["columns"])
    return open_table(data, labels=labels, label_column=label_column, columns=columns)


def facts(data: Table, settings: Settings) -> dict[str, Any]:
    """How many inputs a row makes; a method that asks for channels gets that."""
    return {
        "channels": data.columns.width,
        "numbers": len(data.columns.numbers),
        "categories": len(data.columns.categories),
    }


def make_encoder(data: Table, settings: Settings, facts: dict[str, Any]) -> TableEncoder:
    """The encoder that the settings name, for these columns."""
    return TableEncoder(settings.encoder, data.columns)


def make_views(data: Table, settings: Settings, facts: dict[str, Any]) -> views.Views:
    """The views that the settings name; other values of a column are drawn from these rows."""
    return views.views(
        settings.views,
        data.columns,
        (data.numbers, data.codes),
        corruption=settings.corruption,
        count=settings.view_count,
    )


def insist_fitting(encoder: TableEncoder, viewer: views.Views) -> None:
    """Every view has the inputs that the encoder takes."""


def plain(encoder: TableEncoder) -> views.Views:
    """Cells as they are."""
    return views.plain(encoder.columns)


def raw(encoder: TableEncoder) -> views.Views:
    """The same."""
    return views.plain(encoder.columns)


def describe(facts: dict[str, Any]) -> str:
    return f"on {facts['numbers']} numbers and {facts['categories']} categories"


def sheet(data: Table, viewer: views.Views, index: Tensor, draws: views.Draws) -> Image:
    """Some rows as text, and below each its views, with what was exchanged in color."""
    return row_sheet(data, viewer, index, draws)


def grid(data: Table, index: Tensor, captions: list[str]) -> Image:
    """Some rows as text; what would stand under an image is in the list beside them."""
    viewer = views.Views([], data.columns)
    return row_sheet(data, viewer, index, viewer.draw(len(index), torch.Generator()))


def copies(data: Table) -> Tensor:
    """Which rows are the same."""
    known = digests(data)
    count = Counter(known)
    numbers = {digest: number for number, digest in enumerate(digest for digest in count if count[digest] > 1)}
    return torch.tensor([numbers.get(digest, MISSING) for digest in known])


def shown(data: Table) -> Shown:
    """Cells in words: the first columns, both numbers and categories where there are both."""
    first, more = len(data.columns.numbers), len(data.columns.categories)
    numbers = min(first, max(MOST_COLUMNS // 2, MOST_COLUMNS - more))
    which = [*range(numbers), *range(first, min(first + more, first + MOST_COLUMNS - numbers))]

    def cells(i: int) -> list[str]:
        told = data.describe(i)
        return [told[c] for c in which]

    columns = [data.columns.names[c] for c in which]
    look = Cells(columns=columns, numbers=numbers, cells=cells, hidden=first + more - len(which))
    return Shown(look=look, names=[f"row {name}" for name in data.names], label=data.label, classes=data.classes)


def mild_views(settings: Settings) -> str:
    """The views of which fine-tuning takes the first: rows as they are."""
    return "scarf"


def open_files(data: Any, open_data: Callable[[Any], Table]) -> Table:
    """Rows to classify. Raises ValueError for several files."""
    if isinstance(data, list | tuple) and all(isinstance(file, str | Path) for file in data):
        raise ValueError(f"{len(data)} files for a classifier of rows: give one table")
    return open_data(data)


def weights_off_the_shelf(name: str, file: str, samples: Table) -> tuple[nn.Module, views.Views]:
    """Raises ValueError."""
    raise ValueError(f"--weights {file!r}: there are none for this kind of data; leave it out")
