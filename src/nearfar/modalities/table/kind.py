"""Tables as a kind of data: opened, and turned into views, as the settings of a run say."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from nearfar.data.labels import LabelColumn
from nearfar.data.tables import header
from nearfar.data.tiles import Cells, Tiles
from nearfar.errors import UserError
from nearfar.files import load_function
from nearfar.looking.parts import Parts, worded
from nearfar.looking.similarity import times_input
from nearfar.modalities import kind
from nearfar.modalities.examination import Examination
from nearfar.modalities.table import doctor, settings
from nearfar.modalities.table import views as table_views
from nearfar.modalities.table.columns import Columns
from nearfar.modalities.table.encoder import TableEncoder, example, from_spec, inputs
from nearfar.modalities.table.samples import TableSamples, open_table
from nearfar.modalities.table.settings import Settings
from nearfar.modalities.table.sheet import row_sheet
from nearfar.modalities.table.views import Draws, Views

MOST_COLUMNS = 14
"""That reports show."""


class TableKind(kind.Kind):
    """Rows of a CSV or Parquet file, of a frame, or of a mapping of columns."""

    noun = "rows"
    unlabeled = "name their column by --label-column, or give --labels FILE, a table of index and label"
    raw_name = "raw columns"
    read = kind.Kind.read | {"drop", "categorical", "numbers"}
    Settings = Settings
    entry = settings

    def insist_settings(self, settings: Settings) -> None:
        if ".py" in settings.views:
            load_function(settings.views, "--views")

    def view_count(self, settings: Settings) -> int | None:
        return None if ".py" in settings.views else settings.view_count or 2

    def columns(self, data: Any) -> list[str] | None:
        if isinstance(data, str | os.PathLike):
            return header(Path(data))
        return list(map(str, data)) if isinstance(data, Mapping) else None

    def open(self, data: Any, settings: Settings) -> TableSamples:
        if isinstance(data, TableSamples):
            return data
        return open_table(
            data,
            labels=settings.named_labels,
            label_column=settings.label_column,
            drop=settings.drop,
            categorical=settings.categorical,
            keep=settings.keep_words,
            every=settings.split == "all",
            form=settings.numbers,
        )

    def open_as(
        self,
        data: Any,
        facts: dict[str, Any],
        settings: Settings,
        *,
        labels: Any,
        column: LabelColumn,
        lenient: bool = False,
    ) -> TableSamples:
        if isinstance(data, TableSamples):
            return data
        columns = Columns.from_spec(facts["encoder"]["columns"])
        return open_table(
            data,
            labels=labels,
            label_column=column,
            drop=settings.drop,
            keep=settings.keep_words,
            columns=columns,
        )

    def from_columns(self, columns: Mapping[str, Sequence[Any]], split: Sequence[str], root: Path | None) -> Any:
        """Any number of them; what a column holds is learned from rows that are not in another split. An array of
        several numbers a row is as many columns."""
        made: dict[str, Any] = {}
        for name, cells in columns.items():
            if any(getattr(cell, "ndim", 0) != 1 for cell in cells):
                made[name] = cells
                continue
            if len({len(cell) for cell in cells}) > 1:
                raise UserError(f"the rows of {name!r} are arrays of unequal length: give as many numbers in each")
            made |= {f"{name}_{i}": numbers for i, numbers in enumerate(np.stack(cells).T)}
        return {**made, "split": list(split)}

    def facts(self, samples: TableSamples, settings: Settings) -> dict[str, Any]:
        """How many inputs a row makes; a method that asks for channels gets that."""
        columns = samples.columns
        return {"channels": columns.width, "numbers": len(columns.numbers), "categories": len(columns.categories)}

    def encoder(self, samples: TableSamples, settings: Settings, facts: dict[str, Any]) -> TableEncoder:
        return TableEncoder(settings.encoder, samples.columns)

    def encoder_from_spec(self, spec: dict[str, Any]) -> TableEncoder:
        return from_spec(spec)

    def inputs(self, samples: TableSamples, facts: dict[str, Any]) -> dict[str, Any]:
        return inputs(samples, facts)

    def example(self, spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Tensor:
        return example(spec, n, generator)

    def views(self, samples: TableSamples, settings: Settings, facts: dict[str, Any]) -> Views:
        """The views that the settings name; other values of a column are drawn from these rows.

        A function of the user's own gets the columns and these rows' (numbers, codes), and returns `Views`.
        """
        reference = (samples.numbers, samples.codes)
        if ".py" in settings.views:
            return load_function(settings.views, "--views")(samples.columns, reference)
        return table_views.views(
            settings.views, samples.columns, reference, corruption=settings.corruption, count=settings.view_count
        )

    def mild_views(self, settings: Settings) -> str:
        """The first of these is the row as it is."""
        return "scarf"

    def plain(self, encoder: Any) -> Views:
        """Rows as they are."""
        return table_views.plain(Columns.from_spec(encoder.spec["columns"]))

    def raw(self, samples: TableSamples, index: Tensor, encoder: Any) -> Tensor:
        """The inputs that rows make."""
        return kind.plain_view(self.plain(encoder), samples, index, torch.device("cpu"))

    def describe(self, facts: dict[str, Any]) -> str:
        return f"on {facts['numbers']} numbers and {facts['categories']} categories"

    def sheet(self, samples: TableSamples, views: Views, index: Tensor, draws: Draws) -> Image:
        """Some rows as text, and below each its views, with what was exchanged in color."""
        return row_sheet(samples, views, index, draws)

    def grid(self, samples: TableSamples, index: Tensor, captions: list[str]) -> Image:
        """Some rows as text; what would stand under an image is in the list beside them."""
        views = Views([], samples.columns)
        return row_sheet(samples, views, index, views.draw(len(index), torch.Generator()))

    def similar_parts(self, encoder: Any, view: Tensor, target: Tensor) -> list[Parts]:
        """Each column with its part, the largest first."""
        columns = encoder.columns
        widths = [column.width for column in (*columns.numbers, *columns.categories)]
        parts = times_input(encoder, None, view, target).split(widths, 1)
        scores = torch.stack([part.sum(1) for part in parts], 1)  # N x columns
        made = []
        for row in scores:
            order = row.abs().argsort(descending=True)[:MOST_COLUMNS]
            made.append(worded([columns.names[c] for c in order.tolist()], row[order]))
        return made

    def tiles(self, samples: TableSamples) -> Tiles:
        """Rows in words: the first columns, both numbers and categories where there are both."""
        first, more = len(samples.columns.numbers), len(samples.columns.categories)
        numbers = min(first, max(MOST_COLUMNS // 2, MOST_COLUMNS - more))
        which = [*range(numbers), *range(first, min(first + more, first + MOST_COLUMNS - numbers))]

        def cells(i: int) -> list[str]:
            words = samples.describe(i)
            return [words[c] for c in which]

        columns = [samples.columns.names[c] for c in which]
        return Tiles(
            face=Cells(columns=columns, numbers=numbers, cells=cells, hidden=first + more - len(which)),
            names=[f"row {name}" for name in samples.names],
            label=samples.label,
            classes=samples.classes,
            noun="row",
            plural="rows",
            copies="Rows count as copies where they are the same in every column.",
        )

    def examine(self, samples: TableSamples, settings: Settings) -> Examination:
        return doctor.examine(samples)
