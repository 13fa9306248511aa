from __future__ import annotations

from collections.abc import Iterator

import pytest

from .two_ranks import Pool


@pytest.fixture(scope="session")
def two_ranks() -> Iterator[Pool]:
    """A pool of two processes, started by the first test that runs something on it."""
    pool = Pool()
    yield pool
    pool.close()
