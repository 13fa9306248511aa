"""What docs/tools.md shows runs as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from nearfar.cli import main
from nearfar.training.loggers import LOGGERS
from tests.tiny import FLAGS, folder

PAGE = (Path(__file__).parents[1] / "docs" / "tools.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_page_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install nearfar[dev])")
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", 32, nested=True)
    (lines,) = (code.splitlines() for language, code in BLOCKS if not language)
    for line in lines:
        words = shlex.split(line)[1:]
        assert main([*words, *(FLAGS if words[0] == "train" else [])]) == 0, line
    for name in re.findall(r"--(?:page|save|out) (\S+)", "\n".join(lines)):
        assert (tmp_path / name).exists(), name
    assert "FILL IN" in (tmp_path / "runs/first/README.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = (code for language, code in BLOCKS if language == "python")
    exec(compile(code, "docs/tools.md", "exec"), {"__name__": "page"})
    assert [*tmp_path.iterdir()] == []


def test_every_program_has_its_line() -> None:
    assert re.findall(r"^\| `(\w+)` \| `pip install (\w+)`", PAGE, re.MULTILINE) == [(name, name) for name in LOGGERS]
