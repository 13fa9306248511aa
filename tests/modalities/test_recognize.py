from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearfar import modalities
from nearfar.modalities.recognize import holds_sentences, looks_like_table


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "size,kind\n1,a\n", True),
        ("A.CSV", "\ufeffsize;kind\n1;a\n", True),
        ("a.tsv", "size\tkind\n", True),
        ("a.csv.gz", "size,kind\n", True),
        ("a.csv", "\n\nsize,kind\n1,a\n", True),
        ("a.csv", "path,label\nsomewhere.png,a\n", False),
        ("a.csv", " path ;label\nsomewhere.png;a\n", False),
        ("a.csv", "one.png,a\n", False),
        ("a.csv", "one.png\ntwo.png\n", False),
        ("a.csv", "", False),
        ("a.txt", "size,kind\n1,a\n", False),
    ],
)
def test_a_table_and_a_list_of_files_are_told_apart(tmp_path: Path, name: str, text: str, expected: bool) -> None:
    (tmp_path / "one.png").touch()
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert looks_like_table(tmp_path / name) == expected
    assert (modalities.kind_of(tmp_path / name) == "table") == expected


def test_a_parquet_file_is_known_by_its_columns(tmp_path: Path) -> None:
    for columns, expected in (({"a": [1]}, True), ({"path": ["x"], "a": [1]}, False), ({"image": [b"x"]}, False)):
        pq.write_table(pa.table(columns), tmp_path / "a.PARQUET")
        assert looks_like_table(tmp_path / "a.PARQUET") == expected
    (tmp_path / "a.PARQUET").write_bytes(b"damaged")
    assert not looks_like_table(tmp_path / "a.PARQUET")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "A sentence is here.\nAnother.\n", True),
        ("a.txt", "one.png\ntwo.png\n", False),
        ("a.txt", "sub folder/one\n", False),
        ("a.txt", "no/such/file.jpeg\n", False),
        ("a.txt", "", False),
        ("a.csv", "id,Text,label\n1,a b,c\n", True),
        ("a.csv", "text\na b\n", True),
        ("a.csv", "path,text\none.png,a b\n", False),
        ("a.csv", "review,label\na b,c\n", False),
        ("a.jsonl", '{"review": "a b"}\n', True),
    ],
)
def test_sentences_are_told_from_tables_and_lists_of_files(
    tmp_path: Path, name: str, text: str, expected: bool
) -> None:
    (tmp_path / "one.png").touch()
    (tmp_path / "sub folder").mkdir()
    (tmp_path / "sub folder" / "one").touch()
    (tmp_path / name).write_text(text)
    assert holds_sentences(tmp_path / name) == expected
    assert (modalities.kind_of(tmp_path / name) == "text") == expected


def test_a_setting_of_one_kind_alone_says_what_a_table_holds(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("review,label\na b,c\n")
    assert modalities.kind_of(tmp_path / "a.csv") == "table"
    assert modalities.kind_of(tmp_path / "a.csv", ["epochs", "text_column"]) == "text"
    assert modalities.kind_of(["a b", "c d"]) == modalities.kind_of({"text": ["a"]}) == "text"
    assert modalities.kind_of(["a.png", "b.png"]) == "image"


def test_columns_in_memory_are_a_table() -> None:
    assert modalities.kind_of({"a": [1, 2]}) == "table"
    assert modalities.kind_of("not-there.csv.gz") == "table"
    assert modalities.kind_of("not-there.csv", ["views", "text_column"]) == "text"
