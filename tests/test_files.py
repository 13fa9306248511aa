from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import pytest

from nearfar.data.csv import read_rows
from nearfar.files import clear_leftovers, is_leftover, is_not_utf8, name_text, replace, replace_csv, replace_text


def test_a_file_is_made_with_its_folders(tmp_path: Path) -> None:
    path = replace_text(tmp_path / "a" / "b.txt", "whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["b.txt"]


def test_a_table_is_quoted_where_it_must_be(tmp_path: Path) -> None:
    path = replace_csv(tmp_path / "a.csv", iter([("name", "why"), ("a, b.png", 3)]))
    assert path.read_bytes() == b'name,why\n"a, b.png",3\n'


HOSTILE = ["=1+2", "+x", "-x.png", "@sum", "\t=1", " a", "'=1", "''", "a\rb", "a\nb", 'a"b', "a,b", "'tis", "-", "="]


def test_no_cell_is_a_formula_and_each_is_read_back(tmp_path: Path) -> None:
    numbers = [-0.5, "-0.5", "+1e-3", "-7"]
    path = replace_csv(tmp_path / "a.csv", [("name", "n"), *((cell, n) for cell in HOSTILE for n in numbers)])
    cells = [row.cells for row in read_rows(path)[1:]]
    assert cells == [[cell, str(n)] for cell in HOSTILE for n in numbers]
    with path.open(newline="", encoding="utf-8") as file:
        raw = list(csv.reader(file))[1:]
    assert not [name for name, _ in raw if name.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert {n for _, n in raw} == {"-0.5", "+1e-3", "-7"}


def test_names_that_are_not_utf8_become_text_that_can_be_written(tmp_path: Path) -> None:
    assert name_text("caf\udce9/ä.png") == "caf\\xe9/ä.png"
    assert is_not_utf8(name_text("caf\udce9"))
    assert not is_not_utf8(name_text("café \\x41"))
    replace_text(tmp_path / "a.txt", "\udce9")
    assert name_text("\ud800") == "\\ud800"


@pytest.mark.parametrize("error", [ValueError("odd"), KeyboardInterrupt()])
def test_what_fails_half_way_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = replace_text(tmp_path / "b.txt", "old")

    def write(temporary: Path) -> None:
        temporary.write_text("ne")
        raise error

    with pytest.raises(type(error)):
        replace(path, write)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["b.txt"]


def test_the_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (happened.append("sync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("rename"), rename(a, b))[1])
    replace_text(tmp_path / "b.txt", "new")
    assert happened == ["sync", "rename", "sync"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_path_and_remedy(tmp_path: Path, number: int) -> None:
    path = replace_text(tmp_path / "b.txt", "old")

    def write(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(number, "full")

    with pytest.raises(
        OSError, match=r"disk is full: '.*b\.txt' could not be written.*Free some space.*--resume"
    ) as caught:
        replace(path, write)
    assert caught.value.errno == number
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["b.txt"]


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace(tmp_path / "b.txt", lambda temporary: (tmp_path / "missing").read_text())


def test_leftovers_are_cleared(tmp_path: Path) -> None:
    for name in (".b.txt.123.tmp", "b.txt", ".hidden"):
        (tmp_path / name).write_text("")
    assert [is_leftover(tmp_path / name) for name in (".b.txt.123.tmp", "b.txt", ".hidden")] == [True, False, False]
    clear_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "b.txt"]
