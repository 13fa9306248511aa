from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from markupsafe import Markup

from nearfar.report import html

sys.path.insert(0, str(Path(__file__).parent))  # fake_run.py, whichever way pytest imports the tests

from fake_run import RUNS, write


class Runs(dict[str, Path]):
    """Runs that tests only read, by name, each written when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> Path:
        self[name] = write(self.folder / name.replace(" ", "-"), n=40, **RUNS[name])
        return self[name]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(written: Runs, tmp_path: Path) -> Path:
    """A run of its own, to be changed."""
    return Path(shutil.copytree(written["plain"], tmp_path / "run"))


@pytest.fixture
def short_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without the four megabytes of Plotly."""
    monkeypatch.setattr(html, "_scripts", lambda: html._Scripts(Markup("plotly"), Markup("own"), "hashes"))
