"""What docs/tools.md shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nearfar.training.loggers import LOGGERS
from tests.snippets import DOCS, blocks, run
from tests.tiny import FLAGS, folder

PAGE = blocks(DOCS / "tools.md", all_of_it=True)


def test_the_commands_of_the_page_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install nearfar[dev])")
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", 32, nested=True)
    calls = [block for block in PAGE if block.language == "sh"]
    assert len(calls) == 1
    run(calls, train=FLAGS)
    assert "FILL IN" in (tmp_path / "runs/first/README.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in PAGE if block.language == "python")
    run([block])
    assert [*tmp_path.iterdir()] == []


def test_every_program_has_its_line() -> None:
    assert re.findall(
        r"^\| `(\w+)` \| `pip install (\w+)`", (DOCS / "tools.md").read_text(encoding="utf-8"), re.MULTILINE
    ) == [(name, name) for name in LOGGERS]
