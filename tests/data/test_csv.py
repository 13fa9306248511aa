"""The rules of delimited text, held by everyone who reads it."""

from __future__ import annotations

import csv as standard
import gzip
import io
from pathlib import Path

import pytest
import torch

from nearfar.data import csv
from nearfar.data.labels import table_labels
from nearfar.files import replace_csv
from nearfar.modalities.image.sources import find
from nearfar.modalities.recognize import looks_like_table
from nearfar.modalities.table.samples import open_table

NAMES = ["a, b.png", "c.png", "d.png"]

PLAIN = """path,size,town,label
"a, b.png",1,Ulm,low
c.png,2,?,high
d.png,4,"Bad\nTölz",
"""


def form(name: str) -> tuple[str, bytes]:
    """PLAIN in another form: the name of its file, and its bytes."""
    rows = list(standard.reader(io.StringIO(PLAIN, newline="")))

    def written(**options: object) -> str:
        file = io.StringIO()
        standard.writer(file, lineterminator="\n", **options).writerows(rows)  # pyright: ignore[reportArgumentType]
        return file.getvalue()

    match name:
        case "plain":
            return "a.csv", PLAIN.encode()
        case "semicolon":
            return "a.csv", written(delimiter=";").encode()
        case "tab":
            return "a.csv", written(delimiter="\t").encode()
        case "tsv":
            return "A.TSV", written(delimiter="\t").encode()
        case "pipe":
            return "a.csv", written(delimiter="|").encode()
        case "named":
            return "a.csv", ("sep=;\r\n" + written(delimiter=";")).encode()
        case "utf-16":
            return "a.csv", PLAIN.encode("utf-16")
        case "mark":
            return "a.csv", b"\xef\xbb\xbf" + PLAIN.encode()
        case "packed":
            return "a.csv.gz", gzip.compress(PLAIN.encode())
        case "packed under another name":
            return "a.csv", gzip.compress(PLAIN.encode())
        case "upper":
            return "A.CSV", PLAIN.encode()
        case "quoted":
            return "a.csv", written(quoting=standard.QUOTE_ALL).encode()
        case "windows":
            return "a.csv", PLAIN.replace("\n", "\r\n").replace("Bad\r\n", "Bad\n").encode()
        case "blanks":
            rows = [[f" {cell}" if '"' not in cell else cell for cell in row] for row in rows]
            return "a.csv", written().replace("path,", "path , ").replace("?", "? ").replace(',"', ', "').encode()
        case "blank lines":
            return "a.csv", ("\n  \n" + PLAIN.replace("\nc.png", "\n\nc.png") + "\n\n").encode()
    raise AssertionError(name)


FORMS = [
    *("plain", "semicolon", "tab", "tsv", "mark", "packed", "packed under another name", "upper", "quoted"),
    *("windows", "blanks", "blank lines", "pipe", "named", "utf-16"),
]


@pytest.mark.parametrize("name", FORMS)
def test_every_reader_understands_every_form(tmp_path: Path, name: str) -> None:
    file, content = form(name)
    path = tmp_path / file
    path.write_bytes(content)

    rows = csv.read_rows(path)
    assert [row.cells for row in rows] == [
        ["path", "size", "town", "label"],
        ["a, b.png", "1", "Ulm", "low"],
        ["c.png", "2", "?", "high"],
        ["d.png", "4", "Bad\nTölz", ""],
    ]
    labels = table_labels(path, NAMES)
    assert (labels.classes, labels.label.tolist()) == (["high", "low"], [1, 0, -1])

    assert csv.read_table(path).to_pydict() == {
        "path": NAMES,
        "size": ["1", "2", "4"],
        "town": ["Ulm", "?", "Bad\nTölz"],
        "label": ["low", "high", ""],
    }
    inputs = open_table(path, drop=["path"])
    assert (inputs.classes, inputs.label.tolist()) == (["high", "low"], [1, 0, -1])
    assert inputs.numbers.argsort(0)[:, 0].tolist() == [0, 1, 2]

    assert looks_like_table(path) == (path.suffix.lower() != ".csv")  # which has a column path
    if path.suffix.lower() == ".csv":
        (tmp_path / "c.png").touch()
        assert find(path).names == NAMES


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"path,label\nx.png,1\ncaf\xe9.png,2\n", 3),
        (b'path,label\nx.png,1\ny.png,"2\nz.png,3\n', 3),
        ("path,label\n".encode("utf-16-le"), 1),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line(tmp_path: Path, content: bytes, line: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    for read in (csv.read_rows, csv.read_table, open_table, find, lambda p: table_labels(p, ["x.png"])):
        with pytest.raises(ValueError, match=rf"a\.csv', line {line}: "):
            read(path)
    assert isinstance(csv.first_rows(path, 2), list)


@pytest.mark.parametrize("row", ["5", "5,6,7", " 5"])
def test_a_row_of_another_length_is_no_row_to_learn_from(tmp_path: Path, row: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'a,b\n1,"two\nlines"\n3,4\n{row}\n5,6\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.csv', line 5: [13] cells, but the header has 2"):
        csv.read_table(path)


def test_damaged_and_empty_files(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    whole = gzip.compress(PLAIN.encode())
    for content in (whole[:-9], whole[:20] + b"\0\0\0\0" + whole[24:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.csv\.gz' is damaged"):
            csv.read_rows(path)
    path.write_bytes(b"")
    assert csv.read_rows(path) == csv.first_rows(path, 2) == []
    assert csv.read_table(path).num_columns == 0
    path.write_bytes(b"a,b\n\n")
    assert csv.read_table(path).shape == (0, 2)
    path.write_bytes(b"a, a\n1,2\n")
    with pytest.raises(ValueError, match="line 1: two columns are called 'a'"):
        csv.read_table(path)


def test_the_delimiter_is_the_most_frequent_of_the_first_line_outside_quotes(tmp_path: Path) -> None:
    for text, expected in (
        ("a;b;c\n1,5;2,5;x\n", ["a", "b", "c"]),
        ('"a;b;c;d",e\n', ["a;b;c;d", "e"]),
        ('"a\n;;;""b""",e\n', ['a\n;;;"b"', "e"]),
        ("a;b,c\n", ["a;b", "c"]),
        ("only\n1;2\n", ["only"]),
    ):
        (tmp_path / "a.csv").write_text(text, encoding="utf-8")
        assert csv.first_rows(tmp_path / "a.csv", 1) == [csv.Row(1, expected)]
    (tmp_path / "a.tsv").write_text("size, in cm\tweight, in kg, dry\n", encoding="utf-8")
    assert csv.read_rows(tmp_path / "a.tsv")[0].cells == ["size, in cm", "weight, in kg, dry"]


def test_text_is_kept_as_it_is_over_many_blocks(tmp_path: Path) -> None:
    lines = ["n,x,text", *(f'{i:06d},{i / 7},"w\n{i}"' for i in range(60_000))]
    content = "\n".join(lines).encode()
    assert len(content) > 3 << 19
    (tmp_path / "a.csv").write_bytes(content)
    table = csv.read_table(tmp_path / "a.csv")
    assert table["text"].to_pylist() == [f"w\n{i}" for i in range(60_000)]
    assert table["n"].to_pylist() == [f"{i:06d}" for i in range(60_000)]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    cells = [["path", "label"], ['a "b", c;d\t.png', "two\nlines"], ["e.png", ""]]
    replace_csv(tmp_path / "a.csv", cells)
    assert [row.cells for row in csv.read_rows(tmp_path / "a.csv")] == cells
    assert [row.line for row in csv.read_rows(tmp_path / "a.csv")] == [1, 2, 4]


def test_values_as_cells() -> None:
    given = [3.0, 2.5, float("nan"), None, " x ", True, torch.tensor([7.0]).item()]
    assert [csv.as_text(value) for value in given] == ["3", "2.5", "", "", "x", "True", "7"]
    assert [csv.known(text) for text in ("NA", "na", "?", "0", "")] == ["", "na", "", "0", ""]


@pytest.mark.parametrize(
    ("header", "refused"),
    [
        ("0.5,x,3", "'0.5'"),
        ("3,1", "'3'"),
        ("007,a", "'007'"),
        ("a,2020", "'2020'"),
        ("0,1,2,label", ""),
        ("2000,2005,2010", ""),
    ],
)
def test_a_first_line_of_data_is_no_header(tmp_path: Path, header: str, refused: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n{header}\n", encoding="utf-8")
    if refused:
        with pytest.raises(ValueError, match=rf"line 1: the first line should name .*{refused}.*a line of names above"):
            csv.read_table(path)
    else:
        assert csv.read_table(path).column_names == header.split(",")


def test_values_that_mean_the_same() -> None:
    assert len({csv.value(text) for text in ("1", "1.0", "+1", "1e0", "1.", "0.1e1")}) == 1
    assert all(isinstance(csv.value(text), str) for text in ("01", "1,5", "1_0", "x", "", "0x1", "1e99999", "nan"))
    assert [csv.short(text) for text in ("1.0", "-2.", "1.50", "01.0", "1e0")] == ["1", "-2", "1.50", "01.0", "1e0"]
