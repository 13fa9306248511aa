"""What the columns of a table mean: learned from the training rows, kept with the encoder, applied to any rows.

A number becomes an input in one of three ways. standard: less its mean, by its deviation. quantile: its place among the
training values, as a normal deviate. piecewise: the range is cut where equally many training values lie, and each piece
is an input that rises from 0 to 1 along it (arXiv 2203.05556), so that a linear layer can bend where the data are.

Text is read alike wherever it lies, in a CSV, a Parquet file or a frame: a column of text is numbers if those of the
training rows are, times likewise, and categories else. What only rows of another split say changes nothing.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from nearfar.data.digests import digest
from nearfar.data.labels import form
from nearfar.errors import UserError
from nearfar.modalities.table.values import (
    NUMBERS,
    as_numbers,
    as_texts,
    insist_plain,
    is_name,
    is_number,
    is_text,
    is_time,
    meaning,
    plain,
)

MOST_CATEGORIES = 256
"""Of a column; rarer ones are treated like those that were never seen."""
FLAGS = frozenset(("true", "false"))
"""Categories that are the same in any case."""
PIECES = 8
"""Of a number that is piecewise."""
LEVELS = 200
"""Steps between the points of a number by quantile."""
FURTHEST = 1e-3
"""A number by quantile is never further out than this share of the values."""


NumberForm = Literal["standard", "quantile", "piecewise"]
FORM = ("form", "points", "levels")
"""What descriptions leave out of a column that is standardized."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: a number or a category.

    mean, std: of a number.  values: of a category, in order.  gaps: whether values were missing in training; if so,
    that a value is missing is itself an input.  time: whether the number is a time, in seconds since 1970 or midnight.
    form: how a number becomes an input.  points: rising, where its pieces or quantiles begin and end.
    levels: the share of the training values below each of the points, of quantiles.
    """

    name: str
    values: tuple[str, ...] | None = None
    mean: float = 0.0
    std: float = 1.0
    gaps: bool = False
    time: bool = False
    form: NumberForm = "standard"
    points: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Numbers as they are kept, NaN where missing, so that 0 is in the middle.

        standard: deviations from the mean.  quantile: a normal deviate.  piecewise: pieces from the middle of them.
        """
        if self.form == "quantile":
            share = np.interp(values, self.points, self.levels).clip(FURTHEST, 1 - FURTHEST)
            return torch.special.ndtri(torch.from_numpy(share)).numpy()
        if self.form == "piecewise":
            return np.interp(values, self.points, np.arange(len(self.points))) - (len(self.points) - 1) / 2
        return (values - self.mean) / self.std

    def _unscaled(self, value: float) -> float:
        if self.form == "quantile":
            return float(np.interp(NormalDist().cdf(value), self.levels, self.points))
        if self.form == "piecewise":
            place = value + (len(self.points) - 1) / 2
            return float(np.interp(place, np.arange(len(self.points)), self.points))
        return value * self.std + self.mean

    def shown(self, value: float) -> str:
        """A number that was kept as text, with the digits that single precision keeps; "" where it is missing."""
        if math.isnan(value):
            return ""
        number = round(self._unscaled(value), 5 - math.ceil(math.log10(self.std))) + 0.0
        if not self.time:
            return f"{number:.10g}"
        day = 86_400
        return str(
            np.datetime64(round(number / day), "D") if self.std > 10 * day else np.datetime64(round(number), "s")
        )

    @property
    def width(self) -> int:
        """How many inputs it makes."""
        if self.values is not None:
            return len(self.values) + self.gaps
        return (len(self.points) - 1 if self.form == "piecewise" else 1) + self.gaps


class Columns:
    """Numbers first, then categories, each in the table's order.

    A missing number stands in the middle (at its mean, if it is standardized), an unseen category at no input.
    """

    def __init__(self, columns: list[Column]) -> None:
        self.numbers = [column for column in columns if column.values is None]
        self.categories = [column for column in columns if column.values is not None]
        self.pieces = _pieces(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers) + len(self.categories)

    @property
    def names(self) -> list[str]:
        return [column.name for column in (*self.numbers, *self.categories)]

    @property
    def width(self) -> int:
        """How many inputs a row makes."""
        return sum(column.width for column in (*self.numbers, *self.categories))

    @property
    def groups(self) -> list[int]:
        """How many inputs the numbers make, if there are any, and each category."""
        numbers = sum(column.width for column in self.numbers)
        return [*([numbers] if numbers else []), *(column.width for column in self.categories)]

    def spec(self) -> list[dict[str, Any]]:
        """In plain types, as `from_spec` reads them."""
        both = (*self.numbers, *self.categories)
        return [
            {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in dataclasses.asdict(column).items()
                if name not in FORM or column.form != "standard"
            }
            for column in both
        ]

    @classmethod
    def from_spec(cls, spec: list[dict[str, Any]]) -> Columns:
        def own(column: dict[str, Any]) -> dict[str, Any]:
            return {name: tuple(value) if isinstance(value, list) else value for name, value in column.items()}

        return cls([Column(**own(column)) for column in spec])

    @classmethod
    def learn(
        cls,
        table: pa.Table,
        categorical: Collection[str] = (),
        rows: Sequence[int] | None = None,
        *,
        keep: Collection[str] = (),
        typed: bool = True,
        form: NumberForm = "standard",
    ) -> tuple[Columns, list[str]]:
        """What the columns of some rows mean, and notes on those that are left out or hold more than one sort of value.

        rows: which to learn from; all, if not given.  categorical: columns whose numbers are codes.
        keep: words that are categories, though they usually say that a value is missing.
        typed: whether a column of text was meant to be text, so that it is noted where it is read as numbers.
        form: how numbers become inputs.
        Left out are constants, names that hardly repeat, running numbers, and what is neither number nor text.
        Raises ValueError if nothing is left, or for numbers with a decimal comma or marks between thousands.
        """
        columns, notes = [], []
        index = np.arange(len(table)) if rows is None else np.asarray(rows)
        for name in table.column_names:
            values = table[name].combine_chunks()
            codes = name in categorical or pa.types.is_dictionary(values.type)
            values = plain(values, keep).take(pa.array(index, pa.int64()))
            if not (is_number(values.type) or is_name(values.type)):
                notes.append(f"The column {name!r} is of the type {values.type}, and is left out.")
                continue
            time = is_time(values.type)
            if is_text(values.type) and not codes:
                time, codes, note = meaning(name, values, typed)
                notes += note
            if values.null_count == len(values) or len(values.drop_null().unique()) < 2:
                notes.append(f"The column {name!r} has one value at most, and is left out.")
            elif codes or not (is_number(values.type) or is_text(values.type)):
                texts = as_texts(values)
                if {str(text).lower() for text in texts if text is not None} <= FLAGS:
                    texts = [text and text.lower() for text in texts]
                count = Counter(text for text in texts if text is not None)
                if len(texts) > 50 and len(count) > len(texts) / 2:
                    notes.append(f"The column {name!r} has {len(count):,} names that hardly repeat, and is left out.")
                    continue
                kept = sorted(value for value, _ in count.most_common(MOST_CATEGORIES))
                if len(kept) < len(count):
                    notes.append(
                        f"Of {len(count):,} categories of {name!r} the {len(kept)} most frequent are told apart."
                    )
                columns.append(Column(name, tuple(kept), gaps=None in texts))
            else:
                numbers, _ = as_numbers(values, time)
                if not time and len(table) >= 20 and _running(numbers, index):
                    notes.append(f"The column {name!r} numbers the rows, and is left out.")
                    continue
                known = numbers[np.isfinite(numbers)]
                spread = float(known.std()) if len(known) else 0.0
                columns.append(
                    Column(
                        name,
                        mean=float(known.mean()) if len(known) else 0.0,
                        std=spread or 1.0,
                        gaps=len(known) < len(numbers),
                        time=time,
                        **_formed(form, known),
                    )
                )
        if not columns:
            why = f" ({' '.join(notes)})" if notes else ""
            raise UserError(
                f"no column of {', '.join(map(repr, table.column_names)) or 'the table'} can be learned from{why}"
            )
        return cls(columns), notes

    def encode(self, table: pa.Table) -> tuple[Tensor, Tensor, list[str]]:
        """Rows of a table as numbers, scaled, NaN where missing: N x A; and categories by position: N x B, int64.

        A missing category is the position after the last; one that is unseen, or was never missing before, is -1.
        Also notes: on values that are of no use as they are.
        Raises ValueError where a column is absent, or holds something else where numbers or times are wanted.
        """
        if absent := [name for name in self.names if name not in table.column_names]:
            raise UserError(
                f"the table has no column {', '.join(map(repr, absent))}, which the encoder was trained on; it has "
                f"{', '.join(map(repr, table.column_names))}"
            )
        notes: list[str] = []
        numbers = torch.empty(len(table), len(self.numbers))
        for a, column in enumerate(self.numbers):
            values = plain(table[column.name].combine_chunks())
            kind = "text" if is_text(values.type) else str(values.type)
            known, strange = as_numbers(values, column.time)
            if strange.any():
                example, was = _first(values, strange), "a time" if column.time else "a number"
                if strange.sum() > (1 - NUMBERS) * (len(values) - values.null_count):
                    raise UserError(
                        f"the column {column.name!r} was {was} in training and is {kind} here, such as {example}: "
                        "leave a cell empty where nothing is known"
                    )
                insist_plain(column.name, values.filter(pa.array(strange)))
                notes.append(
                    f"{_of(column.name, strange)} not {was}, such as {example}, and count as missing; trained with "
                    f"--categorical {shlex.quote(column.name)}, the column is one of categories."
                )
            if np.isinf(known).any():
                notes.append(f"{_of(column.name, np.isinf(known))} infinite, and count as missing.")
            known = np.where(np.isfinite(known), known, np.nan)
            numbers[:, a] = torch.from_numpy(column.scaled(known))
        codes = torch.empty(len(table), len(self.categories), dtype=torch.int64)
        for b, column in enumerate(self.categories):
            assert column.values is not None
            position: dict[str | None, int] = {value: i for i, value in enumerate(column.values)}
            position[None] = len(column.values) if column.gaps else -1
            texts = _texts(table, column)
            codes[:, b] = torch.tensor([position.get(text, -1) for text in texts])
            unseen = Counter(text for text in texts if text is not None and text not in position)
            if unseen and len(column.values) < MOST_CATEGORIES:
                notes.append(_unseen(column, unseen))
        return numbers, codes, notes

    def digests(self, table: pa.Table) -> list[str]:
        """By what each row of a table is known again: its cells in these columns, by name, as `encode` reads them.

        Neither the order of the columns counts, nor columns that are none of these, nor whether a number was written
        as 1 or 1.0, nor white space around text. Raises ValueError as `encode` does, which comes first.
        """
        cells: dict[str, np.ndarray] = {}  # by name: N x 8 bytes
        for column in self.numbers:
            numbers, _ = as_numbers(plain(table[column.name].combine_chunks()), column.time)
            numbers = np.where(np.isnan(numbers), np.nan, numbers + 0.0)  # NaN has many forms, and -0 is 0
            cells[column.name] = np.ascontiguousarray(numbers).view(np.uint8).reshape(-1, 8)
        for column in self.categories:
            texts: Any = pa.array(_texts(table, column), pa.large_string())
            texts = texts.dictionary_encode("encode")  # None is a text of its own
            known = b"".join(bytes.fromhex(digest(repr(text).encode())) for text in texts.dictionary.to_pylist())
            cells[column.name] = np.frombuffer(known, np.uint8).reshape(-1, 8)[texts.indices.to_numpy()]
        names = sorted(cells)
        head = repr(names).encode()
        return [digest(head, row.tobytes()) for row in np.concatenate([cells[name] for name in names], axis=1)]


def _pieces(numbers: list[Column]) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Of each input that numbers make: which number, where it begins, and its bounds; None where each is an input."""
    rows: list[tuple[int, float, float, float]] = []
    for a, column in enumerate(numbers):
        if column.form == "piecewise":
            count = len(column.points) - 1
            rows += [(a, t - count / 2, 0.0, 1.0) for t in range(count)]
        else:
            rows.append((a, 0.0, -math.inf, math.inf))
    if all(column.form != "piecewise" for column in numbers):
        return None
    which, begins, low, high = zip(*rows, strict=True)
    return torch.tensor(which), torch.tensor(begins), torch.tensor(low), torch.tensor(high)


def _formed(form: NumberForm, known: np.ndarray) -> dict[str, Any]:
    """What a column of that form keeps of the training values: one of no two values is standardized."""
    if form == "standard" or len(np.unique(known)) < 2:
        return {}
    if form == "quantile":
        level = np.linspace(0, 1, LEVELS + 1)
        points, which = np.unique(np.quantile(known, level), return_inverse=True)
        level = np.bincount(which, level) / np.bincount(which)  # equal values stand in the middle of their share
        return {"form": form, "points": tuple(points.tolist()), "levels": tuple(level.tolist())}
    values, count = np.unique(known, return_counts=True)
    if len(values) > PIECES + 1:
        often = count > len(known) / PIECES  # a value that many share is a point of its own, and spends no other
        cuts = np.quantile(known[np.isin(known, values[~often])], np.linspace(0, 1, PIECES + 1 - int(often.sum())))
        values = np.union1d(values[often], cuts)
    return {"form": form, "points": tuple(values.tolist())}


def _texts(table: pa.Table, column: Column) -> list[str | None]:
    """The cells of a column of categories, None where missing."""
    values = column.values or ()
    texts = as_texts(plain(table[column.name].combine_chunks(), keep=values))
    return [text and text.lower() for text in texts] if FLAGS.issuperset(values) else texts


def _unseen(column: Column, unseen: Counter[str]) -> str:
    alike = {form(value): value for value in column.values or ()}
    example = next((text for text in unseen if form(text) in alike), next(iter(unseen)))
    was = f" (in training {alike[form(example)]!r})" if form(example) in alike else ""
    return (
        f"{unseen.total():,} values of {column.name!r} are categories that were not in training, such as "
        f"{example!r}{was}, and count as none."
    )


def _of(name: str, which: np.ndarray) -> str:
    return f"{int(which.sum()):,} of {len(which):,} values of {name!r} are"


def _first(values: pa.Array, which: np.ndarray) -> str:
    return repr(values[int(which.argmax())].as_py())


def _running(numbers: np.ndarray, index: np.ndarray) -> bool:
    """Whether whole numbers go up by one, row by row of the table. index: the rows that they stand in."""
    if len(numbers) < 5 or not np.isfinite(numbers).all():
        return False
    return bool((numbers - index == numbers[0] - index[0]).all())
