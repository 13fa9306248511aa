from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nearfar.data.csv import read_rows
from nearfar.errors import Damaged, NotFound
from nearfar.files import (
    clear_leftovers,
    code_digests,
    code_file,
    insist_free,
    insist_trusted,
    is_leftover,
    is_not_utf8,
    name_text,
    read_json,
    read_text,
    read_yaml,
    replace,
    replace_csv,
    replace_json,
    replace_text,
    replace_yaml,
    with_checksum,
)


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
    assert str(caught.value).startswith("the disk is full: ")
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


CONTENT = {"a": [1, 2.5, None], "b": {"c": "\u00e9, # checksum: 0"}}


def written(folder: Path, form: str) -> tuple[Path, Callable[[Path, str], Any], object]:
    """A file with a checksum, what reads it, and what it holds."""
    match form:
        case "json":
            return replace_json(folder / "a.json", CONTENT), read_json, CONTENT
        case "indented json":
            return replace_json(folder / "a.json", CONTENT, indent=1), read_json, CONTENT
        case "yaml":
            return replace_yaml(folder / "a.yaml", CONTENT), read_yaml, CONTENT
        case _:
            return replace_text(folder / "a.csv", with_checksum("a,b\n1,2\n", cells=2)), read_text, "a,b\n1,2\n"


@pytest.mark.parametrize("form", ["json", "indented json", "yaml", "csv"])
def test_a_flipped_bit_changes_nothing_or_is_refused(tmp_path: Path, form: str) -> None:
    path, read, content = written(tmp_path, form)
    assert read(path, "") == content
    whole, refused = path.read_bytes(), []
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                assert read(path, "make it again") == content, (position, bit)
                assert position >= len(whole) - 3, (position, bit)  # white space at the end
            except Damaged as error:
                refused.append(str(error))
        if position < len(whole) - 3:
            path.write_bytes(whole[:position])
            with pytest.raises(Damaged):
                read(path, "")
    assert len(refused) >= 8 * (len(whole) - 3)
    assert all(str(path) in said and said.endswith(": make it again") for said in refused)
    path.unlink()
    with pytest.raises(NotFound, match=r"is missing: make it again"):
        read(path, "make it again")


def test_other_programs_read_what_has_a_checksum(tmp_path: Path) -> None:
    for form, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        content = load(written(tmp_path, form)[0].read_text(encoding="utf-8"))
        assert {name: content[name] for name in CONTENT} == CONTENT


def test_names_of_code() -> None:
    assert code_file("./mine.py") == Path("mine.py")
    assert code_file("a/mine.py:views") == Path("a/mine.py")
    assert code_file(f"kinds{os.sep}sound") == Path("kinds/sound/kind.py")
    assert [code_file(name) for name in ("simclr", "small_images:moco", "image", "0,1+2:resnet18", "")] == [None] * 5


def test_of_a_folder_all_code_must_be_that_of_before(tmp_path: Path) -> None:
    for name in ("kind.py", "settings.py"):
        (tmp_path / name).write_text("A = 1\n")
    name = f"{tmp_path}{os.sep}"
    known = code_digests([name, "image"])
    assert list(known) == [name]
    insist_trusted(name, known, tmp_path / "config.yaml", trust=True)
    (tmp_path / "settings.py").write_text("A = 2\n")
    with pytest.raises(Damaged, match=r"kind\.py', or one beside it, is not the file that it was"):
        insist_trusted(name, known, tmp_path / "config.yaml", trust=True)


def test_a_file_in_the_way_is_spared_or_may_go(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    insist_free(file)
    insist_free(tmp_path / "new" / "a.csv")
    file.write_text("precious")
    with pytest.raises(FileExistsError, match="already, it is long: name another --table, or .* --force"):
        insist_free(file, "--table", holds="it is long")
    insist_free(file, force=True)
    for path in (tmp_path, file / "b.csv"):
        with pytest.raises(ValueError, match="--out"):
            insist_free(path, force=True)
