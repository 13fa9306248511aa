from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # fake_run.py, whichever way pytest imports the tests

from fake_run import write


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> dict[str, Path]:
    """Runs that tests only read: a plain one, one without labels, one full of hostile names, two of them on a table."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "plain": write(folder / "plain", n=120),
        "unlabeled": write(folder / "unlabeled", n=40, labels=False),
        "hostile": write(folder / "hostile", n=40, hostile=True),
        "rows": write(folder / "rows", n=60, table_of=16),
        "hostile rows": write(folder / "hostile-rows", n=40, table_of=16, hostile=True),
    }


@pytest.fixture
def run(written, tmp_path) -> Path:
    """A run of its own, to be changed."""
    return Path(shutil.copytree(written["plain"], tmp_path / "run"))
