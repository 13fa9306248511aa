"""What the columns of a table mean: learned from the training rows, kept with the encoder, applied to any rows."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from nearfar.data.digests import digest
from nearfar.errors import UserError

MOST_CATEGORIES = 256
"""Of a column; rarer ones are treated like those that were never seen."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: a number, standardized, or a category.

    mean, std: of a number.  values: of a category, in order.  gaps: whether values were missing in training; if so,
    that a value is missing is itself an input.
    """

    name: str
    values: tuple[str, ...] | None = None
    mean: float = 0.0
    std: float = 1.0
    gaps: bool = False

    @property
    def digits(self) -> int:
        """Digits behind the point that single precision keeps of a number."""
        return 5 - math.ceil(math.log10(self.std))

    @property
    def width(self) -> int:
        """How many inputs it makes."""
        return (1 if self.values is None else len(self.values)) + self.gaps


class Columns:
    """Numbers first, then categories, each in the table's order.

    A missing number stands at its mean, an unseen category at no input.
    """

    def __init__(self, columns: list[Column]) -> None:
        self.numbers = [column for column in columns if column.values is None]
        self.categories = [column for column in columns if column.values is not None]

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
            dataclasses.asdict(column) | {"values": None if column.values is None else list(column.values)}
            for column in both
        ]

    @classmethod
    def from_spec(cls, spec: list[dict[str, Any]]) -> Columns:
        return cls(
            [
                Column(c["name"], None if c["values"] is None else tuple(c["values"]), c["mean"], c["std"], c["gaps"])
                for c in spec
            ]
        )

    @classmethod
    def learn(
        cls, table: pa.Table, categorical: tuple[str, ...] = (), rows: Sequence[int] | None = None
    ) -> tuple[Columns, list[str]]:
        """What the columns of some rows mean, and notes on those that are left out.

        rows: which to learn from; all, if not given.  categorical: columns of whole numbers that are codes.
        Left out are constants, names that hardly repeat, running numbers, and what is neither number nor text.
        Raises ValueError if nothing is left.
        """
        columns, notes = [], []
        for name in table.column_names:
            whole = table[name].combine_chunks()
            values = whole if rows is None else whole.take(pa.array(rows, pa.int64()))
            if not (_numeric(values.type) or _nameable(values.type)):
                notes.append(f"The column {name!r} is of the type {values.type}, and is left out.")
            elif values.null_count == len(values) or len(values.drop_null().unique()) < 2:
                notes.append(f"The column {name!r} has one value at most, and is left out.")
            elif _numeric(values.type) and name not in categorical:
                if _running(whole):  # of some rows it would not be seen
                    notes.append(f"The column {name!r} numbers the rows, and is left out.")
                    continue
                numbers = _numbers(values)
                spread = float(np.nanstd(numbers))
                columns.append(
                    Column(name, mean=float(np.nanmean(numbers)), std=spread or 1.0, gaps=bool(np.isnan(numbers).any()))
                )
            else:
                texts = _texts(values)
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
        if not columns:
            raise UserError(
                f"no column of {', '.join(map(repr, table.column_names)) or 'the table'} can be learned from"
            )
        return cls(columns), notes

    def encode(self, table: pa.Table) -> tuple[Tensor, Tensor]:
        """Rows of a table as numbers, standardized, NaN where missing: N x A; and categories by position: N x B, int64.

        A missing category is the position after the last; one that is unseen, or was never missing before, is -1.
        Raises ValueError where a column is absent, or holds text where a number is wanted.
        """
        if absent := [name for name in self.names if name not in table.column_names]:
            raise UserError(
                f"the table has no column {', '.join(map(repr, absent))}, which the encoder was trained on; it has "
                f"{', '.join(map(repr, table.column_names))}"
            )
        numbers = torch.empty(len(table), len(self.numbers))
        for a, column in enumerate(self.numbers):
            values = table[column.name].combine_chunks()
            if not _numeric(values.type) and values.null_count < len(values):
                raise UserError(f"the column {column.name!r} was a number in training and is {values.type} here")
            numbers[:, a] = torch.from_numpy((_numbers(values) - column.mean) / column.std)
        codes = torch.empty(len(table), len(self.categories), dtype=torch.int64)
        for b, column in enumerate(self.categories):
            assert column.values is not None
            position: dict[str | None, int] = {value: i for i, value in enumerate(column.values)}
            position[None] = len(column.values) if column.gaps else -1
            texts = _texts(table[column.name].combine_chunks())
            codes[:, b] = torch.tensor([position.get(text, -1) for text in texts])
        return numbers, codes

    def digests(self, table: pa.Table) -> list[str]:
        """By what each row of a table is known again: its cells in these columns, by name, as they were given.

        Neither the order of the columns counts, nor columns that are none of these, nor whether a number was written
        as 1 or 1.0. Raises ValueError as `encode` does, which comes first.
        """
        cells: dict[str, np.ndarray] = {}  # by name: N x 8 bytes
        for column in self.numbers:
            numbers = _numbers(table[column.name].combine_chunks()) + 0.0  # -0 is 0
            cells[column.name] = np.ascontiguousarray(numbers).view(np.uint8).reshape(-1, 8)
        for column in self.categories:
            texts = _as_text(table[column.name].combine_chunks()).dictionary_encode(
                "encode"
            )  # None is a text of its own
            known = b"".join(bytes.fromhex(digest(repr(text).encode())) for text in texts.dictionary.to_pylist())
            cells[column.name] = np.frombuffer(known, np.uint8).reshape(-1, 8)[texts.indices.to_numpy()]
        names = sorted(cells)
        head = repr(names).encode()
        return [digest(head, row.tobytes()) for row in np.concatenate([cells[name] for name in names], axis=1)]


def _numeric(kind: pa.DataType) -> bool:
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_temporal(kind)
    )


def _numbers(values: pa.Array) -> np.ndarray:
    """As float64, NaN where missing; times and dates as whole numbers of their unit."""
    if pa.types.is_temporal(values.type):
        values = values.cast(pa.int32() if values.type.bit_width == 32 else pa.int64())
    numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _nameable(kind: pa.DataType) -> bool:
    """Whether values are names, or can be read as such."""
    if pa.types.is_dictionary(kind):
        return _nameable(kind.value_type)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return text or pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)


def _texts(values: pa.Array) -> list[str | None]:
    """As text, None where missing. Raises ValueError for what cannot be text."""
    return _as_text(values).to_pylist()


def _as_text(values: pa.Array) -> Any:
    if not _nameable(values.type):
        raise UserError(f"a column of categories was wanted, and one of {values.type} given")
    return values.cast(pa.string())


def _running(values: pa.Array) -> bool:
    """Whether whole numbers go up by one, row by row."""
    if not pa.types.is_integer(values.type) or values.null_count or len(values) < 20:
        return False
    steps = np.diff(values.to_numpy())
    return bool((steps == 1).all())
