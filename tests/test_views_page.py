"""What docs/views.md shows runs as it stands, on few images and a small network; and its table has every change."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from nearfar.cli import main
from nearfar.modalities.image.changes import CHANGES
from tests.tiny import folder

PAGE = (Path(__file__).parents[1] / "docs" / "views.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
QUICK = ["--encoder", "conv4", "--batch", "16", "--probe-every", "0"]


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", 32, nested=True)
    assert [language for language, _ in BLOCKS] == ["", "", "python", "", "python"]
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "docs/views.md", "exec"), {"__name__": "page"})
            continue
        for line in block.splitlines():
            words = shlex.split(line)[1:]
            assert main(words + (QUICK if words[0] == "train" else [])) == 0, line
    assert {"both.png", "both.json", "mine.png", "mine", "set"} <= {path.name for path in tmp_path.iterdir()}


def test_the_table_has_every_change() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(CHANGES)
