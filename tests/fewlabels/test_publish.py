from __future__ import annotations

from pathlib import Path

import pytest

from nearfar.fewlabels.publish import new_directory


@pytest.mark.parametrize(("file", "stays"), [("metrics.jsonl", False), ("config.yaml", True)])
def test_a_new_directory_goes_if_nothing_came_of_it(tmp_path: Path, file: str, stays: bool) -> None:
    def fails() -> None:
        with new_directory(tmp_path / "new"):
            (tmp_path / "new" / file).write_text("{}")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert (tmp_path / "new").exists() == stays
