"""What docs/views.md shows runs as it stands, on few images and a small network; and its table has every change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nearfar.modalities.image.changes import CHANGES
from tests.snippets import DOCS, blocks, run
from tests.tiny import folder

PAGE = (DOCS / "views.md").read_text(encoding="utf-8")
QUICK = ["--encoder", "conv4", "--batch", "16", "--probe-every", "0"]


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", 32, nested=True)
    page = blocks(DOCS / "views.md", all_of_it=True)
    assert [block.language for block in page] == ["sh", "sh", "python", "sh", "python"]
    run(page, train=QUICK)
    assert {"both.png", "both.json", "mine.png", "mine", "set"} <= {path.name for path in tmp_path.iterdir()}


def test_the_table_has_every_change() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(CHANGES)
