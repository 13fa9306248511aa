from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .two_ranks import Pool


@pytest.fixture(scope="session")
def two_ranks() -> Iterator[Pool]:
    """A pool of two processes, started by the first test that runs something on it."""
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: NEARFAR_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("NEARFAR_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at '{folder}'; NEARFAR_DATA may name another folder")
    return folder
