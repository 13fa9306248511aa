"""The lock of a directory: one owner at a time, whatever it dies of."""

from __future__ import annotations

import os
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from benchmarks.forked import Forked

from nearfar.errors import AlreadyThere
from nearfar.files import replace_text
from nearfar.owner import LOCK, Busy, contents, mark, owned, tidy


def _dies_owning(folder: Path) -> int:
    with owned(folder):
        replace_text(folder / "results" / "whole.txt", "whole")
        for name in (f".half.txt.{os.getpid()}.tmp", f"checkpoints/.step.pt.{os.getpid()}.tmp"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("ha")
        staged = folder / "export" / f".export.abc.{os.getpid()}.tmp"
        staged.mkdir(parents=True)
        (staged / "encoder.json").write_text("{")
        os.kill(os.getpid(), 9)
    return 0


def attempt(folder: Path) -> list[str]:
    """What another thread of this process is told that wants the directory."""
    told: list[str] = []

    def want() -> None:
        try:
            with owned(folder):
                told.append("")
        except Busy as error:
            told.append(str(error))

    thread = threading.Thread(target=want)
    thread.start()
    thread.join()
    return told


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "out"
    with owned(out), owned(out):  # the second is the first's own
        assert contents(out) == []
        (told,) = attempt(out)
        assert f"process {os.getpid()} (" in told
        assert repr(str(out)) in told
        assert attempt(tmp_path / "other") == [""]
    assert not out.exists()  # nothing came of it
    out.mkdir()
    with owned(out):
        (out / "file").write_text("")
    assert attempt(out) == [""]
    assert os.listdir(out) == ["file"]


def test_what_is_in_the_way_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AlreadyThere, match=r"'.*file' is a file"), owned(tmp_path / "file"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_a_killed_owner_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    dead = Forked([], tmp_path / "log", instead=partial(_dies_owning, out))
    assert dead.wait() == -9
    assert mark(out).startswith(f"{dead.pid}\n")
    assert len(list(out.rglob(".*.tmp"))) == 3
    with owned(out):
        tidy(out)  # whoever is at work there may be writing
        assert len(list(out.rglob(".*.tmp"))) == 3
    tidy(out)
    assert not list(out.rglob(".*"))
    assert (out / "results" / "whole.txt").read_text() == "whole"


def test_a_lock_that_is_left_is_no_content_and_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("4711\nelsewhere\nnearfar train\n")
    assert contents(tmp_path) == []
    with owned(tmp_path):
        assert mark(tmp_path).startswith(f"{os.getpid()}\n")
    assert not (tmp_path / LOCK).exists()
