from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nearfar.data.cells import LabelCells, joined_groups, label_cells, write_labels
from nearfar.data.csv import read_records
from nearfar.data.labels import table_labels
from nearfar.data.samples import Samples


def samples(names: list[str], label: list[int], split: list[str]) -> Samples:
    n = torch.full((len(names),), -1)
    return Samples(names=names, label=torch.tensor(label), classes=["cat", "dog"], group=n, split=split)


@pytest.mark.parametrize(
    ("group", "others", "names", "wanted"),
    [
        ([-1, -1, -1], [0, -1, 0], ["", "", ""], ["copies-1", "", "copies-1"]),
        ([0, 0, 1, -1], [-1, -1, -1, -1], ["a", "a", "b", "NA"], ["a", "a", "b", ""]),
        ([0, 1, 1, -1], [-1, 0, -1, 0], ["a", "b", "b", ""], ["a", "b", "b", "b"]),  # a copy joins a group
        ([0, 1, 0, 1], [0, 0, -1, -1], ["a", "b", "a", "b"], ["a+b"] * 4),  # and joins two
        ([3, 3, -1], [-1, -1, -1], ["", "", ""], ["group-3", "group-3", ""]),  # nobody knows what it was called
        ([0, -1, -1], [-1, 1, 1], ["copies-1", "", ""], ["copies-1", "copies-2", "copies-2"]),
        ([0, 1, 2, 3], [0, 0, 0, 0], ["p2", "p10", "p1", "p3"], ["p1+p2+2 more"] * 4),
        ([], [], [], []),
    ],
)
def test_groups_of_two_sources_are_joined(
    group: list[int], others: list[int], names: list[str], wanted: list[str]
) -> None:
    both = (torch.tensor(values, dtype=torch.int64) for values in (group, others))
    assert joined_groups(*both, names) == wanted


def test_all_cells_are_kept_and_what_is_new_is_added(tmp_path: Path) -> None:
    (tmp_path / "given.csv").write_text(
        "File,Path,Kind,note\n1,/data/a.png,cat,=x\n2,b.tif,NA,\n3,gone.png,dog,lost\n", encoding="utf-8"
    )
    names = ["a.png", "b.tif#1", "b.tif#2", "c.png", "d.png"]
    given = label_cells(tmp_path / "given.csv", names, column="kind", root=Path("/data"))
    known = samples(names, [0, -1, -1, 1, -1], ["", "test", "test", "", ""])
    write_labels(tmp_path / "out.csv", known, ["", "g", "g", "", ""], given, column="kind")
    header, rows = read_records(tmp_path / "out.csv")
    assert header.cells == ["File", "Path", "Kind", "note", "split", "group"]
    assert [list(row.values()) for _, row in rows] == [
        ["1", "a.png", "cat", "=x", "", ""],
        ["2", "b.tif#1", "NA", "", "test", "g"],
        ["2", "b.tif#2", "NA", "", "test", "g"],
        ["", "c.png", "dog", "", "", ""],
        ["3", "gone.png", "dog", "lost", "", ""],
    ]
    read = table_labels(tmp_path / "out.csv", names, column="kind")
    assert (read.classes, read.label.tolist()) == (["cat", "dog"], [0, -1, -1, 1, -1])
    assert (read.split, read.group.tolist()) == (known.split, [-1, 0, 0, -1, -1])


def test_without_a_table_names_and_what_is_known_are_written(tmp_path: Path) -> None:
    known = samples(["0", "1", "2"], [1, -1, 0], ["train", "test", ""])
    write_labels(tmp_path / "out.csv", known, ["", "", ""], LabelCells(), column="label")
    header, rows = read_records(tmp_path / "out.csv")
    assert header.cells == ["index", "label", "split"]
    assert [tuple(row.values()) for _, row in rows] == [("0", "dog", "train"), ("1", "", "test"), ("2", "cat", "")]
