from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nearfar.modalities.video import doctor
from nearfar.modalities.video.samples import open_videos
from tests.modalities.video.small import moving, numbered, write


def test_what_is_wrong_with_videos_is_said(tmp_path: Path) -> None:
    write(tmp_path / "long.mp4", numbered(120, 32), options={"g": "1000", "x264-params": "scenecut=0"})
    write(tmp_path / "short.mp4", numbered(4, 32))
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "short.mp4").read_bytes())
    write(tmp_path / "still.mp4", np.repeat(numbered(2, 32)[1:], 30, 0))
    (tmp_path / "bad.mp4").write_bytes(b"x")
    found = doctor.examine(open_videos(tmp_path, max_bad=1.0), 15)
    said = " ".join(found.warnings)
    assert found.copies.exact == 1
    for words in ("bad.mp4", "2 videos are shorter", "In 1 video hardly", "1 video have a key frame", "is a copy"):
        assert words in said, said
    assert [(a.name, a.value) for a in found.flags] == [("max_bad", 0.2)]
    clean = doctor.examine(open_videos(list(moving(6, 20))), 15)
    assert clean.warnings == []


def test_statistics_of_pixels() -> None:
    frames = np.zeros((3, 4, 8, 3), np.uint8)
    frames[:, :, :4] = (255, 51, 0)
    mean, std = doctor.pixel_statistics(open_videos([frames] * 2, side=8))
    assert mean == pytest.approx([0.5, 0.1, 0], abs=0.02)
    assert std[0] == pytest.approx(0.5, abs=0.03)
    assert std[2] == 0.01
