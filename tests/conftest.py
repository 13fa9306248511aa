from __future__ import annotations

import gc
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .browser import browser as browser
from .two_ranks import Pool

MEMORY = Path("/dev/shm")
"""Where files are kept in memory, on Linux."""
ROOM = 4 * 2**30
"""Bytes that are free there if tests are to write there; they hold a tenth of it at once."""


def pytest_configure(config: pytest.Config) -> None:
    """Have tests write into memory where there is room: each run waits for the disk some twenty times, which is a fifth
    of the time of all tests."""
    if hasattr(config, "workerinput") or config.option.basetemp is not None:  # workers are told where
        return
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM:
        config.option.basetemp = tempfile.mkdtemp(prefix="nearfar-tests-", dir=MEMORY)
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))


def pytest_collection_finish() -> None:
    """What is there when the tests begin stays to their end: the collector need not look through it each time."""
    importlib.import_module("hypothesis")  # which asks the collector who holds what, when it is loaded
    gc.collect()
    gc.freeze()


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
