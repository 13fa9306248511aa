"""Delimited text: the one place where it is read. `nearfar.files.replace_csv` is the one that writes it.

Every reader of label tables, lists of paths and tables to learn from keeps these rules:

- Encoding: UTF-8, with or without a byte order mark, or UTF-16 with one. Other bytes are refused, with their line.
- Compression: gzip, known by the first bytes, whatever the file is called.
- Delimiter: comma, semicolon, tab or |: the one that stands most often in the first line, outside quotes; on a tie, and
  where there is none, the comma. In a .tsv a tab goes before all others. A first line such as sep=; names it, as
  spreadsheets write it, and is no row.
- Quotes: a cell in double quotes may hold delimiters, line breaks, and quotes written twice.
- White space around a cell, or around the name of a column, is no part of it.
- A column is found by its name, whatever its case, if no other is called so exactly.
- Apostrophe: one before =, +, -, @, white space or another is taken away, as `nearfar.files.cell_of` has put it there
  and spreadsheets do.
- Blank lines are no rows, nor is the last line of a file of this library, which holds its checksum.
- Missing values: a cell that is empty or one of `MISSING_WORDS`, where values are asked for; paths are never missing.
- Numbers: 1, 1.0, +1 and 1e0 are the same value; 01 is a text, as its zero would be lost, and so is 1,5.
- Row lengths: a short row of labels ends in empty cells, and what a long one has beyond its header is ignored. In a
  table to learn from, where a shifted cell would become an input, both are errors.

Errors are ValueErrors that name the file and the line.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.errors import UserError
from nearfar.files import FORMULA

if TYPE_CHECKING:
    import pyarrow as pa

MISSING_WORDS = frozenset(
    ("?", "NA", "N/A", "n/a", "<NA>", "#N/A", "NaN", "nan", "NAN", "NaT", "null", "NULL", "Null", "None")
)
"""Cells that say that a value is missing, as an empty one does."""

NUMBER = r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?"
"""A number as text; one with zeros in front is none."""

DELIMITERS = ",;\t|"

CHECKSUM = re.compile(r'^"?# checksum: [0-9a-f]{16}"?[,;\t|]*\s*\Z', re.MULTILINE)
"""The line that `nearfar.files.with_checksum` adds, also as spreadsheets save it."""

START = 1 << 20
"""Bytes of a file that `first_rows` looks at."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. line: of the file, from 1, where it begins.  cells: without white space around them."""

    line: int
    cells: list[str]


def read_text(path: Path) -> str:
    """The whole of a text file. Raises ValueError where it is neither UTF-8 nor UTF-16, or is damaged gzip."""
    try:
        content = _content(path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"'{path}' is damaged: it cannot be unpacked ({error}).") from error
    try:
        text = content.decode(_encoding(content))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"'{path}', line {line}: not UTF-8 (the byte 0x{content[error.start]:02x}). Save it as UTF-8."
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"'{path}', line {line}: the byte 0x00, which no text holds. Save it as UTF-8.")
    end = CHECKSUM.search(text, max(0, len(text) - 200))
    return text[: end.start()] if end else text


def read_rows(path: Path) -> list[Row]:
    """All rows of a delimited file, the header included."""
    return list(_Text(path, read_text(path)).rows())


def first_rows(path: Path, count: int) -> list[Row]:
    """The first rows, to see what a file is: what cannot be read is left to whoever opens it."""
    rows = []
    with suppress(ValueError, OSError, EOFError, zlib.error):
        content = _content(path, START)
        text = _Text(path, content.decode(_encoding(content), errors="replace"))
        rows.extend(islice(text.rows(), count))
    return rows


def first_lines(path: Path) -> list[str]:
    """The first lines of a text file, to see what it is; what cannot be read is left to whoever opens it."""
    with suppress(OSError, EOFError, zlib.error):
        content = _content(path, START)
        return content.decode(_encoding(content), errors="replace").split("\n")
    return []


def header(path: Path) -> list[str]:
    """The names of the columns of a delimited or a Parquet file, without reading what they hold; none where it cannot
    be read."""
    if not path.name.lower().endswith((".parquet", ".pq")):
        return next((row.cells for row in first_rows(path, 1)), [])
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path).names
    except (pa.ArrowException, OSError):
        return []


def read_records(path: Path) -> tuple[Row, list[tuple[int, dict[str, str]]]]:
    """The header, and each row as its line and {column: cell}. Of an empty file the header has no cells."""
    header, *rows = read_rows(path) or [Row(1, [])]
    empty = [""] * len(header.cells)
    return header, [(row.line, dict(zip(header.cells, [*row.cells, *empty], strict=False))) for row in rows]


def read_table(path: Path) -> pa.Table:
    """Columns of text, as it is written: what it means is for whoever knows which rows may be learned from.

    Raises ValueError where two columns have one name, the header looks like data, or a row has more or fewer cells than
    the header.
    """
    import pyarrow as pa

    text = _Text(path, read_text(path))
    rows = text.rows()
    header = next(rows, None)
    if header is None:
        return pa.table({})
    insist_distinct(path, header)
    _insist_names(path, header)
    body, delimiter = text.text[text.end :], text.delimiter
    if text.needs_cleaning(body):
        clean = io.StringIO()
        csv.writer(clean, lineterminator="\n").writerows(row.cells for row in _even(path, rows, header))
        body, delimiter = clean.getvalue(), ","
    try:
        return _parse(body, header.cells, delimiter)
    except pa.ArrowInvalid as error:
        for _ in _even(path, rows, header):  # which names the line, if it is the length of a row that is wrong
            pass
        raise UserError(f"'{path}' cannot be read as a table ({error}).") from error


def insist_distinct(path: Path | str, header: Row, among: Sequence[str] | None = None) -> None:
    """Raise ValueError where two columns have one name. among: the names that matter; all, if not given."""
    twice = [name for name, n in Counter(header.cells).items() if n > 1 and (among is None or name in among)]
    if twice:
        raise UserError(f"'{path}', line {header.line}: two columns are called {twice[0]!r}. Rename one.")


def column(names: Sequence[str], wanted: str) -> str | None:
    """The column that is called so, or so but for case and white space; None where there is none.

    Raises ValueError where several are, and none exactly.
    """
    if wanted in names:
        return wanted
    alike = [name for name in names if name.strip().casefold() == wanted.strip().casefold()]
    if len(alike) > 1:
        raise UserError(f"{' and '.join(map(repr, alike))} may both be the column {wanted!r}: rename one")
    return alike[0] if alike else None


def as_text(value: Any) -> str:
    """A value of a table, a frame or an array as the text of a cell: "" of None and NaN.

    3.0 is "3", as tables turn whole numbers with gaps into floats.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        try:
            return value.decode().strip()
        except UnicodeDecodeError as error:
            raise UserError(f"the bytes {value[:40]!r} are no text in UTF-8: decode them first") from error
    return str(value).strip()


def arrow_values(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """The values of a column of Arrow; numbers of single precision as text, as they are written: 0.1 and no longer."""
    import pyarrow as pa

    if pa.types.is_floating(column.type) and column.type.bit_width < 64:
        column = column.cast(pa.string())
    return column.to_pylist()


def known(text: str, keep: Collection[str] = ()) -> str:
    """A cell, or "" where it says that the value is missing. keep: words that are values all the same."""
    return "" if text in MISSING_WORDS and text not in keep else text


def short(text: str) -> str:
    """A whole number without a point, as 1 for 1.0; any other text as it is."""
    whole = re.fullmatch(r"\+?(-?(?:0|[1-9][0-9]*))\.0*", text)
    return whole[1] if whole else text


def value(text: str) -> Decimal | str:
    """What two cells have in common that mean the same: the number, where it is one, else the text."""
    return Decimal(text) if re.fullmatch(NUMBER, text) else text


def _encoding(content: bytes) -> str:
    return "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"


def _insist_names(path: Path, header: Row) -> None:
    """Raise ValueError where the names of columns are numbers, unless they count on in equal steps."""
    numbers = [cell for cell in header.cells if re.fullmatch(rf"{NUMBER}|[+-]?[0-9]+[.,]?[0-9]*", cell)]
    whole = [int(cell) for cell in numbers if re.fullmatch("[0-9]{1,9}", cell)]
    steps = {b - a for a, b in pairwise(whole)}
    if numbers and not (len(whole) == len(numbers) > 1 and len(steps) == 1 and min(steps) > 0):
        raise UserError(
            f"'{path}', line {header.line}: the first line should name the columns, and holds the number "
            f"{numbers[0]!r}. If it is data, put a line of names above it; if it is a name, add a word to it."
        )


def _content(path: Path, most: int = -1) -> bytes:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        return gzip.GzipFile(fileobj=file).read(most) if packed else file.read(most)


@dataclass(slots=True)
class _Text:
    """A delimited text. end: where the row ends that was read last."""

    path: Path
    text: str
    end: int = 0
    delimiter: str = field(init=False)

    def __post_init__(self) -> None:
        """The delimiter is named, or seen in the first line that is not blank; quoted cells do not count."""
        if named := re.match(r'\s*"?sep=([^\r\n])"?[ ,;|]*(?:\r\n|\n|\r)', self.text, re.IGNORECASE):
            self.delimiter, self.end = named[1], named.end()
            return
        plain = re.sub(r'"(?:[^"]|"")*"', '""', self.text[:START])
        first = next((line for line in plain.splitlines() if line.strip()), "")
        tabs = self.path.name.lower().removesuffix(".gz").endswith(".tsv") and "\t" in first
        self.delimiter = "\t" if tabs else max(DELIMITERS, key=first.count)

    def rows(self) -> Iterator[Row]:
        lines = io.StringIO(self.text, newline="")
        lines.seek(self.end)
        before = self.text.count("\n", 0, self.end)
        reader = csv.reader(lines, delimiter=self.delimiter, skipinitialspace=True)
        while True:
            first = before + reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise UserError(f"'{self.path}', line {first}: {error}.") from error
            if cells is None:
                return
            start, self.end = self.end, lines.tell()
            raw = self.text[start : self.end]
            if self.end == len(self.text) and self._is_open(raw):
                raise UserError(f"'{self.path}', line {first}: a cell begins with a quote that is never closed.")
            if len(cells) > 1 or raw.strip():
                yield Row(first, [_plain(cell) for cell in cells])

    def needs_cleaning(self, body: str) -> bool:
        """Whether pyarrow would take cells or rows to be others: white space beside them, or an open quote."""
        blanks = (" ", "\xa0") if self.delimiter == "\t" else (" ", "\t", "\xa0")
        pairs = [pair for b in blanks for edge in (self.delimiter, "\n", "\r") for pair in (b + edge, edge + b)]
        at_an_end = body.startswith(blanks) or body.endswith(blanks)
        if re.search(r"""(^|[\n\r,;\t|"])'[-=+@'\s]""", body):
            return True
        return at_an_end or body.count('"') % 2 == 1 or any(pair in body for pair in pairs)

    def _is_open(self, row: str) -> bool:
        """Whether the last row ends within quotes."""
        lines = io.StringIO(row, newline="")
        try:
            list(csv.reader(lines, delimiter=self.delimiter, skipinitialspace=True, strict=True))
        except csv.Error as error:
            return "unexpected end" in str(error)
        return False


def _plain(cell: str) -> str:
    """A cell without white space around it, or without the apostrophe that `cell_of` put before it."""
    cell = cell.strip()
    behind = cell[1:]
    quoted = cell.startswith("'") and (behind.startswith(FORMULA) or behind[:1].isspace())
    return behind if quoted else cell


def _even(path: Path, rows: Iterator[Row], header: Row) -> Iterator[Row]:
    """The rows. Raises ValueError at the first that has more or fewer cells than the header."""
    for row in rows:
        if len(row.cells) != len(header.cells):
            raise UserError(
                f"'{path}', line {row.line}: {len(row.cells)} cells, but the header has {len(header.cells)}."
            )
        yield row


def _parse(body: str, names: list[str], delimiter: str) -> pa.Table:
    """Rows without their header, each as long as `names`."""
    import pyarrow as pa
    import pyarrow.csv

    if not body.strip("\r\n"):
        return pa.table({name: pa.array([], pa.string()) for name in names})
    return pyarrow.csv.read_csv(
        pa.BufferReader(body.encode()),
        read_options=pyarrow.csv.ReadOptions(column_names=names),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values='"' in body),
        convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
