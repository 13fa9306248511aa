from __future__ import annotations

import errno
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from nearfar.training.journal import Journal


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    assert journal.read() == []
    for step in range(3):
        journal.write({"step": step, "loss": 1 / (step + 1)})
    assert journal.read() == [{"step": step, "loss": 1 / (step + 1)} for step in range(3)]


def test_cut_forgets_what_came_later_and_a_line_that_a_crash_cut_short(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    for step in (10, 20, 20, 30):
        journal.write({"step": step})
    with open(journal.path, "a") as file:
        file.write('{"step": 3')
    assert [line["step"] for line in journal.read()] == [10, 20, 20, 30]
    assert journal.note().startswith("1 line of ")
    journal.cut(20)
    journal.write({"step": 25})
    assert [json.loads(line)["step"] for line in journal.path.read_text().splitlines()] == [10, 20, 20, 25]


def test_numbers_that_json_does_not_have_are_null(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.write({"step": 1, "loss": 2.0, "gradient_norm": math.inf, "other": math.nan})
    assert journal.path.read_text().startswith('{"step": 1, "loss": 2.0, "gradient_norm": null, "other": null, "check')


def test_a_damaged_line_costs_that_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    for step in range(4):
        journal.write({"step": step, "loss": 0.5})
    lines = journal.path.read_bytes().split(b"\n")
    for position in range(len(lines[1])):
        for bit in range(8):
            line = bytearray(lines[1])
            line[position] ^= 1 << bit
            journal.path.write_bytes(b"\n".join([lines[0], bytes(line), *lines[2:]]))
            assert [row["step"] for row in journal.read()] == [0, 2, 3]
            assert journal.damaged == 1 + (line[position] == 10)  # a line feed makes two of one
    journal.path.write_bytes(b"[" * 100_000 + b"\n" + b'{"loss": 1.0}\n' + lines[0])
    assert [row["step"] for row in journal.read()] == [0]
    assert journal.damaged == 2


def test_a_full_disk_is_told_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, content: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(*args: Any, **kwargs: Any) -> io.BytesIO:
        return Full()

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match=r"disk is full: '.*metrics\.jsonl'"):
        Journal(tmp_path / "metrics.jsonl").write({"step": 1})


def test_sync_brings_this_file_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, synced = Journal(tmp_path / "metrics.jsonl"), []
    journal.sync()
    journal.write({"step": 1})
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    journal.sync()
    assert synced == [journal.path.stat().st_ino]
