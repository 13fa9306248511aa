from __future__ import annotations

from pathlib import Path

import pytest

from nearfar.cli import main
from tests.tiny import FLAGS, array_file


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .npz file of labeled images."""
    return array_file(tmp_path_factory.mktemp("data") / "images.npz")


@pytest.fixture(scope="session")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on it. Look, but add nothing that another test could mind."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "simclr", str(data), *FLAGS, "--out", str(out)]) == 0
    return out
