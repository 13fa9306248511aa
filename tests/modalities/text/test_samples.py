from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from nearfar import modalities
from nearfar.batch import MISSING
from nearfar.data.digests import digests
from nearfar.errors import NotFound, UserError, WrongType
from nearfar.modalities.text.samples import open_texts
from nearfar.modalities.text.settings import Settings

TEXTS = [
    "The film, they said, was good",
    "caf\u00e9 na\u00efve \u2013 \u00fc\u00df",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643",
    "\U0001f600 well \U0001f44d\U0001f3fd",
]


def spelled(folder: Path) -> list[Any]:
    """The same sentences in every form."""
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(TEXTS)]
    lines = "\n".join(map(json.dumps, rows))
    quoted = "\n".join(["text,label", *(f'"{row["text"]}",{row["label"]}' for row in rows)])
    (folder / "a.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    (folder / "b.txt").write_bytes("\r\n".join(TEXTS).encode())
    (folder / "a.txt.gz").write_bytes(gzip.compress("\n".join(TEXTS).encode()))
    (folder / "a.jsonl").write_text(lines + "\n\n")
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "a.csv").write_text(quoted, encoding="utf-8")
    (folder / "a.csv.gz").write_bytes(gzip.compress(quoted.encode()))
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    files = ["a.txt", "b.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.gz", "a.parquet"]
    held = [TEXTS, tuple(TEXTS), {"text": TEXTS, "label": [0, 1, 0, 1]}, pa.Table.from_pylist(rows)]
    return [*(folder / name for name in files), *held]


def test_sentences_are_the_same_from_wherever_they_come(tmp_path: Path) -> None:
    known = set()
    for data in spelled(tmp_path):
        samples = open_texts(data)
        assert [text for (text,) in samples.texts] == TEXTS, data
        assert samples.names == ["0", "1", "2", "3"]
        known.add(tuple(digests(samples)))
        labeled = not (isinstance(data, list | tuple) or ".txt" in str(data))
        assert samples.label.tolist() == ([0, 1, 0, 1] if labeled else [MISSING] * 4), data
    assert len(known) == 1


def test_a_data_set_of_the_library_datasets() -> None:
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
    made = datasets.Dataset.from_dict({"sentence": TEXTS, "label": [1, 0, 1, 0]})
    samples = open_texts(made)
    assert [text for (text,) in samples.texts] == TEXTS
    assert samples.label.tolist() == [1, 0, 1, 0]


def test_labels_groups_and_splits_are_read_as_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Review,kind,Split,group\na b,x,train,1\nc d,y,test,2\n e f ,x,dev,1\ng h,,,\n")
    samples = open_texts(path, columns=("review",), label_column="kind")
    assert samples.texts == [("a b",), ("c d",), ("e f",), ("g h",)]
    assert (samples.label.tolist(), samples.classes) == ([0, 1, 0, MISSING], ["x", "y"])
    assert samples.split == ["train", "test", "val", ""]
    assert samples.group.tolist() == [0, 1, 0, MISSING]
    (tmp_path / "labels.csv").write_text("index,label\n1,p\n3,q\n")
    samples = open_texts(path, columns=("review",), labels=tmp_path / "labels.csv")
    assert (samples.label.tolist(), samples.classes) == ([MISSING, 0, MISSING, 1], ["p", "q"])
    assert samples.split[1] == "test"
    part = samples.subset([3, 1])
    assert (part.texts, part.label.tolist()) == ([("g h",), ("c d",)], [1, 0])


def test_empty_sentences_are_left_out_counted_and_leave_the_names_of_the_others() -> None:
    samples = open_texts({"text": ["one", "", "  \t", None, "two"], "label": [0, 1, 2, 3, 4]})
    assert samples.names == ["0", "4"]
    assert [samples.classes[y] for y in samples.label.tolist()] == ["0", "4"]
    assert [name for name, _ in samples.skipped] == ["1", "2", "3"]
    assert "3 sentences of 5 left out" in samples.notes[0]
    with pytest.raises(UserError, match="no sentence that is not empty"):
        open_texts(["", " "])


def test_pairs_and_triplets_are_samples_of_several_sentences() -> None:
    data = {"sent0": ["a", "b", "c"], "sent1": ["p", "", "q"], "hard": ["n", "m", "o"], "label": [0, 1, 1]}
    samples = open_texts(data, columns=("sent0", "sent1", "HARD"))
    assert samples.texts == [("a", "p", "n"), ("c", "q", "o")]
    assert samples.sides == 3
    assert [list(column.texts) for column in samples.fetch(torch.tensor([1, 0]))] == [
        ["c", "a"],
        ["q", "p"],
        ["o", "n"],
    ]
    assert "1 triplet of 3 left out" in samples.notes[0]


def test_pairs_that_share_a_sentence_are_one_group_with_those_that_the_data_name() -> None:
    data = {
        "a": ["One  man", "two", "three", "four", "five", "six", "seven"],
        "b": ["p", "q", "one man", "q", "r", "s", "t"],
        "c": ["n", "n", "n", "n", "n", "n", "n"],  # hard negatives make nothing alike
        "group": ["", "", "g", "", "g", "h", ""],
    }
    samples = open_texts(data, columns=("a", "b", "c"))
    group = samples.group.tolist()
    assert group[0] == group[2] == group[4]
    assert group[1] == group[3]
    assert len({group[0], group[1], group[5]}) == 3
    assert MISSING not in group[:6]
    assert group[6] == MISSING
    assert "4 triplets hold a sentence that stands in another one" in samples.notes[0]
    single = open_texts({"a": ["x", "x"], "b": ["x", "y"]}, columns=("a",))
    assert single.group.tolist() == [MISSING] * 2
    alone = open_texts({"a": ["x", "y"], "b": ["x", "z"]}, columns=("a", "b"))
    assert (alone.group.tolist(), alone.notes) == ([MISSING] * 2, [])


def test_several_columns_of_hard_negatives_are_joined_by_a_plus() -> None:
    settings = Settings(positive_column="p", negative_column="n1 + n2")
    assert settings.columns == ("", "p", "n1", "n2")
    with pytest.raises(UserError, match="two of the columns"):
        Settings(positive_column="p", negative_column="n1+P")


def test_a_line_of_a_megabyte_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("short one\n" + "word " * 200_000 + "\nanother\n")
    assert [len(text) for (text,) in open_texts(path).texts] == [9, 1_000_000, 7]


@pytest.mark.parametrize(
    ("name", "content", "columns", "words"),
    [
        ("a.csv", b"text,label\nfine,1\n\xff\xfe bad,2\n", ("",), r"line 3: not UTF-8"),
        ("a.txt", b"fine\nfine\nb\xe4d\n", ("",), r"line 3: not UTF-8.*0xe4"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', ("",), r"line 2: not JSON"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', ("",), r"line 2: each line should hold an object"),
        ("a.jsonl", b'{"text": "a\\ud800"}\n', ("",), "half a character"),
        ("a.csv", b"text,label\n1,a\n2.5,b\n", ("",), r"'text'.*holds '1'.*--text-column"),
        ("a.jsonl", b'{"text": 3}\n', ("",), r"'text'.*holds 3.*--text-column"),
        ("a.csv", b"review,label\na b,c\n", ("",), r"no column called text.*'review', 'label'.*--text-column"),
        ("a.csv", b"text,label\na b,c\n", ("body",), r"no column 'body'.*'text', 'label'"),
        ("a.txt", b"a b\n", ("body",), r"no column 'body': leave the column out"),
        ("a.bin", b"a b\n", ("",), r"no sentences that can be read here"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_remedy(
    tmp_path: Path, name: str, content: bytes, columns: tuple[str, ...], words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        open_texts(tmp_path / name, columns=columns)


def test_what_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is nothing at"):
        open_texts(tmp_path / "none.txt")
    with pytest.raises(WrongType, match="holds 3, a int"):
        open_texts(["a b", 3])
    with pytest.raises(UserError, match="2 and 3 values"):
        open_texts({"text": ["a", "b"], "label": [1, 2, 3]})


def test_sentences_that_are_open_are_known_as_such() -> None:
    assert modalities.kind_of(open_texts(TEXTS)) == "text"
