from __future__ import annotations

from pathlib import Path

from nearfar.training.directory import read_skipped, write_skipped


def test_skipped_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    skipped = [("=a.png", "+bad"), ("b, c.png", "cut\nshort"), ("'d.png", "-")]
    write_skipped(tmp_path, skipped)
    assert read_skipped(tmp_path / "skipped.csv") == skipped
