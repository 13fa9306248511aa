"""What docs/embeddings.md shows runs as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from nearfar.cli import main
from tests.tiny import FLAGS, folder

PAGE = (Path(__file__).parents[1] / "docs" / "embeddings.md").read_text(encoding="utf-8")
LINES = [
    line for block in re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]


def test_the_commands_of_the_page_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", 48, nested=True)
    assert main(["train", "simclr", "photos", *FLAGS, "--out", "run"]) == 0
    assert len(LINES) == 7
    for line in LINES:
        assert main(shlex.split(line)[1:]) == 0, line
    for name in re.findall(r"--(?:page|save|out) (\S+)", PAGE):
        assert name == "DIR" or (tmp_path / name).exists(), name
