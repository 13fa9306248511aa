"""What can be set about training on tables, and which data are tables. Free of torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from nearfar import settings
from nearfar.errors import UserError
from nearfar.modalities.recognize import holds_sentences, is_columns
from nearfar.ranges import UnitInterval

VIEWS = ("scarf", "corrupted", "blanked", "mixed")
"""The names that `nearfar.modalities.table.views.views` knows."""


@dataclass(frozen=True, kw_only=True)
class Settings(settings.Settings):
    """How to train."""

    encoder: str = "mlp"
    """mlp, kept (the inputs themselves beside an mlp), both also as mlp-WIDTHxDEPTH such as mlp-512x3, or maxout."""
    views: str = "scarf"
    """What random views are made of each row: scarf (as it is, and corrupted), corrupted (both), blanked, mixed, or
    FILE.py:FUNCTION. `nearfar views DATA` shows them."""
    corruption: UnitInterval = 0.6
    """Share of a row's columns that take the values of other rows, for views scarf and corrupted."""
    drop: tuple[str, ...] = ()
    """Columns to leave out."""
    categorical: tuple[str, ...] = ()
    """Columns whose numbers are codes."""
    numbers: Literal["standard", "quantile", "piecewise"] = "standard"
    """How a number becomes an input: standard (less the mean, by the deviation), quantile (its place among the others,
    as a normal deviate), or piecewise (pieces of the range that hold equally many values, an input each)."""

    def check(self) -> None:
        super().check()
        settings.check_views(self.views, VIEWS)


def insist_encoder(name: str) -> None:
    """Raise ValueError where no network is called so."""
    if not re.fullmatch(r"(mlp|kept)(-0*[1-9][0-9]*x0*[1-9][0-9]*)?|maxout(-0*[1-9][0-9]*)?", name):
        raise UserError(
            f'no encoder of tables is called "{name}": mlp (4 layers of 256, arXiv 2106.15147), mlp-WIDTHxDEPTH such '
            "as mlp-512x3, kept (the inputs beside 2 layers of 128), kept-WIDTHxDEPTH, maxout, or maxout-64 (arXiv "
            "2010.08887 at its full width)"
        )


Facts = settings.Facts


def recognizes(data: Any) -> bool:
    """Whether data are a table: see `is_columns`; one with a column of sentences is not taken for one."""
    return is_columns(data) and not holds_sentences(data)


def study_encoder() -> str:
    """The network on which methods are compared, where none is named: one that is quick on a CPU."""
    return "mlp"


def recipe_for(data: Any) -> str:
    """The recipes of papers that suit the data."""
    return "tables"


def measured_for(data: Any) -> str:
    """The recipes that were chosen by measurement."""
    return "measured_tables"
