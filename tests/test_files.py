from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nearfar.files import clear_leftovers, is_leftover, replace, replace_csv, replace_text


def test_a_file_is_made_with_its_folders(tmp_path: Path) -> None:
    path = replace_text(tmp_path / "a" / "b.txt", "whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["b.txt"]


def test_a_table_is_quoted_where_it_must_be(tmp_path: Path) -> None:
    path = replace_csv(tmp_path / "a.csv", iter([("name", "why"), ("a, b.png", 3)]))
    assert path.read_bytes() == b'name,why\n"a, b.png",3\n'


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


def test_writing_a_file_removes_what_dead_processes_left_of_it(tmp_path: Path) -> None:
    alive, dead = f".b[1].txt.{os.getppid()}.tmp", f".b[1].txt.{2**30}.tmp"
    for name in (alive, dead, f".c.txt.{2**30}.tmp", ".b[1].txt.notes.tmp"):
        (tmp_path / name).write_text("")
    replace_text(tmp_path / "b[1].txt", "new")
    left = {alive, f".c.txt.{2**30}.tmp", ".b[1].txt.notes.tmp", "b[1].txt"}
    assert set(os.listdir(tmp_path)) == left if os.name != "nt" else left | {dead}


def test_leftovers_are_cleared(tmp_path: Path) -> None:
    for name in (".b.txt.123.tmp", "b.txt", ".hidden"):
        (tmp_path / name).write_text("")
    assert [is_leftover(tmp_path / name) for name in (".b.txt.123.tmp", "b.txt", ".hidden")] == [True, False, False]
    clear_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "b.txt"]
